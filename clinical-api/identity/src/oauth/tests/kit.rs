//! A clinic with people and applications, and the steps of a sign-in.

use crate::{Identity, NewUser, oauth::client::Metadata};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA384, RsaKeyPair},
};
use axum::{Extension, Router, body::Body};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use medtech_kernel::{
    Migration, Module, Result, Tenant,
    auth::{Assurance, NewSession, Role},
    id,
    testkit::World,
};
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;
use url::form_urlencoded;

pub(crate) const TABLES: &[&[Migration]] = &[crate::store::MIGRATIONS, medtech_fhir::MIGRATIONS];
pub(crate) const REDIRECT: &str = "https://app.example/cb";
pub(crate) const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters-1234";
pub(crate) const HOST: &str = "north.localhost";
pub(crate) const ISSUER: &str = "http://north.localhost";

pub(crate) fn challenge(verifier: &str) -> String {
    B64.encode(id::sha256(verifier.as_bytes()))
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn location(&self) -> &str {
        self.headers.get(header::LOCATION).map_or("", |l| l.to_str().unwrap())
    }

    pub(crate) fn get(&self, name: &str) -> String {
        self.json[name].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn encoded(pairs: &[(&str, String)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// Parameters of a query.
pub(crate) fn query(address: &str) -> std::collections::HashMap<String, String> {
    let (_, query) = address.split_once('?').unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

pub(crate) struct Kit<'a> {
    pub(crate) w: &'a World,
    pub(crate) app: Router,
    pub(crate) identity: Arc<Identity>,
    pub(crate) admin: String,
    pub(crate) doctor: String,
    pub(crate) doctor_id: uuid::Uuid,
}

pub(crate) type Pairs<'a> = Vec<(&'a str, String)>;

impl<'a> Kit<'a> {
    pub(crate) async fn new(w: &'a World) -> Result<Self> {
        let fhir = medtech_fhir::Fhir::new(w.ctx.clone());
        let identity = Arc::new(Identity::new(w.ctx.clone()).with_records(fhir.clone()));
        let app = Router::new()
            .nest("/api/identity", identity.clone().routes())
            .merge(identity.oauth_routes())
            .merge(identity.for_applications(fhir.router()))
            .layer(Extension(w.ctx.clone()));
        let mut kit = Self {
            w,
            app,
            identity,
            admin: String::new(),
            doctor: String::new(),
            doctor_id: uuid::Uuid::nil(),
        };
        kit.admin = kit.person(&w.north, "admin@north.example", Role::Admin).await?.1;
        (kit.doctor_id, kit.doctor) = kit.person(&w.north, "dr@north.example", Role::Clinician).await?;
        Ok(kit)
    }

    /// A user, and a session of theirs.
    pub(crate) async fn person(&self, tenant: &Tenant, email: &str, role: Role) -> Result<(uuid::Uuid, String)> {
        let new = NewUser {
            email: email.into(),
            name: format!("Person {email}"),
            roles: vec![role],
            password: None,
            practitioner: (role == Role::Clinician).then(|| "pr1".to_owned()),
            patient: (role == Role::Patient).then(|| format!("p-{}", email.len())),
        };
        let user = self.identity.create_user(tenant.id, new).await?;
        Ok((user.id, self.session(tenant, &user).await?))
    }

    pub(crate) async fn session(&self, tenant: &Tenant, user: &crate::User) -> Result<String> {
        let (sessions, user) = (self.w.ctx.sessions.clone(), user.clone());
        self.w
            .ctx
            .db
            .write(tenant.id, move |tx| {
                Box::pin(async move {
                    let new = NewSession {
                        subject: user.subject(),
                        name: user.name.clone(),
                        roles: user.roles.clone(),
                        ttl_ms: 400 * 86_400_000,
                        note: "test".into(),
                        grant: Assurance::Two.into(),
                        idle_ms: None,
                    };
                    sessions.issue(tx, new).await.map(|(token, _)| token)
                })
            })
            .await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer {
            status: parts.status,
            headers: parts.headers,
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }

    pub(crate) async fn api(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", HOST);
        let request = request.header("authorization", format!("Bearer {token}"));
        let request = match body {
            Some(json) => request
                .header("content-type", "application/json")
                .body(Body::from(json.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }

    pub(crate) async fn form_to(&self, host: &str, path: &str, auth: Option<&str>, pairs: &[(&str, String)]) -> Answer {
        let mut request = Request::builder().method("POST").uri(path).header("host", host);
        if let Some(auth) = auth {
            request = request.header("authorization", auth);
        }
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(encoded(pairs))).unwrap()).await
    }

    pub(crate) async fn form(&self, path: &str, pairs: &[(&str, String)]) -> Answer {
        self.form_to(HOST, path, None, pairs).await
    }

    /// Registers an application; (its id, its secret if it has one).
    pub(crate) async fn register(&self, metadata: Value) -> (String, String) {
        let _: Metadata = serde_json::from_value(metadata.clone()).expect("metadata");
        let answer = self
            .api("POST", "/api/identity/clients", &self.admin, Some(metadata))
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        (answer.get("client_id"), answer.get("client_secret"))
    }

    pub(crate) async fn public(&self) -> String {
        self.register(public()).await.0
    }

    /// What a good client asks.
    pub(crate) fn asks(&self, client: &str) -> Pairs<'static> {
        vec![
            ("response_type", "code".into()),
            ("client_id", client.into()),
            ("redirect_uri", REDIRECT.into()),
            (
                "scope",
                "openid fhirUser profile launch/patient patient/*.rs offline_access".into(),
            ),
            ("state", "the state".into()),
            ("nonce", "the nonce".into()),
            ("aud", format!("{ISSUER}/fhir/R4")),
            ("code_challenge", challenge(VERIFIER)),
            ("code_challenge_method", "S256".into()),
        ]
    }

    pub(crate) async fn authorize(&self, pairs: &[(&str, String)]) -> Answer {
        let uri = format!("/oauth2/authorize?{}", encoded(pairs));
        let request = Request::builder().uri(uri).header("host", HOST);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// The handle of a request that came through.
    pub(crate) async fn request(&self, pairs: &[(&str, String)]) -> String {
        let answer = self.authorize(pairs).await;
        let handle = answer.location().strip_prefix("/app/authorize?request=");
        handle
            .unwrap_or_else(|| panic!("refused: {}", answer.location()))
            .to_owned()
    }

    pub(crate) async fn decide(&self, token: &str, request: &str, body: Value) -> Answer {
        let path = format!("/api/identity/authorizations/{request}/decision");
        self.api("POST", &path, token, Some(body)).await
    }

    pub(crate) async fn allow(&self, request: &str) -> String {
        let shown = self
            .api(
                "GET",
                &format!("/api/identity/authorizations/{request}"),
                &self.doctor,
                None,
            )
            .await;
        let words: Vec<&Value> = shown.json["scopes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| &w["scope"])
            .collect();
        let body = json!({"allow": true, "scopes": words, "patient": "p1"});
        let answer = self.decide(&self.doctor, request, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.get("redirect")
    }

    /// A fresh code of the doctor for a client.
    pub(crate) async fn code(&self, client: &str) -> String {
        let request = self.request(&self.asks(client)).await;
        query(&self.allow(&request).await)["code"].clone()
    }

    pub(crate) fn redeems(&self, client: &str, code: &str) -> Pairs<'static> {
        vec![
            ("grant_type", "authorization_code".into()),
            ("client_id", client.into()),
            ("code", code.into()),
            ("redirect_uri", REDIRECT.into()),
            ("code_verifier", VERIFIER.into()),
        ]
    }

    pub(crate) fn refreshes(&self, client: &str, token: &str) -> Pairs<'static> {
        vec![
            ("grant_type", "refresh_token".into()),
            ("client_id", client.into()),
            ("refresh_token", token.into()),
        ]
    }

    /// Signed in: the token answer.
    pub(crate) async fn signed_in(&self, client: &str) -> Answer {
        let code = self.code(client).await;
        let answer = self.form("/oauth2/token", &self.redeems(client, &code)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer
    }

    pub(crate) async fn is_good(&self, access_token: &str) -> bool {
        self.w.ctx.sessions.verify(self.w.north.id, access_token).await.is_ok()
    }
}

pub(crate) fn public() -> Value {
    json!({
        "client_name": "Growth Chart",
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "redirect_uris": [REDIRECT, "https://app.example/other"],
        "post_logout_redirect_uris": ["https://app.example/bye"],
        "initiate_login_uri": "https://app.example/launch",
        "scope": "openid fhirUser profile email launch launch/patient launch/encounter offline_access online_access patient/*.rs user/Patient.rs",
    })
}

pub(crate) fn backend(jwks: Value) -> Value {
    json!({
        "client_name": "Research Export",
        "token_endpoint_auth_method": "private_key_jwt",
        "grant_types": ["client_credentials"],
        "scope": "system/*.rs",
        "jwks": jwks,
    })
}

/// A key of a client.
pub(crate) enum Key {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    /// HMAC with these bytes.
    Secret(Vec<u8>),
    None,
}

impl Key {
    pub(crate) fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(crate) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(48);
                json!({"kty": "EC", "crv": "P-384", "kid": kid, "alg": "ES384", "x": B64.encode(x), "y": B64.encode(y)})
            }
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let n = B64.encode(n.big_endian_without_leading_zero());
                let e = B64.encode(e.big_endian_without_leading_zero());
                json!({"kty": "RSA", "kid": kid, "alg": "RS384", "n": n, "e": e})
            }
            _ => Value::Null,
        }
    }

    /// The public part as bytes, as an attacker would put it into an HMAC.
    pub(crate) fn public_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Self::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            _ => Vec::new(),
        }
    }

    /// Signs whatever header and claims it is given.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        let rng = SystemRandom::new();
        let signature = match self {
            Self::Ec(pair) => pair.sign(&rng, message.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA384, &rng, message.as_bytes(), &mut out)
                    .unwrap();
                out
            }
            Self::Secret(secret) => {
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
                aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            Self::None => Vec::new(),
        };
        format!("{message}.{}", B64.encode(signature))
    }
}
