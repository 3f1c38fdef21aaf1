//! Alerts from the durable event to board, people and mailbox, on both engines, with a real conversation with a mail
//! server.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use axum::{Extension, Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use medtech_kernel::{
    BoxFuture, Ctx, Module, Result, Tenant,
    auth::Role,
    bus::Event,
    config::{Config, Mail},
    error::Kind,
    testkit::{World, on_both_engines},
    vault::Field,
};
use medtech_notifications::{Attempt, MAIL_GROUP, Notifications, model::Alert};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket},
    sync::{mpsc, watch},
};
use tower::ServiceExt;

const DOCTOR: &str = "user:0190c1b0-0000-7000-8000-00000000000a";
const NURSE: &str = "user:0190c1b0-0000-7000-8000-00000000000b";

/// A mail server that speaks RFC 5321 far enough, on loopback. It answers each RCPT with the next of `answers`, then with
/// 250, and hands out what it took: (recipient, data).
async fn mail_server(answers: &'static [&'static str]) -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let (taken, mails) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut answers = answers.iter();
        while let Ok((socket, _)) = listener.accept().await {
            let (read, mut write) = socket.into_split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(b"220 test ESMTP\r\n").await.unwrap();
            let mut recipient = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
                let answer = match verb.as_str() {
                    "EHLO" => "250-test\r\n250 8BITMIME",
                    "RCPT" => {
                        line.clone_into(&mut recipient);
                        answers.next().copied().unwrap_or("250 ok")
                    }
                    "DATA" => {
                        write.write_all(b"354 go on\r\n").await.unwrap();
                        let mut data = String::new();
                        while let Ok(Some(line)) = lines.next_line().await {
                            if line == "." {
                                break;
                            }
                            data.push_str(&line);
                            data.push('\n');
                        }
                        taken.send((recipient.clone(), data)).await.unwrap();
                        "250 taken"
                    }
                    "QUIT" => "221 bye",
                    _ => "250 ok",
                };
                if write.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() || verb == "QUIT" {
                    break;
                }
            }
        }
    });
    (url, mails)
}

fn with(w: &World, mail: Mail, demo: bool) -> Ctx {
    let config = Config {
        mail,
        demo,
        public_url: Some("https://north.example".into()),
        ..(*w.ctx.config).clone()
    };
    Ctx {
        config: Arc::new(config),
        ..w.ctx.clone()
    }
}

fn module(w: &World, smtp: Option<String>) -> Result<Arc<Notifications>> {
    w.ctx.bus.register(Notifications::NAME, Notifications::consumes());
    let mail = Mail {
        smtp,
        from: "North <no-reply@north.example>".into(),
        ..Mail::default()
    };
    Ok(Arc::new(Notifications::new(with(w, mail, false))?))
}

fn raised(w: &World, tenant: &Tenant, id: &str) -> Result<Event> {
    let alert = json!({
        "id": id, "board": "main", "severity": "critical", "title": "Critical laboratory result",
        "subject_ref": "Patient/1", "link": "/app/board", "at": "2026-03-02T09:00:00Z",
    });
    let body = json!({ "alert": alert, "recipients": [DOCTOR, NURSE, DOCTOR] });
    Event::new(&w.ctx.clock, tenant.id, "alert.raised", format!("alert:{id}"), &body)
}

async fn know(n: &Notifications, w: &World, tenant: &Tenant, body: Value) -> Result<()> {
    n.on_event(Event::new(&w.ctx.clock, tenant.id, "user.changed", DOCTOR, &body)?)
        .await
}

/// Runs the mail group until the log holds `attempts`; every wait is for a change in the store.
async fn until_attempted(n: &Arc<Notifications>, w: &World, attempts: usize) -> Result<Vec<Attempt>> {
    let (admin, _) = w
        .sign_in(&w.north, "user:0190c1b0-0000-7000-8000-0000000000ad", Role::Admin)
        .await?;
    let (stop, stopped) = watch::channel(false);
    let workers = n.clone().start(stopped);
    let log = loop {
        let log = n.deliveries(&admin).await?;
        if log.len() >= attempts && (log.first().is_none_or(|a| a.state != "pending") || log.len() == attempts) {
            break log;
        }
        tokio::task::yield_now().await;
    };
    stop.send(true).unwrap();
    for worker in workers {
        worker.await.unwrap();
    }
    Ok(log)
}

fn both(body: impl for<'a> Fn(&'a World) -> BoxFuture<'a, Result<()>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(on_both_engines(&[Notifications::migrations()], body));
}

#[test]
fn an_alert_reaches_board_and_people_once_and_is_acknowledged_once() {
    both(|w| {
        Box::pin(async move {
            let n = module(w, None)?;
            let mut live = w.ctx.bus.attach_live()?;
            let event = raised(w, &w.north, "a1")?;
            n.on_event(event.clone()).await?;
            // The outbox delivers at least once; a sender may also record the same alert twice.
            n.on_event(event).await?;
            n.on_event(raised(w, &w.north, "a1")?).await?;
            let mut told = Vec::new();
            while let Ok(event) = live.try_recv() {
                told.push((event.kind.to_string(), event.channel.unwrap()));
            }
            let expected = [
                ("alert.raised", "board:main"),
                ("notification.created", DOCTOR),
                ("notification.created", NURSE),
            ];
            assert_eq!(told, expected.map(|(k, c)| (k.to_owned(), c.to_owned())));

            let (doctor, _) = w.sign_in(&w.north, DOCTOR, Role::Clinician).await?;
            let (nurse, _) = w.sign_in(&w.north, NURSE, Role::Staff).await?;
            let mine = n.list(&doctor).await?;
            assert_eq!(
                (mine.len(), mine[0].title.as_str(), mine[0].read_at),
                (1, "Critical laboratory result", None)
            );
            n.mark_read(&doctor, mine[0].id).await?;
            assert!(n.list(&doctor).await?[0].read_at.is_some() && n.list(&nurse).await?[0].read_at.is_none());
            assert_eq!(n.mark_read(&nurse, mine[0].id).await.unwrap_err().kind, Kind::NotFound);

            let taken = n.acknowledge(&nurse, "a1").await?;
            assert_eq!(taken.acknowledged_by.as_ref().map(|p| p.subject.as_str()), Some(NURSE));
            let pushed = live.try_recv().unwrap();
            assert_eq!(
                (&*pushed.kind, pushed.channel.as_deref()),
                ("alert.acknowledged", Some("board:main"))
            );
            assert_eq!(pushed.parse::<Value>()?["alert"]["acknowledged_by"]["subject"], NURSE);
            // The second is told who was first; nothing is pushed again.
            assert_eq!(n.acknowledge(&doctor, "a1").await?, taken);
            assert!(live.try_recv().is_err());
            assert_eq!(n.board(&doctor, "main").await?, [taken]);
            Ok(())
        })
    });
}

#[test]
fn boards_are_for_staff_of_the_same_clinic() {
    both(|w| {
        Box::pin(async move {
            let n = module(w, None)?;
            n.on_event(raised(w, &w.north, "a1")?).await?;
            let (patient, _) = w.sign_in(&w.north, DOCTOR, Role::Patient).await?;
            assert_eq!(n.board(&patient, "main").await.unwrap_err().kind, Kind::Forbidden);
            assert_eq!(n.acknowledge(&patient, "a1").await.unwrap_err().kind, Kind::NotFound);
            for tenant in [&w.south, &w.east] {
                let (other, _) = w.sign_in(tenant, DOCTOR, Role::Admin).await?;
                assert_eq!(n.board(&other, "main").await?, Vec::<Alert>::new());
                assert!(n.list(&other).await?.is_empty());
                assert_eq!(n.acknowledge(&other, "a1").await.unwrap_err().kind, Kind::NotFound);
            }
            Ok(())
        })
    });
}

#[test]
fn a_mail_is_sent_after_a_temporary_refusal_and_says_nothing_clinical() {
    both(|w| {
        Box::pin(async move {
            let (url, mut mails) = mail_server(&["451 try later"]).await;
            let n = module(w, Some(url))?;
            know(
                &n,
                w,
                &w.north,
                json!({ "id": "x", "name": "Dr. Zoë", "email": "zoe@north.example", "roles": [] }),
            )
            .await?;
            know(&n, w, &w.north, json!({ "language": "de", "active": true })).await?;
            n.on_event(raised(w, &w.north, "a1")?).await?;
            let log = until_attempted(&n, w, 1).await?;
            assert_eq!(
                (log[0].outcome.as_str(), log[0].state.as_str(), log[0].detail.as_str()),
                ("failed", "pending", "smtp 451")
            );
            w.ctx.clock.advance(60_000);
            let log = until_attempted(&n, w, 2).await?;
            assert_eq!(
                (log[0].number, log[0].outcome.as_str(), log[0].state.as_str()),
                (2, "sent", "sent")
            );
            let (recipient, data) = mails.recv().await.unwrap();
            assert!(recipient.contains("<zoe@north.example>"), "{recipient}");
            assert!(
                data.contains("Message-ID: <") && data.contains("https://north.example/"),
                "{data}"
            );
            for clinical in ["laboratory", "Critical", "Patient/1"] {
                assert!(!data.contains(clinical), "{data}");
            }
            assert!(mails.try_recv().is_err());
            assert!(
                w.ctx
                    .bus
                    .backlog(w.north.id)
                    .await?
                    .iter()
                    .all(|(group, ..)| group != MAIL_GROUP)
            );
            Ok(())
        })
    });
}

#[test]
fn a_mail_is_given_up_when_refused_for_good_or_too_often() {
    both(|w| {
        Box::pin(async move {
            let (url, _mails) = mail_server(&["550 no such user"]).await;
            let n = module(w, Some(url))?;
            know(&n, w, &w.north, json!({ "name": "Zoë", "email": "zoe@north.example" })).await?;
            n.on_event(raised(w, &w.north, "a1")?).await?;
            let log = until_attempted(&n, w, 1).await?;
            assert_eq!((log[0].outcome.as_str(), log[0].state.as_str()), ("refused", "dead"));

            // A port that is held and not listened at: every connection is refused.
            let held = TcpSocket::new_v4().unwrap();
            held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let closed = held.local_addr().unwrap();
            let mail = Mail {
                smtp: Some(format!("smtp://{closed}")),
                from: "a@b.example".into(),
                ..Mail::default()
            };
            let n = Arc::new(Notifications::new(with(w, mail, false))?);
            n.on_event(raised(w, &w.north, "a2")?).await?;
            for attempts in 2..=9 {
                until_attempted(&n, w, attempts).await?;
                w.ctx.clock.advance(3_600_000);
            }
            let (admin, _) = w.sign_in(&w.north, DOCTOR, Role::Admin).await?;
            let log = n.deliveries(&admin).await?;
            assert_eq!(
                (log.len(), log[0].number, log[0].state.as_str(), log[0].outcome.as_str()),
                (9, 8, "dead", "failed")
            );
            let (doctor, _) = w.sign_in(&w.north, DOCTOR, Role::Clinician).await?;
            assert_eq!(n.deliveries(&doctor).await.unwrap_err().kind, Kind::Forbidden);
            Ok(())
        })
    });
}

#[test]
fn a_mail_about_an_account_carries_its_link_once_and_keeps_none() {
    both(|w| {
        Box::pin(async move {
            let n = module(w, None)?;
            know(
                &n,
                w,
                &w.north,
                json!({ "name": "Ana", "email": "old@north.example", "language": "es" }),
            )
            .await?;
            let mail = json!({ "address": "ana@north.example", "name": "Ana", "letter": "sign_in_link",
                "origin": "https://n.example", "path": "/enter#secret" });
            let event = Event::new(&w.ctx.clock, w.north.id, "account.mail", DOCTOR, &mail)?;
            for _ in 0..2 {
                n.on_event(event.clone()).await?;
            }
            until_attempted(&n, w, 1).await?;
            let sql = "SELECT recipient, subject, body, id FROM local_mail WHERE tenant = $1";
            let kept = w.ctx.db.query(w.north.id, sql, &[]).await?;
            assert_eq!(kept.len(), 1, "told twice, mailed once");
            let open = |column, at| Field::new("local_mail", column).open(&kept[0], at, kept[0].uuid(3)?);
            assert_eq!(open("recipient", 0)?, "ana@north.example");
            assert_eq!(open("subject", 1)?, "North Clinic: Su enlace de acceso");
            assert!(open("body", 2)?.contains("\r\nhttps://n.example/enter#secret\r\n"));
            let urls = w
                .ctx
                .db
                .query(w.north.id, "SELECT url FROM delivery WHERE tenant = $1", &[])
                .await?;
            assert_eq!(urls[0].opt_text(0)?, None, "the secret is wiped when the mail is out");
            Ok(())
        })
    });
}

#[test]
fn without_a_mail_server_mails_are_kept_on_a_page_for_administrators() {
    both(|w| {
        Box::pin(async move {
            let n = module(w, None)?;
            know(
                &n,
                w,
                &w.north,
                json!({ "name": "<b>Zoë</b>", "email": "zoe@north.example" }),
            )
            .await?;
            n.on_event(raised(w, &w.north, "a1")?).await?;
            let log = until_attempted(&n, w, 1).await?;
            assert_eq!(
                (log[0].state.as_str(), log[0].detail.as_str()),
                ("sent", "local outbox")
            );
            let (_, admin) = w.sign_in(&w.north, DOCTOR, Role::Admin).await?;
            let (_, doctor) = w.sign_in(&w.north, DOCTOR, Role::Clinician).await?;
            let page = async |n: &Arc<Notifications>, host: &str, token: Option<&str>| {
                let app: Router = n.clone().outbox_routes().layer(Extension(w.ctx.clone()));
                let mut request = Request::get("/dev/outbox").header("host", host);
                if let Some(token) = token {
                    request = request.header("authorization", format!("Bearer {token}"));
                }
                let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
                let status = response.status();
                let csp = response.headers().get("content-security-policy").cloned();
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                (status, csp, String::from_utf8(bytes.to_vec()).unwrap())
            };
            assert_eq!(page(&n, "north.localhost", None).await.0, StatusCode::UNAUTHORIZED);
            assert_eq!(
                page(&n, "north.localhost", Some(&doctor)).await.0,
                StatusCode::FORBIDDEN
            );
            let (status, csp, html) = page(&n, "north.localhost", Some(&admin)).await;
            assert_eq!(status, StatusCode::OK);
            assert!(csp.unwrap().to_str().unwrap().contains("default-src 'none'"));
            assert!(html.contains("zoe@north.example") && html.contains("&lt;b&gt;Zoë") && !html.contains("<b>"));
            assert!(!html.contains("laboratory") && !html.contains("Patient/1"));

            let mail = Mail {
                smtp: None,
                from: "a@b.example".into(),
                ..Mail::default()
            };
            let demo = Arc::new(Notifications::new(with(w, mail, true))?);
            assert_eq!(page(&demo, "north.localhost", None).await.0, StatusCode::OK);
            assert!(!page(&demo, "south.localhost", None).await.2.contains("zoe@"));
            let mail = Mail {
                smtp: Some("smtp://127.0.0.1:1".into()),
                from: "a@b.example".into(),
                ..Mail::default()
            };
            let sending = Arc::new(Notifications::new(with(w, mail, true))?);
            assert_eq!(
                page(&sending, "north.localhost", Some(&admin)).await.0,
                StatusCode::NOT_FOUND
            );
            Ok(())
        })
    });
}

#[test]
fn someone_who_left_is_no_longer_written_to() {
    both(|w| {
        Box::pin(async move {
            let n = module(w, None)?;
            know(&n, w, &w.north, json!({ "name": "Zoë", "email": "zoe@north.example" })).await?;
            know(&n, w, &w.north, json!({ "active": false })).await?;
            n.on_event(raised(w, &w.north, "a1")?).await?;
            assert!(
                w.ctx
                    .bus
                    .backlog(w.north.id)
                    .await?
                    .iter()
                    .all(|(group, ..)| group != MAIL_GROUP)
            );
            let (doctor, _) = w.sign_in(&w.north, DOCTOR, Role::Clinician).await?;
            assert_eq!(n.list(&doctor).await?.len(), 1);
            Ok(())
        })
    });
}

#[test]
fn a_malformed_mail_configuration_stops_the_start_by_its_key() {
    both(|w| {
        Box::pin(async move {
            for (smtp, from, code) in [
                (Some("http://x".to_owned()), "a@b.example", "config.mail_smtp"),
                (None, "nobody", "config.mail_from"),
            ] {
                let made = Notifications::new(with(
                    w,
                    Mail {
                        smtp,
                        from: from.into(),
                        ..Mail::default()
                    },
                    false,
                ));
                assert_eq!(made.err().map(|e| e.code), Some(code));
            }
            Ok(())
        })
    });
}
