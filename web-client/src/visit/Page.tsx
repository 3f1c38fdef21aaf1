// The frame of a patient's page: clinic's name, language, one column, one action at the bottom of the thumb's reach.
import { useEffect, useRef, type ReactNode } from 'react';
import { LanguagePicker } from '../ui/LanguagePicker';
import { Brand, Spinner } from '../ui/parts';
import { useT } from '../ui/store';

export function Page({ clinic, children, action, step, onBack, flow = false }: {
  clinic: string | null; children: ReactNode; action?: ReactNode; step?: number; onBack?: () => void; /** The action stands below what is to be read, and not over it. */ flow?: boolean;
}) {
  const t = useT();
  return (
    <div className="page">
      <header className="page-top">
        <Brand name={clinic} />
        <LanguagePicker />
      </header>
      <main className="page-main">
        {step === undefined ? null : (
          <div className="steps">
            {onBack ? <button type="button" className="steps-back" onClick={onBack}>{t('common.back')}</button> : null}
            <div className="steps-bar" role="progressbar" aria-valuemin={1} aria-valuemax={3} aria-valuenow={step} aria-label={t('visit.step', { step, of: 3 })}>
              {[1, 2, 3].map((n) => <i key={n} data-done={n <= step || undefined} />)}
            </div>
            <span className="steps-text">{t('visit.step', { step, of: 3 })}</span>
          </div>
        )}
        {children}
      </main>
      {action ? <footer className="page-action" data-flow={flow || undefined}>{action}</footer> : null}
    </div>
  );
}

/** A heading that takes the focus when its screen appears, so that a screen reader starts at the top of it. */
export function Heading({ children }: { children: ReactNode }) {
  const ref = useRef<HTMLHeadingElement>(null);
  useEffect(() => { ref.current?.focus({ preventScroll: true }); }, []);
  return <h1 ref={ref} tabIndex={-1} className="heading">{children}</h1>;
}

export function Opening() {
  const t = useT();
  return <div className="opening" role="status"><Spinner /><span>{t('visit.opening')}</span></div>;
}
