//! Conversations on both engines: numbers, repeats, rights, receipts, events, and no way from one tenant to another.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use medtech_kernel::{
    BoxFuture, Error, Module, Result, Tenant,
    auth::{Principal, Role},
    db::{Engine, Sql},
    error::Kind,
    testkit::{World, on_both_engines},
    vault::{Class, Scope},
};
use medtech_messaging::{
    Messaging,
    model::{Draft, Mode, Receipt},
    rpc,
};
use std::{collections::BTreeSet, sync::Arc};
use uuid::Uuid;

const ANNA: &str = "user:0190c1b0-0000-7000-8000-00000000000a";
const GUEST: &str = "guest:0190c1b0-0000-7000-8000-00000000000b";

fn draft(client_id: Uuid, text: &str) -> Draft {
    serde_json::from_value(serde_json::json!({ "client_id": client_id, "body": { "text": text } })).unwrap()
}

async fn conversation(m: &Arc<Messaging>, w: &World, tenant: &Tenant) -> Result<Uuid> {
    let m = m.clone();
    let members = [
        (ANNA.to_owned(), "Anna".to_owned()),
        (GUEST.to_owned(), "Gus".to_owned()),
    ];
    w.ctx
        .db
        .write(tenant.id, move |tx| {
            Box::pin(async move { m.create_conversation_in(tx, "visit:1", "Visit", &members).await })
        })
        .await
}

struct Scene {
    m: Arc<Messaging>,
    id: Uuid,
    anna: Principal,
    guest: Principal,
}

async fn scene(w: &World) -> Result<Scene> {
    w.ctx.bus.register("records", &["message.created"]);
    let m = Arc::new(Messaging::new(w.ctx.clone())?);
    let id = conversation(&m, w, &w.north).await?;
    let (anna, _) = w.sign_in(&w.north, ANNA, Role::Clinician).await?;
    let (guest, _) = w.sign_in(&w.north, GUEST, Role::Guest).await?;
    Ok(Scene { m, id, anna, guest })
}

fn kind<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Kind {
    outcome.unwrap_err().kind
}

fn both(body: impl for<'a> Fn(&'a World) -> BoxFuture<'a, Result<()>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(on_both_engines(&[Messaging::migrations()], body));
}

#[test]
fn fifty_parallel_sends_are_numbered_without_gap_and_repeats_answer_with_the_first() {
    both(|w| {
        Box::pin(async move {
            let s = scene(w).await?;
            let ids: Vec<Uuid> = (1..=25).map(Uuid::from_u128).collect();
            // Each message twice at once, from two devices' worth of retries.
            let sends = ids.iter().chain(&ids).map(|client_id| {
                let (m, who, draft, id) = (
                    s.m.clone(),
                    s.anna.clone(),
                    draft(*client_id, &format!("text {client_id}")),
                    s.id,
                );
                tokio::spawn(async move { m.send(&who, id, draft).await })
            });
            let mut answers = Vec::new();
            for task in sends.collect::<Vec<_>>() {
                answers.push(task.await.unwrap()?);
            }
            assert_eq!(answers.iter().filter(|a| a.duplicate).count(), 25);
            let numbers: BTreeSet<i64> = answers.iter().map(|a| a.message.seq).collect();
            assert_eq!(numbers, (1..=25).collect());
            let listed = s.m.list(&s.guest, s.id, 0, None).await?;
            assert_eq!(
                listed.iter().map(|m| m.seq).collect::<Vec<_>>(),
                (1..=25).collect::<Vec<_>>()
            );
            for answer in &answers {
                assert!(listed.contains(&answer.message));
            }
            assert_eq!(s.m.conversation(&s.guest, s.id).await?.last_seq, 25);
            // One durable event and one audit entry for each message; and one entry of the guest's reading them.
            assert_eq!(w.ctx.bus.backlog(w.north.id).await?.first().map(|b| b.1), Some(25));
            assert_eq!(medtech_kernel::audit::verify(&w.ctx.db, w.north.id).await?, Ok(26));
            let page = s.m.list(&s.guest, s.id, 20, Some(3)).await?;
            assert_eq!(page.iter().map(|m| m.seq).collect::<Vec<_>>(), [21, 22, 23]);
            Ok(())
        })
    });
}

#[test]
fn a_client_id_stands_for_one_message() {
    both(|w| {
        Box::pin(async move {
            let s = scene(w).await?;
            let cid = Uuid::from_u128(7);
            s.m.send(&s.anna, s.id, draft(cid, "one")).await?;
            let clash = s.m.send(&s.anna, s.id, draft(cid, "two")).await;
            assert_eq!(clash.unwrap_err().code, "message.client_id_reused");
            // Another sender's ids are another matter; so is the number: the refusal left no gap.
            let other = s.m.send(&s.guest, s.id, draft(cid, "mine")).await?;
            assert_eq!((other.message.seq, other.duplicate), (2, false));
            let elsewhere = conversation(&s.m, w, &w.north).await?;
            assert_eq!(
                kind(s.m.send(&s.anna, elsewhere, draft(cid, "one")).await),
                Kind::Conflict
            );
            Ok(())
        })
    });
}

#[test]
fn members_only_and_no_way_between_tenants() {
    both(|w| {
        Box::pin(async move {
            let s = scene(w).await?;
            s.m.send(&s.anna, s.id, draft(Uuid::from_u128(1), "private")).await?;
            let mut strangers = vec![
                w.sign_in(&w.north, "user:0190c1b0-0000-7000-8000-00000000000c", Role::Admin)
                    .await?
                    .0,
            ];
            for tenant in [&w.south, &w.east] {
                // The same person, a member of a conversation of the other clinic.
                conversation(&s.m, w, tenant).await?;
                strangers.push(w.sign_in(tenant, ANNA, Role::Clinician).await?.0);
            }
            for who in &strangers {
                assert_eq!(kind(s.m.list(who, s.id, 0, None).await), Kind::Forbidden);
                assert_eq!(kind(s.m.conversation(who, s.id).await), Kind::Forbidden);
                assert_eq!(
                    kind(s.m.send(who, s.id, draft(Uuid::from_u128(2), "x")).await),
                    Kind::Forbidden
                );
                let receipt = Receipt {
                    read_upto: Some(1),
                    delivered_upto: None,
                };
                assert_eq!(kind(s.m.receipt(who, s.id, receipt).await), Kind::Forbidden);
                assert_eq!(kind(s.m.typing(who, s.id).await), Kind::Forbidden);
            }
            let (m, id) = (s.m.clone(), s.id);
            w.ctx
                .db
                .write(w.north.id, move |tx| {
                    Box::pin(async move { m.remove_member_in(tx, id, GUEST).await })
                })
                .await?;
            assert_eq!(kind(s.m.list(&s.guest, s.id, 0, None).await), Kind::Forbidden);
            assert_eq!(
                kind(s.m.send(&s.guest, s.id, draft(Uuid::from_u128(3), "x")).await),
                Kind::Forbidden
            );
            Ok(())
        })
    });
}

#[test]
fn receipts_move_forward_only_and_are_told_once() {
    both(|w| {
        Box::pin(async move {
            let s = scene(w).await?;
            for n in 1..=3 {
                s.m.send(&s.anna, s.id, draft(Uuid::from_u128(n), "x")).await?;
            }
            let mut live = w.ctx.bus.attach_live()?;
            let read = |n| Receipt {
                delivered_upto: None,
                read_upto: Some(n),
            };
            let now = s.m.receipt(&s.guest, s.id, read(2)).await?;
            assert_eq!((now.delivered_upto, now.read_upto), (2, 2));
            assert_eq!(s.m.receipt(&s.guest, s.id, read(1)).await?, now);
            assert_eq!(kind(s.m.receipt(&s.guest, s.id, read(4)).await), Kind::Unprocessable);
            let delivered = Receipt {
                delivered_upto: Some(3),
                read_upto: None,
            };
            let now = s.m.receipt(&s.guest, s.id, delivered).await?;
            assert_eq!((now.delivered_upto, now.read_upto), (3, 2));
            let members = s.m.conversation(&s.anna, s.id).await?.members;
            let guest = members.iter().find(|m| m.subject == GUEST).unwrap();
            assert_eq!((guest.delivered_upto, guest.read_upto), (3, 2));
            let mut told = Vec::new();
            while let Ok(event) = live.try_recv() {
                told.push((event.kind.into_owned(), event.channel));
            }
            let channel = Some(format!("conversation:{}", s.id));
            assert_eq!(told, vec![("receipt.updated".to_owned(), channel); 2]);
            Ok(())
        })
    });
}

#[test]
fn rpc_answers_as_rest_does_and_pushes_after_the_commit() {
    both(|w| {
        Box::pin(async move {
            let s = scene(w).await?;
            let mut live = w.ctx.bus.attach_live()?;
            let raw = |v: serde_json::Value| serde_json::value::to_raw_value(&v).unwrap();
            let send = raw(
                serde_json::json!({ "conversation_id": s.id, "client_id": Uuid::from_u128(1), "body": { "text": "hi" } }),
            );
            let answer = rpc::message_send(s.m.clone(), s.anna.clone(), send).await?;
            let answer: serde_json::Value = serde_json::from_str(answer.get()).unwrap();
            assert_eq!(answer["message"]["seq"], 1);
            assert_eq!(answer["message"]["at"], "2026-03-02T09:00:00.000Z");
            assert_eq!(
                answer["message"]["sender"],
                serde_json::json!({ "subject": ANNA, "name": "Anna" })
            );
            assert_eq!(answer["duplicate"], false);
            let pushed = live.try_recv().unwrap();
            assert_eq!(
                (&*pushed.kind, pushed.channel.clone()),
                ("message.created", Some(format!("conversation:{}", s.id)))
            );
            assert_eq!(pushed.parse::<serde_json::Value>()?["message"], answer["message"]);
            rpc::typing(
                s.m.clone(),
                s.guest.clone(),
                raw(serde_json::json!({ "conversation_id": s.id })),
            )
            .await?;
            assert_eq!(&*live.try_recv().unwrap().kind, "typing");
            let receipt = raw(serde_json::json!({ "conversation_id": s.id, "read_upto": 1 }));
            let answer = rpc::message_receipt(s.m.clone(), s.guest.clone(), receipt).await?;
            assert_eq!(answer.get(), r#"{"delivered_upto":1,"read_upto":1}"#);
            for bad in [
                serde_json::json!([]),
                serde_json::json!({ "conversation_id": "x" }),
                serde_json::json!(null),
            ] {
                assert_eq!(
                    kind(rpc::message_send(s.m.clone(), s.anna.clone(), raw(bad)).await),
                    Kind::BadRequest
                );
            }
            Ok(())
        })
    });
}

#[test]
fn encrypted_modes_are_refused_until_they_exist() {
    both(|w| {
        Box::pin(async move {
            let s = scene(w).await?;
            for mode in [Mode::Recorded, Mode::Strict] {
                let m = s.m.clone();
                let made = w.ctx.db.write(w.north.id, move |tx| {
                    Box::pin(async move { m.create_in(tx, "t", "t", mode, &[]).await })
                });
                assert_eq!(made.await.unwrap_err().code, "conversation.mode_unsupported");
            }
            Ok(())
        })
    });
}

/// On both engines the text of a message is sealed in its row, and opens in no other's.
#[test]
fn a_message_lies_sealed_and_a_shredded_conversation_is_gone() {
    both(|w| {
        Box::pin(async move {
            let s = scene(w).await?;
            s.m.send(
                &s.anna,
                s.id,
                draft(Uuid::from_u128(1), "the strange rash of Quillfeather"),
            )
            .await?;
            s.m.send(&s.anna, s.id, draft(Uuid::from_u128(2), "second")).await?;
            let (db, north) = (&w.ctx.db, w.north.id);
            let rows = db
                .query(
                    north,
                    "SELECT body, digest FROM message WHERE tenant = $1 ORDER BY seq",
                    &[],
                )
                .await?;
            assert!(rows.iter().all(|r| r.text(0).unwrap().starts_with("sealed1:")));
            if db.engine() == Engine::Postgres {
                for table in ["outbox", "dead_letter"] {
                    let sql = Sql::built(format!("SELECT body FROM {table} WHERE tenant = $1"));
                    let bodies = db.query(north, sql, &[]).await?;
                    assert!(
                        bodies.iter().all(|r| r.text(0).unwrap().starts_with("sealed1:")),
                        "{table}"
                    );
                }
            }
            let first = rows[0].string(0)?;
            let swap = "UPDATE message SET body = $2 WHERE tenant = $1 AND seq = 2";
            let second = rows[1].string(0)?;
            for (body, opens) in [(first, false), (second, true)] {
                db.write(north, move |tx| {
                    Box::pin(async move { tx.exec(swap, &[body.into()]).await })
                })
                .await?;
                assert_eq!(s.m.list(&s.anna, s.id, 0, None).await.is_ok(), opens);
            }
            let subject = s.id.to_string();
            let scope = Scope {
                class: Class::Conversation,
                subject: &subject,
            };
            w.ctx.vault.shred(db, north, scope, "user:admin").await?;
            assert_eq!(kind(s.m.list(&s.anna, s.id, 0, None).await), Kind::Gone);
            Ok(())
        })
    });
}
