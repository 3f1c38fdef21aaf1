import { describe, expect, it } from 'vitest';
import type { Member, Message } from '../api/types';
import { gapAfter, merge, moveCursor, tickFor } from './log';

const m = (seq: number): Message => ({ seq, id: `m${seq}`, client_id: `c${seq}`, conversation_id: 'c', sender: { subject: 'a', name: 'A' }, at: '', body: { text: '' } });
const member = (subject: string, delivered_upto: number, read_upto: number): Member => ({ subject, name: subject, delivered_upto, read_upto });

describe('the log of a conversation', () => {
  it('keeps the order of the sequence, and each message once', () => {
    const log = merge([m(1), m(3)], [m(2), m(3)]);
    expect(log.map((x) => x.seq)).toEqual([1, 2, 3]);
    expect(merge(log, [m(2)])).toBe(log);
  });

  it('finds the hole after which to read again', () => {
    expect(gapAfter([m(1), m(2), m(3)])).toBeNull();
    expect(gapAfter([m(1), m(2), m(5)])).toBe(2);
  });

  it('a tick is as far as the last of the others', () => {
    const members = [member('me', 9, 9), member('a', 5, 5), member('b', 5, 2)];
    expect(tickFor(2, members, 'me')).toBe('read');
    expect(tickFor(4, members, 'me')).toBe('delivered');
    expect(tickFor(6, members, 'me')).toBe('sent');
  });

  it('cursors never go back', () => {
    const [moved] = moveCursor([member('a', 5, 4)], { subject: 'a', delivered_upto: 3, read_upto: 5 });
    expect(moved).toMatchObject({ delivered_upto: 5, read_upto: 5 });
  });
});
