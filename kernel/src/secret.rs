//! The root key, and the keys derived from it.

use crate::{Error, Result, TenantId, id};
use aws_lc_rs::hkdf;
use std::{fmt, fs, io::Write, path::Path, sync::Arc};

/// 256 bits from which every other key is derived (HKDF-SHA256, RFC 5869). Kept in a file that only its owner reads.
#[derive(Clone)]
pub struct Root(Arc<[u8; 32]>);

impl Root {
    /// Reads `path`, or makes the key there on the first start.
    pub fn open(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(bytes) => match <[u8; 32]>::try_from(bytes.as_slice()) {
                Ok(key) => Ok(Self(Arc::new(key))),
                Err(e) => Err(Error::internal("secret.root_malformed", e)),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Self::create(path),
            Err(e) => Err(Error::internal("secret.root_unreadable", e)),
        }
    }

    fn create(path: &Path) -> Result<Self> {
        let key = id::random::<32>();
        let write = || -> std::io::Result<()> {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(path)?;
            file.write_all(&key)?;
            file.sync_all()?;
            // The name must survive a power cut as well as the bytes.
            match path.parent() {
                Some(dir) => fs::File::open(dir)?.sync_all(),
                None => Ok(()),
            }
        };
        write().map_err(|e| Error::internal("secret.root_unwritable", e))?;
        Ok(Self(Arc::new(key)))
    }

    /// A fixed key, for tests.
    #[must_use]
    pub fn from_bytes(key: [u8; 32]) -> Self {
        Self(Arc::new(key))
    }

    /// The key for one purpose in one tenant. The same label and tenant give the same key for ever.
    #[must_use]
    pub fn derive(&self, label: &str, tenant: TenantId) -> [u8; 32] {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"medtech root v1");
        let tenant = tenant.to_string();
        let info = [label.as_bytes(), b"\0", tenant.as_bytes()];
        let mut out = [0_u8; 32];
        #[expect(
            clippy::expect_used,
            reason = "invariant: 32 bytes is within HKDF-SHA256's limit of 8,160"
        )]
        salt.extract(self.0.as_ref())
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut out))
            .expect("32 bytes of HKDF output");
        out
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Root(..)")
    }
}
