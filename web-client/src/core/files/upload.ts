// Resumable upload by tus. An interrupted upload goes on where it stopped; the hash lets the other side check the bytes.
import type { PreviousUpload, Upload } from 'tus-js-client';
import type { FileRef } from '../api/types';

export const MAX_FILE_BYTES = 200 * 1024 * 1024;
const CHUNK = 1024 * 1024;

export interface UploadHandle { done: Promise<FileRef>; /** Gives the upload up and frees what the server holds. */ abort: () => void; /** Stops sending; the server keeps the parts for a while. */ pause: () => void }
export interface UploadOptions {
  file: File;
  conversation: string;
  token: () => string | null;
  onProgress: (share: number) => void;
}

export function upload({ file, conversation, token, onProgress }: UploadOptions): UploadHandle {
  let abort: () => void = () => undefined;
  let pause: () => void = () => undefined;
  const done = (async (): Promise<FileRef> => {
    const [{ Upload, defaultOptions }, sha256] = await Promise.all([import('tus-js-client'), digest(file)]);
    const url = await new Promise<string>((resolve, reject) => {
      let used: string | null = null;
      let stopped = false;
      const job = new Upload(file, {
        endpoint: '/files',
        chunkSize: CHUNK,
        retryDelays: [0, 1000, 3000, 6000, 10_000],
        removeFingerprintOnSuccess: true,
        // The token of the moment: it is renewed while an upload runs.
        onBeforeRequest: (request) => {
          used = token();
          request.setHeader('Authorization', `Bearer ${used ?? ''}`);
        },
        onShouldRetry: (error, attempt, options) => {
          if (error.originalResponse?.getStatus() === 401) return token() !== null && token() !== used;
          return defaultOptions.onShouldRetry?.(error, attempt, options) ?? false;
        },
        metadata: { filename: file.name, filetype: file.type || 'application/octet-stream', conversation },
        onProgress: (sent, total) => onProgress(total === 0 ? 1 : sent / total),
        onError: reject,
        onSuccess: () => (job.url ? resolve(job.url) : reject(new Error('the server gave no address'))),
      });
      abort = () => { stopped = true; void job.abort(true); reject(new DOMException('aborted', 'AbortError')); };
      pause = () => { stopped = true; void job.abort(false); };
      void previous(job, conversation).then((begun) => {
        if (stopped) return;
        if (begun) job.resumeFromPreviousUpload(begun);
        job.start();
      });
    });
    return {
      id: fileId(url), name: file.name, type: file.type || 'application/octet-stream', size: file.size,
      ...(sha256 === null ? {} : { sha256 }),
    };
  })();
  return { done, abort: () => abort(), pause: () => pause() };
}

/** What an earlier try has sent of the same file into the same conversation. */
async function previous(job: Upload, conversation: string): Promise<PreviousUpload | undefined> {
  const all = await job.findPreviousUploads().catch(() => []);
  return all.find((begun) => begun.metadata['conversation'] === conversation);
}

export function fileId(url: string): string {
  return url.replace(/[?#].*$/, '').replace(/\/+$/, '').split('/').at(-1) ?? '';
}

async function digest(file: File): Promise<string | null> {
  if (!globalThis.crypto?.subtle) return null;
  const hash = await crypto.subtle.digest('SHA-256', await file.arrayBuffer());
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function fileSize(bytes: number, locale: string): string {
  const units = ['byte', 'kilobyte', 'megabyte', 'gigabyte'] as const;
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) { size /= 1000; unit += 1; }
  return new Intl.NumberFormat(locale, {
    style: 'unit', unit: units[unit] ?? 'byte', unitDisplay: 'short', maximumFractionDigits: size < 10 && unit > 0 ? 1 : 0,
  }).format(size);
}
