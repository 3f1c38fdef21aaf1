//! The root key, and the keys derived from it.

use crate::{Error, Result, TenantId, id};
use aws_lc_rs::hkdf;
use std::{fmt, fs, io::Write, path::Path, sync::Arc};
use zeroize::Zeroizing;

/// 256 bits from which every other key is derived (HKDF-SHA256, RFC 5869). Kept in a file that only its owner reads.
#[derive(Clone)]
pub struct Root(Arc<Zeroizing<[u8; 32]>>);

impl Root {
    /// Reads `path`, or makes the key there when it is absent. Only for where there cannot be data yet: the server asks
    /// [`crate::vault::unlock`].
    pub fn open(path: &Path) -> Result<Self> {
        if path.exists() {
            return Self::read(path);
        }
        let root = Self::from_bytes(id::random());
        root.save(path)?;
        Ok(root)
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = Zeroizing::new(fs::read(path).map_err(|e| Error::internal("secret.root_unreadable", e))?);
        match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(key) => Ok(Self::from_bytes(key)),
            Err(e) => Err(Error::internal("secret.root_malformed", e)),
        }
    }

    /// Writes the key where there is no file yet, for its owner alone.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(path)?;
            file.write_all(self.bytes())?;
            file.sync_all()?;
            // The name must survive a power cut as well as the bytes.
            match path.parent() {
                Some(dir) => fs::File::open(dir)?.sync_all(),
                None => Ok(()),
            }
        };
        write().map_err(|e| Error::internal("secret.root_unwritable", e))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key with these bytes.
    #[must_use]
    pub fn from_bytes(key: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(key)))
    }

    /// The key for one purpose in one tenant. The same label and tenant give the same key for ever.
    #[must_use]
    pub fn derive(&self, label: &str, tenant: TenantId) -> [u8; 32] {
        let tenant = tenant.to_string();
        expand(self.bytes(), &[label.as_bytes(), b"\0", tenant.as_bytes()])
    }
}

/// Why a file that holds a secret is not believed to be one, and how to mend it: others than its owner may read it.
/// Files that systemd hands over ($CREDENTIALS_DIRECTORY) are its own care: their mode shows an access list's mask.
#[must_use]
pub fn exposed(path: &Path) -> Option<String> {
    let handed_over = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|dir| path.starts_with(dir));
    let mode = mode(path).filter(|mode| mode & 0o077 != 0 && !handed_over)?;
    Some(format!(
        "{} can be read or written by others than its owner (mode {:03o}). Run: chmod 600 {}",
        path.display(),
        mode & 0o777,
        path.display()
    ))
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path)
        .ok()
        .map(|m| std::os::unix::fs::MetadataExt::mode(&m))
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}

/// HKDF-SHA256 with our salt.
pub(crate) fn expand(secret: &[u8; 32], info: &[&[u8]]) -> [u8; 32] {
    let mut out = [0_u8; 32];
    #[expect(
        clippy::expect_used,
        reason = "invariant: 32 bytes is within HKDF-SHA256's limit of 8,160"
    )]
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"medtech root v1")
        .extract(secret)
        .expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes of HKDF output");
    out
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Root(..)")
    }
}
