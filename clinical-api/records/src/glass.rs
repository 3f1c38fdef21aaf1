//! Emergency access to one patient's record, and its review by administrators.

use crate::{Records, http::is_id};
use axum::{
    Json,
    extract::{Path, Query, State},
};
use http::StatusCode;
use medtech_kernel::{
    Error, Result,
    auth::Principal,
    clock::rfc3339,
    http::{Body, require},
    policy::{
        Action,
        glass::{self, Ask, Broken, REASONS, Show},
    },
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

const MOST: i64 = 200;

#[derive(Deserialize)]
pub(crate) struct Why {
    reason_code: String,
    text: String,
}

#[derive(Serialize)]
pub(crate) struct Shown {
    id: Uuid,
    subject: String,
    name: String,
    patient_id: String,
    reason_code: String,
    text: String,
    at: String,
    until: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// Until when it is to be reviewed.
    due: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    assignee: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reviewed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reviewed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    review: Option<String>,
}

impl From<Broken> for Shown {
    fn from(b: Broken) -> Self {
        Self {
            id: b.id,
            subject: b.subject,
            name: b.name,
            patient_id: b.patient,
            reason_code: b.reason,
            text: b.note,
            at: rfc3339(b.at),
            until: rfc3339(b.until),
            ended_at: b.ended_at.map(rfc3339),
            due: rfc3339(b.due),
            assignee: b.assignee,
            reviewed_at: b.reviewed_at.map(rfc3339),
            reviewed_by: b.reviewed_by,
            review: b.review,
        }
    }
}

/// `POST /patients/{id}/break-glass` {reason_code, text}: one patient, one hour.
pub(crate) async fn begin(
    State(records): State<Arc<Records>>,
    who: Principal,
    Path(patient): Path<String>,
    Body(why): Body<Why>,
) -> Result<(StatusCode, Json<Shown>)> {
    let ctx = &records.ctx;
    require(ctx, &who, Action::Write, "glass", &patient).await?;
    who.require_fresh(ctx.clock.now_ms())?;
    let reason = REASONS.iter().find(|r| **r == why.reason_code);
    let text = why.text.trim().to_owned();
    let (Some(reason), 10..=1000) = (reason, text.chars().count()) else {
        return Err(Error::unprocessable(
            "break_glass.reason",
            "Choose a reason, and say in 10 to 1,000 characters why you need to see this record.",
        ));
    };
    if !is_id(&patient) {
        return Err(Error::not_found("records.patient_unknown", "There is no such patient."));
    }
    records.patient(who.tenant, &patient).await?;
    let policy = ctx.policy.clone();
    let made = ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            let ask = Ask {
                subject: &who.subject,
                name: &who.name,
                patient: &patient,
                reason,
                note: &text,
            };
            policy.break_glass(tx, &ask).await
        })
    });
    Ok((StatusCode::CREATED, Json(made.await?.into())))
}

/// `POST /patients/{id}/break-glass/end`: before its time.
pub(crate) async fn end(
    State(records): State<Arc<Records>>,
    who: Principal,
    Path(patient): Path<String>,
) -> Result<StatusCode> {
    require(&records.ctx, &who, Action::Write, "glass", &patient).await?;
    let policy = records.ctx.policy.clone();
    let ended = records.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move { policy.mend_glass(tx, &who.subject, &patient).await })
    });
    match ended.await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Error::not_found(
            "break_glass.not_open",
            "There is no emergency access to end.",
        )),
    }
}

#[derive(Serialize)]
pub(crate) struct Several {
    accesses: Vec<Shown>,
}

fn shown(all: Vec<Broken>) -> Json<Several> {
    Json(Several {
        accesses: all.into_iter().map(Shown::from).collect(),
    })
}

/// `GET /break-glass/mine`: what the caller holds open now, for the banner.
pub(crate) async fn mine(State(records): State<Arc<Records>>, who: Principal) -> Result<Json<Several>> {
    let ctx = &records.ctx;
    glass::open(&ctx.db, who.tenant, &who.subject, ctx.clock.now_ms())
        .await
        .map(shown)
}

#[derive(Deserialize)]
pub(crate) struct Which {
    #[serde(default)]
    all: Option<u8>,
    show: Option<String>,
}

/// `GET /break-glass`: what waits for a review. `show=overdue|mine|all` (`all=1` as before): what is late, what was given
/// to the caller, what was reviewed too.
pub(crate) async fn list(
    State(records): State<Arc<Records>>,
    who: Principal,
    Query(which): Query<Which>,
) -> Result<Json<Several>> {
    require(&records.ctx, &who, Action::Read, "break_glass", "*").await?;
    let show = match which.show.as_deref() {
        None if which.all == Some(1) => Show::All,
        None | Some("waiting") => Show::Waiting,
        Some("overdue") => Show::Overdue,
        Some("mine") => Show::Of(&who.subject),
        Some("all") => Show::All,
        Some(_) => {
            return Err(Error::bad(
                "break_glass.show",
                "There is no such list: waiting, overdue, mine or all.",
            ));
        }
    };
    let now = records.ctx.clock.now_ms();
    let mut all = glass::list(&records.ctx.db, who.tenant, show, now, MOST).await?;
    if show == Show::Overdue {
        all.retain(|b| b.due <= now);
    }
    Ok(shown(all))
}

#[derive(Deserialize)]
pub(crate) struct Given {
    /// `user:ID`; absent or null: to nobody.
    assignee: Option<String>,
}

/// `POST /break-glass/{id}/assign` {assignee}: which administrator looks into it.
pub(crate) async fn assign(
    State(records): State<Arc<Records>>,
    who: Principal,
    Path(id): Path<Uuid>,
    Body(given): Body<Given>,
) -> Result<StatusCode> {
    require(&records.ctx, &who, Action::Administer, "break_glass", "*").await?;
    if let Some(to) = &given.assignee
        && !records.officers(who.tenant).await?.contains(to)
    {
        return Err(Error::unprocessable(
            "break_glass.assignee",
            "Reviews are given to administrators of this clinic.",
        ));
    }
    let done = records.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move { glass::assign(tx, id, &who.subject, given.assignee.as_deref()).await })
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(crate) struct Verdict {
    review: String,
}

/// `POST /break-glass/{id}/review` {review}
pub(crate) async fn review(
    State(records): State<Arc<Records>>,
    who: Principal,
    Path(id): Path<Uuid>,
    Body(verdict): Body<Verdict>,
) -> Result<StatusCode> {
    require(&records.ctx, &who, Action::Administer, "break_glass", "*").await?;
    let text = verdict.review.trim().to_owned();
    if !(3..=1000).contains(&text.chars().count()) {
        return Err(Error::unprocessable(
            "break_glass.review",
            "Say in 3 to 1,000 characters what you found.",
        ));
    }
    let done = records.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move { glass::review(tx, id, &who.subject, &text).await })
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}
