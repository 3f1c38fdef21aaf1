//! `prompt=none` (OpenID Connect Core, 3.1.2.1): the page of our web client answers at once, without a screen. Signed in,
//! and allowed before: a code. Else an error that says which screen would be needed.

use super::{
    OAuth,
    authorize::{self, Asked},
    client::Client,
    consent::{Given, Redirect, belongs, lasts, needs_patient, person, unknown},
    issuer::Site,
    store,
};
use crate::store as people;
use axum::{
    Json,
    extract::{Path, State},
};
use medtech_kernel::{
    Error, Result,
    auth::Principal,
    error::Kind,
    id,
    policy::{Action, Resource},
    scope::Scopes,
};
use std::sync::Arc;

/// The error, and in words.
type Needs = (&'static str, &'static str);

const LOGIN: Needs = ("login_required", "Nobody is signed in who could answer.");
const CONSENT: Needs = ("consent_required", "The user has not allowed this.");
const SCREEN: Needs = ("interaction_required", "The user has to answer on a screen.");

pub(crate) async fn answer(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Result<Principal, Error>,
    Path(request): Path<String>,
) -> Result<Json<Redirect>> {
    let who = match who {
        Ok(who) => Some(who),
        Err(e) if matches!(e.kind, Kind::Unauthorized | Kind::Forbidden) => None,
        Err(e) => return Err(e),
    };
    let (asked, client) = oauth.waiting(&site, &request).await?;
    if !asked.silent {
        return Err(unknown());
    }
    let redirect = match oauth.allowed_before(&site, who.as_ref(), &asked, &client).await? {
        Ok((who, given)) => oauth.give(&site, who, &request, asked, &client, given).await?,
        Err(needs) => oauth.unanswered(&site, who.as_ref(), &request, asked, needs).await?,
    };
    Ok(Json(Redirect { redirect }))
}

impl OAuth {
    /// What the user has allowed this application before, as far as it holds what is asked.
    async fn allowed_before<'a>(
        &self,
        site: &Site,
        who: Option<&'a Principal>,
        asked: &Asked,
        client: &Client,
    ) -> Result<Result<(&'a Principal, Given), Needs>> {
        let Some((who, user)) = who.and_then(|who| Some((who, person(who).ok()?))) else {
            return Ok(Err(LOGIN));
        };
        let Some(user) = people::by_id(&self.ctx.db, site.id(), user).await?.filter(|u| u.active) else {
            return Ok(Err(LOGIN));
        };
        let other = |hint: &String| hint.contains('@') && !hint.trim().eq_ignore_ascii_case(&user.email);
        let stale = asked.proved_after.is_some_and(|after| who.proved_at < after);
        if belongs(asked, who).is_err() || asked.login_hint.as_ref().is_some_and(other) || stale {
            return Ok(Err(LOGIN));
        }
        let now = self.ctx.clock.now_ms();
        let fixed = asked.launch.as_ref().map(|l| l.patient.clone());
        let holds = |grant: &store::Grant| {
            let given = Scopes::parse(&grant.scopes);
            let lasting = lasts(&grant.scopes).is_some();
            grant.client == client.id
                && asked.scopes.iter().all(|s| given.includes(s))
                && (fixed.is_none() || fixed == grant.patient)
                && (grant.patient.is_some() || !needs_patient(asked))
                // What was not to last was allowed for this sitting.
                && (lasting || grant.session == Some(who.session))
        };
        let before = store::grants_of(&self.ctx.db, site.id(), &who.subject, now).await?;
        let Some(before) = before.into_iter().find(holds) else {
            return Ok(Err(CONSENT));
        };
        let patient = before.patient.filter(|_| needs_patient(asked) || fixed.is_some());
        if let Some(patient) = &patient {
            let resource = Resource::new("patient", patient.clone());
            if !self.ctx.policy.decide(who, Action::Read, &resource).await?.allow {
                return Ok(Err(SCREEN));
            }
        }
        let given = Given {
            scopes: asked.scopes.join(" "),
            patient,
            not_after: lasts(&before.scopes).map(|_| before.ends_at),
            again: true,
            how: "application allowed before",
        };
        Ok(Ok((who, given)))
    }

    async fn unanswered(
        &self,
        site: &Site,
        who: Option<&Principal>,
        request: &str,
        asked: Asked,
        (error, words): Needs,
    ) -> Result<String> {
        let actor = who.map_or_else(|| format!("client:{}", asked.client), |who| who.subject.clone());
        let (taken, target) = (id::sha256(request.as_bytes()), format!("oauth_client:{}", asked.client));
        let done = self.ctx.db.write(site.id(), move |tx| {
            Box::pin(async move {
                store::take_request(tx, taken, false).await?.ok_or_else(unknown)?;
                crate::audited(tx, &actor, "create", &target, "denied", error).await
            })
        });
        done.await?;
        let more = [("error", error), ("error_description", words)];
        Ok(authorize::back(
            site,
            &asked.redirect_uri,
            asked.state.as_deref(),
            &more,
        ))
    }
}
