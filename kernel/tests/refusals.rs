//! What the policy refuses stands in the trail, and a flood of refusals does not; two factors are asked for at every clinical kind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use medtech_kernel::{
    Result,
    audit::{self, Filter, Found, NAMED},
    auth::{Assurance, Role},
    policy::{Action, Resource},
    tenant::Settings,
    testkit::{World, on_both_engines},
};
use std::sync::Arc;

/// Everything with clinical or personal content that is no FHIR resource: channels, files and messages ask for these kinds.
const CLINICAL: [&str; 10] = [
    "patient",
    "device",
    "visit",
    "encounter",
    "conversation",
    "board",
    "alert",
    "queue",
    "appointment",
    "visits",
];

async fn denied(w: &World) -> Result<Vec<Found>> {
    w.ctx.policy.refusals().flush().await;
    let filter = Filter {
        outcome: Some("denied".to_owned()),
        ..Filter::default()
    };
    audit::page(&w.ctx.db, w.north.id, &filter, 500).await
}

#[tokio::test]
async fn refusals_stand_in_the_trail_and_a_flood_of_them_does_not() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (who, _) = w.sign_in(&w.north, "user:curious", Role::Staff).await?;
            let policy = &w.ctx.policy;
            assert!(
                policy
                    .require(&who, Action::Read, &Resource::new("tenant", "own"))
                    .await
                    .is_err()
            );
            let all = denied(w).await?;
            assert_eq!(all.len(), 1, "{all:?}");
            assert_eq!(
                (all[0].actor.as_str(), all[0].target.as_str()),
                ("user:curious", "tenant:own")
            );
            assert_eq!(
                all[0].detail,
                format!("read tenant: nothing allows it; session {}", who.session)
            );

            // A thousand patients in turn: some by name, the rest as a number. What was sent cannot write lines of its own.
            for n in 0..1000 {
                let asked = Resource::new("patient", format!("p{n}\n\"x"));
                assert!(policy.require(&who, Action::Read, &asked).await.is_err());
            }
            let all = denied(w).await?;
            let flood: Vec<&Found> = all.iter().filter(|f| f.detail.starts_with("read patient")).collect();
            assert_eq!(flood.len(), NAMED + 1);
            assert!(
                flood
                    .iter()
                    .any(|f| f.detail.ends_with(&format!("; {} more within a minute", 1000 - NAMED)))
            );
            assert!(all.iter().all(|f| !f.target.contains(['\n', '"'])));
            // A patient who asks who looked finds who was refused, too.
            assert_eq!(audit::about(&w.ctx.db, w.north.id, "p0??x", None, 10).await?.len(), 1);

            // Ten thousand sessions at once take no more room than is bounded, and nothing of it comes into another clinic.
            for n in 0..10_000 {
                let actor = format!("user:{n}");
                policy.refusals().note(audit::Refusal {
                    tenant: w.north.id,
                    actor: &actor,
                    session: None,
                    act: "read",
                    kind: "board",
                    id: "main",
                    why: "test",
                });
            }
            policy
                .refusals()
                .attempt(w.south.id, "203.0.113.9".parse().unwrap(), "forged token");
            policy.refusals().flush().await;
            let written = w
                .ctx
                .db
                .query_one(w.north.id, "SELECT COUNT(*) FROM audit WHERE tenant = $1", &[])
                .await?;
            assert!(written.i64(0)? < 1_100);
            let south = audit::page(&w.ctx.db, w.south.id, &Filter::default(), 500).await?;
            assert_eq!(south.len(), 1);
            assert_eq!(
                (south[0].actor.as_str(), south[0].detail.as_str()),
                ("network:203.0.113.0/24", "execute door: forged token")
            );
            for tenant in [w.north.id, w.south.id] {
                assert!(audit::verify(&w.ctx.db, tenant).await?.is_ok());
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn below_two_factors_every_clinical_kind_is_refused() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let settings = Settings {
                require_two_factors: true,
                relationship_required: false,
                ..Settings::default()
            };
            w.ctx.tenants.set_settings(w.north.id, &settings).await?;
            for role in [Role::Admin, Role::Clinician, Role::Staff, Role::Patient] {
                let (two, _) = w.sign_in(&w.north, "user:one", role).await?;
                let mut one = two.clone();
                one.grant = Arc::new(Assurance::One.into());
                for kind in CLINICAL {
                    for action in Action::ALL {
                        let asked = Resource::new(kind, "one");
                        let refused = w.ctx.policy.require(&one, action, &asked).await.expect_err("refused");
                        assert_eq!(refused.code, "auth.second_factor", "{role:?} {kind} {action:?}");
                        if let Err(e) = w.ctx.policy.require(&two, action, &asked).await {
                            assert_ne!(e.code, "auth.second_factor", "{role:?} {kind} {action:?}");
                        }
                    }
                }
                // Which leaves what is needed to set the second step up.
                let own = Resource::new("credential", "one");
                assert!(w.ctx.policy.require(&one, Action::Write, &own).await.is_ok());
            }
            Ok(())
        })
    })
    .await;
}

const POISON: &str = "INSERT INTO audit (tenant, seq, at, actor, action, target, outcome, detail, hash)
    VALUES ($1, 9223372036854775807, 0, '', '', '', '', '', $2)";
const CURE: &str = "DELETE FROM audit WHERE tenant = $1 AND seq = 9223372036854775807 AND hash = $2";

#[tokio::test]
async fn refusals_whose_write_failed_are_written_later_and_past_a_bound_counted() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (who, _) = w.sign_in(&w.north, "user:curious", Role::Staff).await?;
            let own = Resource::new("tenant", "own");
            let mark = || vec![vec![0_u8; 32].into()];
            // The trail takes nothing for a while.
            w.forge(w.north.id, POISON, mark()).await?;
            for _ in 0..3 {
                assert!(w.ctx.policy.require(&who, Action::Read, &own).await.is_err());
                w.ctx.policy.refusals().flush().await;
            }
            // Somebody else's go on meanwhile, and the list of what waits is bounded.
            for n in 0..3000 {
                w.ctx.policy.refusals().note(audit::Refusal {
                    tenant: w.north.id,
                    actor: &format!("user:{}", n % 1000),
                    session: None,
                    act: "read",
                    kind: "tenant",
                    id: "own",
                    why: "policy.denied",
                });
                if n % 1000 == 999 {
                    w.ctx.policy.refusals().flush().await;
                }
            }
            w.forge(w.north.id, CURE, mark()).await?;
            w.ctx.policy.refusals().flush().await;
            let sql = "SELECT actor, detail FROM audit WHERE tenant = $1 AND outcome = 'denied'";
            let rows = w.ctx.db.query(w.north.id, sql, &[]).await?;
            let mut all = Vec::new();
            for row in &rows {
                all.push((row.string(0)?, row.string(1)?));
            }
            let hers = all.iter().filter(|(actor, _)| actor == "user:curious");
            assert_eq!(hers.count(), 3, "{rows:?}");
            let lost: Vec<_> = all.iter().filter(|(_, d)| d.contains("could not be kept")).collect();
            let kept = rows.len() - 1;
            assert!((1000..3003).contains(&kept), "{kept}");
            assert!(
                lost.len() == 1 && lost[0].1.starts_with(&format!("{} ", 3003 - kept)),
                "{lost:?} {kept}"
            );
            // Nothing is written twice.
            let before = audit::verify(&w.ctx.db, w.north.id).await?;
            w.ctx.policy.refusals().flush().await;
            assert_eq!(audit::verify(&w.ctx.db, w.north.id).await?, before);
            Ok(())
        })
    })
    .await;
}
