//! One peer connection of the `webrtc` crate on a loopback socket.

use super::count::{Counts, Track};
use super::shape::read_stamp;
use crate::{Context, Result};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8};
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind};
use std::sync::Arc;
use tokio::sync::watch;
use webrtc::media_stream::track_local::{TrackLocal, static_rtp::TrackLocalStaticRTP};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceCandidateInit, RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription, Registry,
    register_default_interceptors,
};

pub(super) const VIDEO_PT: u8 = 96;
pub(super) const AUDIO_PT: u8 = 111;

/// A peer connection; the candidates that come before the description wait in it.
pub(super) struct Peer {
    connection: Arc<dyn PeerConnection>,
    gathered: watch::Receiver<bool>,
    state: watch::Receiver<RTCPeerConnectionState>,
    early: Vec<RTCIceCandidateInit>,
    described: bool,
}

struct Handler {
    gathered: watch::Sender<bool>,
    state: watch::Sender<RTCPeerConnectionState>,
    counts: Option<Arc<Counts>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let Some(counts) = self.counts.clone() else { return };
        tokio::spawn(async move {
            let mut seen = Track::new(&counts, track.kind().await == RtpCodecKind::Video);
            while let Some(event) = track.poll().await {
                match event {
                    TrackRemoteEvent::OnRtpPacket(packet) => {
                        seen.packet(packet.header.sequence_number, read_stamp(&packet.payload));
                    }
                    TrackRemoteEvent::OnEnded => return,
                    _ => {}
                }
            }
        });
    }
}

impl Peer {
    /// `counts`: where what arrives is counted.
    pub(super) async fn new(counts: Option<Arc<Counts>>) -> Result<Self> {
        let mut media = MediaEngine::default();
        media.register_default_codecs()?;
        let registry = register_default_interceptors(Registry::new(), &mut media)?;
        let (gathered_tx, gathered) = watch::channel(false);
        let (state_tx, state) = watch::channel(RTCPeerConnectionState::New);
        let builder = PeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .with_handler(Arc::new(Handler {
                gathered: gathered_tx,
                state: state_tx,
                counts,
            }))
            .with_udp_addrs(vec!["127.0.0.1:0".to_owned()]);
        // Its future is large, and would make every future that awaits it large.
        let connection = Box::pin(builder.build()).await.context("a peer connection")?;
        Ok(Self {
            connection: Arc::new(connection),
            gathered,
            state,
            early: Vec::new(),
            described: false,
        })
    }

    pub(super) async fn add_track(&self, id: &str, kind: RtpCodecKind, ssrc: u32) -> Result<Arc<TrackLocalStaticRTP>> {
        let video = kind == RtpCodecKind::Video;
        let codec = RTCRtpCodec {
            mime_type: if video { MIME_TYPE_VP8 } else { MIME_TYPE_OPUS }.to_owned(),
            clock_rate: if video { 90_000 } else { 48_000 },
            channels: if video { 0 } else { 2 },
            sdp_fmtp_line: if video { "" } else { "minptime=10;useinbandfec=1" }.to_owned(),
            rtcp_feedback: Vec::new(),
        };
        let coding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                ssrc: Some(ssrc),
                ..Default::default()
            },
            codec,
            ..Default::default()
        };
        let media = MediaStreamTrack::new("bench".into(), id.into(), id.into(), kind, vec![coding]);
        let track = Arc::new(TrackLocalStaticRTP::new(media));
        self.connection
            .add_track(track.clone() as Arc<dyn TrackLocal>)
            .await
            .context("adding a track")?;
        Ok(track)
    }

    /// An offer with all its candidates.
    pub(super) async fn offer(&mut self) -> Result<String> {
        let offer = self.connection.create_offer(None).await.context("an offer")?;
        self.connection.set_local_description(offer).await.context("an offer")?;
        self.local_description().await
    }

    /// Takes an offer; the answer has all its candidates.
    pub(super) async fn answer(&mut self, sdp: String) -> Result<String> {
        self.set_remote(RTCSessionDescription::offer(sdp).context("the server's offer")?)
            .await?;
        let answer = self.connection.create_answer(None).await.context("an answer")?;
        self.connection
            .set_local_description(answer)
            .await
            .context("an answer")?;
        self.local_description().await
    }

    pub(super) async fn accept(&mut self, sdp: String) -> Result<()> {
        self.set_remote(RTCSessionDescription::answer(sdp).context("the server's answer")?)
            .await
    }

    pub(super) async fn candidate(&mut self, candidate: RTCIceCandidateInit) -> Result<()> {
        if !self.described {
            self.early.push(candidate);
            return Ok(());
        }
        self.connection
            .add_ice_candidate(candidate)
            .await
            .context("the server's candidate")
    }

    pub(super) fn state(&self) -> watch::Receiver<RTCPeerConnectionState> {
        self.state.clone()
    }

    pub(super) async fn close(&self) {
        // It ends either way.
        let _ = self.connection.close().await;
    }

    async fn set_remote(&mut self, description: RTCSessionDescription) -> Result<()> {
        self.connection
            .set_remote_description(description)
            .await
            .context("the server's description")?;
        self.described = true;
        for candidate in std::mem::take(&mut self.early) {
            self.candidate(candidate).await?;
        }
        Ok(())
    }

    async fn local_description(&mut self) -> Result<String> {
        self.gathered
            .wait_for(|done| *done)
            .await
            .context("gathering candidates")?;
        Ok(self
            .connection
            .local_description()
            .await
            .context("a local description")?
            .sdp)
    }
}
