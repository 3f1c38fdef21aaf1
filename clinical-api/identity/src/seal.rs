//! Sealing of small secrets at rest: AES-256-GCM under a key of the tenant, bound to what the secret belongs to.
//! The one seam through which a key hierarchy can take over.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use medtech_kernel::{Error, Result, TenantId, id, secret::Root};

/// The first byte of what is sealed: under which scheme.
const SCHEME: u8 = 1;

fn key(root: &Root, label: &str, tenant: TenantId) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, &root.derive(label, tenant)).map_err(broken)?;
    Ok(LessSafeKey::new(key))
}

fn broken(_: impl std::fmt::Debug) -> Error {
    Error::internal("identity.seal", "a secret could not be sealed or opened")
}

/// `bound` is authenticated with it: what is sealed for one owner does not open for another.
pub(crate) fn seal(root: &Root, label: &str, tenant: TenantId, bound: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let nonce = id::random::<NONCE_LEN>();
    let mut sealed = plain.to_vec();
    key(root, label, tenant)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut sealed)
        .map_err(broken)?;
    Ok([&[SCHEME][..], &nonce, &sealed].concat())
}

pub(crate) fn open(root: &Root, label: &str, tenant: TenantId, bound: &str, sealed: &[u8]) -> Result<Vec<u8>> {
    let rest = sealed.strip_prefix(&[SCHEME]).ok_or(()).map_err(broken)?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(()).map_err(broken)?;
    let mut plain = sealed.to_vec();
    let length = key(root, label, tenant)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound), &mut plain)
        .map_err(broken)?
        .len();
    plain.truncate(length);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_for_its_owner_in_its_tenant_and_unaltered_only() {
        let root = Root::from_bytes([7; 32]);
        let (one, two) = (TenantId::from_number(1), TenantId::from_number(2));
        let sealed = seal(&root, "l", one, "user:a", b"secret").expect("sealed");
        assert_eq!(open(&root, "l", one, "user:a", &sealed).expect("opens"), b"secret");
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        assert!(open(&root, "l", one, "user:b", &sealed).is_err());
        assert!(open(&root, "l", two, "user:a", &sealed).is_err());
        assert!(open(&root, "m", one, "user:a", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(open(&root, "l", one, "user:a", &altered).is_err(), "byte {at}");
        }
        assert!(open(&root, "l", one, "user:a", &sealed[..12]).is_err());
    }
}
