// Live channels over Centrifugo's protocol. One socket for the tab; channels are shared by their watchers.
// After a lost socket the SDK asks for what was missed by offset and epoch; where the server says that it
// can't give it all, `onGap` tells the watcher to read its state afresh.
import type { Centrifuge, Subscription } from 'centrifuge';
import { Store } from '../store/emitter';

export type LinkState =
  | { at: 'connecting' }
  | { at: 'online' }
  | { at: 'reconnecting'; since: number }
  | { at: 'expired' };

export interface Watcher<T> {
  onData: (data: T) => void;
  /** The channel could not be recovered whole (or has just been joined): read the state again. */
  onGap?: () => void;
  onRefused?: (code: number) => void;
}

type Make = (url: string, token: string) => Centrifuge;

/** The SDK gives up only where trying again can't help; 0 is our own `disconnect()`. */
const OWN_DISCONNECT = 0;

export class Live {
  readonly state = new Store<LinkState>({ at: 'connecting' });
  readonly #client: Centrifuge;
  readonly #channels = new Map<string, { sub: Subscription; watchers: Set<Watcher<never>>; joined: boolean }>();
  readonly #now: () => number;

  constructor(make: Make, url: string, token: string, now: () => number = Date.now) {
    this.#now = now;
    this.#client = make(url, token);
    this.#client.on('connecting', () => {
      this.state.update((state) =>
        state.at === 'reconnecting' ? state
          : state.at === 'online' ? { at: 'reconnecting', since: this.#now() } : { at: 'connecting' });
    });
    this.#client.on('connected', () => this.state.set({ at: 'online' }));
    this.#client.on('disconnected', (context) => {
      if (context.code !== OWN_DISCONNECT) this.state.set({ at: 'expired' });
    });
    this.#client.on('error', () => {
      // A first connection that fails is a lost connection too: say so instead of spinning in silence.
      if (this.state.get().at === 'connecting') this.state.set({ at: 'reconnecting', since: this.#now() });
    });
  }

  start(): void {
    this.#client.connect();
  }

  stop(): void {
    this.#client.disconnect();
  }

  /** The same person under a new token: the channels take up where they were. */
  renew(token: string): void {
    this.#client.setToken(token);
    this.#client.disconnect();
    this.#client.connect();
  }

  rpc<T>(method: string, data: unknown): Promise<T> {
    return this.#client.rpc(method, data).then((result) => result.data as T);
  }

  watch<T>(channel: string, watcher: Watcher<T>): () => void {
    const entry = this.#channels.get(channel) ?? this.#join(channel);
    const watchers = entry.watchers as unknown as Set<Watcher<T>>;
    watchers.add(watcher);
    if (entry.joined) queueMicrotask(() => watcher.onGap?.());
    return () => {
      watchers.delete(watcher);
      if (watchers.size > 0) return;
      this.#channels.delete(channel);
      entry.sub.unsubscribe();
      this.#client.removeSubscription(entry.sub);
    };
  }

  #join(channel: string) {
    const sub = this.#client.newSubscription(channel, { recoverable: true, positioned: true });
    const entry = { sub, watchers: new Set<Watcher<never>>(), joined: false };
    sub.on('subscribed', (context) => {
      entry.joined = true;
      if (context.wasRecovering && context.recovered) return;
      for (const watcher of entry.watchers) watcher.onGap?.();
    });
    sub.on('publication', (context) => {
      for (const watcher of entry.watchers) watcher.onData(context.data as never);
    });
    sub.on('unsubscribed', (context) => {
      entry.joined = false;
      if (context.code >= 100) for (const watcher of entry.watchers) watcher.onRefused?.(context.code);
    });
    this.#channels.set(channel, entry);
    sub.subscribe();
    return entry;
  }
}

export function liveUrl(where: { protocol: string; host: string } = location): string {
  return `${where.protocol === 'https:' ? 'wss:' : 'ws:'}//${where.host}/connection/websocket`;
}

/** Loads the SDK and opens the tab's socket. */
export async function openLive(token: string): Promise<Live> {
  const { Centrifuge: Client } = await import('centrifuge');
  const live = new Live((url, t) => new Client(url, { token: t, minReconnectDelay: 300, maxReconnectDelay: 5000, timeout: 8000 }), liveUrl(), token);
  live.start();
  return live;
}
