//! What the trail says besides who did what: from where, in whose name at the machine, about whom where there are several, and
//! what was written. All of it is in the chain.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use medtech_kernel::{
    Result, TenantId, Val,
    audit::{self, Entry, Filter, Finding, Lists, Origin, Outcome, Record},
    auth::{Assurance, Grant, NewSession, Principal, Role},
    testkit::{World, on_both_engines},
};

const ACT: Entry<'static> = Entry {
    actor: "user:1",
    action: "read",
    target: "Observation",
    outcome: "success",
    detail: "search code",
};

async fn token(w: &World, machine: bool) -> Result<Principal> {
    let (sessions, north) = (w.ctx.sessions.clone(), w.north.id);
    let new = NewSession {
        subject: "user:1".into(),
        name: "Dr. One".into(),
        roles: vec![Role::Clinician],
        ttl_ms: 60_000,
        note: String::new(),
        grant: Grant {
            machine,
            ..Grant::from(Assurance::Two)
        },
        idle_ms: None,
    };
    let issued = w.ctx.db.write(north, move |tx| {
        Box::pin(async move { sessions.issue(tx, new).await.map(|(token, _)| token) })
    });
    w.ctx.sessions.verify(north, &issued.await?).await
}

async fn listed(w: &World, tenant: TenantId, patients: &'static [&'static str]) -> Result<()> {
    let write = w.ctx.db.write(tenant, move |tx| {
        Box::pin(async move { audit::record(tx, vec![Record::new(ACT).about(patients.iter().copied())]).await })
    });
    write.await
}

#[tokio::test]
async fn an_entry_says_from_where_and_whether_the_token_was_taken_at_the_machine() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (person, operator) = (token(w, false).await?, token(w, true).await?);
            assert!(!person.grant.machine && operator.grant.machine);
            let listed_as: Vec<bool> = w
                .ctx
                .sessions
                .list(w.north.id, "user:1")
                .await?
                .iter()
                .map(|s| s.grant.machine)
                .collect();
            assert_eq!(
                listed_as.iter().filter(|m| **m).count(),
                1,
                "the person sees it among the sessions"
            );
            for who in [&person, &operator] {
                let from = Origin {
                    network: Some("203.0.113.0/24".into()),
                    ..Origin::default()
                };
                from.scope(async {
                    Origin::found(who);
                    w.ctx
                        .db
                        .write(w.north.id, |tx| Box::pin(async move { audit::write(tx, ACT).await }))
                        .await
                })
                .await?;
            }
            // The server by itself, and another clinic.
            for tenant in [w.north.id, w.south.id] {
                w.ctx
                    .db
                    .write(tenant, |tx| Box::pin(async move { audit::write(tx, ACT).await }))
                    .await?;
            }
            let all = audit::page(&w.ctx.db, w.north.id, &Filter::default(), 10).await?;
            let origins: Vec<_> = all.iter().map(|f| (f.origin.session, f.origin.machine)).collect();
            assert_eq!(
                origins,
                [
                    (None, false),
                    (Some(operator.session), true),
                    (Some(person.session), false)
                ]
            );
            assert_eq!(all[1].origin.network.as_deref(), Some("203.0.113.0/24"));
            let machine = Filter {
                machine: true,
                ..Filter::default()
            };
            let session = Filter {
                session: Some(person.session),
                ..Filter::default()
            };
            for (filter, seq) in [(machine, all[1].seq), (session, all[2].seq)] {
                let found = audit::page(&w.ctx.db, w.north.id, &filter, 10).await?;
                assert_eq!(found.iter().map(|f| f.seq).collect::<Vec<_>>(), [seq]);
                assert!(audit::page(&w.ctx.db, w.south.id, &filter, 10).await?.is_empty());
            }
            assert!(audit::examine(&w.ctx, w.north.id).await?.intact);
            // Taking the mark away, or putting one there, is found.
            for (sql, seq) in [
                (
                    "UPDATE audit SET issued = NULL WHERE tenant = $1 AND seq = $2",
                    all[1].seq,
                ),
                (
                    "UPDATE audit SET session = NULL WHERE tenant = $1 AND seq = $2",
                    all[2].seq,
                ),
                (
                    "UPDATE audit SET network = '198.51.100.0/24' WHERE tenant = $1 AND seq = $2",
                    all[0].seq,
                ),
            ] {
                w.forge(w.north.id, sql, vec![seq.into()]).await?;
                let found = audit::examine(&w.ctx, w.north.id).await?.findings;
                assert!(found.contains(&Finding::Altered { seq }), "{sql}: {found:?}");
            }
            assert!(audit::examine(&w.ctx, w.south.id).await?.intact);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn an_entry_about_several_is_found_by_each_and_its_list_cannot_be_changed() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            for tenant in [w.north.id, w.south.id, w.east.id] {
                listed(w, tenant, &["b", "a", "c", "a"]).await?;
                listed(w, tenant, &["a"]).await?;
                listed(w, tenant, &[]).await?;
                assert!(matches!(
                    audit::checkpoint(&w.ctx, tenant, true).await?,
                    Outcome::Written(_)
                ));
            }
            let north = w.north.id;
            for (patient, seqs) in [("a", vec![2, 1]), ("b", vec![1]), ("c", vec![1]), ("d", vec![])] {
                let found = audit::about(&w.ctx.db, north, patient, None, 10).await?;
                assert_eq!(found.iter().map(|f| f.seq).collect::<Vec<_>>(), seqs, "{patient}");
            }
            assert_eq!(
                audit::about(&w.ctx.db, north, "a", Some(2), 10).await?.len(),
                1,
                "what is older"
            );
            let all = audit::page(&w.ctx.db, north, &Filter::default(), 10).await?;
            assert_eq!(all.iter().map(|f| f.patients).collect::<Vec<_>>(), [0, 0, 3]);
            assert_eq!(audit::concerned(&w.ctx.db, north, 1..=3).await?[&1], ["a", "b", "c"]);
            let forgeries: [(&'static str, Vec<Val>, i64); 4] = [
                (
                    "DELETE FROM audit_about WHERE tenant = $1 AND patient = $2",
                    vec!["b".into()],
                    1,
                ),
                (
                    "UPDATE audit_about SET patient = $2 WHERE tenant = $1 AND patient = 'c'",
                    vec!["d".into()],
                    1,
                ),
                (
                    "INSERT INTO audit_about (tenant, seq, patient) VALUES ($1, 1, $2)",
                    vec!["e".into()],
                    1,
                ),
                (
                    "INSERT INTO audit_about (tenant, seq, patient) VALUES ($1, 3, $2)",
                    vec!["e".into()],
                    3,
                ),
            ];
            let back = "DELETE FROM audit_about WHERE tenant = $1";
            for (sql, args, seq) in forgeries {
                assert!(audit::examine(&w.ctx, north).await?.intact);
                w.forge(north, sql, args).await?;
                let found = audit::examine(&w.ctx, north).await?.findings;
                assert_eq!(found, [Finding::PatientsAltered { seq }], "{sql}");
                w.forge(north, back, vec![]).await?;
                for patient in ["a", "b", "c"] {
                    let again = "INSERT INTO audit_about (tenant, seq, patient) VALUES ($1, 1, $2)";
                    w.forge(north, again, vec![patient.into()]).await?;
                }
            }
            for neighbour in [w.south.id, w.east.id] {
                assert!(audit::examine(&w.ctx, neighbour).await?.intact);
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_list_of_names_is_noted_once_a_while_and_at_once_for_whoever_is_new_on_it() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (who, other, lists) = (
                token(w, false).await?,
                token(w, false).await?,
                Lists::new(w.ctx.db.clone()),
            );
            let of = |ids: &[&str]| ids.iter().map(|id| format!("patient:{id}")).collect::<Vec<_>>();
            for (who, ids) in [
                (&who, &["a", "b"][..]),
                (&who, &["b", "a"]),
                (&who, &["a", "b", "c"]),
                (&who, &[]),
                (&other, &["a"]),
            ] {
                lists.note(who, "appointments", of(ids)).await?;
            }
            let seen = async |patient: &str| {
                Ok::<_, medtech_kernel::Error>(audit::about(&w.ctx.db, w.north.id, patient, None, 10).await?.len())
            };
            assert_eq!((seen("a").await?, seen("b").await?, seen("c").await?), (2, 1, 1));
            Ok(())
        })
    })
    .await;
}
