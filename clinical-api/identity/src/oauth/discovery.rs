//! What the server can do, told to programs: OpenID Connect Discovery and RFC 8414 (one document serves both), SMART App
//! Launch, and the keys. Nothing is listed that is not so.

use super::{OAuth, client::NAMED, issuer::Site, refusal::Refusal};
use axum::{Json, extract::State};
use http::{HeaderName, HeaderValue, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// Documents that anybody may keep for a while; less than the day for which the next key is published ahead.
type Kept = ([(HeaderName, HeaderValue); 1], Json<Value>);

fn kept(document: Value) -> Kept {
    let keep = HeaderValue::from_static("public, max-age=300");
    ([(header::CACHE_CONTROL, keep)], Json(document))
}

const METHODS: [&str; 3] = ["none", "client_secret_basic", "private_key_jwt"];

fn common(site: &Site) -> Value {
    json!({
        "issuer": site.issuer,
        "authorization_endpoint": site.at("/oauth2/authorize"),
        "token_endpoint": site.at("/oauth2/token"),
        "jwks_uri": site.at("/oauth2/jwks"),
        "introspection_endpoint": site.at("/oauth2/introspect"),
        "revocation_endpoint": site.at("/oauth2/revoke"),
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": METHODS,
        "token_endpoint_auth_signing_alg_values_supported": ["ES384", "RS384"],
        "dpop_signing_alg_values_supported": ["ES256"],
        "scopes_supported": scopes(),
    })
}

fn scopes() -> Vec<String> {
    let clinical = [
        "patient/*.cruds",
        "user/*.cruds",
        "system/*.cruds",
        "patient/*.rs",
        "user/*.rs",
        "system/*.rs",
    ];
    NAMED.into_iter().chain(clinical).map(str::to_owned).collect()
}

fn with(mut document: Value, more: Value) -> Value {
    if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
        document.extend(more);
    }
    document
}

pub(crate) async fn openid(site: Site) -> Kept {
    kept(with(
        common(&site),
        json!({
            "userinfo_endpoint": site.at("/oauth2/userinfo"),
            "end_session_endpoint": site.at("/oauth2/logout"),
            "pushed_authorization_request_endpoint": site.at("/oauth2/par"),
            "require_pushed_authorization_requests": false,
            "response_modes_supported": ["query"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES384"],
            "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
            "introspection_endpoint_auth_signing_alg_values_supported": ["ES384", "RS384"],
            "revocation_endpoint_auth_methods_supported": METHODS,
            "revocation_endpoint_auth_signing_alg_values_supported": ["ES384", "RS384"],
            "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "sid", "name", "email", "fhirUser"],
            "prompt_values_supported": ["none", "login", "consent"],
            "authorization_response_iss_parameter_supported": true,
            "backchannel_logout_supported": true,
            "backchannel_logout_session_supported": true,
            "claims_parameter_supported": false,
            "request_parameter_supported": false,
            "request_uri_parameter_supported": false,
        }),
    ))
}

pub(crate) async fn smart(site: Site) -> Kept {
    kept(with(
        common(&site),
        json!({
            "capabilities": [
                "launch-ehr",
                "launch-standalone",
                "authorize-post",
                "client-public",
                "client-confidential-symmetric",
                "client-confidential-asymmetric",
                "sso-openid-connect",
                "context-banner",
                "context-ehr-patient",
                "context-ehr-encounter",
                "context-standalone-patient",
                "permission-offline",
                "permission-online",
                "permission-patient",
                "permission-user",
                "permission-v1",
                "permission-v2",
            ],
        }),
    ))
}

pub(crate) async fn jwks(State(oauth): State<Arc<OAuth>>, site: Site) -> Result<Kept, Refusal> {
    let keys = oauth.published(site.id()).await?;
    Ok(kept(json!({ "keys": keys })))
}
