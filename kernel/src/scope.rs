//! Scopes of SMART App Launch 2.2, as values: what an application was given to do with which types, and for whom.
//!
//! A pure parser and matcher; who enforces them is the policy's matter.

use std::{fmt, str::FromStr};

/// For whom a clinical scope stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// The one patient in context.
    Patient,
    /// Whatever the user may do.
    User,
    /// A backend service, with no user.
    System,
}

/// One letter of `cruds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Letter {
    Create,
    /// Read, version read, and history of one resource.
    Read,
    /// Update and patch.
    Update,
    Delete,
    /// Search, and history of a type or of the system.
    Search,
}

impl Letter {
    /// In the one order in which they may stand.
    pub const ALL: [Self; 5] = [Self::Create, Self::Read, Self::Update, Self::Delete, Self::Search];

    #[must_use]
    pub fn name(self) -> char {
        match self {
            Self::Create => 'c',
            Self::Read => 'r',
            Self::Update => 'u',
            Self::Delete => 'd',
            Self::Search => 's',
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Level {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::User => "user",
            Self::System => "system",
        }
    }
}

/// A clinical scope: `patient/Observation.rs`, `user/*.cruds`, `patient/Observation.rs?category=laboratory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub level: Level,
    /// The resource type; `None` is `*`, every type.
    pub kind: Option<String>,
    letters: u8,
    /// Search parameters that narrow it further, as they were written.
    pub query: Option<String>,
}

impl Scope {
    #[must_use]
    pub fn has(&self, letter: Letter) -> bool {
        self.letters & letter.bit() != 0
    }

    /// The letters it has, in their order.
    pub fn letters(&self) -> impl Iterator<Item = Letter> {
        let letters = self.letters;
        Letter::ALL.into_iter().filter(move |l| letters & l.bit() != 0)
    }

    #[must_use]
    pub fn covers(&self, kind: &str, letter: Letter) -> bool {
        self.has(letter) && self.kind.as_deref().is_none_or(|k| k == kind)
    }

    /// Is all that `other` gives given by this one as well?
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        self.level == other.level
            && self.letters & other.letters == other.letters
            && (self.kind.is_none() || self.kind == other.kind)
            && self.conditions().all(|own| other.conditions().any(|o| o == own))
    }

    /// The conditions of its query, as they were written; all of them are demanded, so that more of them give less.
    pub fn conditions(&self) -> impl Iterator<Item = &str> {
        self.query.iter().flat_map(|q| q.split('&'))
    }
}

impl FromStr for Scope {
    type Err = ();

    /// Version 2 (`.cruds` in order), and version 1 (`.read`, `.write`, `.*`), which becomes the same.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (level, rest) = text.split_once('/').ok_or(())?;
        let level = [Level::Patient, Level::User, Level::System]
            .into_iter()
            .find(|l| l.name() == level)
            .ok_or(())?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(conditions(query)?)),
            None => (rest, None),
        };
        let (kind, letters) = rest.split_once('.').ok_or(())?;
        let kind = match kind {
            "*" => None,
            kind if kind.starts_with(|c: char| c.is_ascii_uppercase())
                && kind.len() <= 64
                && kind.bytes().all(|b| b.is_ascii_alphabetic()) =>
            {
                Some(kind.to_owned())
            }
            _ => return Err(()),
        };
        let letters = match letters {
            "read" => Letter::Read.bit() | Letter::Search.bit(),
            "write" => Letter::Create.bit() | Letter::Update.bit() | Letter::Delete.bit(),
            "*" => Letter::ALL.iter().fold(0, |all, l| all | l.bit()),
            letters => in_order(letters)?,
        };
        Ok(Self {
            level,
            kind,
            letters,
            query,
        })
    }
}

/// Longest query of a scope, in bytes.
const LONGEST: usize = 500;

/// A query of a scope in the characters that a scope may have (RFC 6749, 3.3), each condition a name and a value. A second
/// question mark, a fragment, an empty or a half condition, an escape that is none: no scope.
fn conditions(query: &str) -> Result<String, ()> {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'?' | b'#' | b'<' | b'>' | b'+');
    let named = |c: &str| {
        c.split_once('=')
            .is_some_and(|(name, value)| !name.is_empty() && !name.contains('%') && !value.is_empty())
    };
    let escaped = query.split('%').skip(1).all(|rest| {
        let code = rest.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        // Signs that steer and bytes of no character are not written in any way.
        rest.as_bytes().iter().take(2).all(u8::is_ascii_hexdigit) && code.is_some_and(|c| c >= b' ' && c != 0x7f)
    });
    let fine = query.len() <= LONGEST && query.bytes().all(plain) && escaped && query.split('&').all(named);
    if fine { Ok(query.to_owned()) } else { Err(()) }
}

/// Letters in another order, or twice, are no scope (SMART App Launch 2.2, scopes for requesting FHIR resources).
fn in_order(text: &str) -> Result<u8, ()> {
    let mut all = 0;
    for c in text.chars() {
        let letter = Letter::ALL.into_iter().find(|l| l.name() == c).ok_or(())?;
        if all >= letter.bit() {
            return Err(());
        }
        all |= letter.bit();
    }
    if all == 0 { Err(()) } else { Ok(all) }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_deref().unwrap_or("*");
        write!(f, "{}/{kind}.", self.level.name())?;
        for letter in self.letters() {
            write!(f, "{}", letter.name())?;
        }
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

/// The scopes of a grant: clinical ones, and names such as `openid` or `launch/patient`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    pub clinical: Vec<Scope>,
    pub named: Vec<String>,
}

impl Scopes {
    /// Reads scopes separated by spaces. What has the form of no clinical scope is a name, and names give no access.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut scopes = Self::default();
        for word in text.split(' ').filter(|w| !w.is_empty()) {
            match word.parse() {
                Ok(scope) if !scopes.clinical.contains(&scope) => scopes.clinical.push(scope),
                Ok(_) => {}
                Err(()) if !scopes.named(word) => scopes.named.push(word.to_owned()),
                Err(()) => {}
            }
        }
        scopes
    }

    /// Is this name (`openid`, `launch/patient`, `offline_access`) among them?
    #[must_use]
    pub fn named(&self, name: &str) -> bool {
        self.named.iter().any(|n| n == name)
    }

    /// Do scopes of this level give this letter on every resource of the type? Scopes that a query narrows do not count:
    /// see [`Self::covering`].
    #[must_use]
    pub fn allows(&self, level: Level, kind: &str, letter: Letter) -> bool {
        self.covering(kind, letter)
            .any(|s| s.level == level && s.query.is_none())
    }

    /// The scopes that give this letter on the type, those narrowed by a query among them.
    pub fn covering(&self, kind: &str, letter: Letter) -> impl Iterator<Item = &Scope> {
        self.clinical.iter().filter(move |s| s.covers(kind, letter))
    }

    /// Does any scope of the level `patient` name the type? Then, to be safe, all access to it is to the patient in
    /// context, whatever other scopes say; [`Self::only_patient`] is exact for one letter.
    #[must_use]
    pub fn is_patient_limited(&self, kind: &str) -> bool {
        self.clinical
            .iter()
            .any(|s| s.level == Level::Patient && s.kind.as_deref().is_none_or(|k| k == kind))
    }

    /// Is this letter given on the type for the patient in context alone?
    #[must_use]
    pub fn only_patient(&self, kind: &str, letter: Letter) -> bool {
        !self.allows(Level::User, kind, letter) && !self.allows(Level::System, kind, letter)
    }

    /// Is this word (clinical or a name) within these scopes?
    #[must_use]
    pub fn includes(&self, word: &str) -> bool {
        match word.parse::<Scope>() {
            Ok(scope) => self.clinical.iter().any(|s| s.includes(&scope)),
            Err(()) => self.named(word),
        }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.named.iter().cloned();
        let all: Vec<String> = words.chain(self.clinical.iter().map(Scope::to_string)).collect();
        f.write_str(&all.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_and_written_as_version_2() {
        for (given, written) in [
            ("patient/Observation.rs", "patient/Observation.rs"),
            ("user/*.cruds", "user/*.cruds"),
            ("patient/*.read", "patient/*.rs"),
            ("user/Patient.write", "user/Patient.cud"),
            ("system/*.*", "system/*.cruds"),
            (
                "patient/Observation.rs?category=laboratory",
                "patient/Observation.rs?category=laboratory",
            ),
        ] {
            assert_eq!(given.parse::<Scope>().map(|s| s.to_string()), Ok(written.to_owned()));
        }
    }

    #[test]
    fn what_is_no_clinical_scope_gives_nothing() {
        for bad in [
            "patient/Observation.sr",
            "patient/Observation.rr",
            "patient/Observation.",
            "patient/Observation",
            "patient/.rs",
            "patient/observation.rs",
            "Patient/Observation.rs",
            "patient/Observation.rs?",
            "patient/Observation.rs?category",
            "patient/Observation.rs?category=",
            "patient/Observation.rs?=laboratory",
            "patient/Observation.rs?category=laboratory&",
            "patient/Observation.rs?category=laboratory&&status=final",
            "patient/Observation.rs?category=laboratory?status=final",
            "patient/Observation.rs?category=laboratory#status",
            "patient/Observation.rs?c%61tegory=laboratory",
            "patient/Observation.rs?category=lab%",
            "patient/Observation.rs?category=lab%+1",
            "patient/Observation.rs?category=lab%0aoratory",
            "patient/Observation.rs?category=lab%00",
            "patient/Observation.rs?category=lab\\,x",
            "patient/Observation.rs?category=\"lab\"",
            "patient/Observation.rs?category=läb",
            "patient/Obs/ervation.rs",
            "admin/*.cruds",
            "patient/Observation.readwrite",
            "patient/**.rs",
            "*/*.rs",
            "openid",
        ] {
            let scopes = Scopes::parse(bad);
            assert!(scopes.clinical.is_empty() && scopes.named(bad), "{bad}");
            assert!(!scopes.allows(Level::Patient, "Observation", Letter::Read), "{bad}");
        }
    }

    #[test]
    fn access_is_by_level_type_and_letter() {
        let s = Scopes::parse("openid patient/Observation.rs user/Patient.r patient/Condition.rs?category=x");
        assert!(s.allows(Level::Patient, "Observation", Letter::Search));
        assert!(!s.allows(Level::User, "Observation", Letter::Search));
        assert!(!s.allows(Level::Patient, "Observation", Letter::Create));
        assert!(!s.allows(Level::Patient, "Patient", Letter::Read));
        assert!(!s.allows(Level::Patient, "Condition", Letter::Read), "narrowed");
        assert_eq!(s.covering("Condition", Letter::Read).count(), 1);
        assert!(s.is_patient_limited("Observation") && !s.is_patient_limited("Patient"));
        assert!(s.only_patient("Observation", Letter::Read) && !s.only_patient("Patient", Letter::Read));
        let all = Scopes::parse("system/*.rs");
        assert!(all.allows(Level::System, "Anything", Letter::Read) && !all.is_patient_limited("Anything"));
    }

    #[test]
    fn inclusion_never_widens() {
        let s = Scopes::parse("patient/*.rs user/Observation.cruds launch/patient");
        for within in [
            "patient/Observation.r",
            "patient/*.s",
            "patient/*.rs?x=y",
            "user/Observation.cud",
            "launch/patient",
        ] {
            assert!(s.includes(within), "{within}");
        }
        let lab = Scopes::parse("patient/Observation.rs?category=laboratory&status=final");
        for within in [
            "patient/Observation.r?category=laboratory&status=final",
            "patient/Observation.rs?status=final&category=laboratory",
            "patient/Observation.s?status=final&category=laboratory&code=x",
        ] {
            assert!(lab.includes(within), "{within}");
        }
        for beyond in [
            "patient/Observation.rs",
            "patient/Observation.rs?category=laboratory",
            "patient/Observation.rs?category=laboratory,vital-signs&status=final",
            "patient/Observation.rs?category=laboratory&status=finale",
            "patient/*.rs?category=laboratory&status=final",
            "patient/Observation.cr?category=laboratory&status=final",
        ] {
            assert!(!lab.includes(beyond), "{beyond}");
        }
        for beyond in [
            "patient/Observation.cr",
            "user/*.r",
            "system/*.rs",
            "user/Patient.r",
            "openid",
            "patient/*.write",
        ] {
            assert!(!s.includes(beyond), "{beyond}");
        }
    }
}
