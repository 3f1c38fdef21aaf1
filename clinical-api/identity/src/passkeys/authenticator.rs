//! For tests: an authenticator in software and the browser around it, which can be told to lie.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ciborium::Value as Cbor;
use medtech_kernel::id;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Clone)]
pub(crate) enum Signer {
    Es256(Arc<EcdsaKeyPair>),
    Ed25519(Arc<Ed25519KeyPair>),
    Rs256(Arc<RsaKeyPair>),
}

impl Signer {
    pub(crate) fn es256() -> Self {
        Self::Es256(
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
                .expect("key")
                .into(),
        )
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().expect("key").into())
    }

    pub(crate) fn rs256() -> Self {
        Self::Rs256(RsaKeyPair::generate(KeySize::Rsa2048).expect("key").into())
    }

    fn cose(&self) -> Vec<(i64, Cbor)> {
        match self {
            Self::Es256(pair) => {
                let point = pair.public_key().as_ref();
                vec![
                    (1, 2.into()),
                    (3, (-7).into()),
                    (-1, 1.into()),
                    (-2, Cbor::Bytes(point[1..33].to_vec())),
                    (-3, Cbor::Bytes(point[33..].to_vec())),
                ]
            }
            Self::Ed25519(pair) => vec![
                (1, 1.into()),
                (3, (-8).into()),
                (-1, 6.into()),
                (-2, Cbor::Bytes(pair.public_key().as_ref().to_vec())),
            ],
            Self::Rs256(pair) => {
                // RSAPublicKey (RFC 8017, A.1.1) of 2048 bits: 256 bytes of modulus after nine of header, then 65537.
                let der = pair.public_key().as_ref();
                vec![
                    (1, 3.into()),
                    (3, (-257).into()),
                    (-1, Cbor::Bytes(der[9..265].to_vec())),
                    (-2, Cbor::Bytes(vec![1, 0, 1])),
                ]
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Es256(pair) => pair.sign(&random, message).expect("signed").as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rs256(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut out)
                    .expect("signed");
                out
            }
        }
    }
}

/// One credential on a device.
pub(crate) struct Authenticator {
    pub(crate) signer: Signer,
    pub(crate) credential: Vec<u8>,
    pub(crate) user_handle: String,
    pub(crate) count: u32,
}

/// What is said and signed, before it is: each field can be made a lie.
pub(crate) struct Said {
    pub(crate) r#type: &'static str,
    pub(crate) challenge: String,
    pub(crate) origin: String,
    pub(crate) cross_origin: bool,
    pub(crate) top_origin: Option<String>,
    pub(crate) rp_id: String,
    pub(crate) flags: u8,
    pub(crate) count: u32,
    pub(crate) credential: Vec<u8>,
    pub(crate) user_handle: Option<String>,
    /// COSE_Key entries; replaced or added to.
    pub(crate) key: Vec<(i64, Cbor)>,
    pub(crate) attestation: (&'static str, Vec<(Cbor, Cbor)>),
    /// After the authenticator data.
    pub(crate) tail: Vec<u8>,
    pub(crate) cut: usize,
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn encoded(value: &Cbor) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).expect("CBOR");
    out
}

pub(crate) fn cose_bytes(key: &[(i64, Cbor)]) -> Vec<u8> {
    encoded(&Cbor::Map(
        key.iter().map(|(k, v)| (Cbor::from(*k), v.clone())).collect(),
    ))
}

impl Said {
    fn client_data(&self) -> Vec<u8> {
        let mut data = json!({"type": self.r#type, "challenge": self.challenge, "origin": self.origin, "crossOrigin": self.cross_origin});
        if let Some(top) = &self.top_origin {
            data["topOrigin"] = json!(top);
        }
        data.to_string().into_bytes()
    }

    fn authenticator_data(&self) -> Vec<u8> {
        let mut data = id::sha256(self.rp_id.as_bytes()).to_vec();
        data.push(self.flags);
        data.extend(self.count.to_be_bytes());
        if self.flags & 0x40 != 0 {
            data.extend([0xAA; 16]);
            data.extend(u16::try_from(self.credential.len()).expect("length").to_be_bytes());
            data.extend(&self.credential);
            data.extend(cose_bytes(&self.key));
        }
        data.extend(&self.tail);
        data.truncate(data.len() - self.cut);
        data
    }
}

impl Authenticator {
    pub(crate) fn new(signer: Signer) -> Self {
        Self {
            signer,
            credential: id::random::<32>().to_vec(),
            user_handle: String::new(),
            count: 0,
        }
    }

    fn honest(&self, options: &Value, origin: &str, r#type: &'static str, flags: u8) -> Said {
        let rp_id = options["rpId"]
            .as_str()
            .or(options["rp"]["id"].as_str())
            .expect("rp id");
        Said {
            r#type,
            challenge: options["challenge"].as_str().expect("challenge").to_owned(),
            origin: origin.to_owned(),
            cross_origin: false,
            top_origin: None,
            rp_id: rp_id.to_owned(),
            flags,
            count: self.count,
            credential: self.credential.clone(),
            user_handle: Some(self.user_handle.clone()),
            key: self.signer.cose(),
            attestation: ("none", Vec::new()),
            tail: Vec::new(),
            cut: 0,
        }
    }

    /// `navigator.credentials.create`: the body of `register/finish`.
    pub(crate) fn create(&mut self, started: &Value, origin: &str, lie: impl FnOnce(&mut Said)) -> Value {
        let options = &started["options"];
        self.user_handle = options["user"]["id"].as_str().expect("user").to_owned();
        let mut said = self.honest(options, origin, "webauthn.create", 0x45);
        lie(&mut said);
        let (fmt, mut statement) = (said.attestation.0, said.attestation.1.clone());
        let (client_data, data) = (said.client_data(), said.authenticator_data());
        if fmt == "packed" && statement.is_empty() {
            let signature = self.signer.sign(&[data.as_slice(), &id::sha256(&client_data)].concat());
            statement.push((Cbor::from("alg"), said.key[1].1.clone()));
            statement.push((Cbor::from("sig"), Cbor::Bytes(signature)));
        }
        let object = encoded(&Cbor::Map(vec![
            (Cbor::from("fmt"), Cbor::from(fmt)),
            (Cbor::from("attStmt"), Cbor::Map(statement)),
            (Cbor::from("authData"), Cbor::Bytes(data)),
        ]));
        json!({"ceremony": started["ceremony"], "credential": {
            "id": b64(&said.credential), "rawId": b64(&said.credential), "type": "public-key",
            "response": {"clientDataJSON": b64(&client_data), "attestationObject": b64(&object), "transports": ["internal", "evil transport"]},
        }})
    }

    /// `navigator.credentials.get`: the body of `authenticate/finish`. The counter goes on.
    pub(crate) fn get(&mut self, started: &Value, origin: &str, lie: impl FnOnce(&mut Said)) -> Value {
        self.count += 1;
        let mut said = self.honest(&started["options"], origin, "webauthn.get", 0x05);
        lie(&mut said);
        let (client_data, data) = (said.client_data(), said.authenticator_data());
        let signature = self.signer.sign(&[data.as_slice(), &id::sha256(&client_data)].concat());
        json!({"ceremony": started["ceremony"], "credential": {
            "id": b64(&said.credential), "rawId": b64(&said.credential), "type": "public-key",
            "response": {"clientDataJSON": b64(&client_data), "authenticatorData": b64(&data), "signature": b64(&signature), "userHandle": said.user_handle},
        }})
    }

    /// The same device, copied: same key, its counter where it was.
    pub(crate) fn clone_of(&self) -> Self {
        Self {
            signer: self.signer.clone(),
            credential: self.credential.clone(),
            user_handle: self.user_handle.clone(),
            count: self.count,
        }
    }
}
