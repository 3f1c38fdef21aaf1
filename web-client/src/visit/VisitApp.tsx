// A patient's visit: one place that decides which screen stands, and keeps camera and call across the screens.
import { useEffect, useState } from 'react';
import { GuestVisit } from '../core/visit/guest';
import { screenFor, type Step } from '../core/visit/phase';
import { tab } from '../core/store/keep';
import type { Preview } from '../core/media/devices';
import { useStore, useT, useTitle } from '../ui/store';
import { ConsentScreen } from './Consent';
import { DeviceCheckScreen } from './DeviceCheck';
import { EndedScreen, LeftScreen } from './Ended';
import { LinkProblem } from './LinkProblem';
import { Opening, Page } from './Page';
import { Room } from './Room';
import { Welcome } from './Welcome';
import './visit.css';
import '../call/call.css';

const STEP = 'medtech.visit.step';

export function VisitApp() {
  const t = useT();
  useTitle(t('visit.title'));
  const [guest] = useState(() => new GuestVisit());
  const state = useStore(guest.state);
  const [step, setStep] = useState<Step>(() => tab.read<Step>(STEP) ?? 'welcome');
  const [preview, setPreview] = useState<Preview>({ video: null, audio: null });

  useEffect(() => {
    void guest.start();
    // Another link opened in this tab changes only the hash.
    const changed = () => { if (location.hash.length > 1) location.reload(); };
    window.addEventListener('hashchange', changed);
    return () => { window.removeEventListener('hashchange', changed); guest.stop(); };
  }, [guest]);

  const go = (next: Step) => { tab.write(STEP, next); setStep(next); };
  const { status, visit, error } = state;

  if (status === 'failed' && error) return <LinkProblem error={error} taking={state.taking} onTakeOver={() => void guest.takeOver()} onRetry={() => void guest.start()} />;
  if (status === 'left') return <LeftScreen clinic={state.clinic} onBack={() => void guest.start()} />;
  if (status === 'opening' || !visit) return <Page clinic={state.clinic}><Opening /></Page>;

  switch (screenFor(visit, step)) {
    case 'welcome':
      return <Welcome visit={visit} clinic={state.clinic} onStart={() => go('devices')} />;
    case 'devices':
      return <DeviceCheckScreen clinic={state.clinic} preview={preview} onPreview={setPreview} onBack={() => go('welcome')}
        onDone={async (check) => { await guest.deviceCheck(check); go('consent'); }} />;
    case 'consent':
      return <ConsentScreen visit={visit} clinic={state.clinic} onBack={() => go('devices')} onAccept={(language) => guest.consent(language)} />;
    case 'waiting':
    case 'consult':
      return <Room guest={guest} visit={visit} clinic={state.clinic} live={state.live} thread={state.thread} preview={preview} />;
    case 'ended':
      return <EndedScreen visit={visit} clinic={state.clinic} />;
  }
}
