//! May they? One function answers for REST, search, live channels, rooms and devices.
//!
//! The order of a decision: the clinic and how surely someone is known; the scopes of the client that acts for them; their
//! roles ([`table`]: bundles of permissions); their relation to the patient or the thing (written by the modules, each
//! with an end); the patient's Consent ([`consent`]); security labels ([`label`]); what is left out of what they see. A
//! denial at any step stands. What is about the clinical record goes through a [`Sight`], from which the FHIR engine
//! makes the conditions of its searches, so that there is one set of rules.

pub mod consent;
mod facts;
pub mod glass;
mod kept;
pub mod label;
mod matrix;
mod merge;
pub mod own;
mod presence;
mod seeded;
mod sight;
mod table;
mod ties;

pub use facts::{AccessChanged, Policy, announce};
pub use kept::Beside;
pub use matrix::{Matrix, document, matrix};
pub use presence::{COLLEAGUE, labels, patient_of, relate_as};
pub use seeded::seeded;
#[cfg(feature = "seeded-bugs")]
pub use seeded::{BUGS, seed};
pub use sight::{Barrier, Narrow, Patients, Reach, Redaction, Sight, View};
pub use table::{Class, Fields, PROXY_SCOPES, ProxyScope};
pub use ties::{Treatment, relate, relate_only, treat, unrelate, withdrawn};

use serde::Serialize;
use std::fmt;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    Read,
    Write,
    Subscribe,
    Publish,
    /// Lead a visit: admit, send back, end.
    Admit,
    Join,
    Administer,
}

impl Action {
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Write,
        Self::Subscribe,
        Self::Publish,
        Self::Admit,
        Self::Join,
        Self::Administer,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Admit => "admit",
            Self::Join => "join",
            Self::Administer => "administer",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }
}

/// What it is asked for: a kind (`patient`, `visit`, `conversation`, `board`, ...) and an identifier in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: &'static str,
    pub id: String,
}

impl Resource {
    pub fn new(kind: &'static str, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }

    fn object(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

/// The answer, with its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allow: bool,
    /// For the audit trail and the administrator; never shown to the one who was refused.
    pub why: &'static str,
    /// What must be left out, and whether nothing may be taken away.
    pub obligations: Vec<Obligation>,
    /// Each step, in the order in which it was asked.
    pub steps: Vec<Trace>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Obligation {
    /// These elements are left out.
    Redact(Vec<&'static str>),
    /// To be looked at, not taken away: what is seen in an emergency.
    NoExport,
    /// The audit entry says that the glass was broken.
    FlagEmergency,
}

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trace {
    pub step: &'static str,
    pub pass: bool,
    pub because: &'static str,
}

impl Trace {
    pub(crate) fn new(step: &'static str, pass: bool, because: &'static str) -> Self {
        Self { step, pass, because }
    }
}

#[cfg(test)]
mod tests;
