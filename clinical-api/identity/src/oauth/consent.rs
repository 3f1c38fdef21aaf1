//! The user decides, in our own web client: who asks, for what, about whom; and the answer is where to go next.

use super::{
    ACCESS, CODE, OAuth, OFFLINE, ONLINE, authorize,
    authorize::Asked,
    client::Client,
    issuer::Site,
    store::{self, Code, Grant},
};
use axum::{
    Json,
    extract::{Path, State},
};
use medtech_kernel::{
    Error, Result,
    auth::Principal,
    clock::{Millis, rfc3339},
    http::Body,
    id,
    policy::{Action, Resource},
    scope::{Level, Scopes},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Scopes without which the request makes no sense: the user takes or leaves them with the whole.
pub(crate) const FIXED: [&str; 4] = ["openid", "launch", "launch/patient", "launch/encounter"];

pub(crate) fn unknown() -> Error {
    Error::not_found(
        "oauth.request_unknown",
        "This request is not known, or it is over. Please open the application again.",
    )
}

/// What the screen shows.
#[derive(Serialize)]
pub(crate) struct Shown {
    client: Named,
    /// Where the answer goes.
    redirect_host: String,
    scopes: Vec<Word>,
    patient: Choice,
    /// An access token lives this long, in seconds.
    expires_in: i64,
    /// Without being asked again, the application has what is allowed for this long, in seconds.
    lasts: i64,
}

#[derive(Serialize)]
struct Named {
    id: String,
    name: String,
    since: String,
}

#[derive(Serialize)]
struct Word {
    scope: String,
    /// It cannot be unticked.
    fixed: bool,
    /// `patient` or `user`; absent for a scope that is a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'static str>,
    /// The FHIR type, `*` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<String>,
    /// Of `cruds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    letters: Option<String>,
    /// Of these alone: the conditions of its query.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    only: Vec<Condition>,
}

#[derive(Serialize)]
struct Condition {
    name: String,
    value: String,
}

#[derive(Serialize)]
struct Choice {
    /// A patient is part of the answer.
    needed: bool,
    /// It is this one: the application was opened for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<String>,
    /// One of these; absent: the user looks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    among: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(crate) struct Decision {
    allow: bool,
    #[serde(default)]
    scopes: Vec<String>,
    patient: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Redirect {
    pub(crate) redirect: String,
}

/// What a user allows.
pub(crate) struct Given {
    pub(crate) scopes: String,
    pub(crate) patient: Option<String>,
    /// The end of what was allowed before, which asking again without a screen does not move.
    pub(crate) not_after: Option<Millis>,
    /// Answered without a screen: the same that stands goes on, and no other is added beside it.
    pub(crate) again: bool,
    /// For the audit trail.
    pub(crate) how: &'static str,
}

/// How long scopes are good for, where it is longer than one access token.
pub(crate) fn lasts(scopes: &str) -> Option<Millis> {
    let scopes = Scopes::parse(scopes);
    match () {
        () if scopes.named("offline_access") => Some(OFFLINE),
        () if scopes.named("online_access") => Some(ONLINE),
        () => None,
    }
}

pub(crate) fn needs_patient(asked: &Asked) -> bool {
    let scopes = Scopes::parse(&asked.scopes.join(" "));
    scopes.named("launch/patient") || scopes.clinical.iter().any(|s| s.level == Level::Patient)
}

/// A person in our own web client: an application cannot consent to another, or to more for itself.
pub(crate) fn person(who: &Principal) -> Result<uuid::Uuid> {
    let own = who.grant.client.is_none();
    let id = who.subject.strip_prefix("user:").and_then(|id| id.parse().ok());
    id.filter(|_| own)
        .ok_or_else(|| Error::forbidden("oauth.not_a_user", "This is for people who signed in here."))
}

pub(crate) async fn show(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Principal,
    Path(request): Path<String>,
) -> Result<Json<Shown>> {
    person(&who)?;
    let (asked, client) = oauth.waiting(&site, &request).await?;
    belongs(&asked, &who)?;
    let word = |scope: &String| {
        let clinical = scope.parse::<medtech_kernel::scope::Scope>().ok();
        Word {
            fixed: FIXED.contains(&scope.as_str()),
            level: clinical.as_ref().map(|c| c.level.name()),
            r#type: clinical
                .as_ref()
                .map(|c| c.kind.clone().unwrap_or_else(|| "*".to_owned())),
            letters: clinical.as_ref().map(|c| c.letters().map(|l| l.name()).collect()),
            only: clinical
                .as_ref()
                .map_or_else(Vec::new, |c| c.conditions().filter_map(condition).collect()),
            scope: scope.clone(),
        }
    };
    let needed = needs_patient(&asked);
    let host = url::Url::parse(&asked.redirect_uri).ok();
    Ok(Json(Shown {
        client: Named {
            id: client.id,
            name: client.metadata.client_name,
            since: rfc3339(client.created_at),
        },
        redirect_host: host
            .and_then(|u| u.host_str().map(str::to_owned))
            .unwrap_or_else(|| asked.redirect_uri.split(':').next().unwrap_or_default().to_owned()),
        scopes: asked.scopes.iter().map(word).collect(),
        patient: Choice {
            needed,
            fixed: asked.launch.as_ref().map(|l| l.patient.clone()),
            among: match needed && asked.launch.is_none() {
                true => oauth.own_patients(&who).await?,
                false => None,
            },
        },
        expires_in: ACCESS / 1000,
        lasts: lasts(&asked.scopes.join(" ")).unwrap_or(ACCESS) / 1000,
    }))
}

/// `category=urn:x|laboratory` as two texts.
fn condition(text: &str) -> Option<Condition> {
    let (name, value) = url::form_urlencoded::parse(text.as_bytes()).next()?;
    Some(Condition {
        name: name.into_owned(),
        value: value.into_owned(),
    })
}

pub(crate) async fn decide(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Principal,
    Path(request): Path<String>,
    Body(decision): Body<Decision>,
) -> Result<Json<Redirect>> {
    person(&who)?;
    let (asked, client) = oauth.waiting(&site, &request).await?;
    belongs(&asked, &who)?;
    let redirect = match decision.allow {
        true => oauth.allow(&site, &who, &request, asked, &client, decision).await?,
        false => oauth.refuse(&site, &who, &request, asked).await?,
    };
    Ok(Json(Redirect { redirect }))
}

/// An application opened from a chart goes on for the one who opened it, and one that names its user for that user.
pub(crate) fn belongs(asked: &Asked, who: &Principal) -> Result<()> {
    let other = asked.launch.as_ref().is_some_and(|l| l.subject != who.subject)
        || asked.meant.as_ref().is_some_and(|sub| sub != who.subject_id());
    match other {
        true => Err(Error::forbidden(
            "oauth.other_user",
            "This application was opened for somebody else. Please sign in as that person, or open it again.",
        )),
        false => Ok(()),
    }
}

impl OAuth {
    pub(crate) async fn waiting(&self, site: &Site, request: &str) -> Result<(Asked, Client)> {
        let hash = id::sha256(request.as_bytes());
        let body = store::request(&self.ctx.db, site.id(), hash, self.ctx.clock.now_ms()).await?;
        let asked: Asked =
            serde_json::from_str(&body.ok_or_else(unknown)?).map_err(|e| Error::internal("oauth.request", e))?;
        let client = store::client(&self.ctx.db, site.id(), &asked.client).await?;
        Ok((asked, client.filter(|c| c.active).ok_or_else(unknown)?))
    }

    /// For people who are patients: themselves, and those they may act for. `None` for people of the clinic.
    async fn own_patients(&self, who: &Principal) -> Result<Option<Vec<String>>> {
        if who.roles.iter().any(|r| r.is_staff()) {
            return Ok(None);
        }
        let mut all = Vec::new();
        for relation in ["self", "proxy"] {
            let objects = self.ctx.policy.objects_of(who.tenant, &who.subject, relation).await?;
            all.extend(
                objects
                    .iter()
                    .filter_map(|o| o.strip_prefix("patient:").map(str::to_owned)),
            );
        }
        all.dedup();
        Ok(Some(all))
    }

    async fn patient(&self, who: &Principal, asked: &Asked, chosen: Option<String>) -> Result<Option<String>> {
        if let Some(launch) = &asked.launch {
            return Ok(Some(launch.patient.clone()));
        }
        if !needs_patient(asked) {
            return Ok(None);
        }
        let wrong = || Error::unprocessable("oauth.patient", "Please choose whose record this is about.");
        let chosen = chosen.filter(|id| !id.is_empty() && id.len() <= 64).ok_or_else(wrong)?;
        if !chosen.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)) {
            return Err(wrong());
        }
        if self.own_patients(who).await?.is_some_and(|own| !own.contains(&chosen)) {
            return Err(wrong());
        }
        Ok(Some(chosen))
    }

    async fn allow(
        &self,
        site: &Site,
        who: &Principal,
        request: &str,
        asked: Asked,
        client: &Client,
        decision: Decision,
    ) -> Result<String> {
        if asked.proved_after.is_some_and(|after| who.proved_at < after) {
            return Err(Error::forbidden(
                "auth.step_up",
                "Please confirm that it is you, and try again.",
            ));
        }
        let patient = self.patient(who, &asked, decision.patient).await?;
        if let Some(patient) = &patient {
            let resource = Resource::new("patient", patient.clone());
            self.ctx.policy.require(who, Action::Read, &resource).await?;
        }
        // What was asked for and not unticked; nothing can be added here.
        let kept = |s: &&String| FIXED.contains(&s.as_str()) || decision.scopes.contains(s);
        let scopes: Vec<&str> = asked.scopes.iter().filter(kept).map(String::as_str).collect();
        if scopes.is_empty() {
            return Err(Error::unprocessable(
                "oauth.scopes",
                "Please leave at least one permission ticked, or refuse.",
            ));
        }
        let given = Given {
            scopes: scopes.join(" "),
            patient,
            not_after: None,
            again: false,
            how: "application allowed",
        };
        self.give(site, who, request, asked, client, given).await
    }

    /// A code for what the user allows, now or before; answers where to go with it.
    pub(crate) async fn give(
        &self,
        site: &Site,
        who: &Principal,
        request: &str,
        asked: Asked,
        client: &Client,
        given: Given,
    ) -> Result<String> {
        let now = self.ctx.clock.now_ms();
        let ends_at = now + lasts(&given.scopes).unwrap_or(ACCESS + CODE);
        let mut grant = Grant {
            id: id::new_id(&self.ctx.clock),
            client: client.id.clone(),
            subject: who.subject.clone(),
            scopes: given.scopes,
            patient: given.patient,
            encounter: asked.launch.as_ref().and_then(|l| l.encounter.clone()),
            launched: asked.launch.is_some(),
            session: Some(who.session),
            assurance: who.grant.assurance,
            auth_time: who.proved_at,
            created_at: now,
            used_at: now,
            ends_at: given.not_after.map_or(ends_at, |end| end.min(ends_at)),
            ended_at: None,
            jkt: asked.jkt.clone(),
        };
        let mut code = Code {
            grant: grant.id,
            client: client.id.clone(),
            redirect_uri: asked.redirect_uri.clone(),
            challenge: asked.challenge.clone(),
            nonce: asked.nonce.clone(),
            expires_at: now + CODE,
        };
        let secret = id::token();
        let (taken, hash) = (id::sha256(request.as_bytes()), id::sha256(secret.as_bytes()));
        let told = client
            .metadata
            .backchannel_logout_uri
            .as_ref()
            .map(|_| site.issuer.clone());
        let (session, how, again) = (who.session, given.how, given.again);
        self.ctx
            .db
            .write(site.id(), move |tx| {
                Box::pin(async move {
                    // Two decisions on one request: the first counts.
                    store::take_request(tx, taken, false).await?.ok_or_else(unknown)?;
                    let stands = match again {
                        true => store::grants_of_in(tx, &grant.subject).await?,
                        false => Vec::new(),
                    };
                    match stands.into_iter().find(|g| g.same_as(&grant)) {
                        Some(same) => {
                            store::prolong_grant(tx, same.id, grant.ends_at).await?;
                            code.grant = same.id;
                            grant.id = same.id;
                        }
                        None => store::add_grant(tx, &grant).await?,
                    }
                    store::add_code(tx, hash, &code).await?;
                    if let Some(issuer) = told {
                        store::tell_of(tx, &grant, session, &issuer).await?;
                    }
                    let target = format!("oauth_client:{}", grant.client);
                    crate::audited(tx, &grant.subject, "create", &target, "success", how).await
                })
            })
            .await?;
        let more = [("code", secret.as_str())];
        Ok(authorize::back(
            site,
            &asked.redirect_uri,
            asked.state.as_deref(),
            &more,
        ))
    }

    async fn refuse(&self, site: &Site, who: &Principal, request: &str, asked: Asked) -> Result<String> {
        let (taken, subject) = (id::sha256(request.as_bytes()), who.subject.clone());
        let target = format!("oauth_client:{}", asked.client);
        self.ctx
            .db
            .write(site.id(), move |tx| {
                Box::pin(async move {
                    store::take_request(tx, taken, false).await?.ok_or_else(unknown)?;
                    crate::audited(tx, &subject, "create", &target, "denied", "application refused").await
                })
            })
            .await?;
        let more = [("error", "access_denied"), ("error_description", "The user refused.")];
        Ok(authorize::back(
            site,
            &asked.redirect_uri,
            asked.state.as_deref(),
            &more,
        ))
    }
}
