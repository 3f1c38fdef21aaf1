//! What is sealed opens where it was sealed and nowhere else; keys change under traffic; what was erased stays erased.

use super::*;
use crate::{
    Ctx,
    config::{Config, RootKind},
    tenant::Tenants,
    testkit::{World, on_both_engines},
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) async fn seal(db: &Db, tenant: TenantId, patient: &str, context: &str, plain: &str) -> Result<Vec<u8>> {
    let (patient, context, plain) = (patient.to_owned(), context.to_owned(), plain.to_owned());
    db.write(tenant, move |tx| {
        Box::pin(async move { tx.seal(Scope::patient(&patient), &context, plain.as_bytes()).await })
    })
    .await
}

pub(super) async fn open(db: &Db, tenant: TenantId, context: &str, sealed: &[u8]) -> Result<Vec<u8>> {
    keys(Door::Db(db, tenant), key_id(sealed)).await?.open(context, sealed)
}

/// The same store as another process sees it.
pub(super) async fn another(w: &World) -> Result<Ctx> {
    let vault = Vault::new(w.ctx.root.clone(), Ledger::at(w.dir.path().join("erasures.jsonl")));
    let db = w.ctx.db.clone().with_vault(vault.clone());
    vault.load(&db).await?;
    Ok(Ctx {
        vault,
        db,
        ..w.ctx.clone()
    })
}

#[tokio::test]
async fn sealed_bytes_open_in_their_place_alone() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (db, north, south) = (&w.ctx.db, w.north.id, w.south.id);
            let sealed = seal(db, north, "p1", "row 1", "Zoë has a cough").await?;
            assert!(!sealed.windows(5).any(|w| w == b"cough"));
            assert_eq!(open(db, north, "row 1", &sealed).await?, "Zoë has a cough".as_bytes());
            assert_eq!(
                open(db, north, "row 2", &sealed).await.unwrap_err().code,
                "vault.tampered"
            );
            // Another tenant has no such key.
            assert_eq!(
                open(db, south, "row 1", &sealed).await.unwrap_err().code,
                "vault.erased"
            );
            let other = seal(db, north, "p2", "row 1", "x").await?;
            assert_ne!(key_id(&other), key_id(&sealed));
            assert_eq!(key_id(&seal(db, north, "p1", "", "y").await?), key_id(&sealed));
            // The key's number is authenticated too.
            let mut moved = sealed.clone();
            moved[1..9].copy_from_slice(&other[1..9]);
            assert_eq!(
                open(db, north, "row 1", &moved).await.unwrap_err().code,
                "vault.tampered"
            );
            // A process that starts anew reads the same.
            let later = another(w).await?;
            assert_eq!(
                open(&later.db, north, "row 1", &sealed).await?,
                "Zoë has a cough".as_bytes()
            );
            Ok(())
        })
    })
    .await;
}

/// One process registers a clinic; another sees it in the register, and must be able to serve it at once.
#[tokio::test]
async fn whoever_sees_a_clinic_in_the_register_has_its_keys() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let other = another(w).await?;
            let register = Tenants::open(other.db.clone()).await?;
            let west = w.ctx.tenants.create("west", "West", "Europe/Lisbon", &[]).await?;
            assert!(other.vault.page_key(west.id, 1).is_err() && register.by_id(west.id).is_none());
            register.reload().await?;
            assert!(register.by_id(west.id).is_some());
            assert_eq!(other.vault.page_key(west.id, 1)?, w.ctx.vault.page_key(west.id, 1)?);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_key_made_in_a_transaction_that_failed_is_not_used() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let failed: Result<()> = w
                .ctx
                .db
                .write(w.north.id, |tx| {
                    Box::pin(async move {
                        tx.seal(Scope::patient("p"), "", b"lost").await?;
                        Err(Error::bad("test", "no"))
                    })
                })
                .await;
            assert!(failed.is_err());
            let sealed = seal(&w.ctx.db, w.north.id, "p", "", "kept").await?;
            assert_eq!(open(&another(w).await?.db, w.north.id, "", &sealed).await?, b"kept");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn blind_values_and_page_keys_are_of_one_tenant_and_last() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (vault, later) = (&w.ctx.vault, another(w).await?.vault);
            let mrn = vault.blind(w.north.id, "mrn", "4711")?;
            assert_eq!(mrn, later.blind(w.north.id, "mrn", "4711")?);
            for other in [
                vault.blind(w.south.id, "mrn", "4711")?,
                vault.blind(w.north.id, "phone", "4711")?,
                vault.blind(w.north.id, "mrn4", "711")?,
            ] {
                assert_ne!(mrn, other);
            }
            let page = vault.page_key(w.north.id, 1)?;
            assert_eq!(page, later.page_key(w.north.id, 1)?);
            assert!(page != vault.page_key(w.north.id, 2)? && page != vault.page_key(w.south.id, 1)?);
            assert!(vault.page_key(TenantId::from_number(99), 1).is_err());
            rotate(vault, &w.ctx.db, w.north.id, "user:admin", true).await?;
            assert_eq!(
                (mrn, page),
                (vault.blind(w.north.id, "mrn", "4711")?, vault.page_key(w.north.id, 1)?)
            );
            Ok(())
        })
    })
    .await;
}

/// Readers and writers go on while the key changes three times and another process reads with what it knows.
#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_under_traffic_and_no_read_fails() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (north, stop, reads) = (
                w.north.id,
                Arc::new(AtomicBool::new(false)),
                Arc::new(AtomicU64::new(0)),
            );
            let mut rows = Vec::new();
            for n in 0..1200 {
                rows.push(seal(&w.ctx.db, north, &format!("p{n}"), &n.to_string(), "body").await?);
            }
            let other = another(w).await?;
            let rows = Arc::new(rows);
            let mut tasks = Vec::new();
            let (watch_stop, watching) = watch::channel(false);
            tasks.push(tokio::spawn({
                let (vault, db) = (other.vault.clone(), other.db.clone());
                async move {
                    keep(vault, db, watching).await;
                    Ok(())
                }
            }));
            for (reader, ctx) in [w.ctx.clone(), other.clone(), w.ctx.clone()].into_iter().enumerate() {
                let (rows, stop, reads) = (rows.clone(), stop.clone(), reads.clone());
                tasks.push(tokio::spawn(async move {
                    let mut n = reader * 400;
                    while !stop.load(Ordering::Relaxed) {
                        n = (n + 7) % rows.len();
                        // What is known is forgotten, so that the wrapped key is read each time.
                        ctx.vault.0.data.forget(north, None);
                        let fresh = seal(&ctx.db, north, &format!("new{reader}-{n}"), "f", "fresh").await?;
                        assert_eq!(open(&ctx.db, north, "f", &fresh).await?, b"fresh");
                        assert_eq!(open(&ctx.db, north, &n.to_string(), &rows[n]).await?, b"body");
                        reads.fetch_add(2, Ordering::Relaxed);
                    }
                    Ok::<_, Error>(())
                }));
            }
            let mut versions = Vec::new();
            for _ in 0..2 {
                versions.push(
                    rotate(&w.ctx.vault, &w.ctx.db, north, "user:admin", false)
                        .await?
                        .version,
                );
            }
            stop.store(true, Ordering::Relaxed);
            let _ = watch_stop.send(true);
            for task in tasks {
                task.await.expect("a task")?;
            }
            assert_eq!(versions, [2, 3]);
            assert!(reads.load(Ordering::Relaxed) > 100, "{reads:?}");
            rewrap(&w.ctx.vault, &w.ctx.db, north).await?;
            let standing = standing(&w.ctx.vault, &w.ctx.db, north).await?;
            assert_eq!(
                (standing.version, standing.data_keys.keys().copied().collect::<Vec<_>>()),
                (3, vec![3])
            );
            assert!(crate::audit::verify(&w.ctx.db, north).await?.is_ok());
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn what_was_erased_stays_erased_also_in_a_restored_store() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (db, vault, north) = (&w.ctx.db, &w.ctx.vault, w.north.id);
            let (gone, kept) = (
                seal(db, north, "p1", "", "gone").await?,
                seal(db, north, "p2", "", "kept").await?,
            );
            let old = db
                .query(
                    north,
                    "SELECT id, version, wrapped FROM data_key WHERE tenant = $1 AND subject = 'p1'",
                    &[],
                )
                .await?;
            assert!(vault.shred(db, north, Scope::patient("p1"), "user:admin").await?);
            assert!(!vault.shred(db, north, Scope::patient("p1"), "user:admin").await?);
            let unreadable = async |db: &Db| {
                assert_eq!(open(db, north, "", &gone).await.unwrap_err().code, "vault.erased");
                assert_eq!(open(db, north, "", &kept).await.unwrap(), b"kept");
                assert_eq!(
                    seal(db, north, "p1", "", "again").await.unwrap_err().code,
                    "vault.erased"
                );
            };
            unreadable(db).await;
            // The older copy: the key is there again, and the table knows of no erasure.
            let row = &old[0];
            let back = [row.i64(0)?.into(), row.i64(1)?.into(), row.blob(2)?.into()];
            db.write(north, move |tx| {
                Box::pin(async move {
                    tx.exec(
                        "UPDATE data_key SET version = $3, wrapped = $4, gone_at = NULL WHERE tenant = $1 AND id = $2",
                        &back,
                    )
                    .await
                })
            })
            .await?;
            db.write(TenantId::SYSTEM, |tx| {
                Box::pin(async move { tx.exec("DELETE FROM erasure WHERE tenant = $1", &[]).await })
            })
            .await?;
            let restored = another(w).await?;
            unreadable(&restored.db).await;
            // Another server with a ledger of its own learns it from the table, and writes it down.
            let theirs = Vault::new(w.ctx.root.clone(), Ledger::at(w.dir.path().join("theirs.jsonl")));
            theirs.load(&db.clone().with_vault(theirs.clone())).await?;
            assert_eq!(theirs.ledger()?, (1, 0));
            // A line that was not written with the root key erases nothing; a cut one is not an erasure.
            let path = w.dir.path().join("erasures.jsonl");
            let line = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, format!("{line}{}{{\"at\":1", line.replace("p1", "p2"))).unwrap();
            let ctx = another(w).await?;
            assert_eq!(ctx.vault.ledger()?, (1, 1));
            unreadable(&ctx.db).await;
            ctx.vault
                .shred(&ctx.db, north, Scope::patient("p3"), "user:admin")
                .await?;
            assert_eq!(ctx.vault.ledger()?, (2, 1));
            // The whole of a tenant.
            let south = seal(db, w.south.id, "p", "", "x").await?;
            vault.shred_tenant(db, north).await?;
            assert!(open(db, north, "", &kept).await.is_err() && vault.page_key(north, 1).is_err());
            assert!(open(&another(w).await?.db, north, "", &kept).await.is_err());
            assert_eq!(open(db, w.south.id, "", &south).await?, b"x");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn another_root_key_is_refused() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let vault = Vault::new(Root::from_bytes([8; 32]), Ledger::at(w.dir.path().join("e")));
            let refused = vault.load(&w.ctx.db.clone().with_vault(vault.clone())).await;
            assert_eq!(refused.unwrap_err().code, "vault.sealed");
            Ok(())
        })
    })
    .await;
}

pub(super) fn word(text: &str) -> Option<Zeroizing<String>> {
    Some(Zeroizing::new(text.to_owned()))
}

pub(super) fn root(opened: Result<Opened>) -> Root {
    match opened.expect("asked") {
        Opened::Open(root) => root,
        Opened::Sealed(why) => panic!("{why:?}"),
    }
}

fn is_sealed(opened: Result<Opened>) -> bool {
    matches!(opened.expect("asked"), Opened::Sealed(_))
}

/// As an operator should put a secret in its place.
pub(super) fn put(path: &std::path::Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    mode(path, 0o600);
}

fn mode(path: &std::path::Path, mode: u32) {
    let rights = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, rights).unwrap();
}

#[test]
fn a_key_or_passphrase_that_others_may_read_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    let first = root(unlock(&config, None, false));
    let path = dir.path().join("secrets/root.key");
    for wide in [0o640, 0o604, 0o620, 0o602, 0o777] {
        mode(&path, wide);
        match unlock(&config, None, true).unwrap() {
            Opened::Sealed(why) => assert!(why.mend.contains("chmod 600"), "{why:?}"),
            Opened::Open(_) => panic!("opened with mode {wide:o}"),
        }
    }
    for narrow in [0o600, 0o400] {
        mode(&path, narrow);
        assert_eq!(first.bytes(), root(unlock(&config, None, true)).bytes());
    }
    let word = dir.path().join("word");
    put(&word, b"correct horse battery\n");
    config.vault.root = RootKind::Passphrase;
    config.vault.passphrase_file = Some(word.clone());
    protect(&config, None, Some("correct horse battery".to_owned().into())).unwrap();
    assert_eq!(first.bytes(), root(unlock(&config, None, true)).bytes());
    mode(&word, 0o644);
    let refused = unlock(&config, None, true).unwrap_err();
    assert!(refused.message.contains("chmod 600") && !refused.message.contains("horse"));
}

#[test]
fn the_key_file_is_made_once_and_never_beside_data() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    assert!(is_sealed(unlock(&config, None, true)));
    let path = dir.path().join("secrets/root.key");
    assert!(!path.exists());
    let first = root(unlock(&config, None, false));
    assert_eq!(first.bytes(), root(unlock(&config, None, true)).bytes());
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777,
        0o600
    );
    let key = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // The header knows that there was one, whatever the caller thinks of the data.
    assert!(is_sealed(unlock(&config, None, false)) && !path.exists());
    put(&path, &[9; 32]);
    assert!(is_sealed(unlock(&config, None, true)));
    put(&path, b"short");
    assert!(unlock(&config, None, true).is_err());
    put(&path, &key);
    assert_eq!(first.bytes(), root(unlock(&config, None, true)).bytes());
}

#[test]
fn a_passphrase_opens_and_a_wrong_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    config.vault.root = RootKind::Passphrase;
    assert!(is_sealed(unlock(&config, None, false)));
    assert_eq!(
        unlock(&config, word("short"), false).unwrap_err().code,
        "vault.passphrase_short"
    );
    let first = root(unlock(&config, word("correct horse battery"), false));
    assert!(!dir.path().join("secrets/root.key").exists());
    assert!(is_sealed(unlock(&config, None, true)));
    assert_eq!(
        unlock(&config, word("correct horse batterz"), true).unwrap_err().code,
        "vault.wrong_passphrase"
    );
    assert_eq!(
        first.bytes(),
        root(unlock(&config, word("correct horse battery"), true)).bytes()
    );
    // From a file, and changed to another.
    let file = dir.path().join("word");
    put(&file, b"correct horse battery\n");
    config.vault.passphrase_file = Some(file);
    assert_eq!(first.bytes(), root(unlock(&config, None, true)).bytes());
    protect(&config, None, word("another long word")).unwrap();
    assert_eq!(
        first.bytes(),
        root(unlock(&config, word("another long word"), true)).bytes()
    );
    assert!(unlock(&config, None, true).is_err());
    // Over to a key file.
    config.vault.root = RootKind::File;
    assert!(is_sealed(unlock(&config, None, true)));
    protect(&config, word("another long word"), None).unwrap();
    assert_eq!(first.bytes(), root(unlock(&config, None, true)).bytes());
}

#[test]
fn a_key_file_of_an_older_release_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    let old = Root::open(&dir.path().join("secrets/root.key")).unwrap();
    assert_eq!(old.bytes(), root(unlock(&config, None, true)).bytes());
    config.vault.root = RootKind::Passphrase;
    assert!(is_sealed(unlock(&config, word("correct horse battery"), true)));
    protect(&config, None, word("correct horse battery")).unwrap();
    assert_eq!(
        old.bytes(),
        root(unlock(&config, word("correct horse battery"), true)).bytes()
    );
}

struct Service(Key);

impl KeyService for Service {
    fn wrap(&self, key: &[u8]) -> Result<Vec<u8>> {
        self.0.seal(b"", key)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.0.open(b"", wrapped).map(Zeroizing::new)
    }
}

#[test]
fn a_key_service_holds_the_key_without_giving_its_own() {
    let held = External(Service(Key::new(&[3; 32]).unwrap()));
    let kept = held.keep(&Root::from_bytes([5; 32])).unwrap();
    match held.fetch(&kept).unwrap() {
        Fetched::Key(root) => assert_eq!(root.bytes(), &[5; 32]),
        Fetched::Missing(why) => panic!("{why:?}"),
    }
    assert!(External(Service(Key::new(&[4; 32]).unwrap())).fetch(&kept).is_err());
}

/// What is kept beside a sealed root key says how its passphrase was stretched: argon2id above OWASP's floor, a salt of its own.
#[test]
fn a_passphrase_is_stretched_with_a_salt_of_its_own() {
    use super::root::{Passphrase, RootProvider};
    use base64::{Engine, engine::general_purpose::STANDARD};
    let root = Root::from_bytes([7; 32]);
    let kept: Vec<serde_json::Value> = (0..2)
        .map(|_| Passphrase(word("correct horse battery")).keep(&root).unwrap())
        .collect();
    for held in &kept {
        assert!(
            held["memory_kib"].as_u64().unwrap() >= 19_456 && held["passes"].as_u64().unwrap() >= 2,
            "{held}"
        );
        assert_eq!(STANDARD.decode(held["salt"].as_str().unwrap()).unwrap().len(), 16);
    }
    assert_ne!(kept[0]["salt"], kept[1]["salt"]);
    assert_ne!(kept[0]["wrapped"], kept[1]["wrapped"]);
}
