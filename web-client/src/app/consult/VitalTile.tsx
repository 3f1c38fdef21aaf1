// One vital sign: the value large, its trace, and how old it is. Says plainly when the feed stands still.
import { age } from '../../core/time/time';
import { freshness, tracePath, type Series } from '../../core/vitals/series';
import { Icon } from '../../ui/Icon';
import { useLanguage, useNow, useT } from '../../ui/store';
import { vitalName } from '../words';

export function VitalTile({ series }: { series: Series }) {
  const t = useT();
  const language = useLanguage();
  const now = useNow(1000);
  const last = series.points.at(-1);
  if (!last) return null;
  const state = freshness(series, now);
  const path = series.live ? tracePath(series.points, 100, 24) : '';
  const value = new Intl.NumberFormat(language, { maximumFractionDigits: 1 }).format(last.value);
  const ago = t('chart.ago', { age: age(now - last.at, language) });
  return (
    <li className="tile" data-state={state} data-testid="vital" data-code={series.code} data-value={last.value}>
      <span className="tile-name">{vitalName(t, series.code, series.name)}{state === 'live' ? <i className="tile-live mark" title={t('chart.live')} /> : null}</span>
      <span className="tile-value num"><strong>{value}</strong> <span>{unitWords(series.unit)}</span></span>
      {path ? <svg className="tile-trace" viewBox="-2 -3 104 30" preserveAspectRatio="none" aria-hidden="true"><path d={path} vectorEffect="non-scaling-stroke" /></svg> : <span className="tile-trace" />}
      <span className="tile-age num">{state === 'stale' ? <><Icon name="alert" size={13} />{t('chart.stale', { ago })}</> : ago}</span>
    </li>
  );
}

/** UCUM codes that a reader would not say aloud. */
function unitWords(unit: string): string {
  return /^(?:\{?beats?\}?)?\/min(?:ute)?$/.test(unit) ? 'bpm' : unit === 'mm[Hg]' ? 'mmHg' : unit === 'Cel' ? '°C' : unit.replace(/[{}]/g, '');
}
