// A laboratory result. A critical one says so in words, by shape and by colour.
import type { ResultReport } from '../../core/api/types';
import type { MessageKey, T } from '../../core/i18n/i18n';
import { clockTime, dayName } from '../../core/time/time';
import { useLanguage, useNow, useT } from '../../ui/store';
import { SeverityMark } from '../board/AlertCard';
import { Icon } from '../../ui/Icon';

const DAY = 24 * 3_600_000;

export function ResultCard({ report, fresh }: { report: ResultReport; fresh: boolean }) {
  const t = useT();
  const language = useLanguage();
  const now = useNow(60_000);
  const critical = report.critical ?? false;
  const when = now - Date.parse(report.at) < DAY ? clockTime(report.at, language) : dayName(report.at, language);
  return (
    <li className="result" data-critical={critical || undefined} data-fresh={fresh || undefined} data-testid="result-card" data-report={report.id}>
      <header>
        {critical ? <SeverityMark severity="critical" size={22} /> : <Icon name="flask" size={18} />}
        <div className="result-title" role={critical && fresh ? 'alert' : undefined}>
          <strong>{report.name}</strong>
          {critical ? <span className="result-mark" data-testid="result-critical">{t('severity.critical')}</span> : null}
          {fresh ? <span className="result-new">{t('chart.new')}</span> : null}
        </div>
        <span className="muted small num">{when}</span>
      </header>
      {report.observations && report.observations.length > 0 ? (
        <table>
          <thead className="sr-only"><tr><th>{t('chart.test')}</th><th>{t('chart.value')}</th><th>{t('chart.range')}</th></tr></thead>
          <tbody>
            {report.observations.map((o) => (
              <tr key={o.name} data-flag={flagTone(o.flag)}>
                <th scope="row">{o.name}</th>
                <td className="num"><strong>{o.value}</strong> {o.unit ?? ''}{o.flag && o.flag !== 'N' ? <>{' '}<b className="flag" title={flagWords(t, o.flag)}>{o.flag}<span className="sr-only"> ({flagWords(t, o.flag)})</span></b></> : null}</td>
                <td className="num muted small">{o.range ?? ''}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : null}
    </li>
  );
}

/** A flag said aloud; one that we have no word for stays a letter. */
function flagWords(t: T, flag: string): string {
  return /^(?:HH?|LL?|AA?)$/.test(flag) ? t(`flag.${flag}` as MessageKey) : flag;
}

/** HL7 interpretation codes: doubled letters are critical. */
function flagTone(flag: string | null | undefined): 'critical' | 'abnormal' | undefined {
  if (!flag || flag === 'N') return undefined;
  return /^(?:HH|LL|AA)$/.test(flag) ? 'critical' : 'abnormal';
}
