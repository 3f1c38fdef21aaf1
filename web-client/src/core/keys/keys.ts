// Single-key shortcuts. They rest while somebody writes, and can be switched off (WCAG 2.1.4).
import { Store } from '../store/emitter';
import { device } from '../store/keep';

const KEY = 'medtech.shortcuts';
export const shortcutsOn = new Store<boolean>(typeof localStorage === 'undefined' ? true : (device.read<boolean>(KEY) ?? true));

export function setShortcuts(on: boolean): void {
  device.write(KEY, on);
  shortcutsOn.set(on);
}

export type Shortcuts = Readonly<Record<string, () => void>>;
interface Press { key: string; ctrlKey: boolean; metaKey: boolean; altKey: boolean; repeat: boolean; defaultPrevented: boolean; preventDefault: () => void; target: EventTarget | null }

export function handle(shortcuts: Shortcuts, event: Press): void {
  if (event.defaultPrevented || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (isWriting(event.target)) return;
  if (!shortcutsOn.get() && event.key !== 'Escape') return;
  const action = shortcuts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  // Enter and Space on a focused control belong to that control.
  if (event.key === 'Enter' && isControl(event.target)) return;
  event.preventDefault();
  action();
}

function isWriting(target: EventTarget | null): boolean {
  const element = target as Partial<HTMLElement> | null;
  const tag = element?.tagName;
  return tag === 'INPUT' || tag === 'TEXTAREA' || tag === 'SELECT' || element?.isContentEditable === true;
}

function isControl(target: EventTarget | null): boolean {
  const tag = (target as Partial<HTMLElement> | null)?.tagName;
  return tag === 'BUTTON' || tag === 'A' || tag === 'SUMMARY';
}
