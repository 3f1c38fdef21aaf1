//! Visit links. The token is a keyed function of the visit, so the clinic can show it again while only its hash is stored.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use medtech_kernel::{TenantId, id, secret::Root};
use uuid::Uuid;

/// The 256-bit secret of a visit's link.
pub(crate) fn token(root: &Root, tenant: TenantId, visit: Uuid) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &root.derive("visit link 1", tenant));
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, visit.as_bytes()))
}

/// What the hub is told: SHA-256 of the token, hexadecimal.
pub(crate) fn hash(token: &str) -> String {
    id::sha256(token.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// The page a patient opens. The secret stands behind the `#`, which browsers keep to themselves.
pub(crate) fn page(token: &str) -> String {
    format!("/visit#{token}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_belongs_to_one_visit_of_one_tenant_under_one_key() {
        let (one, other) = (Root::from_bytes([1; 32]), Root::from_bytes([2; 32]));
        let (a, b) = (TenantId::from_number(1), TenantId::from_number(2));
        let (v, w) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let all = [
            token(&one, a, v),
            token(&one, a, w),
            token(&one, b, v),
            token(&other, a, v),
        ];
        assert_eq!(all[0], token(&one, a, v));
        for (i, t) in all.iter().enumerate() {
            assert_eq!(t.len(), 43);
            assert!(all[i + 1..].iter().all(|u| u != t));
        }
    }
}
