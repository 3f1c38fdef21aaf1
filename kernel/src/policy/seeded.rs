//! Bugs on purpose: each drops one check, so that the isolation test can show that it would notice. Only in test builds
//! with the feature `seeded-bugs`; in every other build the question is the constant "no".

#[cfg(all(feature = "seeded-bugs", not(debug_assertions)))]
compile_error!("the feature `seeded-bugs` opens every door: it is for test builds alone");

/// Is this check dropped?
#[cfg(not(feature = "seeded-bugs"))]
#[must_use]
pub const fn seeded(_check: &str) -> bool {
    false
}

/// Which check is dropped.
#[cfg(not(feature = "seeded-bugs"))]
pub(super) const fn dropped() -> &'static str {
    ""
}

/// Which check is dropped.
#[cfg(feature = "seeded-bugs")]
pub(super) fn dropped() -> &'static str {
    *DROPPED.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(feature = "seeded-bugs")]
static DROPPED: std::sync::RwLock<&'static str> = std::sync::RwLock::new("");

/// Is this check dropped?
#[cfg(feature = "seeded-bugs")]
#[must_use]
pub fn seeded(check: &str) -> bool {
    debug_assert!(BUGS.contains(&check), "{check} is in the list");
    dropped() == check
}

/// Every check that can be dropped.
#[cfg(feature = "seeded-bugs")]
pub const BUGS: &[&str] = &[
    "token tenant",
    "rule table",
    "scopes",
    "relationship",
    "consent",
    "labels",
    "read",
    "version",
    "search",
    "chain",
    "has",
    "include",
    "count",
    "history",
    "conditional",
    "write reach",
    "redaction",
    "redacted parameter",
    "app outside",
    "media re-check",
    "field write",
];

/// Drops this check from now on, in the whole process; the empty name drops none.
#[cfg(feature = "seeded-bugs")]
pub fn seed(check: &'static str) {
    *DROPPED.write().unwrap_or_else(std::sync::PoisonError::into_inner) = check;
}
