//! Roles of a clinic's own, against the tables they are made of.

use super::*;
use crate::{
    auth::{Assurance, NewSession},
    policy::{Resource, matrix, relate},
    testkit::{World, on_both_engines},
};

fn texts() -> BTreeSet<String> {
    choosable().iter().map(ToString::to_string).collect()
}

#[test]
fn what_can_be_chosen_goes_round_nothing_and_runs_no_clinic() {
    let all = texts();
    assert!(
        all.len() == choosable().len() && all.len() > 30,
        "each once: {}",
        all.len()
    );
    for good in [
        "clinician.record.clinical.see",
        "staff.record.demographic.change",
        "staff.thing.visits.read",
        "clinician.thing.visit.publish",
    ] {
        assert!(all.contains(good), "{good}");
    }
    for p in choosable() {
        assert!(matches!(p.of, Role::Clinician | Role::Staff), "{p}");
        assert_ne!(breadth(p.of, p.what), Some("broken"), "{p}");
        if let What::Thing(kind, action) = p.what {
            // The emergency access, and whatever an administrator alone may do.
            assert_ne!(kind, "glass");
            assert_ne!(action, Action::Administer, "{p}");
            assert!(
                !matches!(
                    kind,
                    "tenant" | "key" | "audit" | "policy" | "break_glass" | "oauth_client" | "outbox" | "metrics"
                ),
                "{p}"
            );
        }
    }
    // What is one's own, a member's or a participant's anyway is not chosen: nobody can be without it.
    for own in ["conversation", "session", "credential", "user"] {
        assert!(!all.iter().any(|p| p.contains(&format!(".thing.{own}."))), "{own}");
    }
}

#[test]
fn names_and_permissions_are_held_to_the_tables() {
    let one = vec!["clinician.record.clinical.see".to_owned()];
    let code = |name: &str, permissions: &[String]| Wanted::check(name, permissions).map_err(|e| e.code).err();
    assert_eq!(code("Nurse", &one), None);
    for name in [
        "",
        "  ",
        "admin",
        "Clinician",
        "a\u{7}b",
        "own:0190a0b0-0000-7000-8000-000000000000",
        &"x".repeat(61),
    ] {
        assert_eq!(code(name, &one), Some("policy.role_name"), "{name:?}");
    }
    for wrong in [
        "admin.record.clinical.see",
        "clinician.thing.glass.write",
        "admin.thing.user.administer",
        "clinician.record.trail.change",
        "staff.record.clinical.see",
        "",
    ] {
        assert_eq!(
            code("Nurse", &[wrong.to_owned()]),
            Some("policy.role_permission"),
            "{wrong}"
        );
    }
    assert_eq!(code("Nurse", &[]), Some("policy.role_permission"));
}

/// A session of somebody with these roles, as the door would see it.
async fn principal(w: &World, subject: &str, roles: Vec<Role>) -> Result<(Principal, String)> {
    let (sessions, subject) = (w.ctx.sessions.clone(), subject.to_owned());
    let token = w.ctx.db.write(w.north.id, move |tx| {
        Box::pin(async move {
            let new = NewSession {
                subject,
                name: "x".into(),
                roles,
                ttl_ms: 3_600_000,
                note: String::new(),
                grant: Assurance::Two.into(),
                idle_ms: None,
            };
            sessions.issue(tx, new).await.map(|(token, _)| token)
        })
    });
    let token = token.await?;
    Ok((w.ctx.sessions.still(w.north.id, &token).await?, token))
}

async fn set(w: &World, id: Option<(Uuid, i64)>, name: &str, all: &[&str]) -> Result<OwnRole> {
    let texts: Vec<String> = all.iter().map(|t| (*t).to_owned()).collect();
    let wanted = Wanted::check(name, &texts)?;
    let done = w.ctx.db.write(w.north.id, move |tx| {
        Box::pin(async move { put(tx, id, wanted, "user:boss").await })
    });
    done.await
}

#[tokio::test]
async fn every_choice_gives_what_the_fixed_role_gives_by_it_and_nothing_else() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let clinic = w.north.id;
            for (subject, patient) in [("user:own", "p1"), ("user:whole", "p1")] {
                let done = w.ctx.db.write(clinic, move |tx| {
                    Box::pin(async move { relate(tx, subject, "treats", &format!("patient:{patient}"), None).await })
                });
                done.await?;
            }
            let kinds = [
                "Patient",
                "Encounter",
                "Observation",
                "Consent",
                "AuditEvent",
                "Practitioner",
                "Appointment",
            ];
            let role = set(w, None, "One", &["staff.thing.board.read"]).await?;
            let (_, token) = principal(w, "user:own", vec![Role::Own(role.id)]).await?;
            let mut version = role.version;
            for chosen in choosable() {
                version = set(w, Some((role.id, version)), "One", &[&chosen.to_string()])
                    .await?
                    .version;
                // The same token, from the next question on.
                let who = w.ctx.sessions.still(clinic, &token).await?;
                let (whole, _) = principal(w, "user:whole", vec![chosen.of]).await?;
                let (none, _) = principal(w, "user:nobody", vec![]).await?;
                for kind in table::KINDS {
                    for action in Action::ALL {
                        let what = Resource::new(kind, "another");
                        let rule = |who: &Principal| table::rule(who, action, &what);
                        let here = chosen.what == What::Thing(kind, action);
                        assert_eq!(
                            rule(&who),
                            if here { rule(&whole) } else { rule(&none) },
                            "{chosen}: {kind} {action:?}"
                        );
                    }
                }
                let (sight, all, nothing) = (
                    w.ctx.policy.sight(&who).await?,
                    w.ctx.policy.sight(&whole).await?,
                    w.ctx.policy.sight(&none).await?,
                );
                for kind in kinds {
                    for letter in Letter::ALL {
                        let here = chosen.what == What::Record(Class::of(kind), Step::of(letter));
                        let expected = if here {
                            all.view(kind, letter)
                        } else {
                            nothing.view(kind, letter)
                        };
                        assert_eq!(
                            sight.view(kind, letter).reach,
                            expected.reach,
                            "{chosen}: {kind} {letter:?}"
                        );
                        assert_eq!(
                            sight.view(kind, letter).redaction,
                            expected.redaction,
                            "{chosen}: {kind}"
                        );
                        if here {
                            assert_eq!(
                                sight.view(kind, letter).barriers,
                                expected.barriers,
                                "labels and consent: {chosen}"
                            );
                        }
                    }
                }
                assert!(!sight.may_break_glass("p2"));
                assert!(!who.has(chosen.of), "outside the policy it is nobody's role");
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_role_is_versioned_taken_away_at_once_and_of_one_clinic() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let clinic = w.north.id;
            let see = "clinician.record.directory.see";
            let role = set(w, None, "Nurse", &[see, "staff.thing.board.read"]).await?;
            assert_eq!(
                set(w, None, "nurse", &[see]).await.unwrap_err().code,
                "policy.role_name_taken"
            );
            let (who, token) = principal(w, "user:n", vec![Role::Own(role.id)]).await?;
            let board = Resource::new("board", "x");
            let may = async |who: &Principal| -> Result<bool> {
                Ok(w.ctx.policy.decide(who, Action::Read, &board).await?.allow)
            };
            assert!(
                may(&who).await?
                    && !w
                        .ctx
                        .policy
                        .sight(&who)
                        .await?
                        .view("Practitioner", Letter::Read)
                        .is_nothing()
            );
            // Beside a whole role it takes nothing away.
            let (both, _) = principal(w, "user:both", vec![Role::Own(role.id), Role::Staff]).await?;
            assert!(w.ctx.policy.decide(&both, Action::Write, &board).await?.allow);
            // Another clinic's role of that number is nothing there.
            let south = Principal {
                tenant: w.south.id,
                ..who.clone()
            };
            let south = resolved(
                &w.ctx.db,
                Principal {
                    grant: Default::default(),
                    ..south
                },
            )
            .await?;
            assert!(south.held().next().is_none());
            assert!(versions(&w.ctx.db, w.south.id, role.id).await?.is_empty());

            let (before, _) = w.ctx.policy.epoch(clinic, None).await?;
            let next = set(w, Some((role.id, 1)), "Nurse", &[see]).await?;
            let (_, withdrawn) = w.ctx.policy.epoch(clinic, Some(before)).await?;
            assert!(withdrawn, "whoever holds something open looks again");
            let who = w.ctx.sessions.still(clinic, &token).await?;
            assert!(!may(&who).await?);
            assert_eq!(
                set(w, Some((role.id, 1)), "Nurse", &[see]).await.unwrap_err().code,
                "policy.role_version"
            );
            assert_eq!(
                set(w, Some((Uuid::nil(), 1)), "Other", &[see]).await.unwrap_err().code,
                "policy.role_unknown"
            );

            let gone = w.ctx.db.write(clinic, move |tx| {
                Box::pin(async move { remove(tx, next.id, "user:boss").await })
            });
            assert_eq!(gone.await?.version, 3);
            let who = w.ctx.sessions.still(clinic, &token).await?;
            assert!(
                who.held().next().is_none()
                    && w.ctx
                        .policy
                        .sight(&who)
                        .await?
                        .view("Practitioner", Letter::Read)
                        .is_nothing()
            );
            let told: Vec<_> = versions(&w.ctx.db, clinic, role.id)
                .await?
                .into_iter()
                .map(|r| (r.version, r.gone, r.permissions.len()))
                .collect();
            assert_eq!(told, [(3, true, 1), (2, false, 1), (1, false, 2)]);
            assert!(all(&w.ctx.db, clinic).await?.is_empty());
            // The name is free again.
            set(w, None, "Nurse", &[see]).await.map(drop)
        })
    })
    .await;
}

#[test]
fn the_fixed_roles_are_what_they_were() {
    // Both ways of asking: the rule itself by a whole role, and the page.
    for role in matrix().roles {
        assert!(!role.things.is_empty(), "{}", role.role);
    }
}
