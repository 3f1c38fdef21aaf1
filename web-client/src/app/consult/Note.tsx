// The note. Whatever happens to the call or the page, its text stays.
import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { identity } from '../../core/api/endpoints';
import { Draft } from '../../core/notes/draft';
import { device } from '../../core/store/keep';
import { keyOf, sealed } from '../../core/store/sealed';
import { clockTime } from '../../core/time/time';
import { Icon } from '../../ui/Icon';
import { ErrorState, Skeleton } from '../../ui/parts';
import { useLanguage, useStore, useT } from '../../ui/store';
import { hub } from '../hub';

/** Waits for the key of what is kept here: without it an earlier draft could not be read. */
export function Note({ visit, author }: { visit: string; author: string }) {
  const key = useQuery({ queryKey: ['device-key', author], queryFn: () => identity.deviceKey(hub.api), staleTime: Infinity });
  if (key.data) return <Writing key={author} visit={visit} author={author} secret={key.data.key} />;
  return <section className="note">{key.isError ? <ErrorState error={key.error} onRetry={() => void key.refetch()} /> : <Skeleton lines={2} />}</section>;
}

function Writing({ visit, author, secret }: { visit: string; author: string; secret: string }) {
  const t = useT();
  const language = useLanguage();
  const [draft] = useState(() => new Draft(visit, author, sealed(device, keyOf(secret))));
  const [text, setText] = useState(draft.text);
  const saved = useStore(draft.saved);
  useEffect(() => {
    const flush = () => draft.flush();
    window.addEventListener('pagehide', flush);
    document.addEventListener('visibilitychange', flush);
    return () => { window.removeEventListener('pagehide', flush); document.removeEventListener('visibilitychange', flush); flush(); };
  }, [draft]);
  return (
    <section className="note">
      <header className="note-top">
        <h2 id="note-label"><Icon name="note" size={17} />{t('note.title')}</h2>
        <span className="muted small num" role="status" data-testid="note-saved">
          {saved === 'typing' ? t('note.saving') : saved === 'empty' ? '' : t('note.saved', { time: clockTime(saved.at, language) })}
        </span>
      </header>
      <textarea aria-labelledby="note-label" value={text} placeholder={t('note.placeholder')} data-testid="note"
        onChange={(e) => { setText(e.target.value); draft.change(e.target.value); }} onBlur={() => draft.flush()} />
    </section>
  );
}
