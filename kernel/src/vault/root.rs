//! Where the root key is kept, and how it comes back at the start: providers behind one trait, and the header beside the
//! data that says which of them holds it and tells a wrong key from the right one.

use super::cipher::{Key, aad};
use crate::{
    Error, Result, TenantId,
    config::{Config, RootKind},
    id,
    secret::{Root, exposed},
};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// OWASP's second choice for argon2id: 64 MiB, three passes. It is asked once in a server's life.
const MEMORY_KIB: u32 = 65_536;
const PASSES: u32 = 3;
/// A header that asks for more was not written by us.
const MOST_KIB: u32 = 1 << 20;
const MOST_PASSES: u32 = 16;
const SHORTEST: usize = 12;
const FORMAT: u32 = 1;
const GIVE: &str = "Open the server's page and type it, or name a file that holds it in MEDTECH_VAULT_PASSPHRASE_FILE.";
const VERIFIER: &str = "vault verifier 1";

/// Keeps a root key, and gives it back.
pub trait RootProvider: Send + Sync {
    /// As in the header.
    fn kind(&self) -> RootKind;
    /// Takes the key into its care; answers what it wants to find in the header.
    fn keep(&self, root: &Root) -> Result<Value>;
    /// The key, or what is missing for it.
    fn fetch(&self, held: &Value) -> Result<Fetched>;
}

pub enum Fetched {
    Key(Root),
    Missing(Sealed),
}

/// Why the vault stays closed, and how to mend it: for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub why: String,
    pub mend: String,
}

impl Sealed {
    fn new(why: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            mend: mend.into(),
        }
    }
}

impl From<Sealed> for Error {
    fn from(sealed: Sealed) -> Self {
        Self::unavailable("vault.sealed", format!("{} {}", sealed.why, sealed.mend))
    }
}

/// What came of asking for the root key.
#[derive(Debug)]
pub enum Opened {
    Open(Root),
    Sealed(Sealed),
}

/// A file that only its owner reads.
pub struct KeyFile(pub PathBuf);

impl RootProvider for KeyFile {
    fn kind(&self) -> RootKind {
        RootKind::File
    }

    fn keep(&self, root: &Root) -> Result<Value> {
        if !self.0.exists() {
            root.save(&self.0)?;
        } else if Root::read(&self.0)
            .ok()
            .is_none_or(|there| there.bytes() != root.bytes())
        {
            return Err(Error::conflict(
                "vault.key_file_differs",
                format!(
                    "{} holds another key. Put that file away, or name another in vault.key_file.",
                    self.0.display()
                ),
            ));
        }
        Ok(Value::Null)
    }

    fn fetch(&self, _: &Value) -> Result<Fetched> {
        if !self.0.exists() {
            return Ok(Fetched::Missing(Sealed::new(
                format!("The root key file {} is missing.", self.0.display()),
                "Put it back from its backup; without it the data cannot be read.",
            )));
        }
        if let Some(why) = exposed(&self.0) {
            return Ok(Fetched::Missing(Sealed::new(
                "The root key file is not kept well.",
                why,
            )));
        }
        Root::read(&self.0).map(Fetched::Key)
    }
}

/// The key sealed under a passphrase: argon2id (RFC 9106) over a stored salt.
pub struct Passphrase(pub Option<Zeroizing<String>>);

#[derive(Serialize, Deserialize)]
struct Held {
    salt: String,
    memory_kib: u32,
    passes: u32,
    wrapped: String,
}

const PASSPHRASE_AAD: &[u8] = b"medtech root by passphrase 1";

fn stretch(passphrase: &str, salt: &[u8], memory_kib: u32, passes: u32) -> Result<Key> {
    let failed = |e: argon2::Error| Error::internal("vault.argon2", e.to_string());
    let params = Params::new(memory_kib, passes, 1, Some(32)).map_err(failed)?;
    let mut key = Zeroizing::new([0_u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .map_err(failed)?;
    Key::new(&key)
}

impl RootProvider for Passphrase {
    fn kind(&self) -> RootKind {
        RootKind::Passphrase
    }

    fn keep(&self, root: &Root) -> Result<Value> {
        let given = self.0.as_ref().filter(|p| p.chars().count() >= SHORTEST);
        let given = given.ok_or_else(|| {
            Error::unprocessable(
                "vault.passphrase_short",
                "A passphrase for the vault has at least 12 characters.",
            )
        })?;
        let salt = id::random::<16>();
        let wrapped = stretch(given, &salt, MEMORY_KIB, PASSES)?.seal(PASSPHRASE_AAD, root.bytes())?;
        Ok(json!(Held {
            salt: STANDARD.encode(salt),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            wrapped: STANDARD.encode(wrapped),
        }))
    }

    fn fetch(&self, held: &Value) -> Result<Fetched> {
        let Some(given) = &self.0 else {
            return Ok(Fetched::Missing(Sealed::new("The passphrase was not given.", GIVE)));
        };
        let broken = || Error::internal("vault.header", "the header does not hold a sealed root key");
        let held = Held::deserialize(held).map_err(|_| broken())?;
        if held.memory_kib > MOST_KIB || held.passes > MOST_PASSES {
            return Err(broken());
        }
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| broken());
        let key = stretch(given, &decode(&held.salt)?, held.memory_kib, held.passes)?;
        let wrong = || Error::forbidden("vault.wrong_passphrase", "That is not the passphrase.");
        let root = Zeroizing::new(key.open(PASSPHRASE_AAD, &decode(&held.wrapped)?).map_err(|_| wrong())?);
        let root = <[u8; 32]>::try_from(root.as_slice()).map_err(|_| broken())?;
        Ok(Fetched::Key(Root::from_bytes(root)))
    }
}

/// A key service outside: a cloud's, or a hardware module's.
pub trait KeyService: Send + Sync {
    fn wrap(&self, key: &[u8]) -> Result<Vec<u8>>;
    /// The key again; an unavailable service is an error of the kind `Unavailable`.
    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>>;
}

/// The key wrapped by a service that never gives its own key away.
pub struct External<S>(pub S);

impl<S: KeyService> RootProvider for External<S> {
    fn kind(&self) -> RootKind {
        RootKind::External
    }

    fn keep(&self, root: &Root) -> Result<Value> {
        Ok(json!({ "wrapped": STANDARD.encode(self.0.wrap(root.bytes())?) }))
    }

    fn fetch(&self, held: &Value) -> Result<Fetched> {
        let broken = || Error::internal("vault.header", "the header does not hold a wrapped root key");
        let wrapped = held.get("wrapped").and_then(Value::as_str).ok_or_else(broken)?;
        let wrapped = STANDARD.decode(wrapped).map_err(|_| broken())?;
        let key = self.0.unwrap(&wrapped)?;
        let key = <[u8; 32]>::try_from(key.as_slice()).map_err(|_| broken())?;
        Ok(Fetched::Key(Root::from_bytes(key)))
    }
}

/// `secrets/vault.json`.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    root: RootKind,
    verifier: String,
    held: Value,
}

fn header_path(config: &Config) -> PathBuf {
    config.data_dir.join("secrets").join("vault.json")
}

fn read_header(path: &Path) -> Result<Option<Header>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::internal("vault.header", e)),
    };
    let header: Header = serde_json::from_slice(&bytes).map_err(|e| Error::internal("vault.header", e))?;
    if header.format != FORMAT {
        return Err(Error::internal("vault.header", "a format of another release"));
    }
    Ok(Some(header))
}

/// The header is what the next start asks by: it is replaced only for a keeper that gives the same key back.
fn write_header(config: &Config, provider: &dyn RootProvider, root: &Root) -> Result<()> {
    let header = Header {
        format: FORMAT,
        root: provider.kind(),
        verifier: STANDARD.encode(verifier(root)),
        held: provider.keep(root)?,
    };
    match provider.fetch(&header.held)? {
        Fetched::Key(back) if back.bytes() == root.bytes() => {}
        Fetched::Key(_) => return Err(wrong_key().into()),
        Fetched::Missing(why) => return Err(why.into()),
    }
    let text = serde_json::to_vec_pretty(&header).map_err(|e| Error::internal("vault.header", e))?;
    replace(&header_path(config), &text).map_err(|e| Error::internal("vault.header_unwritable", e))
}

/// Tells root keys apart without telling anything of them.
pub(super) fn verifier(root: &Root) -> [u8; 32] {
    id::sha256(&aad(&[VERIFIER.as_bytes(), &root.derive(VERIFIER, TenantId::SYSTEM)]))
}

/// The whole file or the one before, also across a power cut.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let next = path.with_extension("next");
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(dir)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    fs::File::open(dir)?.sync_all()
}

fn provider(config: &Config, kind: RootKind, given: Option<Zeroizing<String>>) -> Result<Box<dyn RootProvider>> {
    match kind {
        RootKind::File => Ok(Box::new(KeyFile(config.vault.key_file(&config.data_dir)))),
        RootKind::Passphrase => Ok(Box::new(Passphrase(match given {
            Some(given) => Some(given),
            None => passphrase_file(config)?,
        }))),
        RootKind::External => Err(Error::unavailable(
            "vault.no_service",
            "The root key is held by a key service, and this build knows none.",
        )),
    }
}

fn passphrase_file(config: &Config) -> Result<Option<Zeroizing<String>>> {
    let Some(path) = &config.vault.passphrase_file else {
        return Ok(None);
    };
    if let Some(why) = exposed(path) {
        return Err(Error::bad("vault.passphrase_file", why));
    }
    match fs::read_to_string(path) {
        Ok(text) => {
            let text = Zeroizing::new(text);
            Ok(Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::internal("vault.passphrase_file", e)),
    }
}

/// Asks for the root key. One is made only where there is neither a header nor data: a second root key beside data
/// that another one sealed would hide that the first is lost.
pub fn unlock(config: &Config, given: Option<Zeroizing<String>>, data_exists: bool) -> Result<Opened> {
    let wanted = config.vault.root;
    let Some(header) = read_header(&header_path(config))? else {
        return first(config, wanted, given, data_exists);
    };
    if header.root != wanted {
        return Ok(Opened::Sealed(other_kind(header.root, wanted)));
    }
    match provider(config, header.root, given)?.fetch(&header.held)? {
        Fetched::Missing(sealed) => Ok(Opened::Sealed(sealed)),
        Fetched::Key(root) if STANDARD.encode(verifier(&root)) == header.verifier => Ok(Opened::Open(root)),
        Fetched::Key(_) => Ok(Opened::Sealed(wrong_key())),
    }
}

/// A start without a header: the very first, or the first of this release on older data.
fn first(config: &Config, wanted: RootKind, given: Option<Zeroizing<String>>, data_exists: bool) -> Result<Opened> {
    let key_file = KeyFile(config.vault.key_file(&config.data_dir));
    if let Fetched::Key(root) = key_file.fetch(&Value::Null)? {
        write_header(config, &key_file, &root)?;
        return Ok(match wanted {
            RootKind::File => Opened::Open(root),
            _ => Opened::Sealed(other_kind(RootKind::File, wanted)),
        });
    }
    if data_exists {
        return Ok(Opened::Sealed(Sealed::new(
            "There is data here, and its root key is missing.",
            format!(
                "Put {} and secrets/vault.json back from their backup.",
                key_file.0.display()
            ),
        )));
    }
    let given = match given {
        Some(given) => Some(given),
        None => passphrase_file(config)?,
    };
    if wanted == RootKind::Passphrase && given.is_none() {
        return Ok(Opened::Sealed(Sealed::new(
            "This is the first start, and no passphrase was given.",
            format!("{GIVE} It is asked for at every start, and nothing can replace it."),
        )));
    }
    let root = Root::from_bytes(id::random());
    write_header(config, &*provider(config, wanted, given)?, &root)?;
    Ok(Opened::Open(root))
}

pub(super) fn wrong_key() -> Sealed {
    Sealed::new(
        "The root key is not the one this data was sealed with.",
        "Put the right one back from its backup.",
    )
}

fn other_kind(is: RootKind, wanted: RootKind) -> Sealed {
    Sealed::new(
        format!(
            "The root key is kept as `{}`, and vault.root says `{}`.",
            is.name(),
            wanted.name()
        ),
        format!(
            "Set vault.root = \"{}\", or run `medtech keys protect` to change how it is kept.",
            is.name()
        ),
    )
}

/// Gives the root key into the care of what `vault.root` names, a new passphrase included. A key file stays until the
/// operator deletes it.
pub fn protect(config: &Config, now: Option<Zeroizing<String>>, next: Option<Zeroizing<String>>) -> Result<()> {
    let header = read_header(&header_path(config))?
        .ok_or_else(|| Error::not_found("vault.no_header", "There is no vault here yet. Start the server once."))?;
    match provider(config, header.root, now)?.fetch(&header.held)? {
        Fetched::Missing(sealed) => Err(sealed.into()),
        Fetched::Key(root) if STANDARD.encode(verifier(&root)) != header.verifier => Err(wrong_key().into()),
        Fetched::Key(root) => write_header(config, &*provider(config, config.vault.root, next)?, &root),
    }
}

#[cfg(test)]
mod tests;
