//! Why may they, and why not: any decision of the policy explained, and what a user can see. For administrators.

use crate::{Identity, store};
use axum::{Json, extract::State};
use medtech_kernel::{
    Error, Result,
    audit::{self, Entry},
    auth::{Assurance, Grant, Principal},
    http::{Body, require},
    policy::{Action, Class, Matrix, Obligation, Reach, Resource, Sight, Trace, View, own},
    scope::Letter,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// Kinds that can be asked about by name.
const KINDS: &[&str] = &[
    "patient",
    "visit",
    "encounter",
    "conversation",
    "device",
    "board",
    "alert",
    "queue",
    "appointment",
    "user",
    "tenant",
    "audit",
    "outbox",
    "metrics",
    "oauth_client",
    "key",
    "visits",
    "break_glass",
    "policy",
];
/// Types that stand for their class in the overview.
const TYPES: &[&str] = &[
    "Patient",
    "Appointment",
    "Encounter",
    "Observation",
    "Condition",
    "MedicationRequest",
    "DiagnosticReport",
    "Communication",
    "DocumentReference",
    "Consent",
    "AuditEvent",
    "Practitioner",
];

#[derive(Deserialize)]
pub(crate) struct Ask {
    /// Whose access: the id of a user.
    user: Uuid,
    /// With both of these a decision is explained; without, what the user can see.
    action: Option<String>,
    resource: Option<What>,
    /// Scopes as of an application that acts for them.
    scopes: Option<String>,
}

#[derive(Deserialize)]
struct What {
    kind: String,
    id: String,
}

#[derive(Serialize)]
pub(crate) struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Explained>,
    sees: Vec<Seen>,
}

#[derive(Serialize)]
struct Explained {
    allow: bool,
    why: &'static str,
    obligations: Vec<Obligation>,
    steps: Vec<Trace>,
}

/// What a user sees of a type.
#[derive(Serialize)]
struct Seen {
    kind: &'static str,
    class: String,
    /// `everyone`, `some` or `none`.
    read: &'static str,
    write: &'static str,
    /// How many patients, where it is some.
    #[serde(skip_serializing_if = "Option::is_none")]
    patients: Option<usize>,
    hidden: Vec<&'static str>,
}

fn breadth(view: &View) -> &'static str {
    match (view.is_nothing(), view.reach.contains(&Reach::Everything)) {
        (true, _) => "none",
        (_, true) => "everyone",
        _ => "some",
    }
}

fn seen(sight: &Sight, kind: &'static str) -> Seen {
    let (read, write) = (sight.view(kind, Letter::Read), sight.view(kind, Letter::Update));
    let patients = read.reach.iter().find_map(|r| match r {
        Reach::Of(set) => Some(set.len()),
        _ => None,
    });
    Seen {
        kind,
        class: format!("{:?}", Class::of(kind)).to_lowercase(),
        read: breadth(&read),
        write: breadth(&write),
        patients,
        hidden: read.redaction.as_ref().map_or(Vec::new(), |r| r.elements.to_vec()),
    }
}

/// `POST /decide` {user, action?, resource?: {kind, id}, scopes?}
pub(crate) async fn decide(
    State(identity): State<Arc<Identity>>,
    who: Principal,
    Body(ask): Body<Ask>,
) -> Result<Json<Answer>> {
    let ctx = &identity.ctx;
    require(ctx, &who, Action::Administer, "policy", "*").await?;
    let user = store::by_id(&ctx.db, who.tenant, ask.user)
        .await?
        .ok_or_else(crate::unknown_user)?;
    // As they would be, signed in with all that they have.
    let subject = Principal {
        tenant: who.tenant,
        subject: user.subject(),
        roles: if user.active { user.roles.clone() } else { Vec::new() },
        session: Uuid::nil(),
        name: user.name.as_str().into(),
        grant: Arc::new(Grant {
            scopes: ask.scopes,
            ..Assurance::Two.into()
        }),
        proved_at: 0,
    };
    let subject = own::resolved(&ctx.db, subject).await?;
    let decision = match (ask.action, ask.resource) {
        (Some(action), Some(what)) => {
            let unknown =
                || Error::unprocessable("policy.question", "This is no action or kind that can be asked about.");
            let action = Action::parse(&action).ok_or_else(unknown)?;
            let kind = KINDS.iter().find(|k| **k == what.kind).ok_or_else(unknown)?;
            let d = ctx
                .policy
                .decide(&subject, action, &Resource::new(kind, what.id))
                .await?;
            Some(Explained {
                allow: d.allow,
                why: d.why,
                obligations: d.obligations,
                steps: d.steps,
            })
        }
        _ => None,
    };
    let sight = ctx.policy.sight(&subject).await?;
    let (actor, target) = (who.subject, user.subject());
    let noted = ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            let entry = Entry {
                actor: &actor,
                action: "read",
                target: &target,
                outcome: "success",
                detail: "what they can see",
            };
            audit::write(tx, entry).await
        })
    });
    noted.await?;
    Ok(Json(Answer {
        decision,
        sees: TYPES.iter().map(|kind| seen(&sight, kind)).collect(),
    }))
}

/// `GET /access/rules`: what each role may do, as the policy's own tables have it. For administrators.
pub(crate) async fn rules(State(identity): State<Arc<Identity>>, who: Principal) -> Result<Json<Matrix>> {
    require(&identity.ctx, &who, Action::Read, "policy", "*").await?;
    let own = own::all(&identity.ctx.db, who.tenant).await?;
    Ok(Json(medtech_kernel::policy::matrix().with(&own)))
}
