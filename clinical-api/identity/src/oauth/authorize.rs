//! `/oauth2/authorize` and `/oauth2/par`: a client asks for a user's consent. What is asked is checked and kept; the user
//! decides in our own web client.

use super::{
    OAuth, PUSHED, REQUEST,
    client::{Client, GrantType},
    dpop,
    form::{Form, Visited},
    issuer::Site,
    refusal::{Outcome, Refusal},
    store::{self, Launch},
};
use axum::{
    Json,
    body::Bytes,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use medtech_kernel::{Tx, clock::Millis, id, scope::Level, scope::Scopes};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};
use url::form_urlencoded;

const PUSHED_URN: &str = "urn:ietf:params:oauth:request_uri:";
const PAGE: &str = include_str!("refused.html");

/// A request that holds, as it waits for the user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) client: String,
    pub(crate) redirect_uri: String,
    pub(crate) state: Option<String>,
    pub(crate) nonce: Option<String>,
    pub(crate) challenge: String,
    /// What may be given: asked for, known, and registered for this client.
    pub(crate) scopes: Vec<String>,
    pub(crate) launch: Option<Launch>,
    /// The user proves themselves not before this time (`prompt=login`, `max_age`).
    pub(crate) proved_after: Option<Millis>,
    /// `prompt=none`: answered without a screen.
    #[serde(default)]
    pub(crate) silent: bool,
    /// The user whom the application means (`id_token_hint`): no other goes on.
    #[serde(default)]
    pub(crate) meant: Option<String>,
    /// The address that the application believes to be the user's.
    #[serde(default)]
    pub(crate) login_hint: Option<String>,
    /// The key that the tokens will be bound to (RFC 9449).
    #[serde(default)]
    pub(crate) jkt: Option<String>,
}

/// Why a request fails.
pub(crate) enum Problem {
    /// Where to send the user back is not certain: they see a page of ours.
    Page(Cow<'static, str>),
    /// Goes back to the client.
    Back(Back, Refusal),
}

/// The way back to the client.
pub(crate) struct Back {
    redirect_uri: String,
    state: Option<String>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Page(refusal.description)
    }
}

impl From<medtech_kernel::Error> for Problem {
    fn from(e: medtech_kernel::Error) -> Self {
        Refusal::from(e).into()
    }
}

/// A redirect address with parameters of ours, always with the issuer (RFC 9207).
pub(crate) fn back(site: &Site, redirect_uri: &str, state: Option<&str>, more: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(more);
    if let Some(state) = state {
        query.append_pair("state", state);
    }
    query.append_pair("iss", &site.issuer);
    let sign = if redirect_uri.contains('?') { '&' } else { '?' };
    format!("{redirect_uri}{sign}{}", query.finish())
}

pub(crate) fn see_other(address: &str) -> Response {
    match HeaderValue::from_str(address) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(_) => page(StatusCode::BAD_REQUEST),
    }
}

/// A page that says in plain words that the application asked wrongly. Nothing of the request is in it.
pub(crate) fn page(status: StatusCode) -> Response {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let policy = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    );
    (
        status,
        [(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, policy)],
        PAGE,
    )
        .into_response()
}

pub(crate) async fn ask(State(oauth): State<Arc<OAuth>>, site: Site, Visited(form): Visited) -> Response {
    oauth.asked(&site, form).await
}

/// RFC 9126: the request comes directly from the client, and a handle goes back.
pub(crate) async fn push(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Outcome<Response> {
    let form = Form::posted(&headers, query.as_deref(), &body)?;
    let client = oauth.client_of(&site, &headers, &form).await?;
    if form.get("request_uri").is_some() || form.get("client_id").is_some_and(|named| named != client.id) {
        return Err(Refusal::request("This cannot be pushed."));
    }
    let proved = match oauth.proof(&site, &headers, &Method::POST, "/oauth2/par", None)? {
        Some(proved) => Some(oauth.first_use(&site, proved).await?),
        None => None,
    };
    let form = match proved {
        None => form,
        // RFC 9449, 10.1: a proof binds as `dpop_jkt` would.
        Some(jkt) if form.get("dpop_jkt").is_none_or(|named| named == jkt) => form.with("dpop_jkt", jkt),
        Some(_) => return Err(Refusal::new("invalid_dpop_proof", "The proof is of another key.")),
    };
    // Checked now, so that the client hears of it, and again when it is taken up.
    match oauth.examine(&site, &client, &form).await {
        Ok(_) => {}
        Err(Problem::Page(text)) => return Err(Refusal::request(text)),
        Err(Problem::Back(_, refusal)) => return Err(refusal),
    }
    let kept: BTreeMap<&str, &str> = PARAMETERS.iter().filter_map(|n| Some((*n, form.get(n)?))).collect();
    let body = json!(kept).to_string();
    let handle = id::token();
    let (hash, expires_at) = (id::sha256(handle.as_bytes()), oauth.ctx.clock.now_ms() + PUSHED);
    let store = oauth.ctx.db.write(site.id(), move |tx| {
        Box::pin(async move { store::add_request(tx, hash, &client.id, true, &body, expires_at).await })
    });
    store.await?;
    let answer = json!({"request_uri": format!("{PUSHED_URN}{handle}"), "expires_in": PUSHED / 1000});
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// The parameters of an authorization request that mean something here.
const PARAMETERS: [&str; 16] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "response_mode",
    "scope",
    "state",
    "nonce",
    "aud",
    "launch",
    "prompt",
    "max_age",
    "login_hint",
    "id_token_hint",
    "dpop_jkt",
    "code_challenge",
    "code_challenge_method",
];

impl OAuth {
    async fn asked(&self, site: &Site, form: Outcome<Form>) -> Response {
        let outcome = match form {
            Ok(form) => self.keep(site, form).await,
            Err(refusal) => Err(refusal.into()),
        };
        match outcome {
            Ok(address) => see_other(&address),
            Err(Problem::Back(to, refusal)) => {
                let more = [("error", refusal.error), ("error_description", &*refusal.description)];
                see_other(&back(site, &to.redirect_uri, to.state.as_deref(), &more))
            }
            Err(Problem::Page(reason)) => {
                tracing::info!(tenant = %site.id(), reason = %reason, "authorization request refused");
                page(StatusCode::BAD_REQUEST)
            }
        }
    }

    /// Keeps a request that holds; answers the page of ours where it goes on.
    async fn keep(&self, site: &Site, form: Form) -> Result<String, Problem> {
        let form = self.unpushed(site, form).await?;
        let client = store::client(&self.ctx.db, site.id(), form.require("client_id")?).await?;
        let client = client
            .filter(|c| c.active && c.may(GrantType::AuthorizationCode))
            .ok_or_else(|| Refusal::client("The application is not known."))?;
        let mut asked = self.examine(site, &client, &form).await?;
        let to = || Back {
            redirect_uri: asked.redirect_uri.clone(),
            state: asked.state.clone(),
        };
        let launch = form.get("launch").map(|l| id::sha256(l.as_bytes()));
        let wants_launch = asked.scopes.iter().any(|s| s == "launch");
        if launch.is_none() && wants_launch {
            return Err(Problem::Back(
                to(),
                Refusal::request("The parameter launch is missing."),
            ));
        }
        let (back_to, handle) = (to(), id::token());
        let page = match (asked.silent, &asked.login_hint) {
            (true, _) => format!("/app/authorize/silent?request={handle}"),
            // Behind the #, where no server and no log sees it.
            (false, Some(hint)) => {
                let hint: String = form_urlencoded::byte_serialize(hint.as_bytes()).collect();
                format!("/app/authorize?request={handle}#login_hint={hint}")
            }
            (false, None) => format!("/app/authorize?request={handle}"),
        };
        let (hash, expires_at) = (id::sha256(handle.as_bytes()), self.ctx.clock.now_ms() + REQUEST);
        let kept = self.ctx.db.write(site.id(), move |tx| {
            Box::pin(async move {
                if let Some(launch) = launch.filter(|_| wants_launch) {
                    asked.launch = store::take_launch(tx, launch, &asked.client).await?;
                    if asked.launch.is_none() {
                        return Ok(false);
                    }
                }
                add(tx, hash, &asked, expires_at).await.map(|()| true)
            })
        });
        if kept.await? {
            Ok(page)
        } else {
            Err(Problem::Back(
                back_to,
                Refusal::request("The launch is not known, or it is over."),
            ))
        }
    }

    /// The parameters behind a `request_uri` of ours; each is good once, and for the client that pushed them.
    async fn unpushed(&self, site: &Site, form: Form) -> Result<Form, Problem> {
        let Some(uri) = form.get("request_uri") else {
            return Ok(form);
        };
        let wrong = || Problem::Page("The request_uri is not good.".into());
        let handle = uri.strip_prefix(PUSHED_URN).ok_or_else(wrong)?;
        let (hash, named) = (id::sha256(handle.as_bytes()), form.require("client_id")?.to_owned());
        let taken = self.ctx.db.write(site.id(), move |tx| {
            Box::pin(async move { store::take_request(tx, hash, true).await })
        });
        let (body, _) = taken.await?.filter(|(_, client)| *client == named).ok_or_else(wrong)?;
        let pairs: BTreeMap<String, String> = serde_json::from_str(&body).map_err(|_| wrong())?;
        Ok(Form::of(pairs, ("client_id", named)))
    }

    /// Does the request hold? Everything is looked at but the launch.
    async fn examine(&self, site: &Site, client: &Client, form: &Form) -> Result<Asked, Problem> {
        if !client.may(GrantType::AuthorizationCode) {
            return Err(Problem::Page("The application does not sign people in.".into()));
        }
        // Byte for byte (RFC 9700, 2.1).
        let redirect_uri = form.require("redirect_uri")?;
        if !client.metadata.redirect_uris.iter().any(|r| r == redirect_uri) {
            return Err(Problem::Page("The redirect address is not registered.".into()));
        }
        let state = form.get("state").map(str::to_owned);
        let refuse = |refusal| {
            let to = Back {
                redirect_uri: redirect_uri.to_owned(),
                state: state.clone(),
            };
            Err(Problem::Back(to, refusal))
        };
        if form.get("request").is_some() {
            return refuse(Refusal::new("request_not_supported", "Signed requests are not taken."));
        }
        match form.get("response_type") {
            Some("code") => {}
            Some(_) => return refuse(Refusal::new("unsupported_response_type", "The response type is code.")),
            None => return refuse(Refusal::request("The parameter response_type is missing.")),
        }
        if form.get("response_mode").is_some_and(|mode| mode != "query") {
            return refuse(Refusal::request("The response mode is query."));
        }
        let challenge = form.get("code_challenge").unwrap_or_default();
        let is_hash = challenge.len() == 43
            && challenge
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if form.get("code_challenge_method") != Some("S256") || !is_hash {
            return refuse(Refusal::request("PKCE with S256 is required (RFC 7636)."));
        }
        let long = |(name, most)| form.get(name).is_some_and(|v: &str| v.len() > most);
        let lengths = [
            ("state", 2000),
            ("nonce", 2000),
            ("scope", 4000),
            ("login_hint", 300),
            ("id_token_hint", 8000),
        ];
        if lengths.into_iter().any(long) {
            return refuse(Refusal::request("A parameter is too long."));
        }
        let asked = form.get("scope").unwrap_or_default();
        let scopes = client.allowed(asked, &[Level::Patient, Level::User]);
        if scopes.is_empty() {
            return refuse(Refusal::new(
                "invalid_scope",
                "None of the scopes can be given to this application.",
            ));
        }
        if let Err(refusal) = self.keepable(site, &scopes.join(" ")).await {
            return refuse(refusal);
        }
        // SMART App Launch: `aud` says which FHIR service the token is meant for, so that it is not lured to another.
        let smart =
            !Scopes::parse(&scopes.join(" ")).clinical.is_empty() || scopes.iter().any(|s| s.starts_with("launch"));
        let aud = form.get("aud").map(|a| a.trim_end_matches('/'));
        if aud.map_or(smart, |aud| aud != site.fhir()) {
            return refuse(Refusal::request(
                "The parameter aud is the address of the FHIR service.",
            ));
        }
        if smart && state.is_none() {
            return refuse(Refusal::request("The parameter state is missing."));
        }
        let prompts: Vec<&str> = form
            .get("prompt")
            .unwrap_or_default()
            .split(' ')
            .filter(|p| !p.is_empty())
            .collect();
        let silent = prompts.contains(&"none");
        if silent && prompts.len() > 1 {
            return refuse(Refusal::request("prompt=none stands alone."));
        }
        let meant = match form.get("id_token_hint") {
            None => None,
            Some(hint) => match self.hinted(site, hint).await {
                Ok(hint) if hint.aud == client.id => Some(hint.sub),
                Ok(_) => return refuse(Refusal::request("The id_token_hint is not good.")),
                Err(refusal) => return refuse(refusal),
            },
        };
        let jkt = form.get("dpop_jkt").map(str::to_owned);
        if jkt.as_deref().is_some_and(|jkt| !dpop::is_thumbprint(jkt)) {
            return refuse(Refusal::request("dpop_jkt is the thumbprint of a key (RFC 7638)."));
        }
        let now = self.ctx.clock.now_ms();
        let max_age = match form.get("max_age").map(str::parse::<u32>) {
            None => None,
            Some(Ok(seconds)) => Some(now - Millis::from(seconds) * 1000),
            Some(Err(_)) => return refuse(Refusal::request("max_age is a number of seconds.")),
        };
        let login = prompts.contains(&"login").then_some(now);
        Ok(Asked {
            client: client.id.clone(),
            redirect_uri: redirect_uri.to_owned(),
            state,
            nonce: form.get("nonce").map(str::to_owned),
            challenge: challenge.to_owned(),
            scopes,
            launch: None,
            proved_after: login.max(max_age),
            silent,
            meant,
            login_hint: form.get("login_hint").map(str::to_owned),
            jkt,
        })
    }
}

async fn add(tx: &mut Tx, hash: [u8; 32], asked: &Asked, expires_at: Millis) -> medtech_kernel::Result<()> {
    let body = serde_json::to_string(asked).map_err(|e| medtech_kernel::Error::internal("oauth.request", e))?;
    store::add_request(tx, hash, &asked.client, false, &body, expires_at).await
}
