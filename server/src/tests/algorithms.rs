//! Hashes and random numbers come from one library, and the weak hash only where a standard asks for it: docs/security/keys.md.

use std::{collections::BTreeSet, fs, path::Path};

/// Where RFC 6455 (handshake), RFC 6238 (time codes), tus 1.0.0 (checksums), RFC 8827 section 6.5 (the profile of media that every
/// browser has) and the list of leaked passwords want SHA-1.
const SHA1: [&str; 6] = [
    "clinical-api/identity/src/breached.rs",
    "clinical-api/identity/src/factors/totp.rs",
    "media-sfu/src/egress/keys.rs",
    "media-sfu/src/egress/srtp.rs",
    "messaging/src/files/tus.rs",
    "signaling/src/websocket/upgrade.rs",
];
/// Spreads the users of one process over its maps; keeps no secret.
const SPREADING: [&str; 1] = ["signaling/src/channels/hub.rs"];
/// Hashes, ciphers and generators of other makers, by how their names begin. (Argon2 and scrypt stretch what people choose.)
const OTHERS: &str = "ahash blake chacha20 crypto digest fastrand fxhash getrandom hmac md hkdf k256 libsodium nanorand oorandom openssl \
     orion p256 p384 pbkdf2 rand ring ripemd rsa rust-crypto rustc-hash sha siphasher sodium tiny-keccak whirlpool xxhash";

/// The source files that are in the product, with what stands in them: our own, without their tests.
fn sources(folder: &Path, found: &mut Vec<(std::path::PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            if !matches!(name.as_str(), "tests" | "node_modules" | "target" | "dist") && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if name == "Cargo.toml" || (name.ends_with(".rs") && name != "tests.rs") {
            let text = fs::read_to_string(&path).expect("a file");
            found.push((path, text));
        }
    }
}

#[test]
fn one_library_hashes_and_draws_and_sha_1_stays_where_it_is_asked_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for part in [
        "kernel",
        "clinical-api",
        "messaging",
        "signaling",
        "notifications",
        "media-sfu",
        "web-client/crate",
        "server",
    ] {
        sources(&root.join(part), &mut found);
    }
    found.push((
        root.join("Cargo.toml"),
        fs::read_to_string(root.join("Cargo.toml")).expect("the manifest"),
    ));
    found.push((
        root.join("web-client/Cargo.toml"),
        fs::read_to_string(root.join("web-client/Cargo.toml")).expect("a manifest"),
    ));
    let (mut sha1, mut spreading, mut sourced, mut manifests) = (BTreeSet::new(), BTreeSet::new(), 0, 0);
    for (path, text) in &found {
        let at = path
            .strip_prefix(&root)
            .expect("below the root")
            .to_string_lossy()
            .into_owned();
        if at.ends_with("Cargo.toml") {
            manifests += 1;
            for line in text.lines() {
                let name = line.split([' ', '.', '=']).next().unwrap_or_default().trim_matches('"');
                let whole = |rest: &str| rest.is_empty() || rest.starts_with(|c: char| !c.is_ascii_alphabetic());
                let other = OTHERS
                    .split_whitespace()
                    .find(|o| name.strip_prefix(o).is_some_and(whole));
                // Elsewhere in a manifest these are names of settings.
                let dependency =
                    line.contains(".workspace = true") || line.contains("version = \"") || line.contains("= \"");
                assert!(other.is_none() || !dependency, "{at}: {line}");
            }
            continue;
        }
        sourced += 1;
        let code: String = text
            .lines()
            .filter(|l| !l.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        if code.contains("SHA1") {
            sha1.insert(at.clone());
        }
        if code.contains("RandomState") || code.contains("DefaultHasher") {
            spreading.insert(at.clone());
        }
        for word in ["MD5", "Md5", "thread_rng", "Uuid::new_v4"] {
            assert!(
                !code.contains(word) || at == "server/src/tests/algorithms.rs",
                "{at}: {word}"
            );
        }
    }
    assert!(
        sourced > 300 && manifests >= 12,
        "{sourced} sources, {manifests} manifests"
    );
    assert_eq!(sha1, SHA1.map(str::to_owned).into());
    assert_eq!(spreading, SPREADING.map(str::to_owned).into());
}
