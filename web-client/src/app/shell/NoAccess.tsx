// A page that is for others. What stands on it is not shown half, with buttons that would be refused.
import { Icon } from '../../ui/Icon';
import { useT } from '../../ui/store';

export function NoAccess() {
  const t = useT();
  return (
    <div className="empty" role="alert" data-testid="error-state">
      <span className="empty-icon" data-tone="warn"><Icon name="shield" size={26} /></span>
      <h1>{t('app.no_access')}</h1>
      <p>{t('app.no_access_text')}</p>
    </div>
  );
}
