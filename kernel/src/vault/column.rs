//! Columns that name a person or say something clinical: their values are sealed one by one where rows lie in clear
//! (PostgreSQL). On SQLite, whose pages are sealed, they stand as they are. A store writes [`Field::seal`] and reads
//! [`Field::open`] on both; the door does the rest.
//!
//! Nobody can write one but the door: a text from outside that begins like it goes in as `plain1:sealed2:...` and comes
//! out as it was. What an older release stored in clear and only begins like one has not its form, and is a text as well.
//!
//! A sealed text is `sealed2:` and the base64 of `epoch | nonce | ciphertext | tag`. Authenticated with it: the tenant,
//! the table, the column and the row, so that a text copied to another place does not open there. What is looked up by
//! its whole value stands blinded ([`Blind`]): the same text gives the same `blind1:...`.

use super::{TenantKeys, Vault, cipher::Key};
use crate::{
    Error, Result, Row, TenantId, Val,
    clock::Millis,
    db::{Engine, Ty},
    secret::expand,
    vault::aad,
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use std::{
    fmt::{self, Display},
    sync::{Arc, PoisonError},
};
use zeroize::Zeroizing;

/// How sealed texts begin.
pub(crate) const SEALED: &str = "sealed2:";
/// How blinded ones do.
pub(crate) const BLIND: &str = "blind1:";
/// What stands before a text of somebody's own that only looks like a sealed one, so that it is not taken for it.
const PLAIN: &str = "plain1:";
/// Thirty days: how long one key of a column is used. Far below the 2^32 messages of NIST SP 800-38D, 8.3.
const SPELL: Millis = 30 * 24 * 3_600_000;
/// Keys of columns kept at hand for a tenant; past that they are derived anew.
const AT_HAND: usize = 512;

/// The fewest characters behind a mark, of base64 without padding: an epoch, a nonce and a tag are 32 bytes, as a blinded
/// text is.
const SHORTEST: usize = 43;

/// The form of what stands behind a mark, as PostgreSQL's regular expressions and [`has_form`] know it. A text of
/// somebody's own that has it too must be a copy of a real one: nothing else begins with its mark and goes on so.
pub(crate) fn form(mark: &str) -> String {
    format!("^{mark}[A-Za-z0-9+/]{{{SHORTEST},}}$")
}

/// Is this text sealed, and not one that only begins so?
pub(crate) fn has_form(mark: &str, text: &str) -> bool {
    let is_base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    text.strip_prefix(mark)
        .is_some_and(|rest| rest.len() >= SHORTEST && rest.bytes().all(is_base64))
}

/// A column of texts that are sealed one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
}

impl Field {
    #[must_use]
    pub const fn new(table: &'static str, name: &'static str) -> Self {
        Self { table, name }
    }

    /// A text for this column of the row with this key: the columns that tell it from others, joined by `/`.
    pub fn seal(&self, key: impl Display, text: &str) -> Val {
        Val::Secret(Arc::new(Secret {
            table: self.table,
            name: self.name,
            key: Some(key.to_string()),
            text: text.into(),
        }))
    }

    /// The same, or null.
    pub fn seal_opt(&self, key: impl Display, text: Option<&str>) -> Val {
        text.map_or(Val::Null(Ty::Text), |text| self.seal(key, text))
    }

    /// The text of this column, which is the `at`th of `row`. A text that was never sealed is given as it is.
    pub fn open(&self, row: &Row, at: usize, key: impl Display) -> Result<String> {
        match row.get(at) {
            Some(Val::Sealed(sealed)) => sealed.open(self.table, self.name, &key.to_string()),
            _ => row.string(at),
        }
    }

    /// The same where it may be null.
    pub fn open_opt(&self, row: &Row, at: usize, key: impl Display) -> Result<Option<String>> {
        match row.get(at) {
            Some(Val::Null(_)) => Ok(None),
            _ => self.open(row, at, key).map(Some),
        }
    }
}

/// A column of texts that are only compared with whole texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blind {
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
}

impl Blind {
    #[must_use]
    pub const fn new(table: &'static str, name: &'static str) -> Self {
        Self { table, name }
    }

    /// What stands in the column for `text`.
    #[must_use]
    pub fn of(&self, text: &str) -> Val {
        Val::Secret(Arc::new(Secret {
            table: self.table,
            name: self.name,
            key: None,
            text: text.into(),
        }))
    }
}

/// A text on its way into a column; the door seals it (or blinds it, where there is no row's key).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    table: &'static str,
    name: &'static str,
    key: Option<String>,
    pub(crate) text: Arc<str>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}.{})", self.table, self.name)
    }
}

/// A sealed text as it came out of a column.
#[derive(Clone)]
pub struct SealedText {
    vault: Vault,
    tenant: TenantId,
    pub(crate) text: Arc<str>,
}

impl PartialEq for SealedText {
    fn eq(&self, other: &Self) -> bool {
        self.tenant == other.tenant && self.text == other.text
    }
}

impl fmt::Debug for SealedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedText(..)")
    }
}

impl SealedText {
    fn open(&self, table: &'static str, name: &'static str, key: &str) -> Result<String> {
        let wrong = || Error::internal("vault.column", "not a sealed text");
        let bytes = self.text.strip_prefix(SEALED).ok_or_else(wrong)?;
        let bytes = STANDARD_NO_PAD
            .decode(bytes)
            .map_err(|e| Error::internal("vault.column", e))?;
        let (epoch, body) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
        let epoch = u32::from_be_bytes(*epoch);
        let cipher = self.vault.tenant(self.tenant)?.column(table, name, epoch)?;
        let plain = cipher.open(&place(self.tenant, table, name, key, epoch), body)?;
        String::from_utf8(plain).map_err(|e| Error::internal("vault.column", e))
    }
}

fn place(tenant: TenantId, table: &str, name: &str, key: &str, epoch: u32) -> Vec<u8> {
    aad(&[
        b"medtech column 1",
        &tenant.number().to_be_bytes(),
        table.as_bytes(),
        name.as_bytes(),
        key.as_bytes(),
        &epoch.to_be_bytes(),
    ])
}

impl TenantKeys {
    /// The key of a column in an epoch.
    fn column(&self, table: &'static str, name: &'static str, epoch: u32) -> Result<Arc<Key>> {
        let which = (table, name, epoch);
        let known = self.columns.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known.get(&which) {
            return Ok(key.clone());
        }
        drop(known);
        let secret = self.column.as_ref().ok_or_else(super::no_key)?;
        let label = format!("column {table}.{name} {epoch}");
        let key = Arc::new(Key::new(&Zeroizing::new(expand(secret, &[label.as_bytes()])))?);
        let mut known = self.columns.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= AT_HAND {
            known.clear();
        }
        known.insert(which, key.clone());
        Ok(key)
    }
}

impl Vault {
    /// What goes into the column for a secret.
    fn conceal(&self, tenant: TenantId, now: Millis, secret: &Secret) -> Result<String> {
        let Some(key) = &secret.key else {
            let field = format!("column {}.{}", secret.table, secret.name);
            let blind = self.blind(tenant, &field, &secret.text)?;
            return Ok(format!("{BLIND}{}", STANDARD_NO_PAD.encode(blind)));
        };
        let epoch = u32::try_from(now.div_euclid(SPELL)).unwrap_or(0);
        let cipher = self.tenant(tenant)?.column(secret.table, secret.name, epoch)?;
        let mut bytes = epoch.to_be_bytes().to_vec();
        let place = place(tenant, secret.table, secret.name, key, epoch);
        cipher.seal_into(&place, secret.text.as_bytes(), &mut bytes)?;
        Ok(format!("{SEALED}{}", STANDARD_NO_PAD.encode(bytes)))
    }
}

/// Arguments as the engine is given them: `None` when they can go as they are.
pub(crate) fn going_in(
    engine: Engine,
    vault: Option<&Vault>,
    tenant: TenantId,
    now: Millis,
    args: &[Val],
) -> Result<Option<Vec<Val>>> {
    let marks = engine == Engine::Postgres && vault.is_some();
    let changes = |v: &Val| match v {
        Val::Secret(_) | Val::Sealed(_) => true,
        Val::Text(text) => marks && looks_sealed(text),
        _ => false,
    };
    if !args.iter().any(changes) {
        return Ok(None);
    }
    let one = |v: &Val| match (v, vault) {
        (Val::Secret(s), Some(vault)) if marks => Ok(vault.conceal(tenant, now, s)?.into()),
        (Val::Secret(s), _) => Ok(Val::Text(s.text.clone())),
        (Val::Text(text), _) if marks && looks_sealed(text) => Ok(format!("{PLAIN}{text}").into()),
        // A key of a row read before, never a value to be shown.
        (Val::Sealed(s), _) => Ok(Val::Text(s.text.clone())),
        (other, _) => Ok(other.clone()),
    };
    args.iter().map(one).collect::<Result<Vec<_>>>().map(Some)
}

/// Does a text begin like a sealed one, or like one that was told from it?
fn looks_sealed(text: &str) -> bool {
    text.trim_start_matches(PLAIN).starts_with(SEALED)
}

/// Marks the sealed texts of rows that came from PostgreSQL, so that they open, and gives the others back as they were.
pub(crate) fn coming_out(engine: Engine, vault: Option<&Vault>, tenant: TenantId, rows: &mut [Row]) {
    let (Engine::Postgres, Some(vault)) = (engine, vault) else {
        return;
    };
    for value in rows.iter_mut().flat_map(|row| &mut row.0) {
        let Val::Text(text) = value else { continue };
        if has_form(SEALED, text) {
            *value = Val::Sealed(Arc::new(SealedText {
                vault: vault.clone(),
                tenant,
                text: text.clone(),
            }));
        } else if let Some(own) = text.strip_prefix(PLAIN).filter(|own| looks_sealed(own)) {
            *value = own.into();
        }
    }
}
