// What to do where the browser gives no camera or microphone: the steps for this very browser.
import type { Trouble } from '../core/media/devices';
import { browserOf } from '../core/session/session';
import type { MessageKey } from '../core/i18n/i18n';
import { Icon } from '../ui/Icon';
import { Button } from '../ui/parts';
import { useT } from '../ui/store';

const STEPS: Record<ReturnType<typeof browserOf>, readonly MessageKey[]> = {
  chrome: ['visit.help.chrome_1', 'visit.help.chrome_2', 'visit.help.reload'],
  edge: ['visit.help.chrome_1', 'visit.help.chrome_2', 'visit.help.reload'],
  samsung: ['visit.help.chrome_1', 'visit.help.chrome_2', 'visit.help.reload'],
  firefox: ['visit.help.firefox_1', 'visit.help.firefox_2', 'visit.help.reload'],
  safari: ['visit.help.safari_1', 'visit.help.safari_2', 'visit.help.reload'],
  ios: ['visit.help.ios_1', 'visit.help.ios_2', 'visit.help.reload'],
  other: ['visit.help.other_1', 'visit.help.reload'],
};
type What = 'camera' | 'microphone' | 'both';
const TITLE: Record<Trouble, Record<What, MessageKey>> = {
  denied: { camera: 'visit.help.camera_denied', microphone: 'visit.help.mic_denied', both: 'visit.help.both_denied' },
  missing: { camera: 'visit.help.camera_missing', microphone: 'visit.help.mic_missing', both: 'visit.help.both_missing' },
  busy: { camera: 'visit.help.camera_busy', microphone: 'visit.help.mic_busy', both: 'visit.help.both_busy' },
  insecure: { camera: 'visit.help.insecure', microphone: 'visit.help.insecure', both: 'visit.help.insecure' },
};
const TEXT: Record<Exclude<Trouble, 'denied'>, MessageKey> = {
  missing: 'visit.help.missing_text', busy: 'visit.help.busy_text', insecure: 'visit.help.insecure_text',
};

export function DeviceHelp({ trouble, what, onRetry }: { trouble: Trouble; what: What; onRetry: () => void }) {
  const t = useT();
  return (
    <section className="help card" data-testid={`help-${what === 'both' ? 'camera' : what}`} data-trouble={trouble} role="alert">
      <h2><Icon name={what === 'microphone' ? 'micOff' : 'cameraOff'} />{t(TITLE[trouble][what])}</h2>
      {trouble === 'denied' ? (
        <ol>{STEPS[browserOf(navigator.userAgent)].map((key) => <li key={key}>{t(key)}</li>)}</ol>
      ) : <p>{t(TEXT[trouble])}</p>}
      <Button variant="primary" icon="retry" onClick={onRetry} data-testid="device-retry">{t('common.retry')}</Button>
    </section>
  );
}
