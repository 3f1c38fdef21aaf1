// Emergency access that is to be reviewed: due first, overdue marked, given to somebody.
import { timeFormat } from '../../core/time/time';
import { useMutation, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { glass } from '../../core/api/endpoints';
import type { EmergencyAccess, GlassShow } from '../../core/api/types';
import { millis } from '../../core/time/time';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useLanguage, useNow, useT } from '../../ui/store';
import { people } from '../admin/api';
import { hub, queries } from '../hub';

const SHOWN = ['waiting', 'overdue', 'mine', 'all'] as const;
const again = () => void queries.invalidateQueries({ queryKey: ['glass-reviews'] });

export function Reviews() {
  const t = useT();
  const [show, setShow] = useState<GlassShow>('waiting');
  const open = useQuery({ queryKey: ['glass-reviews', show], queryFn: () => glass.list(hub.api, show) });
  const admins = useQuery({ queryKey: ['access-admins'], queryFn: () => people.list(hub.api, '', 'admin') });
  return (
    <section aria-labelledby="reviews">
      <h2 id="reviews">{t('access.reviews')}</h2>
      <div className="access-form">
        <label className="field"><span className="field-label">{t('access.show')}</span>
          <select className="field-input" value={show} onChange={(event) => setShow(event.target.value as GlassShow)} data-testid="reviews-show">
            {SHOWN.map((s) => <option key={s} value={s}>{t(`access.show_${s}`)}</option>)}
          </select>
        </label>
      </div>
      {open.isError ? <ErrorState error={open.error} onRetry={() => void open.refetch()} /> : !open.data ? <Skeleton /> : open.data.accesses.length === 0
        ? <p className="muted" data-testid="no-reviews">{t(show === 'waiting' ? 'access.no_reviews' : 'access.none_here')}</p>
        : <ul className="access-list">{open.data.accesses.map((a) => <Review key={a.id} access={a} admins={admins.data?.users ?? []} />)}</ul>}
    </section>
  );
}

function Review({ access, admins }: { access: EmergencyAccess; admins: readonly { id: string; name: string }[] }) {
  const t = useT();
  const language = useLanguage();
  const now = useNow(60_000);
  const [text, setText] = useState('');
  const done = useMutation({ mutationFn: () => glass.review(hub.api, access.id, text), onSuccess: again });
  const assign = useMutation({ mutationFn: (to: string) => glass.assign(hub.api, access.id, to === '' ? null : to), onSuccess: again });
  const format = (at: string) => timeFormat(language, { dateStyle: 'medium', timeStyle: 'short' }).format(new Date(at));
  const late = (millis(access.due) ?? Infinity) <= now;
  // Nobody reviews what they did themselves.
  const others = admins.filter((p) => `user:${p.id}` !== access.subject);
  return (
    <li className="card" data-testid="emergency" data-overdue={(late && !access.reviewed_at) || undefined}>
      <strong>{t('access.who_when', { name: access.name, at: format(access.at) })}</strong>
      <p>{access.text}</p>
      {access.reviewed_at ? <p className="muted">{t('access.done', { at: format(access.reviewed_at), text: access.review ?? '' })}</p> : (
        <>
          {late ? <Notice tone="danger">{t('access.overdue', { at: format(access.due) })}</Notice> : <p className="muted" data-testid="review-due">{t('access.due', { at: format(access.due) })}</p>}
          <form className="access-form" onSubmit={(event) => { event.preventDefault(); done.mutate(); }}>
            <label className="field"><span className="field-label">{t('access.assignee')}</span>
              <select className="field-input" value={access.assignee ?? ''} onChange={(event) => assign.mutate(event.target.value)} data-testid="review-assign">
                <option value="">{t('access.nobody')}</option>
                {others.map((p) => <option key={p.id} value={`user:${p.id}`}>{p.name}</option>)}
              </select>
            </label>
            <label className="field"><span className="field-label">{t('access.finding')}</span>
              <input className="field-input" value={text} minLength={3} maxLength={1000} required onChange={(event) => setText(event.target.value)} data-testid="review-text" />
            </label>
            <Button type="submit" busy={done.isPending} data-testid="review-done">{t('access.reviewed')}</Button>
          </form>
        </>
      )}
      {done.isError || assign.isError ? <Notice tone="danger">{t('error.server')}</Notice> : null}
    </li>
  );
}
