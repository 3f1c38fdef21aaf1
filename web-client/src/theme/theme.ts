// The person's choice of light or dark; without one the system decides.
import { device } from '../core/store/keep';

export type Theme = 'auto' | 'light' | 'dark';
const KEY = 'medtech.theme';

export function readTheme(): Theme {
  const saved = device.read<string>(KEY);
  return saved === 'light' || saved === 'dark' ? saved : 'auto';
}

export function applyTheme(theme: Theme = readTheme()): void {
  const root = document.documentElement;
  if (theme === 'auto') delete root.dataset['theme'];
  else root.dataset['theme'] = theme;
}

export function saveTheme(theme: Theme): void {
  device.write(KEY, theme);
  applyTheme(theme);
}
