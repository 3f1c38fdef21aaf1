//! The vectors that the W3C publishes with WebAuthn Level 3 (section "Test Vectors"), each as registration and as
//! authentication.

use super::ceremony::{Expected, Known, Refusal, authenticate, register};
use serde_json::Value;

const VECTORS: &str = include_str!("vectors/w3c.json");

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("text");
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex"))
        .collect()
}

fn expected(challenge: &Value) -> Expected {
    Expected {
        challenge: hex(challenge),
        rp_id: "example.org".into(),
        origins: vec!["https://example.org".into()],
        // The vectors set the bit at random.
        user_verification: false,
    }
}

#[test]
fn the_published_vectors() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).expect("JSON");
    assert_eq!(vectors.len(), 15);
    let mut accepted = Vec::new();
    for v in &vectors {
        let (name, r, a) = (
            v["name"].as_str().expect("name"),
            &v["registration"],
            &v["authentication"],
        );
        let made = register(
            &expected(&r["challenge"]),
            &hex(&r["clientDataJSON"]),
            &hex(&r["attestationObject"]),
        );
        // What we do not allow on purpose: other algorithms than those offered, and pages inside of other pages.
        let refused = match name {
            "packed-es384" | "packed-es512" | "packed-ed448" => Some(Refusal::Algorithm),
            "none-es256-crossOrigin" | "none-es256-topOrigin" => Some(Refusal::CrossOrigin),
            _ => None,
        };
        if refused.is_some() {
            assert_eq!(made.err(), refused, "{name}");
            continue;
        }
        let made = made.unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(made.credential, hex(&r["credential_id"]), "{name}");
        let known = Known {
            public_key: &made.public_key,
            rp_id: "example.org",
            sign_count: made.sign_count,
            backup_eligible: made.backup_eligible,
        };
        let (data, signed, signature) = (
            hex(&a["clientDataJSON"]),
            hex(&a["authenticatorData"]),
            hex(&a["signature"]),
        );
        let e = expected(&a["challenge"]);
        authenticate(&e, &known, &data, &signed, &signature).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        // The same with verification required holds only where the bit is set.
        let strict = Expected {
            user_verification: true,
            ..e.clone()
        };
        let verified = signed[32] & 4 != 0;
        let found = authenticate(&strict, &known, &data, &signed, &signature);
        assert_eq!(found.err(), (!verified).then_some(Refusal::UserVerification), "{name}");
        // And every cut or altered part is refused, never a panic.
        for at in 0..signature.len() {
            let mut altered = signature.clone();
            altered[at] ^= 0x10;
            assert!(
                authenticate(&e, &known, &data, &signed, &altered).is_err(),
                "{name}, byte {at}"
            );
        }
        for length in 0..signed.len() {
            assert!(
                authenticate(&e, &known, &data, &signed[..length], &signature).is_err(),
                "{name}"
            );
        }
        let object = hex(&r["attestationObject"]);
        let step = object.len() / 200 + 1;
        for length in (0..object.len()).step_by(step) {
            let e = expected(&r["challenge"]);
            assert!(
                register(&e, &hex(&r["clientDataJSON"]), &object[..length]).is_err(),
                "{name}, {length}"
            );
        }
        accepted.push(name);
    }
    assert_eq!(accepted.len(), 10, "{accepted:?}");
}
