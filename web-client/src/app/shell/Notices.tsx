// The bell: how many notices are new, the list of them, and a card for the one that has just come.
import { useRouter, useRouterState } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { createPortal } from 'react-dom';
import { Button as AriaButton, Dialog, DialogTrigger, Heading, Popover } from 'react-aria-components';
import type { Notice } from '../../core/api/types';
import { age, clockTime, millis } from '../../core/time/time';
import { Icon } from '../../ui/Icon';
import { Button, EmptyState, ErrorState, Skeleton } from '../../ui/parts';
import { useLanguage, useMedia, useNow, useT } from '../../ui/store';
import { markRead, useNotices, wayOf } from '../notices';
import { noticeTitle } from '../words';

const SHOWN_MS = 12_000;

export function Notices() {
  const t = useT();
  const router = useRouter();
  const [open, setOpen] = useState(false);
  // The bar is at the foot of a phone, and there is no room beside the bell.
  const narrow = useMedia('(max-width: 760px)');
  const { query, list, unread, latest, putAway } = useNotices();
  const here = useRouterState({ select: (state) => state.location.pathname });
  // On the very page that it leads to, the matter itself has just appeared.
  const arrived = open || (latest && wayOf(latest) === here) ? null : latest;
  const follow = (notice: Notice) => {
    markRead([notice]);
    setOpen(false);
    putAway();
    const way = wayOf(notice);
    if (way) router.history.push(way);
  };
  return (
    <>
      <DialogTrigger isOpen={open} onOpenChange={(now) => { setOpen(now); if (now) putAway(); }}>
        <AriaButton className="nav-link nav-bell" data-testid="notices">
          <Icon name="bell" /><span aria-hidden="true">{t('notices.title')}</span><span className="sr-only">{t('notices.bell', { count: unread })}</span>
          {unread > 0 ? <b className="nav-count num" aria-hidden="true" data-testid="notices-unread">{unread}</b> : null}
        </AriaButton>
        <Popover className="popover notices" placement={narrow ? 'top' : 'right top'}>
          <Dialog className="notices-box" data-testid="notices-list">
            <header>
              <Heading slot="title">{t('notices.title')}</Heading>
              {unread > 0 ? <Button size="s" variant="ghost" onClick={() => markRead(list)} data-testid="notices-all">{t('notices.all_read')}</Button> : null}
            </header>
            {query.isError && !query.data ? <ErrorState error={query.error} onRetry={() => void query.refetch()} />
              : query.isPending ? <Skeleton lines={4} />
              : list.length === 0 ? <EmptyState icon="bell" title={t('notices.empty')}>{t('notices.empty_text')}</EmptyState>
              : <ol>{list.map((n) => <Row key={n.id} notice={n} onFollow={() => follow(n)} />)}</ol>}
          </Dialog>
        </Popover>
      </DialogTrigger>
      <Arrival notice={arrived} onFollow={follow} onClose={putAway} />
    </>
  );
}

function Row({ notice, onFollow }: { notice: Notice; onFollow: () => void }) {
  const t = useT();
  const language = useLanguage();
  const now = useNow(30_000);
  return (
    <li>
      <button type="button" className="notices-row" data-new={!notice.read_at || undefined} onClick={onFollow} data-testid="notice" data-notice={notice.id}>
        <i className="mark" aria-hidden="true" />
        <span>{notice.read_at ? null : <span className="sr-only">{t('notices.new')}: </span>}{noticeTitle(t, notice.title)}</span>
        <span className="muted small num">{t('notices.ago', { age: age(now - (millis(notice.at) ?? now), language) })}</span>
      </button>
    </li>
  );
}

/** Goes away by itself, but not from under a pointer or the focus. */
function Arrival({ notice, onFollow, onClose }: { notice: Notice | null; onFollow: (notice: Notice) => void; onClose: () => void }) {
  const t = useT();
  const language = useLanguage();
  const [held, setHeld] = useState(false);
  useEffect(() => {
    if (!notice || held) return;
    const timer = setTimeout(onClose, SHOWN_MS);
    return () => clearTimeout(timer);
  }, [notice, held, onClose]);
  return createPortal(
    <div className="arrival-place" role="status">
      {notice ? (
        <div className="arrival card" data-testid="notice-arrived" onPointerEnter={() => setHeld(true)} onPointerLeave={() => setHeld(false)} onFocus={() => setHeld(true)} onBlur={() => setHeld(false)}>
          <Icon name="bell" />
          <div><strong>{noticeTitle(t, notice.title)}</strong><span className="muted small num">{clockTime(notice.at, language)}</span></div>
          {wayOf(notice) ? <Button size="s" onClick={() => onFollow(notice)}>{t('notices.open')}</Button> : null}
          <button type="button" className="icon-btn" onClick={onClose} aria-label={t('notices.put_away')}><Icon name="close" size={18} /></button>
        </div>
      ) : null}
    </div>,
    document.body,
  );
}
