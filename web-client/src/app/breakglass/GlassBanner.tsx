// While the glass is broken: says so above the chart, counts the time down, and lets it be ended early.
import { useMutation, useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { glass } from '../../core/api/endpoints';
import { Button, Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub, queries } from '../hub';

export function GlassBanner({ patient, onEnd }: { patient: string; onEnd: () => void }) {
  const t = useT();
  const mine = useQuery({ queryKey: ['glass'], queryFn: () => glass.mine(hub.api), staleTime: 30_000 });
  const until = mine.data?.accesses.find((a) => a.patient_id === patient)?.until;
  const [now, setNow] = useState(() => Date.now());
  const left = until === undefined ? 0 : Date.parse(until) - now;
  const over = until !== undefined && left <= 0;
  const end = useMutation({
    mutationFn: () => glass.end(hub.api, patient),
    onSuccess: () => { void queries.invalidateQueries({ queryKey: ['glass'] }); void queries.invalidateQueries({ queryKey: ['visit'] }); onEnd(); },
  });
  useEffect(() => {
    if (until === undefined) return undefined;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [until]);
  useEffect(() => { if (over) onEnd(); }, [over, onEnd]);
  if (until === undefined || over) return null;
  const minutes = Math.floor(left / 60_000);
  const seconds = String(Math.floor(left / 1000) % 60).padStart(2, '0');
  return (
    <Notice tone="danger" title={t('glass.banner')} testId="glass-banner"
      action={<Button size="s" busy={end.isPending} onClick={() => end.mutate()} data-testid="glass-end">{t('glass.end')}</Button>}>
      <span className="num" aria-live="off">{t('glass.left', { time: `${minutes}:${seconds}` })}</span>
    </Notice>
  );
}
