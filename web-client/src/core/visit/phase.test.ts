import { describe, expect, it } from 'vitest';
import type { Visit, VisitState } from '../api/types';
import { newer, screenFor, sentBack, waitLevel } from './phase';

const visit = (state: VisitState, more: Partial<Visit> = {}): Visit => ({
  id: 'v', title: '', state, start: '', host: { subject: 'user:1', name: '' }, guest: { subject: 'guest:1', name: '' }, conversation_id: 'c', ...more,
});

describe('the screen of a patient', () => {
  it('follows the server from the waiting room on, whatever the own step says', () => {
    expect(screenFor(visit('waiting'), 'welcome')).toBe('waiting');
    expect(screenFor(visit('admitted'), 'welcome')).toBe('consult');
    expect(screenFor(visit('in_consult'), 'consent')).toBe('consult');
    expect(screenFor(visit('ended'), 'devices')).toBe('ended');
  });

  it('is the own step before that', () => {
    expect(screenFor(visit('scheduled'), 'welcome')).toBe('welcome');
    expect(screenFor(visit('device_check'), 'consent')).toBe('consent');
  });

  it('a visit that has ended does not come back to life by a late answer', () => {
    expect(newer(visit('ended'), visit('in_consult')).state).toBe('ended');
    expect(newer(visit('in_consult'), visit('waiting')).state).toBe('waiting');
  });

  it('an answer that a live event has overtaken does not bring the past back', () => {
    expect(newer(visit('admitted', { rev: 5 }), visit('waiting', { rev: 4 })).state).toBe('admitted');
    expect(newer(visit('admitted', { rev: 5 }), visit('waiting', { rev: 6 })).state).toBe('waiting');
    expect(newer(visit('waiting', { rev: 5, position: 2 }), visit('waiting', { rev: 5, position: 1 })).position).toBe(1);
  });

  it('knows who was sent back to wait', () => {
    expect(sentBack(visit('waiting'))).toBe(false);
    expect(sentBack(visit('waiting', { admitted_at: '2026-01-01T00:00:00Z' }))).toBe(true);
  });

  it('a wait of ten minutes is long, of twenty very long', () => {
    expect([599_999, 600_000, 1_200_000].map(waitLevel)).toEqual(['short', 'long', 'very_long']);
  });
});
