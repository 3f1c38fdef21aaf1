// How somebody likes it: size of text, contrast, light or dark, their clock and time zone. Kept on the device, so that the first
// picture is right already; what the account says, on whatever device it was chosen, takes its place after signing in.
import { translation } from '../core/i18n/i18n';
import { device } from '../core/store/keep';
import { setChosenTime } from '../core/time/time';
import { saveTheme, type Theme } from './theme';

export type TextSize = 'normal' | 'large' | 'larger' | 'largest';
export interface Look { text_size: TextSize; contrast: 'auto' | 'more'; clock: 'auto' | '12' | '24'; zone: string | null }

const KEY = 'medtech.look';
const PLAIN: Look = { text_size: 'normal', contrast: 'auto', clock: 'auto', zone: null };

export function readLook(): Look {
  const kept = device.read<Partial<Look>>(KEY);
  return kept !== null && typeof kept === 'object' ? { ...PLAIN, ...kept } : PLAIN;
}

export function applyLook(look: Look = readLook()): void {
  const root = document.documentElement;
  root.dataset['text'] = look.text_size;
  root.dataset['contrast'] = look.contrast;
  setChosenTime({ clock: look.clock, zone: look.zone });
}

/** All screens that stand show it at once. */
export function saveLook(change: Partial<Look> & { theme?: Theme }): void {
  const { theme, ...look } = change;
  if (theme !== undefined) saveTheme(theme);
  const now = { ...readLook(), ...look };
  device.write(KEY, now);
  applyLook(now);
  const words = translation.get();
  // Times are words too: whoever shows some draws itself again.
  if (words) translation.set({ ...words });
}
