// Files on their way in one conversation: upload by parts, then a message that names the file.
import { useCallback, useEffect, useRef, useState } from 'react';
import type { Thread } from '../core/chat/thread';
import { MAX_FILE_BYTES, upload, type UploadHandle } from '../core/files/upload';

export interface UploadItem { key: string; file: File; share: number; state: 'sending' | 'failed' | 'too_large' }

export function useUploads(thread: Thread, token: () => string | null) {
  const [list, setList] = useState<readonly UploadItem[]>([]);
  const handles = useRef(new Map<string, UploadHandle>());

  const patch = useCallback((key: string, change: Partial<UploadItem>) =>
    setList((all) => all.map((item) => (item.key === key ? { ...item, ...change } : item))), []);
  const drop = useCallback((key: string) => {
    handles.current.delete(key);
    setList((all) => all.filter((item) => item.key !== key));
  }, []);

  const begin = useCallback((key: string, file: File) => {
    const handle = upload({ file, conversation: thread.id, token, onProgress: (share) => patch(key, { share }) });
    handles.current.set(key, handle);
    handle.done.then(
      (ref) => { thread.send({ file: ref }); drop(key); },
      (error: unknown) => {
        if (error instanceof DOMException && error.name === 'AbortError') drop(key);
        else patch(key, { state: 'failed' });
      },
    );
  }, [thread, token, patch, drop]);

  useEffect(() => {
    // Leaving the screen stops the upload; the parts already sent stay on the server for a later try.
    const open = handles.current;
    return () => { for (const handle of open.values()) handle.pause(); open.clear(); };
  }, [thread]);

  return {
    list,
    add: (files: File[]) => {
      for (const file of files) {
        const key = crypto.randomUUID();
        const large = file.size > MAX_FILE_BYTES;
        setList((all) => [...all, { key, file, share: 0, state: large ? 'too_large' : 'sending' }]);
        if (!large) begin(key, file);
      }
    },
    retry: (key: string) => {
      const item = list.find((i) => i.key === key);
      if (!item) return;
      patch(key, { state: 'sending' });
      begin(key, item.file);
    },
    cancel: (key: string) => {
      handles.current.get(key)?.abort();
      drop(key);
    },
  };
}
