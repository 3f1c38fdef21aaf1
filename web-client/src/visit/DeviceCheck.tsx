// Camera, microphone and speaker, tried before the visit. Whatever fails, there is a way on.
import { useCallback, useEffect, useState } from 'react';
import { asApiError } from '../core/api/problem';
import type { DeviceCheck } from '../core/api/types';
import { alreadyAllowed, askForDevices, playTestSound, reported, stopPreview, type Access, type Preview } from '../core/media/devices';
import { tab } from '../core/store/keep';
import { Icon } from '../ui/Icon';
import { Button, Notice } from '../ui/parts';
import { useT } from '../ui/store';
import { Video } from '../ui/Video';
import { DeviceHelp } from './DeviceHelp';
import { DevicePicker } from './DevicePicker';
import { Level } from './Level';
import { Heading, Opening, Page } from './Page';

export const AUDIO_ONLY = 'medtech.visit.audio_only';
/** `opening`: the browser has allowed it before, there is nothing to ask. */
type Phase = 'opening' | 'ask' | 'asking' | 'shown';
type Speaker = 'untested' | 'playing' | 'asked' | 'ok' | 'silent';

export function DeviceCheckScreen({ clinic, preview, onPreview, onBack, onDone }: {
  clinic: string | null; preview: Preview; onPreview: (preview: Preview) => void; onBack: () => void; onDone: (check: DeviceCheck) => Promise<void>;
}) {
  const t = useT();
  const [phase, setPhase] = useState<Phase>('opening');
  const [access, setAccess] = useState<Access | null>(null);
  const [speaker, setSpeaker] = useState<Speaker>('untested');
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);

  const ask = useCallback(async (wantVideo: boolean, silently = false) => {
    if (!silently) setPhase('asking');
    tab.write(AUDIO_ONLY, !wantVideo);
    const got = await askForDevices(wantVideo);
    setAccess(got);
    onPreview(got.preview);
    setPhase('shown');
  }, [onPreview]);

  useEffect(() => {
    let gone = false;
    void alreadyAllowed().then((yes) => {
      if (gone) return;
      if (yes) void ask(true, true);
      else setPhase('ask');
    });
    return () => { gone = true; };
  }, [ask]);

  const again = (wantVideo: boolean) => { stopPreview(preview); void ask(wantVideo); };
  const finish = async () => {
    setBusy(true);
    setProblem(null);
    try {
      await onDone({
        camera: reported(access?.camera ?? 'skipped'), microphone: reported(access?.microphone ?? 'skipped'),
        speaker: speaker === 'ok' ? 'ok' : speaker === 'silent' ? 'missing' : 'skipped',
      });
    } catch (error) {
      setProblem(asApiError(error).status === 0 ? t('error.network') : t('error.server'));
      setBusy(false);
    }
  };
  const hear = () => {
    setSpeaker('playing');
    playTestSound().then(() => setSpeaker('asked'), () => setSpeaker('asked'));
  };

  if (!access && phase === 'opening') return <Page clinic={clinic} step={1} onBack={onBack}><Opening /></Page>;
  if (!access) {
    return (
      <Page clinic={clinic} step={1} onBack={onBack}
        action={<Button key="allow" variant="primary" size="l" busy={phase === 'asking'} onClick={() => void ask(true)} data-testid="device-allow">{t('visit.devices.allow')}</Button>}>
        <Heading>{t('visit.devices.title')}</Heading>
        <p className="lead">{t('visit.devices.lead')}</p>
        <div className="ask-picture" aria-hidden="true"><span><Icon name="camera" size={34} /></span><span><Icon name="mic" size={34} /></span></div>
        <p className="muted">{phase === 'asking' ? t('visit.devices.answer_browser') : t('visit.devices.why')}</p>
      </Page>
    );
  }

  const cameraBad = access.camera !== 'ok' && access.camera !== 'skipped' ? access.camera : null;
  const micBad = access.microphone !== 'ok' && access.microphone !== 'skipped' ? access.microphone : null;
  // Where something is wrong, mending it is the main thing and stands with its help; going on stays possible.
  const weight = cameraBad || micBad ? 'secondary' : 'primary';
  const action = cameraBad && !micBad
    ? <Button key="audio" variant={weight} size="l" onClick={() => again(false)} data-testid="device-audio-only">{t('visit.devices.audio_only')}</Button>
    : <Button key="continue" variant={weight} size="l" busy={busy} onClick={() => void finish()} data-testid="device-continue">
        {micBad ? t('visit.devices.go_on_anyway') : t('visit.devices.looks_good')}</Button>;

  return (
    <Page clinic={clinic} step={1} onBack={onBack} action={action}>
      <Heading>{cameraBad || micBad ? t('visit.devices.title_trouble') : t('visit.devices.title_ready')}</Heading>
      {problem ? <Notice tone="danger">{problem}</Notice> : null}
      {preview.video ? (
        <div className="preview"><Video track={preview.video} mirror label={t('visit.self_view')} testId="device-preview" /><span className="preview-tag">{t('visit.only_you')}</span></div>
      ) : access.camera === 'skipped' ? (
        <div className="preview preview-none"><Icon name="cameraOff" size={30} /><span>{t('visit.devices.no_video_chosen')}</span></div>
      ) : null}
      {cameraBad ? <DeviceHelp trouble={cameraBad} what={micBad === cameraBad ? 'both' : 'camera'} onRetry={() => again(true)} /> : null}
      {micBad && micBad !== cameraBad ? <DeviceHelp trouble={micBad} what="microphone" onRetry={() => again(access.camera !== 'skipped')} /> : null}
      <ul className="checks card">
        <li data-testid="check-microphone" data-state={access.microphone}>
          <Icon name={preview.audio ? 'mic' : 'micOff'} />
          {preview.audio ? <Level track={preview.audio} /> : <span>{t('visit.devices.mic_off')}</span>}
        </li>
        <li data-testid="check-speaker" data-state={speaker}>
          <Icon name="speaker" />
          {speaker === 'asked' ? (
            <span className="hear">
              <span>{t('visit.devices.heard')}</span>
              <Button size="s" onClick={() => setSpeaker('ok')} data-testid="speaker-yes">{t('common.yes')}</Button>
              <Button size="s" onClick={() => setSpeaker('silent')}>{t('common.no')}</Button>
            </span>
          ) : (
            <span className="hear">
              <span>{speaker === 'ok' ? t('visit.devices.speaker_ok') : speaker === 'silent' ? t('visit.devices.speaker_silent') : t('visit.devices.speaker')}</span>
              <Button size="s" busy={speaker === 'playing'} onClick={hear} data-testid="speaker-play">{speaker === 'untested' ? t('visit.devices.play') : t('visit.devices.play_again')}</Button>
            </span>
          )}
        </li>
      </ul>
      <DevicePicker preview={preview} onChange={() => again(access.camera !== 'skipped')} />
    </Page>
  );
}
