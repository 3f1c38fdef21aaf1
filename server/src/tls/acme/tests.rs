//! What is decided without an authority; with one: `tests/e2e/specs/acme.test.mjs`.

use super::*;
use medtech_kernel::testkit::on_both_engines;

const DAY: Millis = 24 * HOUR;

#[test]
fn renewed_at_two_thirds_and_never_in_haste() {
    assert_eq!(renewal(0, 90 * DAY, HOUR), 60 * DAY);
    assert_eq!(renewal(0, 6 * DAY, HOUR), 4 * DAY);
    // A clock that is late or a short one: not at once again, and not behind the end where that is later.
    assert_eq!(renewal(0, 90 * DAY, 80 * DAY), 80 * DAY + HOUR);
    assert_eq!(renewal(0, HOUR, 0), HOUR);
    assert_eq!(renewal(0, 10 * 60_000, 0), AGAIN);
}

#[test]
fn each_failure_doubles_the_pause_up_to_half_a_day() {
    let minutes: Vec<i64> = (0..8).map(|n| pause(n) / 60_000).collect();
    assert_eq!(minutes, [15, 30, 60, 120, 240, 480, 720, 720]);
    assert_eq!((pause(i64::MAX), pause(-1)), (SELDOM, AGAIN));
    // Fewer than five failures of a name in an hour, which is where public authorities stop listening.
    let starts = (0..8).scan(0, |at, n| Some(std::mem::replace(at, *at + pause(n))));
    assert!(starts.filter(|at| *at < HOUR).count() < 5);
}

#[test]
fn only_names_that_others_can_ask_for_are_asked_for() {
    for name in ["clinic.example", "a.b.clinic.example"] {
        assert!(is_name(name), "{name}");
    }
    for none in [
        "localhost",
        "demo.localhost",
        "clinic",
        "127.0.0.1",
        "192.0.2.1",
        "[2001:db8::1]",
        "",
    ] {
        assert!(!is_name(none), "{none}");
    }
}

#[test]
fn an_authority_is_called_by_https_alone() {
    let with = |url: &str| {
        let pairs = [("MEDTECH_TLS_ACME_DIRECTORY".to_owned(), url.to_owned())];
        check(&Config::load(None, pairs.into_iter()).expect("a configuration"))
    };
    assert!(with("https://acme.example/directory").is_ok());
    for bad in [
        "http://acme.example/directory",
        "acme.example",
        "https://",
        "file:///etc/passwd",
    ] {
        assert!(with(bad).is_err(), "{bad}");
    }
}

fn stored(host: &str) -> (Stored, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).expect("a certificate");
    let stored = Stored {
        certificate: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    };
    (stored, made.cert.der().to_vec())
}

#[test]
fn what_the_authority_sends_is_examined() {
    let now = 1_800_000_000_000;
    assert!(examined("a.example", &stored("a.example").0, now).is_ok());
    assert!(
        examined("b.example", &stored("a.example").0, now).is_err(),
        "another name"
    );
    let mut mixed = stored("a.example").0;
    mixed.key = stored("a.example").0.key.clone();
    assert!(examined("a.example", &mixed, now).is_err(), "another key");
    let mut empty = stored("a.example").0;
    empty.certificate.clear();
    assert!(examined("a.example", &empty, now).is_err());
}

#[tokio::test]
async fn only_one_server_asks_for_a_name_and_all_serve_what_it_got_sealed() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (db, now) = (&w.ctx.db, w.ctx.clock.now_ms());
            let hosts = vec!["a.example".to_owned(), "b.example".to_owned()];
            store::change(db, hosts.clone(), Vec::new()).await?;
            store::change(db, hosts, Vec::new()).await?;
            let now = now.max(store::hosts(db).await?.iter().map(|h| h.next_at).max().unwrap_or(now));
            assert!(store::claim(db, "a.example", now + CLAIM, now).await?);
            assert!(
                !store::claim(db, "a.example", now + CLAIM, now + 1).await?,
                "another server"
            );
            assert!(
                store::claim(db, "a.example", now + 3 * CLAIM, now + CLAIM).await?,
                "its server is gone"
            );
            let (one, der) = stored("a.example");
            let secret = one.key.to_string();
            store::issued(db, "a.example", one, now + 60 * DAY, now + 90 * DAY).await?;
            assert!(
                !store::claim(db, "a.example", now + 9 * CLAIM, now + 5 * CLAIM).await?,
                "not due"
            );
            store::failed(db, "b.example", now + AGAIN, "no such name").await?;
            let all = store::hosts(db).await?;
            let of = |name: &str| all.iter().find(|h| h.host == name).cloned().expect("a row");
            assert_eq!((of("a.example").failures, of("b.example").failures), (0, 1));
            assert_eq!(of("b.example").why, "no such name");
            // Two servers of one database.
            for _ in 0..2 {
                let tls = medtech_kernel::config::Tls {
                    acme_directory: Some("https://acme.example/".to_owned()),
                    ..Default::default()
                };
                let certificates = Certificates::load(&tls)?;
                assert!(certificates.of(Some("a.example")).is_none());
                load(&w.ctx, &certificates).await?;
                let shown = certificates.of(Some("a.example")).expect("a certificate");
                assert_eq!(shown.certified.cert[0].as_ref(), der);
                assert!(certificates.of(Some("b.example")).is_none());
            }
            let text = "SELECT pair FROM acme_host WHERE tenant = $1 AND pair IS NOT NULL";
            let row = db.query_one(medtech_kernel::TenantId::SYSTEM, text, &[]).await?;
            assert!(row.text(0)?.starts_with("sealed1:") && !row.text(0)?.contains(&secret[30..60]));
            store::change(db, Vec::new(), vec!["a.example".to_owned()]).await?;
            assert_eq!(store::hosts(db).await?.len(), 1);
            // Too much was asked: nobody asks before then, and what is later stays later.
            store::wait(db, now + DAY).await?;
            assert_eq!(store::hosts(db).await?[0].next_at, now + DAY);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_proof_is_given_while_it_is_asked_for_and_by_its_name_alone() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (ctx, now) = (&w.ctx, w.ctx.clock.now_ms());
            let proof = answer::Answer {
                way: AcmeChallenge::TlsAlpn01,
                host: "a.example",
                token: "token",
            };
            assert!(answer::handshake(ctx, "a.example").await.is_none());
            proof.put(&ctx.db, "token.thumbprint", now + CLAIM).await?;
            assert!(answer::handshake(ctx, "a.example").await.is_some());
            assert!(answer::handshake(ctx, "b.example").await.is_none());
            assert_eq!(
                store::answer(&ctx.db, "http-01", "token", now).await?,
                None,
                "proven by handshake"
            );
            proof.end(&ctx.db).await?;
            assert!(answer::handshake(ctx, "a.example").await.is_none());
            proof.put(&ctx.db, "token.thumbprint", now - 1).await?;
            assert!(
                answer::handshake(ctx, "a.example").await.is_none(),
                "forgotten long ago"
            );
            Ok(())
        })
    })
    .await;
}
