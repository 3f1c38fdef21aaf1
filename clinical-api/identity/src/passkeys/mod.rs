//! Passkeys: the server's side of WebAuthn. [`ceremony`] and [`cose`] check what came, [`store`] keeps it, [`http`] is the
//! way in.

pub(crate) mod ceremony;
pub(crate) mod cose;
pub(crate) mod http;
pub(crate) mod store;

#[cfg(test)]
pub(crate) mod authenticator;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use crate::{Identity, User};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ceremony::{Expected, Known, Refusal};
use medtech_kernel::{Ctx, Error, Result, Tenant, TenantId, Tx, id};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Ceremony, Kind, Passkey};
use uuid::Uuid;

/// How long the browser waits for the person, in milliseconds: as long as the ceremony lives.
const TIMEOUT: i64 = store::LIFE;
/// Passkeys of one person.
const MOST: i64 = 20;
/// Longest of each part that a browser sends, in bytes of base64.
const LONGEST: usize = 64 * 1024;

/// The relying party that a request may act for: an address of the tenant that the operator knows, never merely what the
/// request says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// RP ID: the host's name.
    pub(crate) rp_id: String,
    pub(crate) origins: Vec<String>,
}

impl Site {
    /// By the request's `Host`: the public address, a domain of the tenant, or localhost.
    pub(crate) fn of(ctx: &Ctx, tenant: &Tenant, host: &str) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        let local = name == "localhost" || name.ends_with(".localhost");
        let public = ctx.config.public_url().to_ascii_lowercase();
        let public = public.trim_end_matches('/');
        let is_public = public.split_once("://").is_some_and(|(_, rest)| rest == host);
        // An address by numbers can be no RP ID.
        if name.parse::<std::net::IpAddr>().is_ok() || name.starts_with('[') {
            return None;
        }
        let origins = if is_public {
            vec![public.to_owned()]
        } else if local {
            vec![format!("http://{host}"), format!("https://{host}")]
        } else if ctx.tenants.has_domain(tenant.id, name) {
            vec![format!("https://{host}")]
        } else {
            return None;
        };
        Some(Self {
            rp_id: name.to_owned(),
            origins,
        })
    }
}

/// What the browser gives back for a sign-in (`AuthenticationResponseJSON` of WebAuthn), with the ceremony it finishes.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Assertion {
    pub(crate) ceremony: String,
    pub(crate) credential: AssertionCredential,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AssertionCredential {
    pub(crate) id: String,
    pub(crate) response: AssertionResponse,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AssertionResponse {
    #[serde(rename = "clientDataJSON")]
    pub(crate) client_data: String,
    #[serde(rename = "authenticatorData")]
    pub(crate) authenticator_data: String,
    pub(crate) signature: String,
    #[serde(rename = "userHandle", default)]
    pub(crate) user_handle: Option<String>,
}

/// A passkey that proved itself; its use is yet to be counted.
#[derive(Debug)]
pub(crate) struct Used {
    pub(crate) user: Uuid,
    passkey: Uuid,
    sign_count: u32,
    backed_up: bool,
}

impl Used {
    /// `false`: another use with this counter was first.
    pub(crate) async fn count(&self, tx: &mut Tx) -> Result<bool> {
        store::used(tx, self.passkey, self.sign_count, self.backed_up).await
    }
}

/// One answer for whatever was wrong.
pub(crate) fn refused() -> Error {
    Error::unauthorized(
        "identity.passkey_refused",
        "This passkey was not accepted. Please try again.",
    )
}

pub(crate) fn decoded(text: &str) -> Result<Vec<u8>, Refusal> {
    if text.len() > LONGEST {
        return Err(Refusal::ClientData);
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::ClientData)
}

fn expected(c: &Ceremony) -> Expected {
    Expected {
        challenge: c.challenge.clone(),
        rp_id: c.rp_id.clone(),
        origins: c.origins.clone(),
        user_verification: true,
    }
}

fn descriptors(passkeys: &[Passkey]) -> Vec<Value> {
    passkeys
        .iter()
        .map(|p| json!({"type": "public-key", "id": URL_SAFE_NO_PAD.encode(&p.credential), "transports": p.transports}))
        .collect()
}

impl Identity {
    /// Begins; the answer is `{ceremony, options}` for the browser.
    pub(crate) async fn begin(
        &self,
        tenant: TenantId,
        site: Site,
        kind: Kind,
        user: Option<Uuid>,
        session: Option<Uuid>,
    ) -> Result<(String, Vec<u8>)> {
        let begun = Ceremony {
            user,
            session,
            challenge: id::random::<32>().to_vec(),
            rp_id: site.rp_id,
            origins: site.origins,
        };
        let challenge = begun.challenge.clone();
        let secret = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move { store::begin(tx, kind, &begun).await })
        });
        Ok((secret.await?, challenge))
    }

    /// `PublicKeyCredentialRequestOptionsJSON`, and the ceremony. Without a user any discoverable passkey of the site will do.
    pub(crate) async fn request(
        &self,
        tenant: TenantId,
        site: Site,
        kind: Kind,
        user: Option<Uuid>,
        session: Option<Uuid>,
    ) -> Result<Value> {
        let allowed = match user {
            Some(user) => {
                let all = store::of_user(&self.ctx.db, tenant, user).await?;
                descriptors(&all.into_iter().filter(|p| p.rp_id == site.rp_id).collect::<Vec<_>>())
            }
            None => Vec::new(),
        };
        let rp_id = site.rp_id.clone();
        let (ceremony, challenge) = self.begin(tenant, site, kind, user, session).await?;
        Ok(json!({"ceremony": ceremony, "options": {
            "challenge": URL_SAFE_NO_PAD.encode(challenge),
            "rpId": rp_id,
            "timeout": TIMEOUT,
            "userVerification": "required",
            "allowCredentials": allowed,
        }}))
    }

    /// `PublicKeyCredentialCreationOptionsJSON`, and the ceremony.
    pub(crate) async fn creation(&self, tenant: &Tenant, site: Site, user: &User, session: Uuid) -> Result<Value> {
        let known = store::of_user(&self.ctx.db, tenant.id, user.id).await?;
        let rp_id = site.rp_id.clone();
        let (ceremony, challenge) = self
            .begin(tenant.id, site, Kind::Register, Some(user.id), Some(session))
            .await?;
        let algorithms: Vec<Value> = cose::ALGORITHMS
            .iter()
            .map(|alg| json!({"type": "public-key", "alg": alg}))
            .collect();
        Ok(json!({"ceremony": ceremony, "options": {
            "challenge": URL_SAFE_NO_PAD.encode(challenge),
            "rp": {"id": rp_id, "name": tenant.name},
            "user": {"id": handle(user.id), "name": user.email, "displayName": user.name},
            "pubKeyCredParams": algorithms,
            "timeout": TIMEOUT,
            "excludeCredentials": descriptors(&known),
            "authenticatorSelection": {"residentKey": "required", "requireResidentKey": true, "userVerification": "required"},
            "attestation": "none",
        }}))
    }

    /// Checks an assertion of an existing passkey. The ceremony is used up by it, right or wrong. `of` is whose passkey it
    /// has to be; without it the user handle says whose it is (7.2, step 6).
    pub(crate) async fn assertion(
        &self,
        tenant: TenantId,
        kind: Kind,
        a: &Assertion,
        of: Option<Uuid>,
    ) -> Result<Result<Used, Refusal>> {
        let secret = a.ceremony.clone();
        let taken = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move { store::take(tx, kind, &secret).await })
        });
        let Some(taken) = taken.await?.filter(|t| t.user == of) else {
            return Ok(Err(Refusal::Ceremony));
        };
        let Ok(credential) = decoded(&a.credential.id) else {
            return Ok(Err(Refusal::CredentialId));
        };
        let known = match store::by_credential(&self.ctx.db, tenant, &credential).await? {
            Some(known) if of.is_none_or(|user| user == known.user) => known,
            _ => return Ok(Err(Refusal::UnknownCredential)),
        };
        Ok(check(&taken, &known, &a.credential.response, of.is_none()))
    }
}

fn check(taken: &Ceremony, known: &Passkey, r: &AssertionResponse, handle_required: bool) -> Result<Used, Refusal> {
    match r.user_handle.as_deref().filter(|h| !h.is_empty()) {
        Some(said) if said != handle(known.user) => return Err(Refusal::UserHandle),
        None if handle_required => return Err(Refusal::UserHandle),
        _ => {}
    }
    let facts = Known {
        public_key: &known.public_key,
        rp_id: &known.rp_id,
        sign_count: known.sign_count,
        backup_eligible: known.backup_eligible,
    };
    let (data, signed) = (decoded(&r.client_data)?, decoded(&r.authenticator_data)?);
    let found = ceremony::authenticate(&expected(taken), &facts, &data, &signed, &decoded(&r.signature)?)?;
    Ok(Used {
        user: known.user,
        passkey: known.id,
        sign_count: found.sign_count,
        backed_up: found.backed_up,
    })
}

/// The user handle: the account's identifier, which says nothing of the person.
fn handle(user: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(user.as_bytes())
}
