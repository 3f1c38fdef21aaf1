// A conversation: messages, what is on its way, typing, and a box that never loses text.
import { useEffect, useLayoutEffect, useRef } from 'react';
import type { Thread } from '../core/chat/thread';
import type { Message } from '../core/api/types';
import { clockTime } from '../core/time/time';
import { Icon } from '../ui/Icon';
import { EmptyState, ErrorState, Skeleton } from '../ui/parts';
import { useLanguage, useStore, useT } from '../ui/store';
import { Composer } from './Composer';
import { FileCard } from './FileCard';
import { PendingRow, TickMark } from './Rows';
import { useUploads } from './uploads';
import { UploadRow } from './UploadRow';
import './chat.css';

export function ChatPanel({ thread, title, token, onClose, shown = true, closed = false }: {
  thread: Thread; title: string; token: () => string | null; onClose?: () => void; shown?: boolean; /** Nobody reads on the other side any more. */ closed?: boolean;
}) {
  const t = useT();
  const language = useLanguage();
  const state = useStore(thread.state);
  const pending = useStore(thread.outbox.pending);
  const uploads = useUploads(thread, token);
  const list = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  const count = state.messages.length + pending.length + uploads.list.length;

  useLayoutEffect(() => {
    if (atEnd.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [count, state.typing]);

  useEffect(() => {
    const read = () => { if (shown && !document.hidden && atEnd.current) thread.markRead(); };
    read();
    document.addEventListener('visibilitychange', read);
    return () => document.removeEventListener('visibilitychange', read);
  }, [thread, shown, state.messages.length]);

  const onScroll = () => {
    const box = list.current;
    if (box) atEnd.current = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  };
  const typing = state.members.find((m) => m.subject === state.typing)?.name ?? (state.typing ? title : null);

  return (
    <section className="chat" aria-label={t('chat.with', { name: title })} data-testid="chat">
      <header className="chat-top">
        <h2>{t('chat.with', { name: title })}</h2>
        {onClose ? <button type="button" className="icon-btn" onClick={onClose} aria-label={t('chat.close')} data-testid="close-chat"><Icon name="close" /></button> : null}
      </header>
      <div className="chat-list" ref={list} onScroll={onScroll} role="log" aria-live="polite" aria-label={t('chat.messages')} tabIndex={0} data-testid="chat-list">
        {!state.loaded && state.error ? <ErrorState error={state.error} onRetry={() => void thread.load()} />
          : !state.loaded ? <Skeleton lines={4} />
          : count === 0 ? <EmptyState icon="chat" title={t('chat.empty')}>{t('chat.empty_text')}</EmptyState> : null}
        <ol>
          {state.messages.map((message, index) => (
            <Row key={message.seq} message={message} own={message.sender.subject === thread.own} joined={follows(state.messages[index - 1], message)} thread={thread} language={language} />
          ))}
          {pending.map((p) => <PendingRow key={p.clientId} pending={p} onRetry={() => thread.outbox.retry(p.clientId)} onDiscard={() => thread.outbox.discard(p.clientId)} />)}
          {uploads.list.map((u) => <UploadRow key={u.key} upload={u} onRetry={() => uploads.retry(u.key)} onCancel={() => uploads.cancel(u.key)} />)}
        </ol>
        {typing ? <p className="chat-typing" data-testid="typing"><i /><i /><i /><span>{t('chat.typing', { name: typing })}</span></p> : null}
      </div>
      {closed ? <p className="chat-closed" data-testid="chat-closed">{t('chat.closed')}</p> : <Composer thread={thread} onFiles={uploads.add} />}
    </section>
  );
}

function Row({ message, own, joined, thread, language }: { message: Message; own: boolean; joined: boolean; thread: Thread; language: string }) {
  const t = useT();
  return (
    <li className="msg" data-own={own || undefined} data-joined={joined || undefined} data-testid="message" data-seq={message.seq}>
      {joined || own ? null : <span className="msg-who">{message.sender.name}</span>}
      <div className="bubble">
        <span className="sr-only">{own ? t('chat.you') : message.sender.name}: </span>
        {message.body.file ? <FileCard file={message.body.file} thread={thread} /> : null}
        {message.body.text ? <span className="bubble-text">{message.body.text}</span> : null}
      </div>
      <span className="msg-meta num"><time dateTime={message.at}>{clockTime(message.at, language)}</time>{own ? <TickMark thread={thread} seq={message.seq} /> : null}</span>
    </li>
  );
}

/** Messages of one person within two minutes stand together. */
function follows(before: Message | undefined, message: Message): boolean {
  return before !== undefined && before.sender.subject === message.sender.subject && Date.parse(message.at) - Date.parse(before.at) < 120_000;
}
