//! What is kept of a principal between requests against what is read anew, under any order of giving, taking, time and
//! looks, on both engines; on PostgreSQL between two servers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use medtech_kernel::{
    Ctx, Result,
    auth::{Principal, Role},
    policy::{self, Policy, Sight, Treatment, consent, glass},
    scope::Letter,
    tenant::Settings,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

const KINDS: [&str; 6] = [
    "Patient",
    "Observation",
    "Encounter",
    "Appointment",
    "Practitioner",
    "AuditEvent",
];
const MINUTE: i64 = 60_000;

/// A generator with a stated beginning (SplitMix64), so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len() as u64) as usize]
    }
}

fn same(kept: &Sight, fresh: &Sight, told: &str) {
    for kind in KINDS {
        for letter in Letter::ALL {
            assert_eq!(
                *kept.view(kind, letter),
                *fresh.view(kind, letter),
                "{kind} {letter:?} {told}"
            );
        }
    }
    for patient in ["p0", "p1", "p2"] {
        assert_eq!(
            kept.is_emergency(patient),
            fresh.is_emergency(patient),
            "{patient} {told}"
        );
    }
    assert_eq!(
        kept.refusal().map(|e| e.code),
        fresh.refusal().map(|e| e.code),
        "{told}"
    );
}

/// One change, as some server makes it.
async fn change(ctx: &Ctx, who: &[Principal], dice: &mut Dice) -> Result<()> {
    let tenant = who[0].tenant;
    let subject = who[dice.roll(who.len() as u64) as usize].subject.clone();
    let patient = dice.pick(&["p0", "p1", "p2"]);
    let now = ctx.clock.now_ms();
    let soon = now + (1 + dice.roll(5) as i64) * MINUTE;
    let (what, from) = (dice.roll(9), now + (dice.roll(5) as i64 - 2) * MINUTE);
    let ends = dice.roll(2) == 0;
    let relation = dice.pick(&[
        "self",
        "treats",
        "proxy.appointments",
        "proxy.results",
        "proxy.messages",
        "member",
    ]);
    let label = dice.pick(&["ETH", "PSY"]);
    if what == 8 {
        let mut settings = Settings {
            relationship_required: ends,
            ..Settings::default()
        };
        settings.require_two_factors = dice.roll(2) == 0;
        return ctx.tenants.set_settings(tenant, &settings).await;
    }
    if what == 7 {
        ctx.clock.advance(dice.roll(3) as i64 * MINUTE);
        return Ok(());
    }
    let (policy, name) = (ctx.policy.clone(), subject.clone());
    let write = ctx.db.write(tenant, move |tx| {
        Box::pin(async move {
            let object = match relation {
                "self" if ends => "practitioner:d".to_owned(),
                _ => format!("patient:{patient}"),
            };
            let until = (!ends).then_some(soon);
            match what {
                0 | 1 => policy::relate(tx, &subject, relation, &object, until).await,
                2 => policy::unrelate(tx, &subject, relation, &object).await,
                3 | 4 => {
                    let who = if ends { subject } else { "practitioner:d".to_owned() };
                    let treatment = Treatment {
                        who,
                        patient: patient.into(),
                        from,
                        until: soon,
                    };
                    let all = if what == 4 && ends { Vec::new() } else { vec![treatment] };
                    policy::treat(tx, "Appointment/1", &all).await.map(drop)
                }
                5 => {
                    let of = |provision: Value| json!({"resourceType": "Consent", "status": "active", "patient": {"reference": format!("Patient/{patient}")}, "provision": provision});
                    let given = of(json!({"type": "deny", "class": [{"code": "Observation"}],
                        "period": {"start": medtech_kernel::clock::rfc3339(from), "end": medtech_kernel::clock::rfc3339(soon)}}));
                    let named = of(json!({"type": "permit", "provision": [{"type": "permit", "securityLabel": [{"code": label}],
                        "actor": [{"reference": {"reference": "Practitioner/d"}}]}]}));
                    consent::replace(tx, patient, Some(if ends { &given } else { &named })).await
                }
                _ if ends => policy.mend_glass(tx, &subject, patient).await.map(drop),
                _ => {
                    let ask = glass::Ask {
                        subject: &subject,
                        name: &name,
                        patient,
                        reason: "emergency",
                        note: "",
                    };
                    policy.break_glass(tx, &ask).await.map(drop)
                }
            }
        })
    });
    write.await
}

async fn any_order(w: &World) -> Result<()> {
    let mut servers = vec![w.ctx.clone()];
    servers.extend(w.another_server().await?);
    let mut who = Vec::new();
    for (subject, role) in [
        ("user:doctor", Role::Clinician),
        ("user:patient", Role::Patient),
        ("user:desk", Role::Staff),
    ] {
        who.push(w.sign_in(&w.north, subject, role).await?.0);
    }
    let (mut again, mut looks) = (0, 0);
    let mut last: HashMap<(usize, String), Arc<Sight>> = HashMap::new();
    for seed in 0..6 {
        let mut dice = Dice(seed);
        for step in 0..80 {
            let writer = &servers[dice.roll(servers.len() as u64) as usize];
            if dice.roll(2) == 0 {
                change(writer, &who, &mut dice).await?;
            }
            for (at, reader) in servers.iter().enumerate() {
                // The register of tenants is read anew by every server within its own time.
                reader.tenants.reload().await?;
                let one = &who[dice.roll(who.len() as u64) as usize];
                let kept = reader.policy.sight(one).await?;
                let anew = Policy::new(
                    reader.db.clone(),
                    reader.bus.clone(),
                    reader.clock.clone(),
                    reader.tenants.clone(),
                );
                same(
                    &kept,
                    &*anew.sight(one).await?,
                    &format!("seed {seed} step {step} {}", one.subject),
                );
                looks += 1;
                let before = last.insert((at, one.subject.clone()), Arc::clone(&kept));
                again += usize::from(before.is_some_and(|before| Arc::ptr_eq(&before, &kept)));
            }
        }
    }
    // Otherwise nothing was compared with anything.
    assert!(again > looks / 50, "{again} of {looks} looks used what was kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_what_would_be_read() {
    on_both_engines(&[], |w| Box::pin(any_order(w))).await;
}

/// A session is another where the same person proves themselves, acts through a client, or is of another clinic.
async fn one_is_not_the_other(w: &World) -> Result<()> {
    let (doctor, _) = w.sign_in(&w.north, "user:doctor", Role::Clinician).await?;
    let seen = w.ctx.policy.sight(&doctor).await?;
    assert!(Arc::ptr_eq(&seen, &w.ctx.policy.sight(&doctor).await?));
    let mut narrowed = doctor.clone();
    narrowed.grant = Arc::new(medtech_kernel::auth::Grant {
        scopes: Some("user/Patient.r".into()),
        ..(*doctor.grant).clone()
    });
    let view = w.ctx.policy.sight(&narrowed).await?.view("Observation", Letter::Read);
    assert!(view.is_nothing() && !seen.view("Observation", Letter::Read).is_nothing());
    let demoted = Principal {
        roles: Vec::new(),
        ..doctor.clone()
    };
    assert!(
        w.ctx
            .policy
            .sight(&demoted)
            .await?
            .view("Observation", Letter::Read)
            .is_nothing()
    );
    let elsewhere = Principal {
        tenant: w.south.id,
        ..doctor
    };
    assert!(!Arc::ptr_eq(&seen, &w.ctx.policy.sight(&elsewhere).await?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_one_principals() {
    on_both_engines(&[], |w| Box::pin(one_is_not_the_other(w))).await;
}

/// Nobody writes anything when a time comes or a setting is chosen; channels that are open must be asked for again all the same.
#[tokio::test]
async fn what_ends_by_time_or_by_a_setting_is_noticed_at_the_next_look() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (ctx, north) = (&w.ctx, w.north.id);
            let now = ctx.clock.now_ms();
            let at = |minutes: i64| medtech_kernel::clock::rfc3339(now + minutes * MINUTE);
            // A refusal that begins in five minutes, and an exception for one person that ends in ten.
            let consent = json!({"resourceType": "Consent", "status": "active", "patient": {"reference": "Patient/p1"},
                "provision": {"type": "deny", "period": {"start": at(5)}, "provision": [
                    {"type": "permit", "period": {"end": at(10)}, "actor": [{"reference": {"reference": "Practitioner/d"}}]}]}});
            ctx.db
                .write(north, move |tx| {
                    Box::pin(async move { consent::replace(tx, "c1", Some(&consent)).await })
                })
                .await?;
            let relation = ctx.db.write(north, move |tx| {
                Box::pin(async move {
                    policy::relate(tx, "user:1", "treats", "patient:p1", Some(now + 15 * MINUTE)).await
                })
            });
            relation.await?;
            let mut last = ctx.policy.epoch(north, None).await?.0;
            let mut look = async || -> Result<bool> {
                let (now, changed) = ctx.policy.epoch(north, Some(last)).await?;
                last = now;
                Ok(changed)
            };
            assert!(!look().await?, "nothing has changed");
            for (minutes, told, expected) in [
                (4, "before", false),
                (2, "the refusal begins", true),
                (3, "between", false),
                (2, "the exception ends", true),
                (3, "between", false),
            ] {
                ctx.clock.advance(minutes * MINUTE);
                assert_eq!(look().await?, expected, "{told}");
            }
            // The row of a relation that ended stands until everybody has looked.
            ctx.clock.advance(2 * MINUTE);
            medtech_kernel::upkeep::tidy(&ctx.db, north).await?;
            assert!(look().await?, "the relation has ended");
            assert!(!look().await?);
            ctx.clock.advance(61 * MINUTE);
            assert_eq!(medtech_kernel::upkeep::tidy(&ctx.db, north).await?, 1);
            // What a clinic chooses.
            for (two, related) in [(false, false), (true, false), (true, true)] {
                let settings = Settings {
                    require_two_factors: two,
                    relationship_required: related,
                    ..Settings::default()
                };
                ctx.tenants.set_settings(north, &settings).await?;
                assert!(look().await?, "two factors {two}, relationship {related}");
                assert!(!look().await?);
            }
            assert!(!ctx.policy.epoch(w.south.id, Some(ctx.policy.epoch(w.south.id, None).await?.0)).await?.1);
            Ok(())
        })
    })
    .await;
}
