//! Certificates and their keys: read from files or issued by an authority, chosen by the name that a client asks for,
//! exchanged while all runs.

use medtech_kernel::{Error, Result, config, id};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// What the files hold now, and what was issued. Clones of the inner sets are what connections under way keep.
pub(crate) struct Certificates {
    files: config::Tls,
    now: RwLock<Arc<Set>>,
    issued: RwLock<Arc<Set>>,
}

#[derive(Default)]
struct Set {
    pairs: Vec<Arc<Pair>>,
    by_name: HashMap<String, Arc<Pair>>,
    /// Of the bytes of every file: another one means that something changed.
    print: [u8; 32],
}

/// A certificate with the chain above it, and its key.
pub(crate) struct Pair {
    /// DNS names, in small letters; `*.` before a name stands for one label.
    pub(crate) names: Vec<String>,
    /// Unix seconds from which on it is valid.
    pub(crate) begins: u64,
    /// Unix seconds after which it is not.
    pub(crate) ends: u64,
    pub(crate) place: PathBuf,
    /// The key's own file, where it lies in one.
    pub(crate) key_place: Option<PathBuf>,
    /// Taken where no name fits.
    is_default: bool,
    pub(crate) certified: Arc<CertifiedKey>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    pub(crate) fn load(files: &config::Tls) -> Result<Self> {
        Ok(Self {
            now: RwLock::new(Arc::new(read(files)?)),
            issued: RwLock::default(),
            files: files.clone(),
        })
    }

    /// Takes over what the files hold, if all of it is good; else everything stays as it was.
    pub(crate) fn look_again(&self) {
        match read(&self.files) {
            Ok(set) if set.print != self.set().print => {
                tracing::info!(certificates = set.pairs.len(), "tls: new certificates are in use");
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
            }
            Ok(_) => {}
            // Often a moment between the writing of two files; said each time, because it may be no moment.
            Err(e) => tracing::warn!(why = %e.message, "tls: the certificates stay as they were"),
        }
    }

    /// Takes over what an authority has issued, if it is something else than before.
    pub(crate) fn take_issued(&self, pairs: Vec<Pair>, print: [u8; 32]) {
        tracing::info!(certificates = pairs.len(), "tls: issued certificates are in use");
        *self.issued.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Set::new(pairs, print));
    }

    /// What tells the issued ones of now from others.
    pub(crate) fn issued_print(&self) -> [u8; 32] {
        self.issued().print
    }

    /// All of them, those of files first.
    pub(crate) fn pairs(&self) -> Vec<Arc<Pair>> {
        let mut all = self.set().pairs.clone();
        all.extend(self.issued().pairs.iter().cloned());
        all
    }

    /// The one for a name, or for a client that names none. Files go before what was issued.
    pub(crate) fn of(&self, name: Option<&str>) -> Option<Arc<Pair>> {
        let (set, issued) = (self.set(), self.issued());
        let fallback = || set.pairs.iter().find(|p| p.is_default);
        match name.map(str::to_ascii_lowercase) {
            None => fallback()
                .or_else(|| set.pairs.first())
                .or_else(|| issued.pairs.first()),
            Some(name) => set.named(&name).or_else(|| issued.named(&name)).or_else(fallback),
        }
        .cloned()
    }

    /// Does a file hold one for this name?
    pub(crate) fn is_in_files(&self, name: &str) -> bool {
        self.set().named(name).is_some()
    }

    fn set(&self) -> Arc<Set> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn issued(&self) -> Arc<Set> {
        self.issued.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Set {
    fn new(pairs: Vec<Pair>, print: [u8; 32]) -> Self {
        let pairs: Vec<Arc<Pair>> = pairs.into_iter().map(Arc::new).collect();
        let mut by_name: HashMap<String, Arc<Pair>> = HashMap::new();
        for pair in &pairs {
            for name in &pair.names {
                // Of two for one name the one that lasts longer.
                let better = by_name.get(name).is_none_or(|other| other.ends < pair.ends);
                if better {
                    by_name.insert(name.clone(), pair.clone());
                }
            }
        }
        Self { pairs, by_name, print }
    }

    fn named(&self, name: &str) -> Option<&Arc<Pair>> {
        let wild = || name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.by_name.get(name).or_else(|| self.by_name.get(&wild()?))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.of(hello.server_name())?.certified.clone())
    }
}

fn read(files: &config::Tls) -> Result<Set> {
    let mut bytes = Vec::new();
    let mut pairs = Vec::new();
    match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => pairs.push(pair(cert, key, true, &mut bytes)?),
        (None, None) => {}
        _ => return Err(wrong("tls.cert and tls.key belong together")),
    }
    if let Some(directory) = &files.directory {
        for (cert, key) in places(directory)? {
            pairs.push(pair(&cert, &key, false, &mut bytes)?);
        }
    }
    if pairs.is_empty() && files.acme_directory.is_none() {
        return Err(wrong("tls.directory holds no certificate with its key"));
    }
    Ok(Set::new(pairs, id::sha256(&bytes)))
}

/// Pairs of a directory, by name: `NAME.crt` or `.pem` beside `NAME.key`; or a folder with `fullchain.pem` and
/// `privkey.pem` (certbot), or `tls.crt` and `tls.key` (Kubernetes).
fn places(directory: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let failed = |e: std::io::Error| wrong(format!("{}: {e}", directory.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let folder = [("fullchain.pem", "privkey.pem"), ("tls.crt", "tls.key")];
        let inside = folder.map(|(cert, key)| (path.join(cert), path.join(key)));
        if path.is_dir() {
            found.extend(inside.into_iter().find(|(cert, key)| cert.exists() && key.exists()));
        } else if path.extension().is_some_and(|e| e == "crt" || e == "pem") {
            let key = path.with_extension("key");
            if key.exists() {
                found.push((path, key));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn pair(cert: &Path, key: &Path, is_default: bool, seen: &mut Vec<u8>) -> Result<Pair> {
    let load = |path: &Path| std::fs::read(path).map_err(|e| wrong(format!("{}: {e}", path.display())));
    let (cert_pem, key_pem) = (load(cert)?, zeroize::Zeroizing::new(load(key)?));
    seen.extend_from_slice(&id::sha256(&cert_pem));
    seen.extend_from_slice(&id::sha256(&key_pem));
    let mut pair = Pair::of_pem(cert, key, &cert_pem, &key_pem)?;
    (pair.key_place, pair.is_default) = (Some(key.to_owned()), is_default);
    Ok(pair)
}

impl Pair {
    /// A certificate and its key that belong together; `cert` and `key` are what they are called when they do not.
    pub(crate) fn of_pem(cert: &Path, key: &Path, cert_pem: &[u8], key_pem: &[u8]) -> Result<Self> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert_pem)
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| wrong(format!("{}: {e}", cert.display())))?;
        let end = chain
            .first()
            .ok_or_else(|| wrong(format!("{} holds no certificate in PEM", cert.display())))?;
        let facts = facts(end).ok_or_else(|| wrong(format!("{}: not an X.509 certificate", cert.display())))?;
        let private = PrivateKeyDer::from_pem_slice(key_pem).map_err(|e| wrong(format!("{}: {e}", key.display())))?;
        let certified = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider()).map_err(|e| {
            let (cert, key) = (cert.display(), key.display());
            wrong(format!(
                "{key} is not the key of {cert}, or one of them cannot be used: {e}"
            ))
        })?;
        Ok(Self {
            names: facts.names,
            begins: facts.begins,
            ends: facts.ends,
            place: cert.to_owned(),
            key_place: None,
            is_default: false,
            certified: Arc::new(certified),
        })
    }
}

struct Facts {
    names: Vec<String>,
    begins: u64,
    ends: u64,
}

fn facts(der: &[u8]) -> Option<Facts> {
    let certificate = Certificate::from_der(der).ok()?;
    let body = certificate.tbs_certificate();
    let names = match body.get_extension::<SubjectAltName>().ok()? {
        None => Vec::new(),
        Some((_, SubjectAltName(names))) => names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
                _ => None,
            })
            .collect(),
    };
    let validity = body.validity();
    Some(Facts {
        names,
        begins: validity.not_before.to_unix_duration().as_secs(),
        ends: validity.not_after.to_unix_duration().as_secs(),
    })
}

fn wrong(what: impl Into<String>) -> Error {
    Error::bad("config.tls", format!("tls: {}", what.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate of these names that vouches for itself, in files of this stem.
    fn put(dir: &Path, stem: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let (cert, key) = (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")));
        std::fs::create_dir_all(cert.parent().expect("a folder")).expect("a folder");
        std::fs::write(&cert, made.cert.pem()).expect("written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        (cert, key)
    }

    fn of_directory(dir: &Path) -> config::Tls {
        config::Tls {
            directory: Some(dir.to_owned()),
            ..config::Tls::default()
        }
    }

    fn place(all: &Certificates, name: Option<&str>) -> Option<String> {
        let stem = all.of(name)?.place.file_stem()?.to_str()?.to_owned();
        Some(stem)
    }

    #[test]
    fn each_name_gets_its_own_and_a_stranger_none_of_them() {
        let dir = tempfile::tempdir().expect("a directory");
        put(dir.path(), "north", &["north.example"]);
        put(dir.path(), "all", &["*.clinics.example", "clinics.example"]);
        put(dir.path(), "south/tls", &["South.example"]);
        let all = Certificates::load(&of_directory(dir.path())).expect("good certificates");
        let of = |name| place(&all, name);
        assert_eq!(of(Some("north.example")).as_deref(), Some("north"));
        assert_eq!(of(Some("NORTH.example")).as_deref(), Some("north"));
        assert_eq!(of(Some("a.clinics.example")).as_deref(), Some("all"));
        assert_eq!(of(Some("south.example")).as_deref(), Some("tls"));
        assert_eq!(of(Some("a.b.clinics.example")), None);
        assert_eq!(of(Some("example")), None);
        assert!(of(None).is_some());
        // With one for all, that is shown to strangers: they see whom they have reached.
        let (cert, key) = put(&dir.path().join("other"), "main", &["main.example"]);
        let files = config::Tls {
            cert: Some(cert),
            key: Some(key),
            ..of_directory(dir.path())
        };
        let all = Certificates::load(&files).expect("good certificates");
        assert_eq!(place(&all, Some("stranger.example")).as_deref(), Some("main"));
        assert_eq!(place(&all, None).as_deref(), Some("main"));
        assert_eq!(place(&all, Some("north.example")).as_deref(), Some("north"));
    }

    #[test]
    fn new_files_are_taken_over_and_spoiled_ones_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = put(dir.path(), "north", &["north.example"]);
        let all = Certificates::load(&of_directory(dir.path())).expect("good certificates");
        let shown = || all.of(Some("north.example")).map(|p| p.certified.cert.clone());
        let first = shown();
        put(dir.path(), "north", &["north.example"]);
        assert_eq!(shown(), first, "not before it is looked at");
        all.look_again();
        let second = shown();
        assert_ne!(second, first);
        let good = std::fs::read(&key).expect("a key");
        put(dir.path(), "else", &["else.example"]);
        std::fs::rename(dir.path().join("else.key"), &key).expect("renamed");
        all.look_again();
        assert_eq!(shown(), second, "another certificate's key");
        std::fs::write(&key, good).expect("written");
        std::fs::write(&cert, "half of").expect("written");
        all.look_again();
        assert_eq!(shown(), second);
    }

    #[test]
    fn what_cannot_work_stops_the_start_and_names_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, _) = put(dir.path(), "a", &["a.example"]);
        let (_, other) = put(dir.path(), "b", &["b.example"]);
        let why = |cert: Option<&Path>, key: Option<&Path>| {
            let files = config::Tls {
                cert: cert.map(Path::to_owned),
                key: key.map(Path::to_owned),
                ..config::Tls::default()
            };
            Certificates::load(&files)
                .err()
                .map(|e| e.message.into_owned())
                .unwrap_or_default()
        };
        assert!(why(Some(&cert), Some(&other)).contains("b.key is not the key of"));
        assert!(why(Some(&cert), None).contains("belong together"));
        assert!(why(Some(&dir.path().join("none.crt")), Some(&other)).contains("none.crt"));
        assert!(why(Some(&other), Some(&other)).contains("no certificate"));
        let empty = tempfile::tempdir().expect("a directory");
        assert!(Certificates::load(&of_directory(empty.path())).is_err());
    }
}
