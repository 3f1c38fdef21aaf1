//! Sign-in links. An operator makes one that opens as it is; a patient asks for one by mail, and it opens in the browser
//! that asked, once, within minutes.

use crate::{
    Identity, Opened, audited, caller::Caller, guesses::WINDOW, http::signed_in, mail::Letter, passkeys::Site,
    sign_in::active, store, unknown_user,
};
use axum::{Router, extract::State, routing::post};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode, header};
use medtech_kernel::{
    BoxFuture, Error, Module, Result, Tenant, TenantId,
    auth::{Assurance, Grant, Role},
    bus::{self, Event},
    clock::Millis,
    http::{Body, TenantCtx},
    id,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// How long a link that was asked for is good.
pub(crate) const LIFE: Millis = 10 * 60_000;
/// Links for one address within [`WINDOW`].
const ASKED: i64 = 5;
/// Dates of birth that a link stands.
const TRIES: i64 = 5;
/// The event by which a request leaves the request: whether the address is known is looked up after the answer.
pub(crate) const REQUESTED: &str = "identity.link_requested";

/// Where the date of birth of a patient stands; the record is not identity's own.
pub trait BirthDates: Send + Sync + 'static {
    /// `YYYY-MM-DD`, where the record has a whole date.
    fn birth_date<'a>(&'a self, tenant: TenantId, patient: &'a str) -> BoxFuture<'a, Result<Option<String>>>;
}

pub(crate) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/links/request", post(request))
        .route("/links/exchange", post(exchange))
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    email: String,
    /// A secret that this browser keeps: 32 bytes in URL-safe base64.
    browser: String,
}

/// Body of [`REQUESTED`].
#[derive(Serialize, Deserialize)]
struct Requested {
    email: String,
    /// SHA-256 of the browser's secret, in base64.
    browser: String,
    origin: Option<String>,
    /// Asked for because the password is forgotten.
    #[serde(default)]
    forgotten: bool,
}

/// Always 202, after the same work: whether there is such an account is decided elsewhere, later.
async fn request(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    headers: HeaderMap,
    Body(body): Body<Asked>,
) -> Result<StatusCode> {
    ask(&identity, &tenant, &headers, body, false).await
}

/// A way in by mail, for whoever asks: what it will be is decided later.
pub(crate) async fn ask(
    identity: &Identity,
    tenant: &Tenant,
    headers: &HeaderMap,
    body: Asked,
    forgotten: bool,
) -> Result<StatusCode> {
    let browser = browser_hash(&body.browser)?;
    let email = body.email.trim().to_lowercase();
    if email.is_empty() || email.len() > 254 {
        return Err(Error::unprocessable("identity.email", "This is not an e-mail address."));
    }
    // Into a mail goes an address that the operator knows, not whatever the request calls itself.
    let host = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    let origin = Site::of(&identity.ctx, tenant, host).and_then(|site| site.origins.into_iter().next());
    let asked = Requested {
        browser: URL_SAFE_NO_PAD.encode(browser),
        email,
        origin,
        forgotten,
    };
    let bus = identity.ctx.bus.clone();
    let recorded = identity.ctx.db.write(tenant.id, move |tx| {
        Box::pin(async move {
            let account = id::sha256(format!("link:{}", asked.email).as_bytes());
            if store::attempt(tx, account, WINDOW).await?.0 > ASKED {
                return Ok(());
            }
            let event = Event::of(
                tx,
                REQUESTED,
                format!("link:{}", URL_SAFE_NO_PAD.encode(account)),
                &asked,
            )?;
            bus.record(tx, event).await
        })
    });
    recorded.await.map(|()| StatusCode::ACCEPTED)
}

#[derive(Deserialize)]
struct Exchange {
    link: String,
    #[serde(default)]
    browser: Option<String>,
    #[serde(default)]
    birth_date: Option<String>,
}

async fn exchange(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    caller: Caller,
    Body(body): Body<Exchange>,
) -> Result<crate::http::Secret<crate::http::SignedIn>> {
    identity.exchange(tenant.id, body, caller).await.map(signed_in)
}

/// What is kept of the secret of a browser that a link is bound to.
pub(crate) fn browser_hash(secret: &str) -> Result<[u8; 32]> {
    if URL_SAFE_NO_PAD.decode(secret).map(|b| b.len()) != Ok(32) {
        return Err(Error::bad(
            "link.browser",
            "The browser's secret is 32 bytes in base64url.",
        ));
    }
    Ok(id::sha256(secret.as_bytes()))
}

pub(crate) fn other_browser() -> Error {
    Error::forbidden(
        "link.other_browser",
        "This link opens only in the browser where you asked for it. Open it there, or ask for a new one here.",
    )
}

impl Identity {
    /// `identity.link_requested`: makes the link and has it mailed, where there is a patient of that address.
    pub(crate) async fn link_requested(&self, event: Event) -> Result<()> {
        let asked: Requested = event.parse()?;
        let browser = URL_SAFE_NO_PAD
            .decode(&asked.browser)
            .ok()
            .and_then(|b| <[u8; 32]>::try_from(b.as_slice()).ok())
            .ok_or_else(|| Error::internal("link.event", "a request without its browser"))?;
        let settings = self.ctx.tenants.by_id(event.tenant).map(|t| t.settings);
        let ask_birth = self.births.is_some() && settings.is_none_or(|s| s.link_birth_date);
        let this = self.clone();
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    if !bus::once(tx, Self::NAME, event.id).await? {
                        return Ok(());
                    }
                    let Some(user) = store::by_email_in(tx, &asked.email).await?.filter(|u| u.active) else {
                        return audited(tx, "anonymous", "create", "sign-in", "denied", "sign-in link").await;
                    };
                    if asked.forgotten {
                        return this
                            .mail_reset(tx, &user, event.at, browser, ask_birth, asked.origin.as_deref())
                            .await;
                    }
                    if !user.roles.contains(&Role::Patient) {
                        audited(tx, &user.subject(), "create", "sign-in", "denied", "sign-in link").await?;
                        return this
                            .mail(tx, &user, Letter::SignInLinkRefused, asked.origin.as_deref(), None)
                            .await;
                    }
                    let secret = id::token();
                    let link = store::NewLink {
                        user: user.id,
                        expires_at: event.at + LIFE,
                        uses: 1,
                        browser: Some(browser),
                        birth_date: ask_birth && user.patient.is_some(),
                        reset: false,
                    };
                    store::insert_link(tx, id::sha256(secret.as_bytes()), &link).await?;
                    audited(tx, &user.subject(), "create", "sign-in", "success", "sign-in link").await?;
                    let path = format!("/enter#{secret}");
                    this.mail(tx, &user, Letter::SignInLink, asked.origin.as_deref(), Some(&path))
                        .await
                })
            })
            .await
    }

    /// A session for a sign-in link. What is refused here uses nothing up but the tries at a date of birth.
    async fn exchange(&self, tenant: TenantId, body: Exchange, caller: Caller) -> Result<Opened> {
        let hash = id::sha256(body.link.trim().as_bytes());
        let link = store::link(&self.ctx.db, tenant, hash).await?;
        if let Some(link) = &link {
            link.standing(self.ctx.clock.now_ms())?;
            let browser = body.browser.as_deref().map(|b| id::sha256(b.as_bytes()));
            if link.browser.is_some() && link.browser != browser {
                self.refuse_link(tenant, link.user, "sign-in link in another browser")
                    .await?;
                return Err(other_browser());
            }
            if link.reset {
                return Err(Error::forbidden("link.reset", "Please choose a new password."));
            }
            if link.birth_date {
                self.birth_date_is_right(tenant, hash, link.user, body.birth_date.as_deref())
                    .await?;
            }
        }
        let mailed = link.is_some_and(|l| l.browser.is_some());
        let this = self.clone();
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    let user = store::use_link(tx, hash).await?;
                    let mut user = active(tx, user).await?;
                    if mailed {
                        // A mailbox opens the patient's own door and no other.
                        user.roles.retain(|r| *r == Role::Patient);
                        if user.roles.is_empty() {
                            return Err(unknown_user());
                        }
                    }
                    let grant = Grant {
                        // Links that no browser asked for are made at the machine.
                        machine: !mailed,
                        ..Assurance::One.into()
                    };
                    this.open(tx, user, grant, "link", &caller).await
                })
            })
            .await
    }

    /// Is it the date of birth of whom this link is for? A wrong one is counted.
    pub(crate) async fn birth_date_is_right(
        &self,
        tenant: TenantId,
        hash: [u8; 32],
        user: Uuid,
        said: Option<&str>,
    ) -> Result<()> {
        let Some(said) = said.map(str::trim).filter(|s| !s.is_empty()) else {
            return Err(Error::forbidden("link.birth_date", "Please enter your date of birth."));
        };
        // Counted before it is looked at.
        let tried = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move { store::try_link(tx, hash, TRIES).await })
        });
        if !tried.await? {
            return Err(store::used_link());
        }
        let patient = store::by_id(&self.ctx.db, tenant, user).await?.and_then(|u| u.patient);
        let born = match (&self.births, patient) {
            (Some(births), Some(patient)) => births.birth_date(tenant, &patient).await?,
            _ => None,
        };
        if born.is_some_and(|born| born == said) {
            let right = self.ctx.db.write(tenant, move |tx| {
                Box::pin(async move { store::right_try(tx, hash).await })
            });
            return right.await;
        }
        self.refuse_link(tenant, user, "sign-in link, date of birth").await?;
        Err(Error::forbidden(
            "link.birth_date_wrong",
            "This is not the date of birth in your record.",
        ))
    }

    pub(crate) async fn refuse_link(&self, tenant: TenantId, user: Uuid, why: &'static str) -> Result<()> {
        let noted = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move { audited(tx, &format!("user:{user}"), "execute", "sign-in", "denied", why).await })
        });
        noted.await
    }
}
