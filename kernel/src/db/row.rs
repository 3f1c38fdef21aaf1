//! A row of an answer, with typed getters.

use super::Val;
use crate::{Error, Result};
use uuid::Uuid;

/// One row. Getters answer with an internal error where the column is absent or of another type: a fault of ours, never
/// of the caller's input.
#[derive(Clone, Debug)]
pub struct Row(pub(crate) Vec<Val>);

macro_rules! getters {
    ($($name:ident, $opt:ident, $out:ty, $($pattern:pat => $value:expr),+;)*) => {
        $(
            pub fn $name(&self, i: usize) -> Result<$out> {
                self.$opt(i)?.ok_or_else(|| Error::internal("db.unexpected_null", format!("column {i} is null")))
            }
            pub fn $opt(&self, i: usize) -> Result<Option<$out>> {
                match self.0.get(i) {
                    $(Some($pattern) => Ok(Some($value)),)+
                    Some(Val::Null(_)) => Ok(None),
                    other => Err(wrong(i, other)),
                }
            }
        )*
    };
}

impl Row {
    getters! {
        i64, opt_i64, i64, Val::I64(v) => *v;
        f64, opt_f64, f64, Val::F64(v) => *v, Val::I64(v) => *v as f64;
        bool, opt_bool, bool, Val::Bool(v) => *v, Val::I64(v) => *v != 0;
        text, opt_text, &str, Val::Text(v) => v;
        blob, opt_blob, &[u8], Val::Blob(v) => v;
        uuid, opt_uuid, Uuid, Val::Uuid(v) => *v, Val::Blob(v) => Uuid::from_slice(v).map_err(|e| Error::internal("db.not_a_uuid", e))?;
    }

    /// How many columns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The column as it came.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<&Val> {
        self.0.get(i)
    }

    /// A text column, owned.
    pub fn string(&self, i: usize) -> Result<String> {
        self.text(i).map(str::to_owned)
    }
}

fn wrong(i: usize, found: Option<&Val>) -> Error {
    Error::internal("db.wrong_column_type", format!("column {i}: {:?}", found.map(Val::ty)))
}
