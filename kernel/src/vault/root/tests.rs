//! The root key changes hands only into hands that give it back.

use super::*;
use crate::vault::tests::{put, root, word};

#[test]
fn another_key_in_the_way_is_not_taken_for_ours() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    config.vault.root = RootKind::Passphrase;
    let first = root(unlock(&config, word("correct horse battery"), false));
    // A file of another installation lies where ours would go.
    let path = dir.path().join("secrets/root.key");
    put(&path, &[9; 32]);
    config.vault.root = RootKind::File;
    let refused = protect(&config, word("correct horse battery"), None);
    assert_eq!(refused.unwrap_err().code, "vault.key_file_differs");
    assert_eq!(fs::read(&path).unwrap(), [9; 32]);
    // Nothing is lost by it.
    config.vault.root = RootKind::Passphrase;
    assert_eq!(
        first.bytes(),
        root(unlock(&config, word("correct horse battery"), true)).bytes()
    );
    // With the file out of the way, or with the right bytes in it, it is done.
    config.vault.root = RootKind::File;
    fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        protect(&config, word("correct horse battery"), None).unwrap();
        assert_eq!(first.bytes(), root(unlock(&config, None, true)).bytes());
    }
}

/// A file that others may read would be refused at the next start: the header is not replaced for it.
#[test]
fn a_keeper_that_does_not_give_the_key_back_gets_no_header() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    config.vault.root = RootKind::Passphrase;
    let first = root(unlock(&config, word("correct horse battery"), false));
    let path = dir.path().join("secrets/root.key");
    put(&path, first.bytes());
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    config.vault.root = RootKind::File;
    assert_eq!(
        protect(&config, word("correct horse battery"), None).unwrap_err().code,
        "vault.sealed"
    );
    config.vault.root = RootKind::Passphrase;
    assert_eq!(
        first.bytes(),
        root(unlock(&config, word("correct horse battery"), true)).bytes()
    );
}
