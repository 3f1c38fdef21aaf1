// Choosing the language, in its own words.
import { LANGUAGES, switchLanguage, type Language } from '../core/i18n/i18n';
import { useLanguage, useT } from './store';

export function LanguagePicker() {
  const t = useT();
  const language = useLanguage();
  return (
    <label className="language">
      <span className="sr-only">{t('common.language')}</span>
      <select className="select" value={language} onChange={(e) => void switchLanguage(e.target.value as Language)} data-testid="language">
        {Object.entries(LANGUAGES).map(([code, name]) => <option key={code} value={code}>{name}</option>)}
      </select>
    </label>
  );
}
