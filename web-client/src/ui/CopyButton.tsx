// Copies a text, and says so where it was pressed.
import { useEffect, useState } from 'react';
import { Icon } from './Icon';
import { Button } from './parts';
import { useT } from './store';

const SAID_MS = 2500;

export function CopyButton({ text, label, words, testId, variant = 'secondary', small = false }: {
  text: string; /** What a screen reader hears. */ label?: string; /** Without words only the picture shows, and `label` names it. */ words?: string;
  testId: string; variant?: 'secondary' | 'ghost'; small?: boolean;
}) {
  const t = useT();
  const [said, setSaid] = useState<'copied' | 'failed' | null>(null);
  useEffect(() => {
    if (said === null) return;
    const timer = setTimeout(() => setSaid(null), SAID_MS);
    return () => clearTimeout(timer);
  }, [said]);
  const copy = () => void copyText(text).then((done) => setSaid(done ? 'copied' : 'failed'));
  const state = said === null ? null : t(said === 'copied' ? 'copy.done' : 'copy.failed');
  const spoken = <span className="sr-only" role="status">{state}</span>;
  if (words === undefined) {
    return (
      <button type="button" className="icon-btn" data-said={said ?? undefined} onClick={copy} aria-label={label} title={state ?? label} data-testid={testId}>
        <Icon name={said === 'copied' ? 'check' : said === 'failed' ? 'alert' : 'copy'} />{spoken}
      </button>
    );
  }
  return <><Button variant={variant} size={small ? 's' : 'm'} icon={said === 'copied' ? 'check' : said === 'failed' ? 'alert' : 'copy'} onClick={copy} aria-label={said ? undefined : label} data-testid={testId}>{state ?? words}</Button>{spoken}</>;
}

/** The clipboard is closed to pages without a secure origin; a selection can still be copied there. */
async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = document.createElement('textarea');
    box.value = text;
    box.setAttribute('readonly', '');
    box.className = 'sr-only';
    document.body.append(box);
    box.select();
    const done = document.execCommand('copy');
    box.remove();
    return done;
  }
}
