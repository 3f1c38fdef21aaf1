//! Recovery codes: ten of eighty bits, shown once, good once each.

use super::{Changed, store};
use crate::Identity;
use aws_lc_rs::hmac;
use axum::extract::State;
use medtech_kernel::{Error, Result, TenantId, Tx, auth::Principal, id};
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;

const CODES: usize = 10;
const BYTES: usize = 10;
const PEPPER: &str = "identity recovery code 2";
/// Crockford's base 32: no letter that looks like a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Eighty random bits as `abcd-efgh-jkmn-pqrs`.
fn code() -> String {
    let bits = id::random::<BYTES>()
        .into_iter()
        .fold(0_u128, |all, byte| all << 8 | u128::from(byte));
    let mut text = String::new();
    for place in (0..16).rev() {
        let index = usize::try_from(bits >> (place * 5) & 31).unwrap_or(0);
        text.push(ALPHABET.get(index).copied().map_or('0', char::from));
        if place % 4 == 0 && place > 0 {
            text.push('-');
        }
    }
    text
}

/// What a person typed, as it was printed: letters that are easily confused are taken as meant.
fn plain(typed: &str) -> String {
    typed
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| match c.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            c => c,
        })
        .take(32)
        .collect()
}

impl Identity {
    /// How codes were kept before they were stretched.
    fn keyed(&self, tenant: TenantId, user: Uuid, typed: &str) -> [u8; 32] {
        let key = self.ctx.root.derive("identity recovery code 1", tenant);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let tag = hmac::sign(&key, format!("{user}:{}", plain(typed)).as_bytes());
        <[u8; 32]>::try_from(tag.as_ref()).unwrap_or_default()
    }

    /// What a typed code would be kept as: one hash, since the codes of a set share their salt. To be made before a
    /// transaction, which must not wait for it.
    pub(crate) async fn recovery_hashes(&self, tenant: TenantId, user: Uuid, typed: &str) -> Result<Vec<[u8; 32]>> {
        let mut hashes = Vec::new();
        for salt in store::code_salts(&self.ctx.db, tenant, user).await? {
            hashes.extend(match salt {
                None => vec![self.keyed(tenant, user, typed)],
                Some(salt) => {
                    let pepper = self.ctx.root.derive(PEPPER, tenant);
                    self.hasher.stretch(pepper, vec![plain(typed)], salt).await?
                }
            });
        }
        Ok(hashes)
    }

    /// Is it a code that was not used before? Uses it up.
    pub(crate) async fn recovery_is_right(&self, tx: &mut Tx, user: Uuid, hashes: &[[u8; 32]]) -> Result<bool> {
        for hash in hashes {
            if store::use_code(tx, user, *hash).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[derive(Serialize)]
pub(crate) struct Codes {
    codes: Vec<String>,
}

/// `POST /recovery`: ten new codes; those of before are void.
pub(crate) async fn renew(State(identity): State<Arc<Identity>>, who: Principal) -> Result<crate::http::Secret<Codes>> {
    let user = identity.may_change(&who).await?;
    let codes: Vec<String> = (0..CODES).map(|_| code()).collect();
    let salt = id::random::<16>();
    let pepper = identity.ctx.root.derive(PEPPER, who.tenant);
    let plain = codes.iter().map(|code| plain(code)).collect();
    let hashes = identity.hasher.stretch(pepper, plain, salt).await?;
    let this = identity.clone();
    identity
        .ctx
        .db
        .write(who.tenant, move |tx| {
            Box::pin(async move {
                if !store::standing_in(tx, user).await?.second() {
                    return Err(Error::conflict(
                        "identity.no_second_factor",
                        "Add a passkey or an authenticator app first.",
                    ));
                }
                store::put_codes(tx, user, salt, &hashes).await?;
                this.changed(tx, &who, user, Changed::RecoveryRenewed).await
            })
        })
        .await?;
    Ok(crate::http::secret(Codes { codes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_eighty_bits_and_survive_being_typed() {
        let all: std::collections::HashSet<String> = (0..200).map(|_| code()).collect();
        assert_eq!(all.len(), 200);
        for code in &all {
            assert_eq!((code.len(), plain(code).len()), (19, 16), "{code}");
        }
        assert_eq!(plain(" OIL0-abcd "), "0110abcd");
        let used: std::collections::HashSet<char> = all.iter().flat_map(|c| c.chars()).collect();
        assert_eq!(used.len(), 33, "every letter comes up, and the hyphen");
    }
}
