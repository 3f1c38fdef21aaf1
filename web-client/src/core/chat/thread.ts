// One conversation: history by sequence, live messages, receipts, and the outbox of what is not sent yet.
import { segment } from '../api/segment';
import type { ApiClient } from '../api/client';
import { messaging } from '../api/endpoints';
import { asApiError, type ApiError } from '../api/problem';
import type { FileRef, FileState, Member, Message, MessageBody } from '../api/types';
import type { ConversationEvent } from '../live/events';
import type { Live } from '../live/live';
import { Store } from '../store/emitter';
import type { Keeper } from '../store/keep';
import { gapAfter, merge, moveCursor, withStates } from './log';
import { Outbox } from './outbox';

export interface ThreadState {
  loaded: boolean;
  error: ApiError | null;
  messages: readonly Message[];
  members: readonly Member[];
  typing: string | null;
}

const TYPING_SHOWN_MS = 4000;
const TYPING_SENT_EVERY_MS = 2500;

export class Thread {
  readonly state = new Store<ThreadState>({ loaded: false, error: null, messages: [], members: [], typing: null });
  readonly outbox: Outbox;
  readonly #leave: () => void;
  /** What the scanner said while this page was open: it may be said before the message comes. */
  readonly #checked = new Map<string, FileState>();
  #delivered = 0;
  #read = 0;
  #typedAt = 0;
  #typingTimer: ReturnType<typeof setTimeout> | undefined;
  #loading: Promise<void> | null = null;

  constructor(
    readonly id: string,
    readonly own: string,
    private readonly api: ApiClient,
    private readonly live: Live,
    /** Where unsent words are kept. */
    readonly keep: Keeper,
  ) {
    this.outbox = new Outbox({
      key: `medtech.outbox.${id}`,
      keep,
      send: async (clientId, body) => (await messaging.send(api, id, clientId, body)).message,
      onSent: (message) => this.#take([message]),
    });
    this.#leave = live.watch<ConversationEvent>(`conversation:${id}`, {
      onData: (event) => this.#onEvent(event),
      onGap: () => { void this.load(); this.outbox.wake(); },
    });
    void this.load();
    void this.outbox.run();
  }

  close(): void {
    this.#leave();
    this.outbox.stop();
    clearTimeout(this.#typingTimer);
  }

  /** Reads what is missing after the last message in order. */
  load(): Promise<void> {
    this.#loading ??= this.#load().finally(() => { this.#loading = null; });
    return this.#loading;
  }

  send(body: MessageBody): string | null {
    return this.outbox.add(body);
  }

  typing(now = Date.now()): void {
    if (now - this.#typedAt < TYPING_SENT_EVERY_MS) return;
    this.#typedAt = now;
    this.live.rpc('typing', { conversation_id: this.id }).catch(() => undefined);
  }

  /** All messages so far are on the screen before a person's eyes. */
  markRead(): void {
    const last = this.state.get().messages.at(-1)?.seq ?? 0;
    if (last <= this.#read) return;
    this.#read = last;
    this.#delivered = Math.max(this.#delivered, last);
    this.state.update((s) => ({ ...s, members: moveCursor(s.members, { subject: this.own, read_upto: last }) }));
    messaging.receipt(this.api, this.id, { delivered_upto: last, read_upto: last }).catch(() => { this.#read = 0; });
  }

  /** Fetches a file with the reader's own right to it and hands it to the browser to keep. */
  async saveFile(file: FileRef): Promise<void> {
    const blob = await this.api.blob(`/files/${segment(file.id)}`);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([blob], { type: 'application/octet-stream' }));
    link.download = file.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  async #load(): Promise<void> {
    try {
      const conversation = await messaging.conversation(this.api, this.id);
      let log = this.state.get().messages;
      // A file that waited for the scanner may have been checked while nobody listened.
      const waiting = log.find((m) => m.body.file?.state === 'waiting')?.seq;
      let after = Math.min(gapAfter(log) ?? log.at(-1)?.seq ?? 0, (waiting ?? Infinity) - 1);
      for (;;) {
        const { messages } = await messaging.page(this.api, this.id, after);
        for (const { body: { file } } of messages) if (file?.state) this.#checked.set(file.id, file.state);
        log = merge(log, messages);
        const last = messages.at(-1)?.seq;
        if (last === undefined || last >= conversation.last_seq) break;
        after = last;
      }
      this.state.update((s) => ({ ...s, loaded: true, error: null, members: conversation.members }));
      this.#take(log);
    } catch (error) {
      this.state.update((s) => ({ ...s, error: asApiError(error) }));
    }
  }

  #take(messages: readonly Message[]): void {
    const before = this.state.get().messages;
    const log = withStates(merge(before, messages), this.#checked);
    if (log === before) return;
    for (const message of messages) this.outbox.seen(message.client_id);
    const typing = messages.some((m) => m.sender.subject !== this.own) ? null : this.state.get().typing;
    this.state.update((s) => ({ ...s, messages: log, typing }));
    if (gapAfter(log) !== null) {
      void this.load();
      return;
    }
    const last = log.at(-1);
    if (last && last.seq > this.#delivered && last.sender.subject !== this.own) {
      this.#delivered = last.seq;
      messaging.receipt(this.api, this.id, { delivered_upto: last.seq }).catch(() => { this.#delivered = 0; });
    }
  }

  #onEvent(event: ConversationEvent): void {
    if (event.kind === 'message.created') this.#take([event.message]);
    else if (event.kind === 'file.checked') {
      this.#checked.set(event.file, event.state);
      this.state.update((s) => ({ ...s, messages: withStates(s.messages, this.#checked) }));
    } else if (event.kind === 'receipt.updated') {
      this.state.update((s) => ({ ...s, members: moveCursor(s.members, { ...event, ...event.receipt }) }));
    } else if (event.kind === 'typing') {
      const who = event.subject ?? event.sender?.subject;
      if (who === undefined || who === this.own) return;
      clearTimeout(this.#typingTimer);
      this.state.update((s) => ({ ...s, typing: who }));
      this.#typingTimer = setTimeout(() => this.state.update((s) => ({ ...s, typing: null })), TYPING_SHOWN_MS);
    }
  }
}
