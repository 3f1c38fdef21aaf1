//! Values that go into a statement.

use crate::vault::{SealedText, Secret};
use crate::{Error, Result};
use bytes::Bytes;
use std::sync::Arc;
use uuid::Uuid;

/// The column types of the portable subset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    I64,
    F64,
    Bool,
    Text,
    Blob,
    Uuid,
}

/// A typed value. A null carries its type, because PostgreSQL wants to know it.
#[derive(Clone, Debug, PartialEq)]
pub enum Val {
    I64(i64),
    F64(f64),
    Bool(bool),
    Text(Arc<str>),
    Blob(Bytes),
    Uuid(Uuid),
    Null(Ty),
    /// A text that the door seals where rows lie in clear.
    Secret(Arc<Secret>),
    /// A text that was sealed so: [`crate::vault::Field::open`].
    Sealed(Arc<SealedText>),
}

impl Val {
    #[must_use]
    pub fn ty(&self) -> Ty {
        match self {
            Self::I64(_) => Ty::I64,
            Self::F64(_) => Ty::F64,
            Self::Bool(_) => Ty::Bool,
            Self::Text(_) | Self::Secret(_) | Self::Sealed(_) => Ty::Text,
            Self::Blob(_) => Ty::Blob,
            Self::Uuid(_) => Ty::Uuid,
            Self::Null(ty) => *ty,
        }
    }
}

/// Text with U+0000 is refused on both engines: PostgreSQL cannot hold it, and on SQLite it would end there some day.
pub(crate) fn require_storable(values: &[Val]) -> Result<()> {
    let nul = |v: &Val| match v {
        Val::Text(text) => text.as_bytes().contains(&0),
        Val::Secret(secret) => secret.text.as_bytes().contains(&0),
        _ => false,
    };
    if values.iter().any(nul) {
        Err(Error::unprocessable(
            "text.nul",
            "Text cannot contain the character U+0000.",
        ))
    } else {
        Ok(())
    }
}

macro_rules! from {
    ($($rust:ty, $ty:ident, |$v:ident| $make:expr;)*) => {
        $(impl From<$rust> for Val {
            fn from($v: $rust) -> Self { Self::$ty($make) }
        }
        impl From<Option<$rust>> for Val {
            fn from(v: Option<$rust>) -> Self { v.map_or(Self::Null(Ty::$ty), Self::from) }
        })*
    };
}

from! {
    i64, I64, |v| v;
    i32, I64, |v| i64::from(v);
    u32, I64, |v| i64::from(v);
    f64, F64, |v| v;
    bool, Bool, |v| v;
    &str, Text, |v| Arc::from(v);
    String, Text, |v| Arc::from(v);
    &String, Text, |v| Arc::from(v.as_str());
    Arc<str>, Text, |v| v;
    Vec<u8>, Blob, |v| Bytes::from(v);
    &[u8], Blob, |v| Bytes::copy_from_slice(v);
    [u8; 32], Blob, |v| Bytes::copy_from_slice(&v);
    Bytes, Blob, |v| v;
    Uuid, Uuid, |v| v;
}
