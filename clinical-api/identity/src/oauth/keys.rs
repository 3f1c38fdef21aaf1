//! The keys that sign ID tokens: one line of ES384 keys a clinic. The next is published a day before it signs, an old one
//! stays published until nothing it signed is good any more.

use super::{ACCESS, DAY, HOUR, OAuth, store};
use crate::seal;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use medtech_kernel::{Error, Result, TenantId, clock::Millis, id, secret::Root};
use serde_json::{Value, json};

/// How long a key signs.
const SIGNS: Millis = 90 * DAY;
/// How long before it signs a key is published: as long as anybody may keep the set of keys.
const AHEAD: Millis = DAY;
/// How long after its last signature it stays: the longest life of a token, and an hour for clocks.
const STAYS: Millis = ACCESS + HOUR;
/// What the private parts are sealed for.
const PURPOSE: &str = "oauth signing key";

/// A key as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) kid: String,
    pub(crate) sealed: Vec<u8>,
    pub(crate) jwk: Value,
    pub(crate) active_from: Millis,
}

/// What is to be done with the keys at a time; indexes into the keys, which stand in the order of `active_from`.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    signer: Option<usize>,
    published: Vec<usize>,
    /// A key is to be made that signs from then on.
    make: Option<Millis>,
}

fn plan(starts: &[Millis], now: Millis) -> Plan {
    let signer = starts.iter().rposition(|from| *from <= now);
    let make = match (signer, starts.last()) {
        (None, _) => Some(now),
        // It signs on until its successor has been published for long enough, however late that was made.
        (Some(_), Some(newest)) if *newest <= now && now >= newest + SIGNS - AHEAD => {
            Some((newest + SIGNS).max(now + AHEAD))
        }
        _ => None,
    };
    let published = (0..starts.len())
        .filter(|at| starts.get(at + 1).is_none_or(|next| next + STAYS > now))
        .collect();
    Plan {
        signer,
        published,
        make,
    }
}

/// A key ready to sign: PKCS #8.
pub(crate) struct Signer {
    pub(crate) kid: String,
    pub(crate) pkcs8: Vec<u8>,
}

impl OAuth {
    /// The key that signs now.
    pub(crate) async fn signer(&self, tenant: TenantId) -> Result<Signer> {
        let (keys, plan) = self.keys(tenant).await?;
        let key = plan.signer.and_then(|at| keys.get(at));
        let key = key.ok_or_else(|| Error::internal("oauth.no_key", "there is no signing key"))?;
        Ok(Signer {
            kid: key.kid.clone(),
            pkcs8: seal::open(&self.ctx.root, PURPOSE, tenant, &key.kid, &key.sealed)?,
        })
    }

    /// What `/oauth2/jwks` shows.
    pub(crate) async fn published(&self, tenant: TenantId) -> Result<Vec<Value>> {
        let (keys, plan) = self.keys(tenant).await?;
        Ok(plan
            .published
            .into_iter()
            .filter_map(|at| keys.get(at))
            .map(|k| k.jwk.clone())
            .collect())
    }

    /// The keys of a clinic; a missing one is made first.
    async fn keys(&self, tenant: TenantId) -> Result<(Vec<Stored>, Plan)> {
        let keys = store::keys(&self.ctx.db, tenant).await?;
        let now = self.ctx.clock.now_ms();
        let starts = |keys: &[Stored]| keys.iter().map(|k| k.active_from).collect::<Vec<_>>();
        let first = plan(&starts(&keys), now);
        if first.make.is_none() {
            return Ok((keys, first));
        }
        let root = self.ctx.root.clone();
        let keys = self
            .ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    // Another server may have made it meanwhile.
                    let mut keys = store::keys_in(tx).await?;
                    if let Some(from) = plan(&starts(&keys), now).make {
                        let key = generate(&root, tx.tenant(), from)?;
                        store::insert_key(tx, &key).await?;
                        crate::audited(
                            tx,
                            "system",
                            "create",
                            &format!("key:{}", key.kid),
                            "success",
                            "signing key",
                        )
                        .await?;
                        keys.push(key);
                    }
                    Ok(keys)
                })
            })
            .await?;
        let plan = plan(&keys.iter().map(|k| k.active_from).collect::<Vec<_>>(), now);
        Ok((keys, plan))
    }
}

fn generate(root: &Root, tenant: TenantId, active_from: Millis) -> Result<Stored> {
    let failed = |_| Error::internal("oauth.key", "a signing key could not be made");
    let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).map_err(failed)?;
    let kid = URL_SAFE_NO_PAD.encode(id::random::<12>());
    let document = pair.to_pkcs8v1().map_err(failed)?;
    let sealed = seal::seal(root, PURPOSE, tenant, &kid, document.as_ref())?;
    // Uncompressed: 0x04, then two coordinates of 48 bytes.
    let point = pair.public_key().as_ref();
    let (x, y) = match point.split_first() {
        Some((4, rest)) if rest.len() == 96 => rest.split_at(48),
        _ => return Err(Error::internal("oauth.key", "a public key has another form")),
    };
    let jwk = json!({
        "kty": "EC", "crv": "P-384", "use": "sig", "alg": "ES384", "kid": kid,
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    });
    Ok(Stored {
        kid,
        sealed,
        jwk,
        active_from,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Day by day through years: what signs was published a day before (but for the first), and what is needed to
    /// verify is published for as long as it is needed.
    #[test]
    fn every_signature_can_be_verified_at_all_times() {
        let mut starts: Vec<Millis> = Vec::new();
        let mut published_at: Vec<Millis> = Vec::new();
        let mut signed: Vec<(usize, Millis)> = Vec::new();
        // Uneven steps, some of them longer than a key lives.
        let steps = [HOUR, 5 * HOUR, DAY, 13 * HOUR, 40 * DAY, HOUR / 2, 100 * DAY, 7 * HOUR];
        let mut now = 1_000 * DAY;
        for round in 0..400 {
            now += steps[round % steps.len()];
            let mut p = plan(&starts, now);
            if let Some(from) = p.make {
                assert!(starts.last().is_none_or(|last| *last < from));
                starts.push(from);
                published_at.push(now);
                p = plan(&starts, now);
                assert_eq!(p.make, None);
            }
            let signer = p.signer.expect("there is always a signer");
            assert!(p.published.contains(&signer));
            assert!(signer == 0 || published_at[signer] + AHEAD <= now);
            for (key, at) in &signed {
                assert!(
                    at + ACCESS <= now || p.published.contains(key),
                    "token of {key} at {at}"
                );
            }
            signed.push((signer, now));
            assert!(p.published.len() <= 3);
        }
        assert!(starts.len() > 10);
    }
}
