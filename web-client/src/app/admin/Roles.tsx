// What each role can see, in words.
import type { MessageKey } from '../../core/i18n/i18n';
import { Icon } from '../../ui/Icon';
import { Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { AdminPages } from './AdminPages';
import { ROLES } from './api';
import { ROLE } from './People';

const CAN: Record<(typeof ROLES)[number], readonly MessageKey[]> = {
  admin: ['roles.admin_1', 'roles.admin_2', 'roles.admin_3'], clinician: ['roles.clinician_1', 'roles.clinician_2', 'roles.clinician_3'],
  staff: ['roles.staff_1', 'roles.staff_2', 'roles.staff_3'], patient: ['roles.patient_1', 'roles.patient_2', 'roles.patient_3'],
};

export function Roles() {
  const t = useT();
  return (
    <AdminPages lead={t('roles.lead')}>
      <div className="form-grid">
        {ROLES.map((role) => (
          <section key={role} className="card panel" aria-labelledby={`role-${role}`}>
            <h2 id={`role-${role}`}>{t(ROLE[role])}</h2>
            <ul className="things">{CAN[role].map((key) => <li key={key} className="choice"><Icon name="check" />{t(key)}</li>)}</ul>
          </section>
        ))}
      </div>
      <Notice>{t('roles.never')}</Notice>
    </AdminPages>
  );
}
