//! Ceremonies that must be refused, played through the real doors by an authenticator that lies. Each is refused for its
//! own reason, which the audit trail names, so that none passes for being wrong in another way.

use super::{
    authenticator::{Authenticator, Said, Signer, cose_bytes},
    ceremony::Refusal,
};
use crate::tests::{TABLES, call, clinician, door};
use axum::Router;
use ciborium::Value as Cbor;
use http::StatusCode;
use medtech_kernel::{
    Tenant,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

const NORTH: &str = "north.localhost";
const ORIGIN: &str = "http://north.localhost";

struct Ring<'a> {
    w: &'a World,
    app: Router,
    refused: AtomicUsize,
}

impl Ring<'_> {
    async fn post(&self, host: &str, path: &str, token: Option<&str>, body: Value) -> (StatusCode, Value) {
        call(&self.app, "POST", host, path, token, Some(body)).await
    }

    async fn begin(&self, host: &str, path: &str, token: Option<&str>) -> Value {
        let (status, body) = self.post(host, path, token, json!({})).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    async fn sign_in_started(&self) -> Value {
        self.begin(NORTH, "/passkeys/authenticate/start", None).await
    }

    /// What the trail says of the last thing that happened.
    async fn why(&self, tenant: &Tenant) -> String {
        let sql = "SELECT detail FROM audit WHERE tenant = $1 ORDER BY seq DESC LIMIT 1";
        let row = self.w.ctx.db.query_one(tenant.id, sql, &[]).await.unwrap();
        row.string(0).unwrap()
    }

    async fn refuses(&self, name: &str, why: Refusal, path: &str, token: Option<&str>, body: Value) {
        let (status, answer) = self.post(NORTH, path, token, body).await;
        assert!(status.is_client_error(), "{name} was accepted: {status} {answer}");
        assert_eq!(answer["code"], "identity.passkey_refused", "{name}");
        assert_eq!(
            self.why(&self.w.north).await,
            format!("passkey: {}", why.name()),
            "{name}"
        );
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    async fn no_entry(&self, name: &str, why: Refusal, body: Value) {
        self.refuses(name, why, "/passkeys/authenticate/finish", None, body)
            .await;
    }

    async fn register(&self, host: &str, token: &str, device: &mut Authenticator) {
        let started = self.begin(host, "/passkeys/register/start", Some(token)).await;
        let body = device.create(&started, &format!("http://{host}"), |_| {});
        let (status, answer) = self.post(host, "/passkeys/register/finish", Some(token), body).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }
}

type Lie = (&'static str, Refusal, fn(&mut Said));

const SIGN_IN: &[Lie] = &[
    ("another site", Refusal::Origin, |s| {
        s.origin = "https://evil.example".into()
    }),
    ("a site whose name begins like ours", Refusal::Origin, |s| {
        s.origin.push_str(".evil.example")
    }),
    ("a site below ours", Refusal::Origin, |s| {
        s.origin = "http://x.north.localhost".into()
    }),
    ("another port", Refusal::Origin, |s| s.origin.push_str(":8081")),
    ("an opaque origin", Refusal::Origin, |s| s.origin = "null".into()),
    ("the other ceremony's type", Refusal::Type, |s| {
        s.r#type = "webauthn.create"
    }),
    ("a payment's type", Refusal::Type, |s| s.r#type = "payment.get"),
    ("a challenge of its own", Refusal::Challenge, |s| {
        s.challenge = "A".repeat(43)
    }),
    ("no challenge", Refusal::Challenge, |s| s.challenge.clear()),
    ("a padded challenge", Refusal::Challenge, |s| s.challenge.push('=')),
    ("another RP", Refusal::RpId, |s| s.rp_id = "evil.example".into()),
    ("another tenant's RP", Refusal::RpId, |s| {
        s.rp_id = "south.localhost".into()
    }),
    ("the RP above", Refusal::RpId, |s| s.rp_id = "localhost".into()),
    ("nobody present", Refusal::UserPresence, |s| s.flags = 0x04),
    ("nobody verified", Refusal::UserVerification, |s| s.flags = 0x01),
    ("backed up, and not to be backed up", Refusal::BackupState, |s| {
        s.flags |= 0x10
    }),
    ("eligible for backup all of a sudden", Refusal::BackupEligibility, |s| {
        s.flags |= 0x08
    }),
    ("inside of another page", Refusal::CrossOrigin, |s| {
        s.cross_origin = true
    }),
    ("inside of a named page", Refusal::CrossOrigin, |s| {
        s.top_origin = Some("https://evil.example".into())
    }),
    ("the counter stands still", Refusal::Counter, |s| s.count = 3),
    ("the counter goes back", Refusal::Counter, |s| s.count = 1),
    ("the counter is gone", Refusal::Counter, |s| s.count = 0),
    ("no user handle", Refusal::UserHandle, |s| s.user_handle = None),
    ("an empty user handle", Refusal::UserHandle, |s| {
        s.user_handle = Some(String::new())
    }),
    ("a user handle of its own", Refusal::UserHandle, |s| {
        s.user_handle = Some("AAAAAAAAAAAAAAAAAAAAAA".into())
    }),
    ("authenticator data cut by one byte", Refusal::AuthenticatorData, |s| {
        s.cut = 1
    }),
    ("no authenticator data", Refusal::AuthenticatorData, |s| s.cut = 37),
    ("bytes after the authenticator data", Refusal::AuthenticatorData, |s| {
        s.tail = vec![0]
    }),
    ("extensions promised and missing", Refusal::Cbor, |s| s.flags |= 0x80),
    ("extensions cut", Refusal::Cbor, |s| {
        (s.flags, s.tail) = (s.flags | 0x80, vec![0xA1, 0x61])
    }),
    ("extensions nested without end", Refusal::Cbor, |s| {
        (s.flags, s.tail) = (s.flags | 0x80, vec![0x81; 5000])
    }),
    ("a credential nobody knows", Refusal::UnknownCredential, |s| {
        s.credential = vec![9; 32]
    }),
];

const REGISTER: &[Lie] = &[
    ("another site", Refusal::Origin, |s| {
        s.origin = "https://evil.example".into()
    }),
    ("the other ceremony's type", Refusal::Type, |s| {
        s.r#type = "webauthn.get"
    }),
    ("a challenge of its own", Refusal::Challenge, |s| {
        s.challenge = "A".repeat(43)
    }),
    ("another RP", Refusal::RpId, |s| s.rp_id = "evil.example".into()),
    ("nobody present", Refusal::UserPresence, |s| s.flags = 0x44),
    ("nobody verified", Refusal::UserVerification, |s| s.flags = 0x41),
    ("inside of another page", Refusal::CrossOrigin, |s| {
        s.cross_origin = true
    }),
    ("backed up, and not to be backed up", Refusal::BackupState, |s| {
        s.flags |= 0x10
    }),
    ("no credential in it", Refusal::AuthenticatorData, |s| s.flags = 0x05),
    ("a credential id of no length", Refusal::CredentialId, |s| {
        s.credential.clear()
    }),
    ("a credential id too long", Refusal::CredentialId, |s| {
        s.credential = vec![1; 1024]
    }),
    ("an algorithm that was not offered", Refusal::Algorithm, |s| {
        s.key[1].1 = (-35).into()
    }),
    ("an algorithm without a key", Refusal::Algorithm, |s| {
        s.key[1].1 = 0.into()
    }),
    ("the algorithm of another kind of key", Refusal::Key, |s| {
        s.key[1].1 = (-257).into()
    }),
    ("another curve", Refusal::Key, |s| s.key[2].1 = 2.into()),
    ("half a point", Refusal::Key, |s| s.key.truncate(4)),
    ("a short coordinate", Refusal::Key, |s| {
        s.key[3].1 = Cbor::Bytes(vec![1; 31])
    }),
    ("two algorithms", Refusal::Key, |s| s.key.push((3, (-8).into()))),
    ("the key cut", Refusal::Cbor, |s| s.cut = 1),
    ("bytes after the key", Refusal::AuthenticatorData, |s| {
        s.tail = vec![0xA0]
    }),
    ("a statement where there is none", Refusal::Attestation, |s| {
        s.attestation = ("none", vec![(Cbor::from("sig"), Cbor::Bytes(vec![1]))]);
    }),
    ("a self attestation by another key", Refusal::Attestation, |s| {
        s.attestation = (
            "packed",
            vec![
                (Cbor::from("alg"), (-7).into()),
                (Cbor::from("sig"), Cbor::Bytes(vec![1; 70])),
            ],
        );
    }),
    (
        "a self attestation under another algorithm",
        Refusal::Attestation,
        |s| {
            s.attestation = (
                "packed",
                vec![
                    (Cbor::from("alg"), (-8).into()),
                    (Cbor::from("sig"), Cbor::Bytes(vec![1; 64])),
                ],
            );
        },
    ),
];

/// Flips a bit of one part of what the browser sent, after it was signed.
fn altered(mut body: Value, part: &str) -> Value {
    let text = body["credential"]["response"][part].as_str().expect("text");
    let mut bytes = super::decoded(text).expect("base64");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    body["credential"]["response"][part] = json!(base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        bytes
    ));
    body
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "the figure is the point of the run")]
async fn none_of_these_ceremonies_is_accepted() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let ring = Ring {
                w,
                app,
                refused: AtomicUsize::new(0),
            };
            let mut tokens = Vec::new();
            for (tenant, email) in [
                (&w.north, "a@north.example"),
                (&w.north, "b@north.example"),
                (&w.south, "c@south.example"),
            ] {
                let user = identity.create_user(tenant.id, clinician(email)).await?;
                let token = identity.issue_token(tenant.id, user.id, 3_600_000, "test").await?;
                tokens.push((user, token));
            }
            let [(a_user, a), (_, b), (_, c)] = <[_; 3]>::try_from(tokens).unwrap();
            let mut device = Authenticator::new(Signer::es256());
            ring.register(NORTH, &a, &mut device).await;
            let mut other = Authenticator::new(Signer::es256());
            ring.register(NORTH, &b, &mut other).await;
            let mut foreign = Authenticator::new(Signer::es256());
            ring.register("south.localhost", &c, &mut foreign).await;
            // Its count is known now.
            for _ in 0..3 {
                let body = device.get(&ring.sign_in_started().await, ORIGIN, |_| {});
                let (status, answer) = ring.post(NORTH, "/passkeys/authenticate/finish", None, body).await;
                assert_eq!(
                    (status, &answer["assurance"]),
                    (StatusCode::OK, &json!("two")),
                    "{answer}"
                );
            }

            for (name, why, lie) in SIGN_IN {
                let started = ring.sign_in_started().await;
                let body = device.get(&started, ORIGIN, lie);
                ring.no_entry(name, *why, body).await;
            }
            for (name, why, part) in [
                ("an altered signature", Refusal::Signature, "signature"),
                ("altered client data", Refusal::ClientData, "clientDataJSON"),
                (
                    "a counter altered after signing",
                    Refusal::Signature,
                    "authenticatorData",
                ),
            ] {
                let body = altered(device.get(&ring.sign_in_started().await, ORIGIN, |_| {}), part);
                ring.no_entry(name, why, body).await;
            }
            let mut body = device.get(&ring.sign_in_started().await, ORIGIN, |_| {});
            body["credential"]["response"]["signature"] = json!("");
            ring.no_entry("no signature", Refusal::Signature, body).await;
            let mut body = device.get(&ring.sign_in_started().await, ORIGIN, |_| {});
            body["credential"]["response"]["clientDataJSON"] = json!("§");
            ring.no_entry("no base64", Refusal::ClientData, body).await;
            // The signature of one key under the name of another, with each handle.
            let theirs = (other.credential.clone(), other.user_handle.clone());
            let body = device.get(&ring.sign_in_started().await, ORIGIN, |s| {
                s.credential = theirs.0.clone()
            });
            ring.no_entry("another's credential under the own handle", Refusal::UserHandle, body)
                .await;
            let body = device.get(&ring.sign_in_started().await, ORIGIN, |s| {
                (s.credential, s.user_handle) = (theirs.0.clone(), Some(theirs.1.clone()));
            });
            ring.no_entry("another's credential with the own key", Refusal::Signature, body)
                .await;
            let body = device.get(&ring.sign_in_started().await, ORIGIN, |s| {
                s.user_handle = Some(theirs.1.clone())
            });
            ring.no_entry("another's handle with the own credential", Refusal::UserHandle, body)
                .await;

            // Ceremonies: replayed, invented, over, of another kind, of another tenant.
            let started = ring.sign_in_started().await;
            let good = device.get(&started, ORIGIN, |_| {});
            let (status, _) = ring
                .post(NORTH, "/passkeys/authenticate/finish", None, good.clone())
                .await;
            assert_eq!(status, StatusCode::OK);
            ring.no_entry("replayed", Refusal::Ceremony, good).await;
            let body = device.get(&started, ORIGIN, |_| {});
            ring.no_entry("a second answer to one challenge", Refusal::Ceremony, body)
                .await;
            let mut body = device.get(&ring.sign_in_started().await, ORIGIN, |_| {});
            body["ceremony"] = json!("A".repeat(43));
            ring.no_entry("an invented ceremony", Refusal::Ceremony, body).await;
            let first = ring.sign_in_started().await;
            let mut body = device.get(&ring.sign_in_started().await, ORIGIN, |_| {});
            body["ceremony"] = first["ceremony"].clone();
            ring.no_entry("the answer to another ceremony", Refusal::Challenge, body)
                .await;
            for path in ["/passkeys/register/start", "/step-up/passkey/start"] {
                let mut started = ring.begin(NORTH, path, Some(&a)).await;
                started["options"]["rpId"] = json!(NORTH);
                let body = device.get(&started, ORIGIN, |_| {});
                ring.no_entry("a ceremony of another kind", Refusal::Ceremony, body)
                    .await;
            }
            let started = ring
                .begin("south.localhost", "/passkeys/authenticate/start", None)
                .await;
            let body = foreign.get(&started, "http://south.localhost", |_| {});
            ring.no_entry("another tenant's ceremony", Refusal::Ceremony, body)
                .await;
            let body = foreign.get(&ring.sign_in_started().await, ORIGIN, |_| {});
            ring.no_entry("another tenant's credential", Refusal::UnknownCredential, body)
                .await;
            let started = ring.sign_in_started().await;
            w.ctx.clock.advance(5 * 60_000);
            let body = device.get(&started, ORIGIN, |_| {});
            ring.no_entry("five minutes later", Refusal::Ceremony, body).await;
            // A copy of the device: whoever is second is found out.
            let mut copy = device.clone_of();
            let body = device.get(&ring.sign_in_started().await, ORIGIN, |_| {});
            let (status, _) = ring.post(NORTH, "/passkeys/authenticate/finish", None, body).await;
            assert_eq!(status, StatusCode::OK);
            let body = copy.get(&ring.sign_in_started().await, ORIGIN, |_| {});
            ring.no_entry("a cloned authenticator", Refusal::Counter, body).await;

            // Step-up: only the own passkey, in the own session.
            let path = "/step-up/passkey";
            let started = ring.begin(NORTH, "/step-up/passkey/start", Some(&a)).await;
            let body = other.get(&started, ORIGIN, |_| {});
            ring.refuses(
                "step-up by another's passkey",
                Refusal::UnknownCredential,
                path,
                Some(&a),
                body,
            )
            .await;
            let body = device.get(&ring.sign_in_started().await, ORIGIN, |_| {});
            ring.refuses("step-up by a sign-in", Refusal::Ceremony, path, Some(&a), body)
                .await;
            let started = ring.begin(NORTH, "/step-up/passkey/start", Some(&b)).await;
            let body = device.get(&started, ORIGIN, |_| {});
            ring.refuses("step-up by another's ceremony", Refusal::Ceremony, path, Some(&a), body)
                .await;

            // Registration.
            let path = "/passkeys/register/finish";
            for (name, why, lie) in REGISTER {
                let started = ring.begin(NORTH, "/passkeys/register/start", Some(&a)).await;
                let body = Authenticator::new(Signer::es256()).create(&started, ORIGIN, lie);
                ring.refuses(name, *why, path, Some(&a), body).await;
            }
            let started = ring.begin(NORTH, "/passkeys/register/start", Some(&a)).await;
            let body =
                Authenticator::new(Signer::es256()).create(&started, ORIGIN, |s| s.credential = theirs.0.clone());
            ring.refuses(
                "another's credential once more",
                Refusal::AlreadyRegistered,
                path,
                Some(&a),
                body,
            )
            .await;
            let started = ring.begin(NORTH, "/passkeys/register/start", Some(&b)).await;
            let body = Authenticator::new(Signer::es256()).create(&started, ORIGIN, |_| {});
            ring.refuses("into another's account", Refusal::Ceremony, path, Some(&a), body)
                .await;
            let started = ring.begin(NORTH, "/passkeys/register/start", Some(&a)).await;
            let mut body = Authenticator::new(Signer::es256()).create(&started, ORIGIN, |_| {});
            body["credential"]["id"] = json!("AAAA");
            ring.refuses(
                "under another name than it was made",
                Refusal::CredentialId,
                path,
                Some(&a),
                body,
            )
            .await;
            let started = ring.begin(NORTH, "/passkeys/register/start", Some(&a)).await;
            let session = identity.issue_token(w.north.id, a_user.id, 3_600_000, "test").await?;
            let body = Authenticator::new(Signer::es256()).create(&started, ORIGIN, |_| {});
            ring.refuses("from another session", Refusal::Ceremony, path, Some(&session), body)
                .await;
            let (_, mine) = call(&ring.app, "GET", NORTH, "/passkeys", Some(&a), None).await;
            assert_eq!(mine["passkeys"].as_array().map(Vec::len), Some(1), "{mine}");

            let refused = ring.refused.load(Ordering::SeqCst);
            println!("hostile ceremonies: {refused} played, {refused} refused, 0 accepted");
            assert!(refused >= 40, "{refused}");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn every_offered_algorithm_signs_in_and_counts_nothing_where_the_device_does_not() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let user = identity.create_user(w.north.id, clinician("a@north.example")).await?;
            let token = identity.issue_token(w.north.id, user.id, 3_600_000, "test").await?;
            let ring = Ring {
                w,
                app,
                refused: AtomicUsize::new(0),
            };
            for signer in [Signer::es256(), Signer::ed25519(), Signer::rs256()] {
                let mut device = Authenticator::new(signer);
                let started = ring.begin(NORTH, "/passkeys/register/start", Some(&token)).await;
                let options = &started["options"];
                assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
                assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
                // A self attestation that holds is as good as none.
                let body = device.create(&started, ORIGIN, |s| s.attestation.0 = "packed");
                let (status, made) = ring.post(NORTH, "/passkeys/register/finish", Some(&token), body).await;
                assert_eq!(status, StatusCode::CREATED, "{made}");
                for _ in 0..2 {
                    let body = device.get(&ring.sign_in_started().await, ORIGIN, |s| s.count = 0);
                    let (status, answer) = ring.post(NORTH, "/passkeys/authenticate/finish", None, body).await;
                    assert_eq!(status, StatusCode::OK, "{answer}");
                }
            }
            let key = cose_bytes(&[(1, 2.into())]);
            assert!(super::cose::Key::from_bytes(&key).is_err());
            // The list names what was used and when; transports are the known words only.
            let (_, list) = call(&ring.app, "GET", NORTH, "/passkeys", Some(&token), None).await;
            assert_eq!(list["passkeys"].as_array().map(Vec::len), Some(3));
            assert!(list["passkeys"][0]["last_used_at"].is_string(), "{list}");
            let started = ring.begin(NORTH, "/step-up/passkey/start", Some(&token)).await;
            assert_eq!(
                started["options"]["allowCredentials"][0]["transports"],
                json!(["internal"])
            );
            // No passkeys where the address is only what the request says, or is a number.
            for host in ["evil.example", "127.0.0.1:8080", "[::1]:8080"] {
                let (status, answer) = ring.post(host, "/passkeys/authenticate/start", None, json!({})).await;
                assert_eq!(
                    (status.as_u16(), &answer["code"]),
                    (422, &json!("identity.passkey_host")),
                    "{host}"
                );
            }
            Ok(())
        })
    })
    .await;
}
