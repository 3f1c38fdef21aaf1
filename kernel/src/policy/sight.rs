//! What a principal sees of the clinical record: the facts about them, loaded once, and for each type a [`View`], from
//! which the FHIR engine makes conditions of its searches and answers reads of single resources. Pure.

use super::{
    Trace,
    consent::{self, Question, Rules},
    kept::{Beside, Views},
    label,
    merge::merged,
    table::{self, Breadth, Class, Fields, PROXY_SCOPES},
};
use crate::{
    Error,
    auth::{Assurance, Principal, Role},
    clock::Millis,
    scope::{Letter, Level, Scopes},
    tenant::Status,
};
use std::{collections::BTreeSet, sync::Arc};

/// Patients by logical id.
pub type Patients = BTreeSet<String>;

/// Whose resources are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every resource of the type.
    Everything,
    /// Those of these patients.
    Of(Patients),
    /// Those of no patient.
    Nobodys,
}

/// Hides what is in a reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Hidden where one of these labels stands on it; empty: whatever stands on it.
    pub labels: Vec<String>,
    /// Of these patients alone, or of all but these.
    pub patients: Patients,
    pub except: bool,
}

/// What is left out of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    pub elements: &'static [&'static str],
    /// Search parameters that would tell it.
    pub parameters: &'static [&'static str],
    /// Resources of these patients are shown whole.
    pub whole: Patients,
}

/// What one scope leaves of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrow {
    /// Search parameters, as after a question mark; empty: none.
    pub query: String,
    /// Of this patient alone.
    pub patient: Option<String>,
}

/// What of a type may be reached by one letter of `cruds`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Any of them is enough; none: nothing.
    pub reach: Vec<Reach>,
    /// Each hides.
    pub barriers: Vec<Barrier>,
    /// Of these one must fit: scopes that a query narrows. Empty: no such limit.
    pub narrowed: Vec<Narrow>,
    pub redaction: Option<Redaction>,
    /// Why there is nothing.
    pub why: &'static str,
    /// What a store has made of it, kept with it.
    pub beside: Beside,
}

impl View {
    #[must_use]
    pub fn everything() -> Self {
        Self {
            reach: vec![Reach::Everything],
            ..Self::default()
        }
    }

    #[must_use]
    pub fn of(patient: &str) -> Self {
        Self {
            reach: vec![Reach::Of([patient.to_owned()].into())],
            ..Self::default()
        }
    }

    fn nothing(why: &'static str) -> Self {
        Self { why, ..Self::default() }
    }

    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.reach.is_empty()
    }

    /// Is everything of the type in it, so that nothing needs to be asked of a resource?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.reach.contains(&Reach::Everything) && self.barriers.is_empty() && self.narrowed.is_empty()
    }

    /// Does it hold a resource of these patients with these labels? Says nothing of [`View::narrowed`].
    #[must_use]
    pub fn shows(&self, patients: &[String], labels: &[&str]) -> bool {
        let reached = self.reach.iter().any(|r| match r {
            Reach::Everything => true,
            Reach::Of(set) => patients.iter().any(|p| set.contains(p)),
            Reach::Nobodys => patients.is_empty(),
        });
        reached && !self.barriers.iter().any(|b| b.hides(patients, labels))
    }

    /// May a resource be written that is, from then on, of all these patients?
    #[must_use]
    pub fn takes(&self, patients: &[String]) -> bool {
        let within = |p: &String| {
            self.reach.iter().any(|r| match r {
                Reach::Everything => true,
                Reach::Of(set) => set.contains(p),
                Reach::Nobodys => false,
            })
        };
        let reached = if patients.is_empty() {
            self.reach
                .iter()
                .any(|r| matches!(r, Reach::Everything | Reach::Nobodys))
        } else {
            patients.iter().all(within)
        };
        reached
            && !self
                .barriers
                .iter()
                .any(|b| b.labels.is_empty() && b.hides(patients, &[]))
    }

    /// The elements that are left out of a resource of these patients.
    #[must_use]
    pub fn hidden(&self, patients: &[String]) -> &'static [&'static str] {
        match &self.redaction {
            Some(r) if !patients.iter().any(|p| r.whole.contains(p)) => r.elements,
            _ => &[],
        }
    }
}

impl Barrier {
    pub(super) fn hides(&self, patients: &[String], labels: &[&str]) -> bool {
        let labelled = self.labels.is_empty() || labels.iter().any(|l| self.labels.iter().any(|own| own == l));
        let among = patients.iter().any(|p| self.patients.contains(p));
        labelled && among != self.except
    }
}

/// Everything the policy knows about a principal. Made by [`super::Policy::sight`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    pub(super) who: Principal,
    pub(super) status: Status,
    pub(super) two_factors: bool,
    pub(super) relationship_required: bool,
    pub(super) now: Millis,
    /// Patients by the relation the principal stands in to them.
    pub(super) own: Patients,
    /// Those they stand for in everything.
    pub(super) proxied: Patients,
    /// Those they stand for in a part at least, by the part.
    pub(super) parts: [Patients; PROXY_SCOPES.len()],
    pub(super) treated: Patients,
    pub(super) broken: Patients,
    /// References by which a Consent may name them.
    pub(super) names: Vec<String>,
    pub(super) consents: Arc<[Rules]>,
    pub(super) scopes: Option<Arc<Scopes>>,
    pub(super) views: Views,
}

impl Sight {
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.who.subject
    }

    /// A service without a user (SMART backend services).
    fn is_system(&self) -> bool {
        self.who.subject.starts_with("client:")
    }

    /// A refusal that comes before every question about a resource: the clinic, and how surely they are known.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        if self.status != Status::Active {
            return Some(Error::forbidden(
                "tenant.suspended",
                "This clinic is not served at the moment.",
            ));
        }
        if self.two_factors && self.who.subject.starts_with("user:") && self.who.grant.assurance < Assurance::Two {
            return Some(Error::forbidden(
                "auth.second_factor",
                "Please set up a second step to see clinical data.",
            ));
        }
        None
    }

    /// Does a look at this patient's record stand on nothing but a broken glass?
    #[must_use]
    pub fn is_emergency(&self, patient: &str) -> bool {
        self.broken.contains(patient)
            && !self.own.contains(patient)
            && !self.proxied.contains(patient)
            && !(self.who.acts_as(Role::Clinician) && (!self.relationship_required || self.treated.contains(patient)))
    }

    /// Is it the relationship alone that is missing? Then the glass may be broken.
    #[must_use]
    pub fn may_break_glass(&self, patient: &str) -> bool {
        (self.who.has(Role::Clinician) || self.who.has(Role::Admin)) && !self.broken.contains(patient)
    }

    /// A clinician who registers a patient treats them from then on.
    #[must_use]
    pub fn treats_whom_they_register(&self) -> bool {
        self.who.acts_as(Role::Clinician) && !self.who.acts_as(Role::Staff)
    }

    /// What of a FHIR type may be reached by this letter.
    #[must_use]
    pub fn view(&self, kind: &str, letter: Letter) -> Arc<View> {
        self.views
            .get_or_make(kind, letter, || self.traced(kind, letter, &mut Vec::new()))
    }

    /// The same, and each step said aloud.
    pub(super) fn traced(&self, kind: &str, letter: Letter, trace: &mut Vec<Trace>) -> View {
        if let Some(refusal) = self.refusal() {
            trace.push(Trace::new("tenant and lock", false, refusal.code));
            return View::nothing(refusal.code);
        }
        trace.push(Trace::new("tenant and lock", true, "served, and known surely enough"));
        let class = Class::of(kind);
        let Some((limit, narrowed)) = self.scope(kind, class, letter) else {
            trace.push(Trace::new("scopes", false, "no scope of the client covers it"));
            return View::nothing("auth.scope");
        };
        trace.push(Trace::new(
            "scopes",
            true,
            if self.scopes.is_some() {
                "covered"
            } else {
                "no client in between"
            },
        ));
        let mut view = self.by_role(kind, class, letter);
        trace.push(Trace::new(
            "role and relationship",
            !view.is_nothing(),
            if view.is_nothing() {
                view.why
            } else {
                "given by role, relation or own record"
            },
        ));
        if let Some(patient) = limit {
            view.reach = view.reach.into_iter().filter_map(|r| within(r, patient)).collect();
            if view.is_nothing() {
                view.why = "auth.scope";
            }
        }
        view.narrowed = narrowed;
        if class != Class::Directory && !view.is_nothing() {
            self.consented(kind, &mut view);
            trace.push(Trace::new("consent", true, "denials of patients are left out"));
            self.labelled(kind, &mut view);
            trace.push(Trace::new(
                "labels",
                true,
                "labelled resources are left out where nothing opens them",
            ));
        }
        if view.redaction.is_some() {
            trace.push(Trace::new("obligations", true, "clinical elements are left out"));
        }
        view
    }

    /// The patient to whom the scopes bind (`Some("")`: nobody), and what they narrow. `None`: not covered.
    fn scope(&self, kind: &str, class: Class, letter: Letter) -> Option<(Option<&str>, Vec<Narrow>)> {
        let Some(scopes) = &self.scopes else {
            // A service has what its scopes say, and nothing without them.
            return (!self.is_system()).then_some((None, Vec::new()));
        };
        if super::seeded("scopes") {
            return Some((None, Vec::new()));
        }
        let level = |l: Level| {
            if self.is_system() {
                l == Level::System
            } else {
                l != Level::System
            }
        };
        let covering: Vec<_> = scopes.covering(kind, letter).filter(|s| level(s.level)).collect();
        if covering.is_empty() {
            return None;
        }
        let context = self.who.grant.patient.as_deref().unwrap_or("");
        let bound = |l: Level| l == Level::Patient && class != Class::Directory;
        // Bound to one patient as a whole, or each scope by itself.
        let limit = covering.iter().all(|s| bound(s.level)).then_some(context);
        let mut narrowed = Vec::new();
        for scope in covering {
            let one = Narrow {
                query: scope.query.clone().unwrap_or_default(),
                patient: (limit.is_none() && bound(scope.level)).then(|| context.to_owned()),
            };
            if one.query.is_empty() && one.patient.is_none() {
                return Some((limit, Vec::new()));
            }
            narrowed.push(one);
        }
        Some((limit, narrowed))
    }

    /// How far each of their roles reaches with this letter, where they have it of that role.
    fn breadths(&self, class: Class, letter: Letter) -> impl Iterator<Item = (Role, Breadth)> {
        let given = move |role: &Role| self.who.may_record(*role, class, letter);
        let each = move |role| table::breadths(role, class, letter).map(move |b| (role, b));
        self.who.held().filter(given).flat_map(each)
    }

    fn by_role(&self, kind: &str, class: Class, letter: Letter) -> View {
        let mut view = View::nothing("policy.denied");
        if self.is_system() {
            view.reach.push(Reach::Everything);
            return view;
        }
        let mut outline = false;
        let mut patients = Patients::new();
        for breadth in self.breadths(class, letter).map(|(_, b)| b) {
            match breadth {
                Breadth::All => view.reach.push(Reach::Everything),
                Breadth::Outline => outline = true,
                Breadth::Treated if !self.relationship_required || super::seeded("relationship") => {
                    view.reach.push(Reach::Everything);
                }
                Breadth::Treated => {
                    view.why = "policy.relationship";
                    patients.extend(self.treated.iter().chain(&self.broken).cloned());
                    if class.may_be_nobodys(kind) {
                        view.reach.push(Reach::Nobodys);
                    }
                }
                Breadth::Broken => {
                    view.why = "policy.relationship";
                    patients.extend(self.broken.iter().cloned());
                }
            }
        }
        if table::OWN.contains(&class) && table::OWN_LETTERS.contains(letter.name()) {
            patients.extend(self.own.iter().chain(&self.proxied).cloned());
        }
        let mut parts = Patients::new();
        if table::OWN_LETTERS.contains(letter.name()) {
            for (scope, of) in PROXY_SCOPES.iter().zip(&self.parts) {
                if scope.types.contains(&kind) {
                    parts.extend(of.difference(&patients).cloned());
                }
            }
        }
        // Patients keep what they are reached by; which elements that is says [`Sight::writes`].
        if letter == Letter::Update && table::fields(table::OWN_WRITES, kind).is_some() {
            patients.extend(self.own.iter().chain(&self.proxied).cloned());
        }
        if outline && !view.reach.contains(&Reach::Everything) {
            view.reach.push(Reach::Everything);
            view.redaction = Some(Redaction {
                elements: table::HIDDEN.0,
                parameters: table::HIDDEN.1,
                whole: patients.clone(),
            });
        }
        if kind == "Patient" && !parts.is_empty() && !view.reach.contains(&Reach::Everything) {
            view.redaction = Some(Redaction {
                elements: table::PROXY_HIDDEN.0,
                parameters: table::PROXY_HIDDEN.1,
                whole: patients.clone(),
            });
        }
        patients.extend(parts);
        if view.reach.contains(&Reach::Everything) {
            view.reach = vec![Reach::Everything];
        } else if !patients.is_empty() {
            view.reach.push(Reach::Of(patients));
        }
        view
    }

    /// Which elements of a resource of these patients they may write; `None`: every one.
    #[must_use]
    pub fn writes(&self, kind: &str, letter: Letter, patients: &[String]) -> Option<Fields> {
        let class = Class::of(kind);
        let own = table::fields(table::OWN_WRITES, kind).filter(|_| letter == Letter::Update);
        let desk = table::fields(table::STAFF_WRITES, kind);
        if (own.is_none() && desk.is_none()) || self.is_system() || super::seeded("field write") {
            return None;
        }
        let mut limit = None;
        for (role, breadth) in self.breadths(class, letter) {
            let reached = match breadth {
                Breadth::All | Breadth::Outline => true,
                Breadth::Treated if !self.relationship_required => true,
                Breadth::Treated => patients
                    .iter()
                    .all(|p| self.treated.contains(p) || self.broken.contains(p)),
                Breadth::Broken => patients.iter().all(|p| self.broken.contains(p)),
            };
            match (reached, role == Role::Staff) {
                // A role without a limit, for this patient: no element is closed.
                (true, false) => return None,
                (true, true) => limit = limit.or(desk),
                (false, _) => {}
            }
        }
        let mine = |p: &String| self.own.contains(p) || self.proxied.contains(p);
        // Whoever reaches it by neither may not write it at all, or makes it now and is of a role without a limit.
        limit
            .or(own.filter(|_| !patients.is_empty() && patients.iter().all(mine)))
            .copied()
    }

    fn question<'a>(&'a self, patient: &str, kind: &'a str) -> Question<'a> {
        let emergency = self.broken.contains(patient);
        Question {
            actors: &self.names,
            purpose: if emergency {
                consent::EMERGENCY
            } else {
                consent::TREATMENT
            },
            kind,
            now: self.now,
        }
    }

    /// Does the patient's Consent deny them everything that is not named one by one?
    #[must_use]
    pub fn is_denied(&self, patient: &str) -> bool {
        let mut about = self
            .consents
            .iter()
            .filter(|r| r.patient == patient && !self.own.contains(patient));
        about.any(|rules| rules.answer(&self.question(patient, "Encounter")).denied)
    }

    fn consented(&self, kind: &str, view: &mut View) {
        if super::seeded("consent") {
            return;
        }
        let mut denied = Patients::new();
        let mut labelled = Vec::new();
        for rules in self.consents.iter().filter(|r| !self.own.contains(&r.patient)) {
            let answer = rules.answer(&self.question(&rules.patient, kind));
            if answer.denied {
                denied.insert(rules.patient.clone());
            } else if !answer.denied_labels.is_empty() {
                labelled.push((rules.patient.clone(), answer.denied_labels));
            }
        }
        view.barriers.extend(merged(labelled));
        if !denied.is_empty() {
            view.barriers.push(Barrier {
                labels: Vec::new(),
                patients: denied,
                except: false,
            });
        }
    }

    fn labelled(&self, kind: &str, view: &mut View) {
        if super::seeded("labels") {
            return;
        }
        let mut open: Patients = self.own.iter().chain(&self.broken).cloned().collect();
        let mut related = open.clone();
        if self.who.acts_as(Role::Clinician) {
            related.extend(self.treated.iter().cloned());
        }
        let mut some: Vec<(Vec<String>, String)> = Vec::new();
        for rules in self.consents.iter() {
            match rules.answer(&self.question(&rules.patient, kind)).named {
                Some(labels) if labels.is_empty() => {
                    open.insert(rules.patient.clone());
                }
                Some(labels) => some.push((labels, rules.patient.clone())),
                None => {}
            }
        }
        view.barriers.push(Barrier {
            labels: label::RELATED.iter().map(|l| (*l).to_owned()).collect(),
            patients: related,
            except: true,
        });
        // A label that some Consent opens by its name has a barrier of its own.
        let by_name = |l: &str| -> Patients {
            let named = some.iter().filter(|(labels, _)| labels.iter().any(|own| own == l));
            named.map(|(_, patient)| patient.clone()).collect()
        };
        let (alone, together): (Vec<&str>, Vec<&str>) = label::NAMED.iter().partition(|l| !by_name(l).is_empty());
        for l in alone {
            view.barriers.push(Barrier {
                labels: vec![l.to_owned()],
                patients: open.union(&by_name(l)).cloned().collect(),
                except: true,
            });
        }
        if !together.is_empty() {
            view.barriers.push(Barrier {
                labels: together.into_iter().map(str::to_owned).collect(),
                patients: open,
                except: true,
            });
        }
    }
}

fn within(reach: Reach, patient: &str) -> Option<Reach> {
    let one = || Some(Reach::Of([patient.to_owned()].into()));
    match reach {
        _ if patient.is_empty() => None,
        Reach::Everything => one(),
        Reach::Of(set) if set.contains(patient) => one(),
        Reach::Of(_) | Reach::Nobodys => None,
    }
}
