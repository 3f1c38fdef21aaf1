//! Sealed bytes in a text column that otherwise holds JSON: a mark that no JSON begins with, then base64.

use super::{Class, Door, Keys, Scope, key_id, keys};
use crate::{
    Error, Result, Row, TenantId, Tx,
    db::{Db, Engine},
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

const MARK: &str = "sealed1:";

impl Tx {
    /// Seals a JSON text for a text column; what opens it is [`Texts`].
    pub async fn seal_json(&mut self, scope: Scope<'_>, context: &str, json: &str) -> Result<String> {
        let sealed = self.seal(scope, context, json.as_bytes()).await?;
        Ok(format!("{MARK}{}", STANDARD_NO_PAD.encode(sealed)))
    }

    /// The same where rows lie in clear, which they do on PostgreSQL; on SQLite the pages of the file are sealed.
    pub(crate) async fn veil(&mut self, context: &str, json: String) -> Result<String> {
        if self.engine() != Engine::Postgres || self.vault().is_err() {
            return Ok(json);
        }
        let scope = Scope {
            class: Class::Tenant,
            subject: "",
        };
        self.seal_json(scope, context, &json).await
    }
}

fn bytes(text: &str) -> Result<Option<Vec<u8>>> {
    let Some(rest) = text.strip_prefix(MARK) else {
        return Ok(None);
    };
    let bytes = STANDARD_NO_PAD.decode(rest);
    bytes.map(Some).map_err(|e| Error::internal("vault.text", e))
}

/// The keys of some rows that have a sealed text in one column.
pub struct Texts(Option<Keys>);

impl Texts {
    /// Keys for column `at` of rows read outside of a transaction.
    pub async fn of(db: &Db, tenant: TenantId, rows: &[Row], at: usize) -> Result<Self> {
        Self::fetch(Door::Db(db, tenant), rows, at).await
    }

    /// The same inside of one.
    pub async fn of_tx(tx: &mut Tx, rows: &[Row], at: usize) -> Result<Self> {
        Self::fetch(Door::Tx(tx), rows, at).await
    }

    async fn fetch(door: Door<'_>, rows: &[Row], at: usize) -> Result<Self> {
        let mut ids = Vec::new();
        for row in rows {
            if let Some(sealed) = bytes(row.text(at)?)? {
                ids.extend(key_id(&sealed));
            }
        }
        match ids.is_empty() {
            true => Ok(Self(None)),
            false => keys(door, ids).await.map(Some).map(Self),
        }
    }

    /// The JSON again. Text that was never sealed is given back as it is.
    pub fn open(&self, context: &str, text: &str) -> Result<String> {
        match (bytes(text)?, &self.0) {
            (None, _) => Ok(text.to_owned()),
            (Some(sealed), Some(keys)) => {
                String::from_utf8(keys.open(context, &sealed)?).map_err(|e| Error::internal("vault.text", e))
            }
            (Some(_), None) => Err(Error::internal("vault.text", "the keys of other rows")),
        }
    }
}
