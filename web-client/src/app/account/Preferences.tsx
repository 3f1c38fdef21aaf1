// How somebody likes it, on every device. Each choice acts at once.
import { useMutation, useQuery } from '@tanstack/react-query';
import type { MessageKey } from '../../core/i18n/i18n';
import { saveLook } from '../../theme/preferences';
import { ErrorState, Skeleton } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { Failed } from '../ui/Failed';
import { Toggle } from '../ui/Toggle';
import { AccountPages } from './AccountPages';
import { account, type Preferences as All } from './api';

const SWITCHES = ['arrival_sound', 'mail_notices'] as const;
const CHOICES: ReadonlyArray<{ name: 'theme' | 'contrast' | 'text_size' | 'clock'; label: MessageKey; of: ReadonlyArray<[string, MessageKey]> }> = [
  { name: 'theme', label: 'preferences.theme', of: [['auto', 'menu.theme_auto'], ['light', 'menu.theme_light'], ['dark', 'menu.theme_dark']] },
  { name: 'text_size', label: 'preferences.text_size', of: [['normal', 'preferences.size_normal'], ['large', 'preferences.size_large'], ['larger', 'preferences.size_larger'], ['largest', 'preferences.size_largest']] },
  { name: 'contrast', label: 'preferences.contrast', of: [['auto', 'preferences.contrast_auto'], ['more', 'preferences.contrast_more']] },
  { name: 'clock', label: 'preferences.clock', of: [['auto', 'preferences.clock_auto'], ['12', 'preferences.clock_12'], ['24', 'preferences.clock_24']] },
];

export function Preferences() {
  const t = useT();
  const now = useQuery({ queryKey: ['preferences'], queryFn: () => account.preferences(hub.api) });
  const save = useMutation({
    mutationFn: (all: All) => account.prefer(hub.api, all),
    onMutate: (all) => { queries.setQueryData(['preferences'], all); saveLook({ theme: all.theme, text_size: all.text_size, contrast: all.contrast, clock: all.clock }); },
    onError: () => queries.invalidateQueries({ queryKey: ['preferences'] }),
  });
  const all = now.data;
  return (
    <AccountPages lead={t('preferences.lead')}>
      {now.isError ? <ErrorState error={now.error} onRetry={() => void now.refetch()} /> : all === undefined ? <Skeleton lines={5} /> : (
        <section className="card panel" aria-label={t('account.preferences')}>
          <Failed error={save.error} />
          <div className="form-grid">
            {CHOICES.map(({ name, label, of }) => (
              <label key={name} className="field"><span className="field-label">{t(label)}</span>
                <select className="field-input" value={all[name]} onChange={(e) => save.mutate({ ...all, [name]: e.target.value })} data-testid={`prefer-${name}`}>{of.map(([value, key]) => <option key={value} value={value}>{t(key)}</option>)}</select></label>
            ))}
          </div>
          {SWITCHES.map((name) => <Toggle key={name} on={all[name]} onChange={(on) => save.mutate({ ...all, [name]: on })}>{t(`preferences.${name}`)}</Toggle>)}
        </section>
      )}
    </AccountPages>
  );
}
