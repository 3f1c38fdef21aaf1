//! What `medtech doctor` says of the certificates: would a browser believe them, for these names, and how long?

use super::{
    acme::{self, store::Host},
    certificates::{Certificates, Pair},
};
use crate::doctor::{Finding, ok, wrong};
use medtech_kernel::clock::{Millis, rfc3339};
use rustls::{
    CertificateError, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{ServerName, UnixTime},
};
use std::{collections::BTreeSet, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

/// Whoever renews by a program does so a month before the end; a week later something is wrong.
const SOON_S: u64 = 21 * 24 * 3600;

pub(crate) fn certificates(all: &Certificates, hosts: BTreeSet<String>, now: Millis) -> Vec<Finding> {
    let now = Duration::from_millis(u64::try_from(now).unwrap_or_default());
    let mut found: Vec<Finding> = all
        .pairs()
        .iter()
        .flat_map(|pair| std::iter::once(ending(pair, now)).chain(pair.key_place.as_deref().map(key)))
        .collect();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    found.extend(hosts.iter().map(|host| chain(all, host, &roots, now)));
    found
}

/// How it stands with the names that an authority is asked for.
pub(crate) fn issued(hosts: &[Host], names: &acme::Names) -> Vec<Finding> {
    let one = |host: &Host| match (host.failures, host.issued_at) {
        (0, 0) => ok(format!("certificate of {}: not asked for yet", host.host)),
        (0, _) => ok(format!(
            "certificate of {}: renewed from {}",
            host.host,
            rfc3339(host.next_at)
        )),
        (n, _) => wrong(
            format!(
                "certificate of {}: not issued, {n} times in a row: {}; asked for again at {}",
                host.host,
                host.why,
                rfc3339(host.next_at)
            ),
            "the name must lead here: port 443 to http.tls_bind (tls-alpn-01), or port 80 to http.bind (http-01); and this \
             machine must reach tls.acme_directory",
        ),
    };
    let mut found: Vec<Finding> = hosts.iter().map(one).collect();
    if names.left_out > 0 {
        found.push(wrong(
            format!("{} names more than {} get no certificate", names.left_out, acme::MOST),
            "put certificates of theirs into tls.directory",
        ));
    }
    if names.wanted.is_empty() {
        found.push(wrong(
            "tls.acme_directory is set, and there is no name to ask for",
            "set public_url to the https:// address by which people come, or give clinics their domains",
        ));
    }
    found
}

fn ending(pair: &Pair, now: Duration) -> Finding {
    let end = rfc3339(i64::try_from(pair.ends).unwrap_or(i64::MAX).saturating_mul(1000));
    let what = format!("certificate {} ends {end}", pair.place.display());
    match pair.ends.checked_sub(now.as_secs()) {
        None => wrong(
            format!("{what}: it has ended"),
            "renew it; a running server takes the new files over",
        ),
        Some(left) if left < SOON_S => wrong(
            format!("{what}, in {} days", left / 86_400),
            "renew it; a running server takes the new files over",
        ),
        Some(_) => ok(what),
    }
}

fn key(place: &Path) -> Finding {
    match place.metadata().map(|m| m.mode()) {
        Ok(mode) if mode & 0o007 != 0 => wrong(
            format!(
                "key {} can be read by every user (mode {:o})",
                place.display(),
                mode & 0o777
            ),
            format!("chmod o-rwx {}", place.display()),
        ),
        _ => ok(format!("key {} belongs to its certificate", place.display())),
    }
}

/// As a browser looks at it: name, authority, time.
fn chain(all: &Certificates, host: &str, roots: &RootCertStore, now: Duration) -> Finding {
    let Some(pair) = all.of(Some(host)) else {
        return wrong(
            format!("TLS for {host}: no certificate has this name"),
            "put one into tls.directory",
        );
    };
    let place = pair.place.display();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::new(aws_lc_rs::default_provider()));
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let (Ok(verifier), Ok(name), Some((end, between))) = (verifier.build(), name, pair.certified.cert.split_first())
    else {
        return wrong(
            format!("TLS for {host}: {place} cannot be examined on this machine"),
            "install the authorities browsers know (Debian: ca-certificates)",
        );
    };
    let verdict = verifier.verify_server_cert(end, between, &name, &[], UnixTime::since_unix_epoch(now));
    let Err(why) = verdict else {
        return ok(format!("TLS for {host}: {place} is good"));
    };
    let (what, mend) = match &why {
        rustls::Error::InvalidCertificate(e) => match e {
            CertificateError::UnknownIssuer => (
                "this machine knows no authority that vouches for it",
                "put the certificates between it and the root behind it in the same file; one of an authority of your \
                 own must be made known to every browser and device",
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                "it has another name",
                "get one for this name, or correct public_url or the clinic's domain",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => ("it has ended", "renew it"),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("it is not valid yet", "set the clock, or wait")
            }
            _ => ("it is not one for web servers", "get one for TLS servers"),
        },
        _ => ("it cannot be read", "get one for TLS servers"),
    };
    wrong(format!("TLS for {host}: {place}: {what} ({why})"), mend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use medtech_kernel::config;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn name_chain_end_and_key_are_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let issuer = {
            let mut params = CertificateParams::new(Vec::new()).expect("parameters");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
                .distinguished_name
                .push(DnType::CommonName, "Authority of the test");
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
        };
        let key_pair = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["north.example".to_owned()]).expect("parameters");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let made = params.signed_by(&key_pair, &issuer).expect("a certificate");
        let (cert, key) = (dir.path().join("n.crt"), dir.path().join("n.key"));
        std::fs::write(&cert, made.pem()).expect("written");
        std::fs::write(&key, key_pair.serialize_pem()).expect("written");
        let mode = |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).expect("a mode");
        mode(0o600);
        let all = Certificates::load(&config::Tls {
            directory: Some(dir.path().to_owned()),
            ..config::Tls::default()
        })
        .expect("good certificates");
        let mut roots = RootCertStore::empty();
        let at = |day: u64| Duration::from_secs(1_767_225_600 + day * 86_400); // 2026-01-01
        let said = |roots: &RootCertStore, host: &str, day| {
            let finding = chain(&all, host, roots, at(day));
            (finding.mend.is_some(), finding.what)
        };
        let other = rcgen::generate_simple_self_signed(vec!["x.example".to_owned()]).expect("a certificate");
        roots.add(other.cert.der().clone()).expect("a root");
        assert!(said(&roots, "north.example", 9).1.contains("no authority"));
        roots.add(issuer.der().clone()).expect("a root");
        assert!(!said(&roots, "north.example", 9).0);
        assert!(
            said(&roots, "south.example", 9)
                .1
                .contains("no certificate has this name")
        );
        assert!(said(&roots, "north.example", 99).1.contains("it has ended"));
        let pair = &all.pairs()[0];
        assert!(ending(pair, at(9)).mend.is_none());
        assert!(ending(pair, at(80)).what.contains("in 10 days"));
        assert!(ending(pair, at(99)).what.contains("it has ended"));
        assert!(super::key(&key).mend.is_none());
        mode(0o644);
        assert!(super::key(&key).mend.is_some());
    }
}
