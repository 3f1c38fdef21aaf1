// How long somebody waits: minutes, with colour and a word for screen readers when it is long.
import { waitLevel } from '../../core/visit/phase';
import { age, millis } from '../../core/time/time';
import { Icon } from '../../ui/Icon';
import { useLanguage, useNow, useT } from '../../ui/store';

export function WaitTime({ since }: { since: string | null | undefined }) {
  const t = useT();
  const language = useLanguage();
  const now = useNow(5000);
  const from = millis(since);
  if (from === null) return null;
  const level = waitLevel(now - from);
  return (
    <span className="chip num" data-tone={level === 'short' ? 'calm' : level === 'long' ? 'warn' : 'danger'} data-testid="wait-time">
      <Icon name={level === 'short' ? 'clock' : 'alert'} size={15} />{age(now - from, language)}
      {level === 'short' ? null : <span className="sr-only"> {t('queue.long_wait')}</span>}
    </span>
  );
}
