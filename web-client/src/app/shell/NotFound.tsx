// An address that leads nowhere.
import { EmptyState } from '../../ui/parts';
import { useT } from '../../ui/store';

export function NotFound() {
  const t = useT();
  return <EmptyState icon="link" title={t('app.not_found')} action={<a className="btn" data-variant="secondary" href="/">{t('app.go_home')}</a>}>{t('app.not_found_text')}</EmptyState>;
}
