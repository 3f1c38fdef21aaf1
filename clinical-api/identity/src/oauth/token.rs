//! `/oauth2/token`: codes, refresh tokens and assertions become access tokens. Everything that is used once is used in
//! the transaction that answers, on whichever server; a second use ends the whole grant.

use super::{
    ACCESS, GRACE, OAuth, REFRESH,
    client::{Client, GrantType, Method},
    dpop,
    form::Form,
    issuer::Site,
    jwt,
    keys::Signer,
    refusal::{Outcome, Refusal},
    store::{self, Grant},
};
use crate::{User, store as people};
use aws_lc_rs::{digest, hmac};
use axum::{
    Json,
    body::Bytes,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use medtech_kernel::{
    Error, Result, TenantId, Tx,
    auth::{Assurance, Grant as Limits, NewSession, Sessions},
    clock::Millis,
    id,
    scope::{Level, Scopes},
    secret::Root,
};
use serde::Serialize;
use std::sync::Arc;

/// What a token request brings, in the names of RFC 6749, OpenID Connect and SMART App Launch.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Answer {
    access_token: String,
    token_type: &'static str,
    expires_in: i64,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encounter: Option<String>,
    /// The application stands in a window of its own: it shows whose record it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    need_patient_banner: Option<bool>,
}

#[derive(Serialize)]
struct IdToken<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
    iat: i64,
    auth_time: i64,
    at_hash: String,
    /// The grant, by which a sign-out names it.
    sid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(flatten)]
    person: Claims,
}

/// What is told of a person, as the scopes allow.
#[derive(Default, Serialize)]
pub(crate) struct Claims {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    #[serde(rename = "fhirUser", skip_serializing_if = "Option::is_none")]
    pub(crate) fhir_user: Option<String>,
}

pub(crate) fn claims(site: &Site, user: &User, scopes: &Scopes) -> Claims {
    let practitioner = user
        .practitioner
        .as_ref()
        .map(|id| format!("{}/Practitioner/{id}", site.fhir()));
    let patient = user.patient.as_ref().map(|id| format!("{}/Patient/{id}", site.fhir()));
    Claims {
        name: scopes.named("profile").then(|| user.name.clone()),
        email: scopes.named("email").then(|| user.email.clone()),
        fhir_user: practitioner
            .or(patient)
            .filter(|_| scopes.named("fhirUser") || scopes.named("profile")),
    }
}

/// What the transaction of a grant leaves for the answer.
struct Issued {
    token: String,
    refresh: Option<String>,
    grant: Grant,
    scopes: String,
    nonce: Option<String>,
    user: User,
    expires_at: Millis,
    /// To a key.
    bound: bool,
}

fn kind_of(bound: bool) -> &'static str {
    if bound { "DPoP" } else { "Bearer" }
}

pub(crate) async fn token(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Outcome<Response> {
    let form = Form::posted(&headers, query.as_deref(), &body)?;
    let proved = oauth.proof(&site, &headers, &http::Method::POST, "/oauth2/token", None)?;
    let kind = form.require("grant_type")?;
    let kind = match kind {
        "authorization_code" => GrantType::AuthorizationCode,
        "refresh_token" => GrantType::RefreshToken,
        "client_credentials" => GrantType::ClientCredentials,
        _ => {
            return Err(Refusal::new(
                "unsupported_grant_type",
                "This way to a token is not offered.",
            ));
        }
    };
    let client = match kind {
        GrantType::RefreshToken => oauth.refreshing(&site, &headers, &form).await?,
        _ => oauth.client_of(&site, &headers, &form).await?,
    };
    if !client.may(kind) {
        return Err(Refusal::new(
            "unauthorized_client",
            "The application may not come this way.",
        ));
    }
    let jkt = match proved {
        Some(proved) => Some(oauth.first_use(&site, proved).await?),
        None => None,
    };
    if client.metadata.dpop_bound_access_tokens && jkt.is_none() {
        return Err(Refusal::new(
            "invalid_dpop_proof",
            "This application proves a key of its own (RFC 9449).",
        ));
    }
    let answer = match kind {
        GrantType::AuthorizationCode => oauth.by_code(&site, &client, &form, jkt).await?,
        GrantType::RefreshToken => oauth.by_refresh(&site, &client, &form, jkt).await?,
        GrantType::ClientCredentials => oauth.by_itself(&site, &client, &form, jkt).await?,
    };
    let keep = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    Ok((keep, Json(answer)).into_response())
}

impl OAuth {
    async fn by_code(&self, site: &Site, client: &Client, form: &Form, jkt: Option<String>) -> Outcome<Answer> {
        let hash = id::sha256(form.require("code")?.as_bytes());
        let redirect_uri = form.require("redirect_uri")?.to_owned();
        let verifier = form.require("code_verifier")?;
        let challenge = URL_SAFE_NO_PAD.encode(id::sha256(verifier.as_bytes()));
        let long_enough = (43..=128).contains(&verifier.len());
        // Before the code is used, since nothing else can be awaited with it.
        let signer = self.signer(site.id()).await?;
        let (sessions, client, root) = (self.ctx.sessions.clone(), client.clone(), self.ctx.root.clone());
        let issued = self.ctx.db.write(site.id(), move |tx| {
            Box::pin(async move {
                let Some(code) = store::code(tx, hash).await? else {
                    return Ok(None);
                };
                if !store::use_code(tx, hash).await? {
                    replayed(tx, &sessions, code.grant, &client.id, "code used again").await?;
                    return Ok(None);
                }
                // From here on the code is used, whatever comes of it.
                let fits = code.client == client.id
                    && code.redirect_uri == redirect_uri
                    && code.challenge == challenge
                    && long_enough
                    && code.expires_at > tx.now();
                let grant = match fits {
                    true => standing(tx, code.grant, &client.id).await?,
                    false => None,
                };
                // A code that was asked for a key is redeemed with that key.
                let grant = grant.filter(|(g, _)| g.jkt.is_none() || g.jkt == jkt);
                let Some((mut grant, user)) = grant else {
                    store::end_grant(tx, &sessions, code.grant).await?;
                    denied(tx, &client.id, "code refused").await?;
                    return Ok(None);
                };
                // The refresh tokens of a client that has no secret are bound by its key (RFC 9449, 5).
                let public = client.metadata.token_endpoint_auth_method == Method::None;
                if let Some(jkt) = jkt.as_ref().filter(|_| public && grant.jkt.is_none()) {
                    store::bind_grant(tx, grant.id, jkt).await?;
                    grant.jkt = Some(jkt.clone());
                }
                let scopes = grant.scopes.clone();
                let bound = jkt.as_deref().map(|jkt| (&root, jkt));
                let mut issued = issue(tx, &sessions, &client, grant, user, scopes, bound).await?;
                let lasting = Scopes::parse(&issued.grant.scopes);
                if client.may(GrantType::RefreshToken)
                    && (lasting.named("offline_access") || lasting.named("online_access"))
                {
                    let token = format!("mr_{}_{}", tx.tenant(), id::token());
                    add_refresh(tx, &token, &issued.grant).await?;
                    issued.refresh = Some(token);
                }
                issued.nonce = code.nonce;
                Ok(Some(issued))
            })
        });
        match issued.await? {
            Some(issued) => self.answer(site, &signer, issued),
            None => Err(Refusal::grant()),
        }
    }

    /// A public client need not name itself when it refreshes (RFC 6749, 6; SMART apps do not): the token says whose it is.
    async fn refreshing(&self, site: &Site, headers: &HeaderMap, form: &Form) -> Outcome<Client> {
        let silent = [
            "client_id",
            "client_assertion",
            "client_assertion_type",
            "client_secret",
        ];
        if headers.contains_key(header::AUTHORIZATION) || silent.into_iter().any(|name| form.get(name).is_some()) {
            return self.client_of(site, headers, form).await;
        }
        let hash = id::sha256(form.require("refresh_token")?.as_bytes());
        let found = store::refresh(&self.ctx.db, site.id(), hash)
            .await?
            .ok_or_else(Refusal::grant)?;
        let grant = store::grant(&self.ctx.db, site.id(), found.grant)
            .await?
            .ok_or_else(Refusal::grant)?;
        self.registered(site, &grant.client, Method::None).await
    }

    async fn by_refresh(&self, site: &Site, client: &Client, form: &Form, jkt: Option<String>) -> Outcome<Answer> {
        let token = form.require("refresh_token")?.to_owned();
        let asked = form.get("scope").map(str::to_owned);
        let signer = self.signer(site.id()).await?;
        // `online_access` ends with the session in which it was allowed.
        let found = store::refresh(&self.ctx.db, site.id(), id::sha256(token.as_bytes())).await?;
        let grant = match &found {
            Some(found) => store::grant(&self.ctx.db, site.id(), found.grant).await?,
            None => None,
        };
        let grant = grant.filter(|g| g.client == client.id).ok_or_else(Refusal::grant)?;
        // Whoever has the token and not the key has nothing, and ends nothing.
        if grant.jkt.is_some() && grant.jkt != jkt {
            return Err(Refusal::grant());
        }
        let here = match Scopes::parse(&grant.scopes).named("offline_access") {
            true => true,
            false => {
                let open = self.ctx.sessions.list(site.id(), &grant.subject).await?;
                open.iter().any(|s| Some(s.id) == grant.session)
            }
        };
        let more = || Refusal::new("invalid_scope", "More was asked for than was allowed.");
        if !within(&grant, asked.as_deref()) {
            return Err(more());
        }
        self.keepable(site, asked.as_deref().unwrap_or_default()).await?;
        let (sessions, client, root) = (self.ctx.sessions.clone(), client.clone(), self.ctx.root.clone());
        let issued = self.ctx.db.write(site.id(), move |tx| {
            Box::pin(async move {
                let hash = id::sha256(token.as_bytes());
                let Some(old) = store::refresh_in(tx, hash).await? else {
                    return Ok(None);
                };
                let Some((grant, user)) = standing(tx, old.grant, &client.id).await? else {
                    store::end_grant(tx, &sessions, old.grant).await?;
                    return Ok(None);
                };
                if !here {
                    store::end_grant(tx, &sessions, old.grant).await?;
                    denied(tx, &client.id, "signed out").await?;
                    return Ok(None);
                }
                let now = tx.now();
                if old.expires_at <= now {
                    return Ok(None);
                }
                // The user may have taken some of it back since it was read. The token stays good for what is left.
                if !within(&grant, asked.as_deref()) {
                    return Ok(Some(Err(more())));
                }
                // The same token always has the same successor: one that is asked for twice is not two.
                let next = successor(&root, tx.tenant(), &token);
                match old.used_at {
                    None => {
                        store::use_refresh(tx, hash).await?;
                        add_refresh(tx, &next, &grant).await?;
                    }
                    Some(at) if now > at + GRACE => {
                        replayed(tx, &sessions, old.grant, &client.id, "refresh token used again").await?;
                        return Ok(None);
                    }
                    // The answer was lost on the way, unless somebody has gone on from it already.
                    Some(_) => match store::refresh_in(tx, id::sha256(next.as_bytes())).await? {
                        Some(standing) if standing.used_at.is_none() => {}
                        _ => return Ok(None),
                    },
                }
                let scopes = asked.unwrap_or_else(|| grant.scopes.clone());
                let bound = jkt.as_deref().map(|jkt| (&root, jkt));
                let mut issued = issue(tx, &sessions, &client, grant, user, scopes, bound).await?;
                issued.refresh = Some(next);
                Ok(Some(Ok(issued)))
            })
        });
        match issued.await? {
            Some(issued) => self.answer(site, &signer, issued?),
            None => Err(Refusal::grant()),
        }
    }

    /// SMART backend services: the client acts for itself.
    async fn by_itself(&self, site: &Site, client: &Client, form: &Form, jkt: Option<String>) -> Outcome<Answer> {
        let asked = form.require("scope")?;
        let scopes = client.allowed(asked, &[Level::System]).join(" ");
        if scopes.is_empty() {
            return Err(Refusal::new(
                "invalid_scope",
                "None of the scopes can be given to this application.",
            ));
        }
        self.keepable(site, &scopes).await?;
        let (sessions, new) = (
            self.ctx.sessions.clone(),
            NewSession {
                subject: format!("client:{}", client.id),
                name: client.metadata.client_name.clone(),
                roles: Vec::new(),
                ttl_ms: ACCESS,
                note: client.metadata.client_name.clone(),
                grant: Limits {
                    // A signature with a key of its own, good once: as sure as a machine can be known.
                    assurance: Assurance::Two,
                    client: Some(client.id.clone()),
                    scopes: Some(scopes.clone()),
                    ..Limits::default()
                },
                idle_ms: None,
            },
        );
        let token = self.ctx.db.write(site.id(), move |tx| {
            Box::pin(async move {
                crate::audited(tx, &new.subject, "execute", "sign-in", "success", "client credentials").await?;
                sessions.issue(tx, new).await.map(|(token, _)| token)
            })
        });
        let token = token.await?;
        Ok(Answer {
            token_type: kind_of(jkt.is_some()),
            access_token: match jkt {
                Some(jkt) => dpop::bind(&self.ctx.root, site.id(), &jkt, &token)?,
                None => token,
            },
            expires_in: ACCESS / 1000,
            scope: scopes,
            ..Answer::default()
        })
    }

    fn answer(&self, site: &Site, signer: &Signer, issued: Issued) -> Outcome<Answer> {
        let now = self.ctx.clock.now_ms();
        let Issued { grant, user, .. } = &issued;
        let scopes = Scopes::parse(&issued.scopes);
        let id_token = match scopes.named("openid") {
            false => None,
            true => Some(jwt::sign(
                signer,
                "JWT",
                &IdToken {
                    iss: &site.issuer,
                    sub: &user.id.to_string(),
                    aud: &grant.client,
                    exp: (now + ACCESS) / 1000,
                    iat: now / 1000,
                    auth_time: grant.auth_time / 1000,
                    at_hash: at_hash(&issued.token),
                    sid: grant.id.to_string(),
                    nonce: issued.nonce.as_deref(),
                    person: claims(site, user, &scopes),
                },
            )?),
        };
        Ok(Answer {
            access_token: issued.token,
            token_type: kind_of(issued.bound),
            expires_in: (issued.expires_at - now) / 1000,
            need_patient_banner: issued.grant.patient.is_some().then_some(true),
            patient: issued.grant.patient,
            encounter: issued.grant.encounter,
            refresh_token: issued.refresh,
            scope: issued.scopes,
            id_token,
        })
    }
}

/// OpenID Connect Core, 3.1.3.6: the left half of the hash that goes with the signature.
fn at_hash(token: &str) -> String {
    let hash = digest::digest(&digest::SHA384, token.as_bytes());
    let (left, _) = hash.as_ref().split_at(hash.as_ref().len() / 2);
    URL_SAFE_NO_PAD.encode(left)
}

/// Is what is asked for no more than what is allowed?
fn within(grant: &Grant, asked: Option<&str>) -> bool {
    let granted = Scopes::parse(&grant.scopes);
    asked.is_none_or(|asked| asked.split(' ').filter(|w| !w.is_empty()).all(|w| granted.includes(w)))
}

/// The refresh token that follows another. Whoever has neither the token nor the root key cannot tell it.
fn successor(root: &Root, tenant: TenantId, token: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &root.derive("oauth refresh successor", tenant));
    let tag = hmac::sign(&key, token.as_bytes());
    format!("mr_{tenant}_{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

async fn add_refresh(tx: &mut Tx, token: &str, grant: &Grant) -> Result<()> {
    let expires_at = (tx.now() + REFRESH).min(grant.ends_at);
    store::add_refresh(tx, id::sha256(token.as_bytes()), grant.id, expires_at).await
}

/// The grant, when it stands for this client, and its user, when they still may come in.
async fn standing(tx: &mut Tx, grant: uuid::Uuid, client: &str) -> Result<Option<(Grant, User)>> {
    let now = tx.now();
    let grant = store::grant_in(tx, grant).await?;
    let Some(grant) = grant.filter(|g| g.client == client && g.ended_at.is_none() && g.ends_at > now) else {
        return Ok(None);
    };
    // The client may have been ended since it was read.
    if !store::client_in(tx, client).await?.is_some_and(|c| c.active) {
        return Ok(None);
    }
    let user = grant.subject.strip_prefix("user:").and_then(|id| id.parse().ok());
    let user = match user {
        Some(id) => people::by_id_in(tx, id).await?.filter(|u| u.active),
        None => None,
    };
    Ok(user.map(|user| (grant, user)))
}

/// An access token of a grant: a session that says which client acts, and what it is limited to.
async fn issue(
    tx: &mut Tx,
    sessions: &Sessions,
    client: &Client,
    grant: Grant,
    user: User,
    scopes: String,
    bound: Option<(&Root, &str)>,
) -> Result<Issued> {
    let expires_at = (tx.now() + ACCESS).min(grant.ends_at);
    let machine = match grant.session {
        Some(session) => sessions.at_machine(tx, session).await?,
        None => false,
    };
    let new = NewSession {
        subject: grant.subject.clone(),
        name: user.name.clone(),
        roles: user.roles.clone(),
        ttl_ms: expires_at - tx.now(),
        note: client.metadata.client_name.clone(),
        grant: Limits {
            assurance: grant.assurance,
            client: Some(client.id.clone()),
            scopes: Some(scopes.clone()),
            patient: grant.patient.clone(),
            machine,
            ..Limits::default()
        },
        idle_ms: None,
    };
    let (token, session) = sessions.issue(tx, new).await?;
    store::add_access(tx, session, grant.id, expires_at).await?;
    store::grant_used(tx, grant.id).await?;
    let target = format!("oauth_client:{}", client.id);
    crate::audited(tx, &grant.subject, "execute", &target, "success", "token").await?;
    Ok(Issued {
        token: match bound {
            Some((root, jkt)) => dpop::bind(root, tx.tenant(), jkt, &token)?,
            None => token,
        },
        bound: bound.is_some(),
        refresh: None,
        grant,
        scopes,
        nonce: None,
        user,
        expires_at,
    })
}

/// Something that is good once came twice: two have it, so neither keeps what came of it.
async fn replayed(
    tx: &mut Tx,
    sessions: &Sessions,
    grant: uuid::Uuid,
    client: &str,
    what: &'static str,
) -> Result<(), Error> {
    if store::end_grant(tx, sessions, grant).await? {
        tracing::warn!(%grant, client, what, "a grant was ended");
    }
    denied(tx, client, what).await
}

async fn denied(tx: &mut Tx, client: &str, what: &'static str) -> Result<()> {
    let target = format!("oauth_client:{client}");
    crate::audited(tx, &format!("client:{client}"), "execute", &target, "denied", what).await
}
