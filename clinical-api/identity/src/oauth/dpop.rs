//! Tokens that are worth nothing without a key (RFC 9449, DPoP): each request proves the key anew, for itself alone.
//!
//! A bound access token is `md_{tenant}_{thumbprint}.{sealed}`: the kernel's token is sealed inside, for that thumbprint. So
//! it opens at the doors that ask for the proof ([`OAuth::bound`]) and is, as a bearer token, no token at all everywhere else.

use super::{
    MINUTE, OAuth, SECOND,
    issuer::Site,
    refusal::{Outcome, Refusal},
    store,
};
use crate::seal;
use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::Jwk};
use medtech_kernel::{Result, TenantId, clock::Millis, id, secret::Root};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const PROOF: &str = "dpop";
const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// What the kernel's token is sealed for, inside of a bound one.
const PURPOSE: &str = "dpop access token";
/// How far the clock of a client may be from ours. The nonce is what makes a proof fresh.
const SKEW: Millis = 5 * MINUTE;
/// A nonce is the current one for this long, and good for as long again.
const TURN: Millis = 5 * MINUTE;
const LONGEST: usize = 4096;

/// A good proof that was not looked up yet.
pub(crate) struct Proved {
    pub(crate) jkt: String,
    jti: [u8; 32],
}

#[derive(Deserialize)]
struct Head {
    typ: Option<String>,
    alg: String,
    jwk: Option<Value>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    /// Seconds.
    iat: f64,
    nonce: Option<String>,
    ath: Option<String>,
}

fn bad(why: &'static str) -> Refusal {
    Refusal::new("invalid_dpop_proof", why)
}

/// SHA-256 in base64url: has a text this form?
pub(crate) fn is_thumbprint(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

impl OAuth {
    /// The key that a request proves; `None` where it brings no proof. `token` is the access token that came with it. Nothing
    /// is written: whoever makes a key can make proofs, and is nobody we know until more is known ([`OAuth::first_use`]).
    pub(crate) fn proof(
        &self,
        site: &Site,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
        token: Option<&str>,
    ) -> Outcome<Option<Proved>> {
        let mut given = headers.get_all(PROOF).iter();
        let Some(proof) = given.next() else { return Ok(None) };
        if given.next().is_some() {
            return Err(bad("One proof, and not several."));
        }
        let proof = proof.to_str().ok().filter(|p| p.len() <= LONGEST);
        let (jkt, claims) = proof.and_then(read).ok_or_else(|| bad("The proof is no proof."))?;
        let now = self.ctx.clock.now_ms();
        let issued = (claims.iat.is_finite() && claims.iat.abs() < 1e12).then_some((claims.iat * 1000.0) as Millis);
        let issued = issued.ok_or_else(|| bad("The proof has no time."))?;
        if claims.htm != method.as_str() || !same_address(&claims.htu, &site.at(path)) {
            return Err(bad("The proof is of another request."));
        }
        if (now - issued).abs() > SKEW || !(1..=200).contains(&claims.jti.len()) {
            return Err(bad("The proof is of another time."));
        }
        let hash = token.map(|t| URL_SAFE_NO_PAD.encode(id::sha256(t.as_bytes())));
        if claims.ath != hash {
            return Err(bad("The proof is of another access token."));
        }
        let fresh = |nonce: &String| {
            let same =
                |at| verify_slices_are_equal(nonce.as_bytes(), nonce_at(&self.ctx.root, site.id(), at).as_bytes());
            same(now).is_ok() || same(now - TURN).is_ok()
        };
        if !claims.nonce.as_ref().is_some_and(fresh) {
            return Err(Refusal::new(
                "use_dpop_nonce",
                "The proof carries the nonce of this server.",
            ));
        }
        Ok(Some(Proved {
            jkt,
            jti: id::sha256(claims.jti.as_bytes()),
        }))
    }

    /// Notes a proof as used, once it is known of whom it is: the thumbprint of its key.
    pub(crate) async fn first_use(&self, site: &Site, proved: Proved) -> Outcome<String> {
        let Proved { jkt, jti } = proved;
        // Until neither its time nor its nonce is good any more, on whichever server.
        let until = self.ctx.clock.now_ms() + 2 * (SKEW + TURN) + SECOND;
        let owner = format!("dpop:{jkt}");
        let first = self.ctx.db.write(site.id(), move |tx| {
            Box::pin(async move { store::use_jti(tx, &owner, jti, until).await })
        });
        match first.await? {
            true => Ok(jkt),
            false => Err(bad("The proof was used before.")),
        }
    }

    /// Doors where bound tokens open: a good proof makes of them what the doors inside know.
    pub(crate) fn bound<S: Clone + Send + Sync + 'static>(self: &Arc<Self>, routes: Router<S>) -> Router<S> {
        routes.layer(middleware::from_fn_with_state(self.clone(), door))
    }

    /// The kernel's token inside of a bound one, and the thumbprint it is bound to. Who asks has proved the key, or only
    /// wants to know what the token is.
    pub(crate) fn unbound(&self, tenant: TenantId, token: &str) -> Option<(String, String)> {
        let (of, rest) = token.strip_prefix("md_")?.split_once('_')?;
        let (jkt, sealed) = rest.split_once('.')?;
        if of != tenant.to_string() || !is_thumbprint(jkt) {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let inner = seal::open(&self.ctx.root, PURPOSE, tenant, jkt, &sealed).ok()?;
        Some((String::from_utf8(inner).ok()?, jkt.to_owned()))
    }

    /// The kernel's token of a request that came with a bound one and its proof.
    async fn opened(
        &self,
        site: &Site,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
        token: &str,
    ) -> Outcome<String> {
        let proved = self.proof(site, headers, method, path, Some(token))?;
        let proved = proved.ok_or_else(|| bad("A proof of the key is missing."))?;
        let (inner, jkt) = self.unbound(site.id(), token).ok_or_else(Refusal::token)?;
        if jkt != proved.jkt {
            return Err(Refusal::token());
        }
        self.first_use(site, proved).await?;
        Ok(inner)
    }
}

/// Binds a token of the kernel to a key.
pub(crate) fn bind(root: &Root, tenant: TenantId, jkt: &str, token: &str) -> Result<String> {
    let sealed = seal::seal(root, PURPOSE, tenant, jkt, token.as_bytes())?;
    Ok(format!("md_{tenant}_{jkt}.{}", URL_SAFE_NO_PAD.encode(sealed)))
}

/// The nonce of a time: told by nobody who has not the root key, and kept nowhere.
fn nonce_at(root: &Root, tenant: TenantId, at: Millis) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &root.derive("dpop nonce", tenant));
    let tag = hmac::sign(&key, &at.div_euclid(TURN).to_be_bytes());
    URL_SAFE_NO_PAD.encode(tag)
}

/// The thumbprint of the proof's own key and its claims, when that key signed it: ES256 and nothing else.
fn read(proof: &str) -> Option<(String, Claims)> {
    let head = URL_SAFE_NO_PAD.decode(proof.split('.').next()?).ok()?;
    let head: Head = serde_json::from_slice(&head).ok()?;
    let jwk = head.jwk?;
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let public = jwk.as_object()?.keys().all(|k| !matches!(k.as_str(), "d" | "k"));
    let ours = head.typ.as_deref() == Some("dpop+jwt") && head.alg == "ES256" && head.crit.is_none();
    if !ours || !public || text("kty") != Some("EC") || text("crv") != Some("P-256") {
        return None;
    }
    // RFC 7638: the members that make the key, in the order of their names.
    let (x, y) = (text("x")?, text("y")?);
    let canonical = json!({"crv": "P-256", "kty": "EC", "x": x, "y": y}).to_string();
    let jkt = URL_SAFE_NO_PAD.encode(id::sha256(canonical.as_bytes()));
    let key: Jwk = serde_json::from_value(json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})).ok()?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let claims = jsonwebtoken::decode(proof, &DecodingKey::from_jwk(&key).ok()?, &validation).ok()?;
    Some((jkt, claims.claims))
}

/// RFC 9449, 4.3: without query and fragment, and normalized as addresses are.
fn same_address(said: &str, ours: &str) -> bool {
    let plain = |text: &str| {
        let mut url = url::Url::parse(text).ok()?;
        url.set_query(None);
        url.set_fragment(None);
        Some(url)
    };
    plain(said).is_some_and(|said| Some(said) == plain(ours))
}

async fn door(State(oauth): State<Arc<OAuth>>, site: Option<Site>, mut request: Request, next: Next) -> Response {
    let Some(site) = site.filter(|_| request.headers().contains_key(PROOF) || scheme(request.headers()).is_some())
    else {
        return next.run(request).await;
    };
    let bound = scheme(request.headers()).map(str::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match bound {
        // The proof is the handler's matter (the token endpoint), or nobody's (a bearer token needs none).
        None => next.run(request).await,
        Some(token) => match oauth
            .opened(&site, &request.headers().clone(), &method, &path, &token)
            .await
        {
            Ok(inner) => {
                let authorization = HeaderValue::from_str(&format!("Bearer {inner}"));
                let headers = request.headers_mut();
                headers.remove(PROOF);
                if let Ok(mut value) = authorization {
                    value.set_sensitive(true);
                    headers.insert(header::AUTHORIZATION, value);
                }
                let mut response = next.run(request).await;
                if response.status() == StatusCode::UNAUTHORIZED {
                    challenge(&mut response, "invalid_token");
                }
                response
            }
            Err(refusal) if refusal.status().is_server_error() => refusal.into_response(),
            Err(refusal) => refused(&path, &refusal),
        },
    };
    if let Ok(nonce) = HeaderValue::from_str(&nonce_at(&oauth.ctx.root, site.id(), oauth.ctx.clock.now_ms())) {
        response.headers_mut().insert(NONCE, nonce);
    }
    response
}

/// The token of the one `Authorization: DPoP` there is.
fn scheme(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (one, more) = (all.next()?, all.next());
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    (more.is_none() && scheme.eq_ignore_ascii_case("dpop")).then(|| token.trim())
}

/// 401, in the words of the door: FHIR's are an OperationOutcome.
fn refused(path: &str, refusal: &Refusal) -> Response {
    let (kind, body) = if path.starts_with(medtech_fhir::PATH) {
        let issue = json!({"severity": "error", "code": "login", "diagnostics": refusal.description});
        (
            "application/fhir+json",
            json!({"resourceType": "OperationOutcome", "issue": [issue]}),
        )
    } else {
        (
            "application/json",
            json!({"error": refusal.error, "error_description": refusal.description}),
        )
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")];
    let mut response = (StatusCode::UNAUTHORIZED, headers, body.to_string()).into_response();
    challenge(&mut response, refusal.error);
    response
}

fn challenge(response: &mut Response, error: &'static str) {
    if let Ok(value) = HeaderValue::from_str(&format!("DPoP error=\"{error}\", algs=\"ES256\"")) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
}
