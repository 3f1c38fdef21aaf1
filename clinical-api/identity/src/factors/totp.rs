//! One-time codes of an authenticator app: RFC 6238 as the apps read it, SHA-1, six digits, thirty seconds.

use super::{Changed, store};
use crate::{Identity, audited, seal, store as users};
use axum::extract::State;
use http::StatusCode;
use medtech_kernel::{
    Error, Result, TenantId, Tx,
    auth::{Assurance, Principal},
    clock::Millis,
    http::{Body, TenantCtx},
    id,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use totp_rs::{Builder, Secret, Totp};
use uuid::Uuid;

/// 160 bits, as RFC 4226 recommends.
const SECRET: usize = 20;
/// In seconds.
const STEP: u64 = 30;
const LABEL: &str = "identity totp secret";

fn generator(secret: [u8; SECRET]) -> Result<Totp> {
    // The builder's defaults are SHA-1, six digits, thirty seconds.
    Builder::new()
        .with_skew(0)
        .with_secret(Secret::new_stack(secret))
        .build()
        .map_err(|e| Error::internal("identity.totp", e.to_string()))
}

/// The step a code stands for: of now, or the one before, for the time that reading and typing take (RFC 6238, 5.2). None that
/// is yet to come.
fn step(secret: [u8; SECRET], code: &str, now: Millis) -> Result<Option<i64>> {
    let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    if digits.len() != 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let seconds = u64::try_from(now / 1000).unwrap_or(0);
    let generator = generator(secret)?;
    let found = generator.check(&digits, seconds);
    let found = found.or_else(|| {
        seconds
            .checked_sub(STEP)
            .and_then(|before| generator.check(&digits, before))
    });
    Ok(found.and_then(|step| i64::try_from(step).ok()))
}

/// What an app reads from the picture (the key URI format of authenticator apps).
fn uri(issuer: &str, account: &str, secret: &str) -> String {
    let (issuer, account) = (percent(issuer), percent(account));
    format!("otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits=6&period=30")
}

/// Everything but the unreserved characters of RFC 3986.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn bound(user: Uuid) -> String {
    format!("user:{user}")
}

impl Identity {
    fn open_totp(&self, tenant: TenantId, user: Uuid, sealed: &[u8]) -> Result<[u8; SECRET]> {
        let plain = seal::open(&self.ctx.root, LABEL, tenant, &bound(user), sealed)?;
        <[u8; SECRET]>::try_from(plain.as_slice()).map_err(|e| Error::internal("identity.totp", e))
    }

    /// Is it a code of now that was not used before? Spends it.
    pub(crate) async fn totp_is_right(&self, tx: &mut Tx, user: Uuid, code: &str) -> Result<bool> {
        let (Some(sealed), _) = store::totp(tx, user).await? else {
            return Ok(false);
        };
        let secret = self.open_totp(tx.tenant(), user, &sealed)?;
        match step(secret, code, tx.now())? {
            Some(step) => store::spend(tx, user, step).await,
            None => Ok(false),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Started {
    /// Base32, for those who type it.
    secret: String,
    uri: String,
}

/// `POST /totp/start`: a new secret, which counts once a code of it has been shown.
pub(crate) async fn start(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    who: Principal,
) -> Result<crate::http::Secret<Started>> {
    let user = identity.may_change(&who).await?;
    let person = users::by_id(&identity.ctx.db, tenant.id, user)
        .await?
        .ok_or_else(crate::unknown_user)?;
    let secret = id::random::<SECRET>();
    let text = Secret::new_stack(secret).to_base32();
    let sealed = seal::seal(&identity.ctx.root, LABEL, tenant.id, &bound(user), &secret)?;
    identity
        .ctx
        .db
        .write(tenant.id, move |tx| {
            Box::pin(async move {
                store::put_pending(tx, user, sealed).await?;
                audited(
                    tx,
                    &who.subject,
                    "create",
                    &who.subject,
                    "success",
                    "one-time codes begun",
                )
                .await
            })
        })
        .await?;
    let uri = uri(&tenant.name, &person.email, &text);
    Ok(crate::http::secret(Started { secret: text, uri }))
}

#[derive(Deserialize)]
pub(crate) struct Code {
    code: String,
}

/// `POST /totp/confirm`: the app shows the right codes, so from now on they are asked for.
pub(crate) async fn confirm(
    State(identity): State<Arc<Identity>>,
    who: Principal,
    Body(Code { code }): Body<Code>,
) -> Result<StatusCode> {
    let user = identity.may_change(&who).await?;
    identity.limit_second(who.tenant, user).await?;
    let this = identity.clone();
    let right = identity
        .ctx
        .db
        .write(who.tenant, move |tx| {
            Box::pin(async move {
                let (_, Some(pending)) = store::totp(tx, user).await? else {
                    return Err(Error::conflict("identity.totp_none", "Please begin again."));
                };
                let secret = this.open_totp(who.tenant, user, &pending)?;
                let Some(step) = step(secret, &code, tx.now())? else {
                    return Ok(false);
                };
                if !store::confirm(tx, user, pending, step).await? {
                    return Ok(false);
                }
                this.forget_second(tx, user).await?;
                this.ctx.sessions.proved(tx, who.session, Assurance::Two).await?;
                this.changed(tx, &who, user, Changed::TotpAdded).await?;
                Ok(true)
            })
        })
        .await?;
    if right {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(super::wrong_code())
    }
}

/// `DELETE /totp`.
pub(crate) async fn remove(State(identity): State<Arc<Identity>>, who: Principal) -> Result<StatusCode> {
    let user = identity.may_change(&who).await?;
    let this = identity.clone();
    identity
        .ctx
        .db
        .write(who.tenant, move |tx| {
            Box::pin(async move {
                if store::remove_totp(tx, user).await? {
                    this.changed(tx, &who, user, Changed::TotpRemoved).await?;
                }
                Ok(())
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, SHA-1; six digits are the last six of its eight.
    const VECTORS: [(u64, &str); 6] = [
        (59, "94287082"),
        (1_111_111_109, "07081804"),
        (1_111_111_111, "14050471"),
        (1_234_567_890, "89005924"),
        (2_000_000_000, "69279037"),
        (20_000_000_000, "65353130"),
    ];

    #[test]
    fn agrees_with_rfc_6238() -> Result<()> {
        let secret = *b"12345678901234567890";
        for (seconds, code) in VECTORS {
            let now = i64::try_from(seconds).unwrap() * 1000;
            let at = i64::try_from(seconds / 30).unwrap();
            assert_eq!(step(secret, &code[2..], now)?, Some(at), "{seconds}");
            assert_eq!(step(secret, &code[2..], now + 30_000)?, Some(at), "one step late");
            assert_eq!(step(secret, &code[2..], now - 30_000)?, None, "one step early");
            assert_eq!(step(secret, &code[2..], now + 60_000)?, None, "two steps late");
            let grouped = format!("{} {}", &code[2..5], &code[5..]);
            assert_eq!(step(secret, &grouped, now)?, Some(at), "as apps show it");
            let eight = Builder::new().with_digits(8).with_secret(Secret::new_stack(secret));
            assert!(eight.build().unwrap().check(code, seconds).is_some());
        }
        for bad in ["", "12345", "1234567", "abcdef", "-12345", "１２３４５６"] {
            assert_eq!(step(secret, bad, 59_000)?, None, "{bad}");
        }
        Ok(())
    }

    #[test]
    fn the_uri_says_what_the_apps_need() {
        assert_eq!(
            uri("North Clinic", "a+b@n.example", "ABC"),
            "otpauth://totp/North%20Clinic:a%2Bb%40n.example?secret=ABC&issuer=North%20Clinic&algorithm=SHA1&digits=6&period=30"
        );
    }
}
