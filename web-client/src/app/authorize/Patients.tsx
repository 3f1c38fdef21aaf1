// Whose record an application will be told about: the one it was opened for, one of one's own, or one looked for.
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { fhir, type FhirPatient } from '../../core/api/fhir';
import { Skeleton } from '../../ui/parts';
import { plainDate } from '../../core/time/time';
import { useLanguage, useT } from '../../ui/store';
import { hub } from '../hub';

export function usePatient(id: string | null) {
  return useQuery({ queryKey: ['fhir-patient', id], queryFn: () => fhir.patient(hub.api, id ?? ''), enabled: id !== null, staleTime: 60_000 });
}

export function PatientPicker({ among, chosen, onChoose }: { among: readonly string[] | undefined; chosen: string | null; onChoose: (id: string) => void }) {
  const t = useT();
  const language = useLanguage();
  const [text, setText] = useState('');
  const own = useQuery({
    queryKey: ['fhir-own', among], queryFn: () => Promise.all((among ?? []).map((id) => fhir.patient(hub.api, id))), enabled: among !== undefined,
  });
  const name = text.trim();
  const found = useQuery({
    queryKey: ['fhir-patients', name], queryFn: ({ signal }) => fhir.patients(hub.api, name, signal),
    enabled: among === undefined && name.length >= 2, placeholderData: (before) => before,
  });
  const list: readonly FhirPatient[] | undefined = among === undefined ? (name.length >= 2 ? found.data : []) : own.data;
  return (
    <fieldset className="consent-patients">
      <legend>{t('consent.patient')}</legend>
      {among === undefined ? (
        <label className="field"><span className="field-label">{t('consent.patient_search')}</span>
          <input className="field-input" type="search" value={text} autoComplete="off" onChange={(e) => setText(e.target.value)} data-testid="consent-search" /></label>
      ) : null}
      {list === undefined ? <Skeleton lines={2} /> : list.map((p) => (
        <label key={p.id} className="consent-line" data-on={p.id === chosen || undefined}>
          <input type="radio" name="patient" value={p.id} checked={p.id === chosen} onChange={() => onChoose(p.id)} data-testid="consent-patient" />
          <span><strong>{p.name}</strong>{p.birthDate ? <span className="muted">{t('patient.born', { date: plainDate(p.birthDate, language) })}</span> : null}</span>
        </label>
      ))}
      {list?.length === 0 && name.length >= 2 ? <p className="muted" role="status">{t('consent.patient_none')}</p> : null}
    </fieldset>
  );
}
