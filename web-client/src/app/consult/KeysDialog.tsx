// The list of shortcuts, and the switch that turns single keys off.
import { setShortcuts, shortcutsOn } from '../../core/keys/keys';
import type { MessageKey } from '../../core/i18n/i18n';
import { useStore, useT } from '../../ui/store';
import { Sheet } from '../ui/Sheet';
import { Toggle } from '../ui/Toggle';

const KEYS: ReadonlyArray<[string, MessageKey]> = [
  ['M', 'keys.mic'], ['V', 'keys.camera'], ['C', 'keys.chat'], ['A', 'keys.admit'], ['W', 'keys.hold'], ['E', 'keys.end'],
  ['J', 'keys.next'], ['K', 'keys.previous'], ['?', 'keys.this'],
];

export function KeysDialog({ open, onClose }: { open: boolean; onClose: () => void }) {
  const t = useT();
  const on = useStore(shortcutsOn);
  return (
    <Sheet open={open} title={t('keys.title')} onClose={onClose} testId="keys-dialog">
      <Toggle on={on} onChange={setShortcuts}>{t('keys.switch')}</Toggle>
      <dl className="keys-list">{KEYS.map(([key, text]) => <div key={key}><dt><kbd>{key}</kbd></dt><dd>{t(text)}</dd></div>)}</dl>
    </Sheet>
  );
}
