// The box to write in. The draft is kept for the tab, so that a reload or a lost call loses nothing.
import { useRef, useState, type DragEvent, type KeyboardEvent } from 'react';
import type { Thread } from '../core/chat/thread';
import { Icon } from '../ui/Icon';
import { useT } from '../ui/store';

export function Composer({ thread, onFiles }: { thread: Thread; onFiles: (files: File[]) => void }) {
  const t = useT();
  const key = `medtech.draft.${thread.id}`;
  const [text, setText] = useState(() => thread.keep.read<string>(key) ?? '');
  const [full, setFull] = useState(false);
  const file = useRef<HTMLInputElement>(null);

  const change = (value: string) => {
    setText(value);
    if (value === '') thread.keep.remove(key);
    else thread.keep.write(key, value);
    thread.typing();
  };
  const send = () => {
    const body = text.trim();
    if (body === '') return;
    const taken = thread.send({ text: body }) !== null;
    setFull(!taken);
    if (taken) { setText(''); thread.keep.remove(key); }
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  };
  const drop = (event: DragEvent) => {
    if (event.dataTransfer.files.length === 0) return;
    event.preventDefault();
    onFiles([...event.dataTransfer.files]);
  };

  return (
    <form className="composer" onSubmit={(e) => { e.preventDefault(); send(); }} onDragOver={(e) => e.preventDefault()} onDrop={drop}>
      {full ? <p className="composer-full" role="alert">{t('chat.full')}</p> : null}
      <input ref={file} type="file" multiple hidden data-testid="chat-file"
        onChange={(e) => { onFiles([...(e.target.files ?? [])]); e.target.value = ''; }} />
      <button type="button" className="icon-btn" onClick={() => file.current?.click()} aria-label={t('chat.attach')} data-testid="chat-attach"><Icon name="clip" /></button>
      <label className="composer-box">
        <span className="sr-only">{t('chat.write')}</span>
        <textarea rows={1} value={text} onChange={(e) => change(e.target.value)} onKeyDown={onKey} placeholder={t('chat.write')} maxLength={8000} data-testid="chat-input" />
      </label>
      <button type="submit" className="icon-btn composer-send" disabled={text.trim() === ''} aria-label={t('chat.send')} data-testid="chat-send"><Icon name="send" /></button>
    </form>
  );
}
