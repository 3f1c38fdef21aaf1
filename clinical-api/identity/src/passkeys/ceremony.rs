//! The two ceremonies of W3C Web Authentication Level 3, as the relying party checks them: registration (7.1) and
//! authentication (7.2). Pure: values in, a finding out.

use super::cose::Key;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ciborium::Value;
use medtech_kernel::id;
use serde::Deserialize;

/// Why a ceremony is refused: for the audit trail, not for the one who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    ClientData,
    Type,
    Challenge,
    Origin,
    CrossOrigin,
    Cbor,
    AuthenticatorData,
    RpId,
    UserPresence,
    UserVerification,
    BackupState,
    BackupEligibility,
    Algorithm,
    Key,
    CredentialId,
    Attestation,
    Signature,
    Counter,
    UserHandle,
    UnknownCredential,
    AlreadyRegistered,
    /// The ceremony is unknown, over, of another kind, or was finished before.
    Ceremony,
    /// The account is closed.
    Account,
}

impl Refusal {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClientData => "client data",
            Self::Type => "type",
            Self::Challenge => "challenge",
            Self::Origin => "origin",
            Self::CrossOrigin => "cross origin",
            Self::Cbor => "cbor",
            Self::AuthenticatorData => "authenticator data",
            Self::RpId => "rp id",
            Self::UserPresence => "user presence",
            Self::UserVerification => "user verification",
            Self::BackupState => "backup state",
            Self::BackupEligibility => "backup eligibility",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::CredentialId => "credential id",
            Self::Attestation => "attestation",
            Self::Signature => "signature",
            Self::Counter => "counter",
            Self::UserHandle => "user handle",
            Self::UnknownCredential => "unknown credential",
            Self::AlreadyRegistered => "already registered",
            Self::Ceremony => "ceremony",
            Self::Account => "account",
        }
    }
}

/// What the server asked for and now expects.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) challenge: Vec<u8>,
    pub(crate) rp_id: String,
    pub(crate) origins: Vec<String>,
    /// `UserVerificationRequirement` "required".
    pub(crate) user_verification: bool,
}

/// A new credential.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) credential: Vec<u8>,
    /// COSE_Key as it came.
    pub(crate) public_key: Vec<u8>,
    pub(crate) sign_count: u32,
    pub(crate) backup_eligible: bool,
    pub(crate) backed_up: bool,
    pub(crate) aaguid: [u8; 16],
}

/// A credential that was used.
#[derive(Debug)]
pub(crate) struct Asserted {
    pub(crate) sign_count: u32,
    pub(crate) backed_up: bool,
}

/// What is known of the credential that is used.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub(crate) public_key: &'a [u8],
    pub(crate) rp_id: &'a str,
    pub(crate) sign_count: u32,
    pub(crate) backup_eligible: bool,
}

/// 7.1, steps 5 to 24. We ask for attestation "none": a self attestation must hold, any other statement earns no trust.
pub(crate) fn register(e: &Expected, client_data: &[u8], attestation: &[u8]) -> Result<Registered, Refusal> {
    collected(e, client_data, "webauthn.create")?;
    let object = cbor(attestation)?;
    let object = object.as_map().ok_or(Refusal::Cbor)?;
    let field = |name: &str| {
        let mut found = object.iter().filter(|(k, _)| k.as_text() == Some(name)).map(|(_, v)| v);
        let first = found.next().ok_or(Refusal::Cbor)?;
        if found.next().is_some() {
            return Err(Refusal::Cbor);
        }
        Ok(first)
    };
    let raw = field("authData")?.as_bytes().ok_or(Refusal::Cbor)?;
    let data = AuthenticatorData::parse(raw)?;
    data.check(e)?;
    let made = data.attested.as_ref().ok_or(Refusal::AuthenticatorData)?;
    let key = Key::from_bytes(made.public_key)?;
    let statement = field("attStmt")?.as_map().ok_or(Refusal::Attestation)?;
    let part = |name: &str| {
        statement
            .iter()
            .find(|(k, _)| k.as_text() == Some(name))
            .map(|(_, v)| v)
    };
    match field("fmt")?.as_text().ok_or(Refusal::Attestation)? {
        "none" if !statement.is_empty() => return Err(Refusal::Attestation),
        // 8.2: without x5c it is signed with the credential's own key.
        "packed" if part("x5c").is_none() => {
            let algorithm = part("alg").and_then(Value::as_integer).map(i128::from);
            let signature = part("sig").and_then(Value::as_bytes).ok_or(Refusal::Attestation)?;
            if algorithm != Some(key.algorithm().into()) {
                return Err(Refusal::Attestation);
            }
            let message = [raw.as_slice(), &id::sha256(client_data)].concat();
            key.verify(&message, signature).map_err(|_| Refusal::Attestation)?;
        }
        _ => {}
    }
    Ok(Registered {
        credential: made.credential.to_vec(),
        public_key: made.public_key.to_vec(),
        sign_count: data.sign_count,
        backup_eligible: data.flag(BE),
        backed_up: data.flag(BS),
        aaguid: made.aaguid,
    })
}

/// 7.2, steps 11 to 22. Whose credential it is, and that it may be used here, is checked by whoever looked it up.
pub(crate) fn authenticate(
    e: &Expected,
    known: &Known<'_>,
    client_data: &[u8],
    authenticator_data: &[u8],
    signature: &[u8],
) -> Result<Asserted, Refusal> {
    collected(e, client_data, "webauthn.get")?;
    // A credential stays with the site it was made for, whatever the ceremony says.
    if known.rp_id != e.rp_id {
        return Err(Refusal::RpId);
    }
    let data = AuthenticatorData::parse(authenticator_data)?;
    data.check(e)?;
    if data.flag(BE) != known.backup_eligible {
        return Err(Refusal::BackupEligibility);
    }
    let message = [authenticator_data, &id::sha256(client_data)].concat();
    Key::from_bytes(known.public_key)?.verify(&message, signature)?;
    if (data.sign_count != 0 || known.sign_count != 0) && data.sign_count <= known.sign_count {
        return Err(Refusal::Counter);
    }
    Ok(Asserted {
        sign_count: data.sign_count,
        backed_up: data.flag(BS),
    })
}

/// 5.8.1: what the browser says of the ceremony.
#[derive(Deserialize)]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(rename = "crossOrigin", default)]
    cross_origin: bool,
    #[serde(rename = "topOrigin", default)]
    top_origin: Option<String>,
}

fn collected(e: &Expected, json: &[u8], r#type: &str) -> Result<(), Refusal> {
    let said: ClientData = serde_json::from_slice(json).map_err(|_| Refusal::ClientData)?;
    if said.r#type != r#type {
        return Err(Refusal::Type);
    }
    if said.challenge != URL_SAFE_NO_PAD.encode(&e.challenge) {
        return Err(Refusal::Challenge);
    }
    if !e.origins.contains(&said.origin) {
        return Err(Refusal::Origin);
    }
    // We are never shown inside of another site's page.
    if said.cross_origin || said.top_origin.is_some() {
        return Err(Refusal::CrossOrigin);
    }
    Ok(())
}

const UP: u8 = 0x01;
const UV: u8 = 0x04;
const BE: u8 = 0x08;
const BS: u8 = 0x10;
const AT: u8 = 0x40;
const ED: u8 = 0x80;
/// 5.8.3 and 4: a credential id has at most so many bytes.
const LONGEST_ID: usize = 1023;

/// 6.1.
struct AuthenticatorData<'a> {
    rp_id_hash: &'a [u8],
    flags: u8,
    sign_count: u32,
    attested: Option<Attested<'a>>,
}

struct Attested<'a> {
    aaguid: [u8; 16],
    credential: &'a [u8],
    public_key: &'a [u8],
}

impl<'a> AuthenticatorData<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let cut = || Refusal::AuthenticatorData;
        let (rp_id_hash, rest) = bytes.split_at_checked(32).ok_or_else(cut)?;
        let (&[flags], rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let (count, mut rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let mut attested = None;
        if flags & AT != 0 {
            let (aaguid, after) = rest.split_first_chunk().ok_or_else(cut)?;
            let (length, after) = after.split_first_chunk().ok_or_else(cut)?;
            let length = usize::from(u16::from_be_bytes(*length));
            if length == 0 || length > LONGEST_ID {
                return Err(Refusal::CredentialId);
            }
            let (credential, after) = after.split_at_checked(length).ok_or_else(cut)?;
            let (public_key, after) = item(after)?;
            attested = Some(Attested {
                aaguid: *aaguid,
                credential,
                public_key,
            });
            rest = after;
        }
        if flags & ED != 0 {
            rest = item(rest)?.1;
        }
        if !rest.is_empty() {
            return Err(cut());
        }
        Ok(Self {
            rp_id_hash,
            flags,
            sign_count: u32::from_be_bytes(*count),
            attested,
        })
    }

    fn flag(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn check(&self, e: &Expected) -> Result<(), Refusal> {
        if self.rp_id_hash != id::sha256(e.rp_id.as_bytes()) {
            return Err(Refusal::RpId);
        }
        if !self.flag(UP) {
            return Err(Refusal::UserPresence);
        }
        if e.user_verification && !self.flag(UV) {
            return Err(Refusal::UserVerification);
        }
        if self.flag(BS) && !self.flag(BE) {
            return Err(Refusal::BackupState);
        }
        Ok(())
    }
}

/// The first CBOR item of `bytes`, and what comes after it.
fn item(bytes: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let mut rest = bytes;
    let value: Value = ciborium::de::from_reader_with_recursion_limit(&mut rest, 16).map_err(|_| Refusal::Cbor)?;
    if !value.is_map() {
        return Err(Refusal::Cbor);
    }
    bytes.split_at_checked(bytes.len() - rest.len()).ok_or(Refusal::Cbor)
}

/// One CBOR item, and nothing after it.
pub(crate) fn cbor(bytes: &[u8]) -> Result<Value, Refusal> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, 16).map_err(|_| Refusal::Cbor)?;
    if rest.is_empty() { Ok(value) } else { Err(Refusal::Cbor) }
}
