//! The keys of a connection's media: the library negotiates them (DTLS-SRTP, RFC 5764) and keeps them to itself, so its
//! provider of DTLS is wrapped in one that looks at what passes.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Instant;

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion, SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};
use zeroize::Zeroizing;

use super::srtp::{Opener, Profile, Sealer};

/// What a handshake agreed on: how we protect what we send, and how the other side does.
#[derive(Debug)]
pub(crate) struct Keys {
    pub sealer: Sealer,
    pub opener: Opener,
}

thread_local! {
    /// Of the connection that this thread is driving. The library asks its provider and hands nothing out, so this is the
    /// way from the one to the other; whoever drives a connection takes them at once.
    static AGREED: RefCell<Option<Keys>> = const { RefCell::new(None) };
}

/// The keys that came up since this was asked last, on this thread.
pub(crate) fn take() -> Option<Keys> {
    AGREED.with_borrow_mut(Option::take)
}

/// The same provider, observed.
pub(crate) fn observed(mut provider: CryptoProvider) -> CryptoProvider {
    static OBSERVER: OnceLock<Observer> = OnceLock::new();
    provider.dtls_provider = OBSERVER.get_or_init(|| Observer(provider.dtls_provider));
    provider
}

impl Keys {
    /// RFC 5764 section 4.2: client's key, server's key, client's salt, server's salt.
    fn new(material: &[u8], profile: SrtpProfile, we_are_client: bool) -> Option<Keys> {
        let profile = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => Profile::Counter,
            SrtpProfile::AEAD_AES_128_GCM => Profile::Gcm128,
            SrtpProfile::AEAD_AES_256_GCM => Profile::Gcm256,
            _ => return None,
        };
        let (key, salt) = profile.lengths();
        let (keys, salts) = material.split_at_checked(2 * key)?;
        let client = (keys.get(..key)?, salts.get(..salt)?);
        let server = (keys.get(key..)?, salts.get(salt..)?);
        let (ours, theirs) = if we_are_client {
            (client, server)
        } else {
            (server, client)
        };
        Some(Keys {
            sealer: Sealer::new(profile, ours.0, ours.1)?,
            opener: Opener::new(profile, theirs.0, theirs.1)?,
        })
    }
}

#[derive(Debug)]
struct Observer(&'static dyn DtlsProvider);

impl DtlsProvider for Observer {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        self.0.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = self.0.new_dtls(cert, now, version, mtu)?;
        Ok(Box::new(Observed(inner)))
    }

    fn is_test(&self) -> bool {
        self.0.is_test()
    }
}

#[derive(Debug)]
struct Observed(Box<dyn DtlsInstance>);

impl DtlsInstance for Observed {
    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let active = self.0.is_active();
        let output = self.0.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            let material = Zeroizing::new(material.to_vec());
            AGREED.set(Keys::new(&material, *profile, active));
        }
        output
    }

    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}
