// The HTTP door: bearer token, problem documents, and idempotency keys so that a command sent twice acts once.
import { ApiError } from './problem';

export interface ClientOptions {
  base?: string;
  token?: () => string | null;
  /** The secret of this browser, for the doors where one signs in. */
  browser?: () => string;
  /** Called once for each answer 401 to a request that carried a token. */
  onUnauthorized?: () => void;
  /** Asks the person to prove themselves again; true when they did, and the request is sent once more. */
  onStepUp?: () => Promise<boolean>;
  /** The clinic asks for a second step that this person has not set up. */
  onSecondFactor?: () => void;
  fetch?: typeof fetch;
  sleep?: (ms: number) => Promise<void>;
  newKey?: () => string;
}

export interface CommandOptions { signal?: AbortSignal; key?: string }

/** Waits between the tries of one command, in milliseconds. All tries carry one Idempotency-Key. */
const RETRY_DELAYS = [400, 1200];

export class ApiClient {
  readonly #options: ClientOptions;

  constructor(options: ClientOptions = {}) {
    this.#options = options;
  }

  get<T>(path: string, signal?: AbortSignal): Promise<T> {
    return this.#send<T>('GET', path, undefined, signal ? { signal } : {});
  }

  /** A command. Repeated by itself after a lost connection or a 5xx, always under the same key. */
  async post<T>(path: string, body: unknown = {}, options: CommandOptions = {}): Promise<T> {
    const key = options.key ?? (this.#options.newKey ?? (() => crypto.randomUUID()))();
    const sleep = this.#options.sleep ?? ((ms: number) => new Promise((done) => setTimeout(done, ms)));
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#send<T>('POST', path, body, { ...options, key });
      } catch (error) {
        const delay = RETRY_DELAYS[attempt];
        const retry = error instanceof ApiError && error.transient && error.status !== 429;
        if (!retry || delay === undefined || options.signal?.aborted) throw error;
        await sleep(delay);
      }
    }
  }

  /** Replaces what is there; the same twice is the same. */
  put<T>(path: string, body: unknown): Promise<T> {
    return this.#send<T>('PUT', path, body, {});
  }

  patch<T>(path: string, body: unknown): Promise<T> {
    return this.#send<T>('PATCH', path, body, {});
  }

  delete<T>(path: string): Promise<T> {
    return this.#send<T>('DELETE', path, undefined, {});
  }

  /** The bytes of a file that only members may read. */
  async blob(path: string, signal?: AbortSignal): Promise<Blob> {
    const response = await this.#fetch('GET', path, undefined, signal ? { signal } : {});
    return response.blob();
  }

  async #send<T>(method: string, path: string, body: unknown, options: CommandOptions): Promise<T> {
    const response = await this.#fetch(method, path, body, options);
    if (response.status === 204) return undefined as T;
    const text = await response.text();
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }

  /** Once more, when the person has proved themselves in between, or the token has changed on the way. */
  async #fetch(method: string, path: string, body: unknown, options: CommandOptions): Promise<Response> {
    const token = this.#options.token?.() ?? null;
    try {
      return await this.#once(method, path, body, options);
    } catch (error) {
      const now = this.#options.token?.() ?? null;
      if (error instanceof ApiError && error.status === 401 && token !== null && now !== null && now !== token) return this.#once(method, path, body, options);
      if (!(error instanceof ApiError) || error.status !== 403) throw error;
      if (error.code === 'auth.second_factor') this.#options.onSecondFactor?.();
      if (error.code !== 'auth.step_up' || !(await this.#options.onStepUp?.())) throw error;
      return this.#once(method, path, body, options);
    }
  }

  async #once(method: string, path: string, body: unknown, options: CommandOptions): Promise<Response> {
    const headers = new Headers({ accept: 'application/json' });
    const token = this.#options.token?.() ?? null;
    if (token !== null) headers.set('authorization', `Bearer ${token}`);
    if (this.#options.browser) headers.set('medtech-browser', this.#options.browser());
    if (body !== undefined) headers.set('content-type', 'application/json');
    if (options.key !== undefined) headers.set('idempotency-key', options.key);
    const init: RequestInit = { method, headers, cache: 'no-store' };
    if (body !== undefined) init.body = JSON.stringify(body);
    if (options.signal) init.signal = options.signal;
    let response: Response;
    try {
      response = await (this.#options.fetch ?? fetch)(`${this.#options.base ?? ''}${path}`, init);
    } catch (error) {
      if (error instanceof DOMException && error.name === 'AbortError') throw error;
      throw ApiError.network();
    }
    if (response.ok) return response;
    // An answer to the token of before says nothing about the one of now.
    if (response.status === 401 && token !== null && token === this.#options.token?.()) this.#options.onUnauthorized?.();
    throw await ApiError.from(response);
  }
}
