// The chart beside the picture: who this is, allergies always in sight, vitals as they come, results, conditions, medicines.
import { useQuery } from '@tanstack/react-query';
import { useCallback, useEffect, useState } from 'react';
import { records } from '../../core/api/endpoints';
import { asApiError } from '../../core/api/problem';
import type { Coded, ResultReport } from '../../core/api/types';
import type { PatientEvent } from '../../core/live/events';
import { add, liveFirst, mergeChart, type Series } from '../../core/vitals/series';
import { plainDate, yearsOld } from '../../core/time/time';
import type { T } from '../../core/i18n/i18n';
import { Icon, type IconName } from '../../ui/Icon';
import { ErrorState, Skeleton } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { BreakGlass } from '../breakglass/BreakGlass';
import { GlassBanner } from '../breakglass/GlassBanner';
import { hub, queries, useChannel } from '../hub';
import { sexKey } from '../today/NextPatient';
import { ResultCard } from './ResultCard';
import { VitalTile } from './VitalTile';

export function Chart({ patient, name }: { patient: string | null; name: string }) {
  const t = useT();
  const language = useLanguage();
  const key = ['chart', patient] as const;
  const chart = useQuery({ queryKey: key, queryFn: () => records.chart(hub.api, patient ?? ''), enabled: patient !== null });
  const [series, setSeries] = useState<readonly Series[]>([]);
  const [fresh, setFresh] = useState<readonly ResultReport[]>([]);

  useEffect(() => {
    const vitals = chart.data?.vitals;
    if (vitals) setSeries((all) => mergeChart(all, vitals));
  }, [chart.data]);
  const ended = useCallback(() => void queries.resetQueries({ queryKey: ['chart', patient] }), [patient]);
  useChannel<PatientEvent>(patient === null ? null : `patient:${patient}`, (event) => {
    if (event.kind === 'reading') setSeries((all) => add(all, event));
    else if (event.kind === 'result.card') {
      setFresh((all) => [event.report, ...all.filter((r) => r.id !== event.report.id)]);
      // The card stands at once; its values come with the chart.
      void queries.invalidateQueries({ queryKey: key });
    }
  }, () => void queries.invalidateQueries({ queryKey: key }));

  if (patient === null) return <section className="chart"><p className="muted chart-none">{t('chart.none')}</p></section>;
  const refused = chart.isError && asApiError(chart.error).code === 'policy.relationship';
  if (refused) return <section className="chart"><BreakGlass patient={patient} onOpen={() => void chart.refetch()} /></section>;
  if (chart.isError && !chart.data) return <section className="chart"><ErrorState error={chart.error} onRetry={() => void chart.refetch()} /></section>;
  const data = chart.data;
  const birth = data?.patient.birth_date;
  const facts = [
    birth ? t('patient.born', { date: plainDate(birth, language) }) : null,
    birth ? t('patient.age', { count: yearsOld(birth) ?? 0 }) : null,
    data?.patient.sex ? t(sexKey(data.patient.sex)) : null,
  ].filter(Boolean);
  const newIds = new Set(fresh.map((r) => r.id));
  const every = [
    ...fresh.map((r) => ({ ...r, ...data?.results.find((known) => known.id === r.id) })),
    ...(data?.results.filter((r) => !newIds.has(r.id)) ?? []),
  ];
  // A report takes the place of the values that came before it, one by one.
  const within = new Set(every.flatMap((r) => r.parts ?? []));
  const results = every.filter((r) => !within.has(r.id)).toSorted((a, b) => Date.parse(b.at) - Date.parse(a.at));
  return (
    <section className="chart" data-testid="chart">
      <GlassBanner patient={patient} onEnd={ended} />
      <header className="chart-top">
        <div className="chart-who"><h2>{data?.patient.name ?? name}</h2><p className="muted small num">{facts.join(' · ')}</p></div>
        <Allergies list={data?.allergies} />
      </header>
      {!data ? <Skeleton lines={6} /> : (
        <div className="chart-body" tabIndex={0} role="region" aria-label={t('chart.title')}>
          <h3>{t('chart.vitals')}</h3>
          {series.length === 0 ? <p className="muted small">{t('chart.no_vitals')}</p> : (
            <ul className="tiles">{liveFirst(series).map((s) => <VitalTile key={s.code} series={s} />)}</ul>
          )}
          <h3>{t('chart.results')}</h3>
          <div aria-live="polite">
            {results.length === 0 ? <p className="muted small">{t('chart.no_results')}</p>
              : <ul className="results">{results.map((r) => <ResultCard key={r.id} report={r} fresh={newIds.has(r.id)} />)}</ul>}
          </div>
          <div className="chart-cols">
            <List icon="pulse" title={t('chart.conditions')} items={data.conditions} empty={t('chart.no_conditions')} />
            <List icon="pill" title={t('chart.medications')} items={data.medications} empty={t('chart.no_medications')} />
          </div>
        </div>
      )}
    </section>
  );
}

function Allergies({ list }: { list: readonly Coded[] | undefined }) {
  const t = useT();
  const language = useLanguage();
  if (!list) return null;
  return (
    <div className="allergies" data-none={list.length === 0 || undefined} data-testid="allergies">
      <Icon name={list.length === 0 ? 'check' : 'alert'} size={18} />
      <strong>{t('chart.allergies')}</strong>
      {list.length === 0 ? <span>{t('chart.no_allergies')}</span> : (
        <ul>{list.map((a) => <li key={nameOf(a)}>{nameOf(a)}{detailOf(a, t, language) ? <span> ({detailOf(a, t, language)})</span> : null}</li>)}</ul>
      )}
    </div>
  );
}

function List({ icon, title, items, empty }: { icon: IconName; title: string; items: readonly Coded[]; empty: string }) {
  const t = useT();
  const language = useLanguage();
  return (
    <div>
      <h3><Icon name={icon} size={16} />{title}</h3>
      {items.length === 0 ? <p className="muted small">{empty}</p> : (
        <ul className="plain">{items.map((item) => <li key={nameOf(item)}><strong>{nameOf(item)}</strong>{detailOf(item, t, language) ? <span className="muted small">{detailOf(item, t, language)}</span> : null}</li>)}</ul>
      )}
    </div>
  );
}

function nameOf(item: Coded): string {
  return typeof item === 'string' ? item : (item.name ?? item.text ?? item.display ?? '');
}
/** When it began comes as "since" and a date of the record. */
function detailOf(item: Coded, t: T, language: string): string | null {
  const text = typeof item === 'string' ? null : (item.detail ?? item.severity ?? null);
  const since = /^since (\d{4}\S*)$/.exec(text ?? '')?.[1];
  return since === undefined ? text : t('chart.since', { date: plainDate(since, language) });
}
