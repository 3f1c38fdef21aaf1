// The few reads that the screens make by FHIR itself.
import type { ApiClient } from './client';
import { segment } from './segment';

export interface FhirPatient { id: string; name: string; birthDate: string | null }

interface HumanName { text?: string; prefix?: string[]; given?: string[]; family?: string }
interface Resource { id?: string; name?: HumanName[]; birthDate?: string }

function nameOf(resource: Resource): string {
  const name = resource.name?.[0];
  return name?.text ?? ([...(name?.prefix ?? []), ...(name?.given ?? []), name?.family].filter(Boolean).join(' ') || (resource.id ?? ''));
}

function patientOf(resource: Resource): FhirPatient {
  return { id: resource.id ?? '', name: nameOf(resource), birthDate: resource.birthDate ?? null };
}

export const fhir = {
  nameOf: async (api: ApiClient, type: 'Patient' | 'Practitioner', id: string) => nameOf(await api.get<Resource>(`/fhir/R4/${segment(type)}/${segment(id)}`)),
  patient: async (api: ApiClient, id: string) => patientOf(await api.get<Resource>(`/fhir/R4/Patient/${segment(id)}`)),
  patients: async (api: ApiClient, name: string, signal?: AbortSignal) => {
    const page = await api.get<{ entry?: Array<{ resource?: Resource }> }>(`/fhir/R4/Patient?name=${encodeURIComponent(name)}&_count=8`, signal);
    return (page.entry ?? []).flatMap((e) => (e.resource ? [patientOf(e.resource)] : []));
  },
};
