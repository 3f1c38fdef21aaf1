// The note. Whatever happens to the call or the page, its text stays.
import { useEffect, useState } from 'react';
import { Draft } from '../../core/notes/draft';
import { clockTime } from '../../core/time/time';
import { Icon } from '../../ui/Icon';
import { useLanguage, useStore, useT } from '../../ui/store';

export function Note({ visit, author }: { visit: string; author: string }) {
  const t = useT();
  const language = useLanguage();
  const [draft] = useState(() => new Draft(visit, author));
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
