//! Search: parameters to clauses, clauses to one SQL statement over the posting lists, pages by keyset.

mod access;
mod clause;
mod fits;
mod gate;
mod include;
mod parse;
mod run;
mod sql;
pub(crate) mod url;
mod value;

pub use access::Access;
pub(crate) use access::{fits_scopes, holds, owners, sees, understood, version_fits};
pub(crate) use clause::Clause;
pub(crate) use gate::Owned;
pub(crate) use include::{Include, included};
pub(crate) use parse::{Summary, parse};
pub(crate) use run::{Hit, count, page};

/// A page holds at most so many matches.
pub(crate) const MOST: usize = 1000;
pub(crate) const DEFAULT_COUNT: usize = 50;
