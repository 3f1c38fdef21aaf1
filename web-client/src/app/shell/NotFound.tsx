// An address that leads nowhere.
import { Icon } from '../../ui/Icon';
import { Brand } from '../../ui/parts';
import { useT, useTitle } from '../../ui/store';

export function NotFound() {
  const t = useT();
  useTitle(t('app.not_found'));
  return (
    <div className="door">
      <header className="door-top"><Brand /></header>
      <main className="door-card card">
        <div className="empty">
          <span className="empty-icon"><Icon name="link" size={26} /></span>
          <h1>{t('app.not_found')}</h1>
          <p>{t('app.not_found_text')}</p>
          <a className="btn" data-variant="primary" href="/">{t('app.go_home')}</a>
        </div>
      </main>
    </div>
  );
}
