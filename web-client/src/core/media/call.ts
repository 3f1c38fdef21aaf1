// The call: livekit-client's Room behind a small watched state. It connects while the patient waits, with no right to
// publish; what is published follows the server's permission, never the other way round.
import {
  ConnectionQuality, ConnectionState, DisconnectReason, LocalAudioTrack, LocalVideoTrack, Room, RoomEvent, Track,
  type LocalTrack, type RemoteTrack,
} from 'livekit-client';
import { ApiError } from '../api/problem';
import type { MediaGrant } from '../api/types';
import { Store } from '../store/emitter';
import { askForDevices, audioConstraints, chosenDevices, stopPreview, videoConstraints, type Preview } from './devices';

export type DeviceKind = 'camera' | 'microphone' | 'speaker';
export type CallPhase = 'idle' | 'connecting' | 'connected' | 'reconnecting' | 'failed' | 'replaced' | 'refused' | 'closed';
export interface RemotePerson { identity: string; name: string; video: RemoteTrack | null; audio: RemoteTrack | null; muted: boolean; quality: 'good' | 'poor' | 'lost' }
export interface CallState {
  phase: CallPhase;
  since: number;
  canPublish: boolean;
  remotes: readonly RemotePerson[];
  localVideo: LocalTrack | null;
  micOn: boolean;
  cameraOn: boolean;
  hasCamera: boolean;
  hasMic: boolean;
  audioBlocked: boolean;
  /** The ids of the devices in use. */
  devices: Readonly<Record<DeviceKind, string | null>>;
}

const RETRY_MS = [500, 1000, 2000, 4000, 8000];

export class Call {
  readonly state: Store<CallState>;
  #video: LocalVideoTrack | null = null;
  #audio: LocalAudioTrack | null = null;
  #room: Room;
  #closed = false;
  #joining = false;
  #attempt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #publishing: Promise<void> = Promise.resolve();
  readonly #onOnline = () => { if (!this.#joining && this.#timer !== undefined) this.retry(); };

  constructor(private readonly grant: () => Promise<MediaGrant>, preview: Preview, choice: { micOn: boolean; cameraOn: boolean }) {
    // The SDK must own the tracks (last argument false), so that "camera off" turns the camera itself off.
    if (preview.video) this.#video = new LocalVideoTrack(preview.video, videoConstraints(), false);
    if (preview.audio) this.#audio = new LocalAudioTrack(preview.audio, audioConstraints(), false);
    this.state = new Store<CallState>({
      phase: 'idle', since: Date.now(), canPublish: false, remotes: [], localVideo: this.#video,
      micOn: choice.micOn && this.#audio !== null, cameraOn: choice.cameraOn && this.#video !== null,
      hasCamera: this.#video !== null, hasMic: this.#audio !== null, audioBlocked: false,
      devices: this.#devices(),
    });
    this.#room = this.#makeRoom();
    globalThis.addEventListener?.('online', this.#onOnline);
    if (!choice.micOn) this.#audio?.mute().catch(() => undefined);
    if (!choice.cameraOn) this.#video?.mute().catch(() => undefined);
  }

  async start(): Promise<void> {
    if (this.#closed || this.#joining) return;
    this.#joining = true;
    this.#phase(this.#attempt === 0 ? 'connecting' : 'reconnecting');
    try {
      const grant = await this.grant();
      if (this.#closed) return;
      await this.#room.connect(grant.url, grant.token, { autoSubscribe: true });
      if (this.#closed) { await this.#room.disconnect(false); return; }
      this.#attempt = 0;
      this.#phase('connected');
      this.#followPermission();
      this.#look();
    } catch (error) {
      // Whoever may not be there is told so, and does not knock on.
      if (error instanceof ApiError && error.status === 403) this.#phase('refused');
      else this.#again();
    } finally {
      this.#joining = false;
    }
  }

  /** Tries now instead of at the next step of the back-off. */
  retry(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#attempt = 0;
    this.#phase('reconnecting');
    void this.start();
  }

  async setMic(on: boolean): Promise<void> {
    this.#patch({ micOn: on });
    // A device that was taken away in between must not end in an unhandled rejection; the state says what is.
    await (on ? this.#audio?.unmute() : this.#audio?.mute())?.catch(() => this.#patch({ micOn: !on }));
  }

  /** Turning the camera on asks for one where there was none before. Answers whether it is on now. */
  async setCamera(on: boolean): Promise<boolean> {
    if (on && this.#video === null) {
      const { preview } = await askForDevices(true);
      preview.audio?.stop();
      if (preview.video === null || this.#closed) return false;
      this.#video = new LocalVideoTrack(preview.video, videoConstraints(), false);
      this.#patch({ localVideo: this.#video, hasCamera: true, devices: this.#devices() });
    }
    this.#patch({ cameraOn: on && this.#video !== null });
    try {
      await (on ? this.#video?.unmute() : this.#video?.mute());
    } catch {
      this.#patch({ cameraOn: !on });
      return !on;
    }
    if (on) this.#followPermission();
    return on;
  }

  /** Changes a device in the middle of the call and keeps the choice. Answers whether it could be used; else the old one stays. */
  async takeDevice(kind: DeviceKind, id: string): Promise<boolean> {
    try {
      if (kind === 'speaker') await this.#room.switchActiveDevice('audiooutput', id);
      else {
        const track = kind === 'camera' ? this.#video : this.#audio;
        if (track === null) return false;
        const before = track.mediaStreamTrack.getSettings().deviceId;
        try {
          await track.setDeviceId({ exact: id });
        } catch (error) {
          if (before) await track.setDeviceId({ ideal: before }).catch(() => undefined);
          throw error;
        }
      }
      chosenDevices.write({ [kind]: id });
      this.#patch({ devices: this.#devices() });
      return true;
    } catch {
      return false;
    }
  }

  async startAudio(): Promise<void> {
    await this.#room.startAudio().catch(() => undefined);
    this.#look();
  }

  /** Ends the call for this page and gives the devices back. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    globalThis.removeEventListener?.('online', this.#onOnline);
    clearTimeout(this.#timer);
    this.#phase('closed');
    await this.#room.disconnect(true).catch(() => undefined);
    this.#video?.stop();
    this.#audio?.stop();
    stopPreview({ video: this.#video?.mediaStreamTrack ?? null, audio: this.#audio?.mediaStreamTrack ?? null });
  }

  #devices(): CallState['devices'] {
    return {
      camera: this.#video?.mediaStreamTrack.getSettings().deviceId ?? null,
      microphone: this.#audio?.mediaStreamTrack.getSettings().deviceId ?? null,
      speaker: chosenDevices.read().speaker ?? null,
    };
  }

  #makeRoom(): Room {
    const { speaker } = chosenDevices.read();
    const room = new Room({
      adaptiveStream: true,
      dynacast: true,
      // Back to the waiting room unpublishes; the patient keeps the self view.
      stopLocalTrackOnUnpublish: false,
      disconnectOnPageLeave: true,
      ...(speaker ? { audioOutput: { deviceId: speaker } } : {}),
      publishDefaults: { videoCodec: 'vp8', simulcast: true, red: true, dtx: true, stopMicTrackOnMute: false },
    });
    const look = () => this.#look();
    for (const event of [
      RoomEvent.ParticipantConnected, RoomEvent.ParticipantDisconnected, RoomEvent.TrackSubscribed, RoomEvent.TrackUnsubscribed,
      RoomEvent.TrackMuted, RoomEvent.TrackUnmuted, RoomEvent.ConnectionQualityChanged, RoomEvent.AudioPlaybackStatusChanged,
      RoomEvent.LocalTrackPublished, RoomEvent.LocalTrackUnpublished, RoomEvent.ParticipantNameChanged,
    ] as const) room.on(event, look);
    room.on(RoomEvent.ParticipantPermissionsChanged, (_before, who) => {
      if (who === room.localParticipant) this.#followPermission();
    });
    room.on(RoomEvent.Reconnecting, () => this.#phase('reconnecting'));
    room.on(RoomEvent.SignalReconnecting, () => this.#phase('reconnecting'));
    room.on(RoomEvent.Reconnected, () => { this.#phase('connected'); this.#followPermission(); });
    room.on(RoomEvent.Disconnected, (reason) => {
      if (this.#closed || this.#joining) return;
      if (reason === DisconnectReason.DUPLICATE_IDENTITY) { this.#phase('replaced'); return; }
      this.#again();
    });
    return room;
  }

  #again(): void {
    if (this.#closed) return;
    const delay = RETRY_MS[Math.min(this.#attempt, RETRY_MS.length - 1)] ?? 8000;
    this.#attempt += 1;
    this.#phase(this.#attempt > RETRY_MS.length ? 'failed' : 'reconnecting');
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => { this.#timer = undefined; void this.start(); }, delay);
  }

  /** Publishes where the server allows it, takes back where it does not. Steps run one after the other. */
  #followPermission(): void {
    const allowed = this.#room.localParticipant.permissions?.canPublish ?? false;
    this.#patch({ canPublish: allowed });
    this.#publishing = this.#publishing.then(() => this.#align()).catch(() => undefined);
  }

  async #align(): Promise<void> {
    const { localParticipant, state } = this.#room;
    if (this.#closed || state !== ConnectionState.Connected) return;
    const allowed = localParticipant.permissions?.canPublish ?? false;
    // The SDK's own types are not written for exactOptionalPropertyTypes; its tracks are LocalTracks all the same.
    const tracks = [this.#audio, this.#video].filter((track) => track !== null) as unknown as LocalTrack[];
    const video = this.#video as unknown as LocalTrack | null;
    for (const track of tracks) {
      const published = [...localParticipant.trackPublications.values()].some((p) => p.track === track);
      if (allowed && !published) {
        // A camera that is off has no picture to offer; it is published when it is turned on.
        if (track === video && track.isMuted) continue;
        await localParticipant.publishTrack(track, { source: track === video ? Track.Source.Camera : Track.Source.Microphone });
      } else if (!allowed && published) await localParticipant.unpublishTrack(track, false);
    }
    this.#look();
  }

  #look(): void {
    const remotes = [...this.#room.remoteParticipants.values()].map((p): RemotePerson => {
      const camera = p.getTrackPublication(Track.Source.Camera);
      const mic = p.getTrackPublication(Track.Source.Microphone);
      return {
        identity: p.identity,
        name: p.name ?? '',
        video: camera?.track && !camera.isMuted ? (camera.track as RemoteTrack) : null,
        audio: (mic?.track as RemoteTrack | undefined) ?? null,
        muted: mic === undefined || mic.isMuted,
        quality: p.connectionQuality === ConnectionQuality.Lost ? 'lost' : p.connectionQuality === ConnectionQuality.Poor ? 'poor' : 'good',
      };
    });
    this.#patch({ remotes, audioBlocked: this.#room.state === ConnectionState.Connected && !this.#room.canPlaybackAudio });
  }

  #phase(phase: CallPhase): void {
    if (this.state.get().phase !== phase) this.#patch({ phase, since: Date.now() });
  }

  #patch(change: Partial<CallState>): void {
    this.state.update((state) => ({ ...state, ...change }));
  }
}
