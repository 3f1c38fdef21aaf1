import { beforeEach, expect, it, vi } from 'vitest';
import { upload } from './upload';

interface Request { getMethod: () => string; setHeader: (name: string, value: string) => void }
interface Options {
  onBeforeRequest: (request: Request) => void;
  onShouldRetry: (error: unknown, attempt: number, options: unknown) => boolean;
  onSuccess: () => void;
  onError: (error: Error) => void;
}
interface Previous { metadata: Record<string, string>; uploadUrl: string | null }

const jobs: Job[] = [];
let kept: Previous[] = [];
let storage: () => Promise<Previous[]>;

class Job {
  url: string | null = null;
  resumed: Previous | null = null;
  started = false;
  aborted: boolean | null = null;
  constructor(readonly file: File, readonly options: Options) { jobs.push(this); }
  findPreviousUploads() { return storage(); }
  resumeFromPreviousUpload(previous: Previous) { this.resumed = previous; }
  start() { this.started = true; }
  abort(whole: boolean) { this.aborted = whole; return Promise.resolve(); }
  /** The header that the next request would carry. */
  sends(): string {
    let sent = '';
    this.options.onBeforeRequest({ getMethod: () => 'PATCH', setHeader: (name, value) => { if (name === 'Authorization') sent = value; } });
    return sent;
  }
  retries(status: number): boolean {
    return this.options.onShouldRetry({ originalResponse: { getStatus: () => status } }, 0, this.options);
  }
}

vi.mock('tus-js-client', async (original) => ({ ...await original<typeof import('tus-js-client')>(), Upload: Job }));

let token: string | null;
const begin = (conversation = 'c1') =>
  upload({ file: new File(['abc'], 'a.txt', { type: 'text/plain' }), conversation, token: () => token, onProgress: () => undefined });
const started = async (): Promise<Job> => {
  await vi.waitFor(() => expect(jobs.at(-1)?.started).toBe(true));
  return jobs.at(-1) as Job;
};

beforeEach(() => {
  jobs.length = 0;
  kept = [];
  storage = () => Promise.resolve(kept);
  token = 'first';
});

it('every request carries the token of that moment', async () => {
  begin();
  const job = await started();
  expect(job.sends()).toBe('Bearer first');
  token = 'second';
  expect(job.sends()).toBe('Bearer second');
});

it('a refused token is tried again when there is a new one, and only then', async () => {
  begin();
  const job = await started();
  job.sends();
  expect(job.retries(401)).toBe(false);
  token = 'second';
  expect(job.retries(401)).toBe(true);
  job.sends();
  expect(job.retries(401)).toBe(false);
  token = null;
  expect(job.retries(401)).toBe(false);
  expect(job.retries(403)).toBe(false);
  expect(job.retries(409)).toBe(true);
});

it('a file that was begun for this conversation goes on where it stopped', async () => {
  kept = [
    { metadata: { conversation: 'other' }, uploadUrl: '/files/0' },
    { metadata: { conversation: 'c1' }, uploadUrl: '/files/1' },
  ];
  const handle = begin();
  const job = await started();
  expect(job.resumed?.uploadUrl).toBe('/files/1');
  job.url = '/files/1';
  job.options.onSuccess();
  expect((await handle.done).id).toBe('1');
  begin('c2');
  await vi.waitFor(() => expect(jobs).toHaveLength(2));
  expect((await started()).resumed).toBeNull();
});

it('without a memory of what was begun it begins anew', async () => {
  storage = () => Promise.reject(new Error('no storage'));
  begin();
  expect((await started()).resumed).toBeNull();
});

it('what is given up before it has begun never begins', async () => {
  let found: (all: Previous[]) => void = () => undefined;
  storage = () => new Promise((resolve) => { found = resolve; });
  const handle = begin();
  await vi.waitFor(() => expect(jobs).toHaveLength(1));
  handle.abort();
  await expect(handle.done).rejects.toThrow('aborted');
  found([]);
  await Promise.resolve();
  await Promise.resolve();
  expect(jobs[0]?.started).toBe(false);
});
