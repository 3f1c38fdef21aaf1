// Camera, microphone and speaker before any call: asking for them, naming what went wrong, measuring the level.
// Holds no library, so that the first screen of a visit stays light.
import type { DeviceState } from '../api/types';
import { device } from '../store/keep';

export type Trouble = 'denied' | 'missing' | 'busy' | 'insecure';
export interface Preview { video: MediaStreamTrack | null; audio: MediaStreamTrack | null }
export interface Access { preview: Preview; camera: DeviceState | Trouble; microphone: DeviceState | Trouble }

interface Choice { camera?: string; microphone?: string; speaker?: string }
const CHOICE = 'medtech.devices';

export const chosenDevices = {
  read: (): Choice => device.read<Choice>(CHOICE) ?? {},
  write: (choice: Choice) => device.write(CHOICE, { ...chosenDevices.read(), ...choice }),
};

export function troubleOf(error: unknown): Trouble {
  const name = error instanceof DOMException || error instanceof Error ? error.name : '';
  if (name === 'NotAllowedError' || name === 'PermissionDeniedError') return 'denied';
  if (name === 'SecurityError') return 'insecure';
  if (name === 'NotReadableError' || name === 'TrackStartError' || name === 'AbortError') return 'busy';
  return 'missing';
}

/** What the server is told: a busy device is reported as skipped, the patient goes on without it. */
export function reported(state: DeviceState | Trouble): DeviceState {
  if (state === 'busy') return 'skipped';
  return state === 'insecure' ? 'denied' : state;
}

export function videoConstraints(): MediaTrackConstraints {
  const { camera } = chosenDevices.read();
  return { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 }, facingMode: 'user', ...(camera ? { deviceId: { ideal: camera } } : {}) };
}

export function audioConstraints(): MediaTrackConstraints {
  const { microphone } = chosenDevices.read();
  return { echoCancellation: true, noiseSuppression: true, autoGainControl: true, ...(microphone ? { deviceId: { ideal: microphone } } : {}) };
}

/**
 * Asks for both at once (one question for the patient); where that fails, for each alone, so that a missing camera
 * never costs the microphone. `wantVideo: false` is the patient's own choice of audio only.
 */
export async function askForDevices(wantVideo: boolean): Promise<Access> {
  const media = navigator.mediaDevices as MediaDevices | undefined;
  if (!media?.getUserMedia) {
    return { preview: { video: null, audio: null }, camera: wantVideo ? 'insecure' : 'skipped', microphone: 'insecure' };
  }
  if (wantVideo) {
    try {
      const stream = await media.getUserMedia({ video: videoConstraints(), audio: audioConstraints() });
      return { preview: { video: first(stream.getVideoTracks()), audio: first(stream.getAudioTracks()) }, camera: 'ok', microphone: 'ok' };
    } catch {
      // Which of the two failed is not told: ask one by one.
    }
  }
  const audio = await one(media, { audio: audioConstraints() });
  const video = wantVideo ? await one(media, { video: videoConstraints() }) : ({ track: null, state: 'skipped' } as const);
  return { preview: { video: video.track, audio: audio.track }, camera: video.state, microphone: audio.state };
}

async function one(media: MediaDevices, constraints: MediaStreamConstraints): Promise<{ track: MediaStreamTrack | null; state: 'ok' | Trouble }> {
  try {
    const stream = await media.getUserMedia(constraints);
    const track = first(stream.getTracks());
    return { track, state: track ? 'ok' : 'missing' };
  } catch (error) {
    return { track: null, state: troubleOf(error) };
  }
}

function first(tracks: MediaStreamTrack[]): MediaStreamTrack | null {
  return tracks[0] ?? null;
}

export function stopPreview(preview: Preview): void {
  preview.video?.stop();
  preview.audio?.stop();
}

/** Loudness of a track, 0 to 1, about 20 times a second. Returns how to stop. */
export function measureLevel(track: MediaStreamTrack, onLevel: (level: number) => void): () => void {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 512;
  const source = context.createMediaStreamSource(new MediaStream([track]));
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  void context.resume().catch(() => undefined);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    onLevel(levelOf(samples));
  }, 50);
  return () => {
    clearInterval(timer);
    source.disconnect();
    void context.close();
  };
}

/** Root mean square on a scale where -60 dBFS is 0 and -10 dBFS is 1. */
export function levelOf(samples: Float32Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const rms = Math.sqrt(sum / Math.max(1, samples.length));
  const db = 20 * Math.log10(Math.max(rms, 1e-6));
  return Math.min(1, Math.max(0, (db + 60) / 50));
}

/** Two soft notes. Resolves when they have ended. */
export async function playTestSound(): Promise<void> {
  const context = new AudioContext();
  await context.resume();
  const start = context.currentTime + 0.05;
  for (const [index, frequency] of [523.25, 659.25].entries()) {
    const tone = context.createOscillator();
    const gain = context.createGain();
    const at = start + index * 0.35;
    tone.frequency.value = frequency;
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(0.25, at + 0.04);
    gain.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
    tone.connect(gain).connect(context.destination);
    tone.start(at);
    tone.stop(at + 0.55);
  }
  await new Promise((done) => setTimeout(done, 1100));
  await context.close();
}

export interface Choices { cameras: MediaDeviceInfo[]; microphones: MediaDeviceInfo[]; /** Empty where the browser lets no page choose. */ speakers: MediaDeviceInfo[] }

/** What there is to choose from. Names are known only after the permission. */
export async function listDevices(): Promise<Choices> {
  const all = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
  const named = all.filter((d) => d.label !== '' && d.deviceId !== '');
  const of = (kind: MediaDeviceKind) => named.filter((d) => d.kind === kind);
  const choosable = typeof HTMLMediaElement !== 'undefined' && 'setSinkId' in HTMLMediaElement.prototype;
  return { cameras: of('videoinput'), microphones: of('audioinput'), speakers: choosable ? of('audiooutput') : [] };
}

/** Where camera and microphone were already allowed, the check can start without a question. */
export async function alreadyAllowed(): Promise<boolean> {
  try {
    const [camera, microphone] = await Promise.all([
      navigator.permissions.query({ name: 'camera' as PermissionName }),
      navigator.permissions.query({ name: 'microphone' as PermissionName }),
    ]);
    return camera.state === 'granted' && microphone.state === 'granted';
  } catch {
    return false;
  }
}
