// The filters: a plain form. Choices act at once, texts with Enter or the button.
import { useRef, type FormEvent } from 'react';
import { Button } from '../../ui/parts';
import { useT } from '../../ui/store';
import { actionName } from './Entries';
import { ACTIONS, ISSUED, newest, OUTCOMES, readSearch, type AuditSearch } from './search';

export function Filters({ search, onChange }: { search: AuditSearch; onChange: (search: AuditSearch) => void }) {
  const t = useT();
  const form = useRef<HTMLFormElement>(null);
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    onChange(readSearch(Object.fromEntries(new FormData(event.currentTarget))));
  };
  const apply = () => form.current?.requestSubmit();
  const shown = newest(search);
  const any = Object.keys(shown).length > 0;
  return (
    // The key puts what the address says into the fields again after Back, or after a pick in the table.
    <form ref={form} className="audit-filters card" role="search" aria-label={t('audit.filters')} onSubmit={submit} key={JSON.stringify(shown)}>
      <label className="field"><span className="field-label">{t('audit.who')}</span>
        <input className="field-input" name="actor" defaultValue={search.actor} placeholder="user:…" autoComplete="off" spellCheck={false} data-testid="audit-actor" /></label>
      <label className="field"><span className="field-label">{t('audit.what')}</span>
        <input className="field-input" name="target" defaultValue={search.target} placeholder="Patient/…" autoComplete="off" spellCheck={false} data-testid="audit-target" /></label>
      <label className="field"><span className="field-label">{t('audit.action')}</span>
        <select className="field-input" name="action" defaultValue={search.action ?? ''} onChange={apply} data-testid="audit-action">
          <option value="">{t('audit.any')}</option>
          {ACTIONS.map((a) => <option key={a} value={a}>{actionName(t, a)}</option>)}
        </select></label>
      <label className="field"><span className="field-label">{t('audit.outcome')}</span>
        <select className="field-input" name="outcome" defaultValue={search.outcome ?? ''} onChange={apply}>
          <option value="">{t('audit.any')}</option>
          {OUTCOMES.map((o) => <option key={o} value={o}>{t(`audit.outcome_${o}`)}</option>)}
        </select></label>
      <label className="field"><span className="field-label">{t('audit.issued')}</span>
        <select className="field-input" name="issued" defaultValue={search.issued ?? ''} onChange={apply} data-testid="audit-issued">
          <option value="">{t('audit.any')}</option>
          {ISSUED.map((i) => <option key={i} value={i}>{t(`audit.issued_${i}`)}</option>)}
        </select></label>
      <label className="field"><span className="field-label">{t('audit.session')}</span>
        <input className="field-input" name="session" defaultValue={search.session} autoComplete="off" spellCheck={false} data-testid="audit-session" /></label>
      <label className="field"><span className="field-label">{t('audit.from')}</span>
        <input className="field-input" type="date" name="from" defaultValue={search.from} /></label>
      <label className="field"><span className="field-label">{t('audit.to')}</span>
        <input className="field-input" type="date" name="to" defaultValue={search.to} /></label>
      <div className="audit-acts">
        <Button type="submit" variant="primary" data-testid="audit-apply">{t('audit.apply')}</Button>
        {any ? <Button variant="ghost" icon="close" onClick={() => onChange({})} data-testid="audit-clear">{t('audit.clear')}</Button> : null}
      </div>
    </form>
  );
}
