//! The rules as tables: which class a FHIR type is of, what each role may do with a class, what each role may do with
//! the other kinds of thing. Everything that is not in a table is denied.

use super::{Action, COLLEAGUE, Resource};
use crate::{
    auth::{Principal, Role},
    scope::Letter,
};

/// What a FHIR type is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Of no patient: terms, forms, places, organisations, people of the clinic.
    Directory,
    /// Who the patient is, when they come, who pays.
    Demographic,
    /// That a patient was there; why is clinical and is left out for those who see no clinical content.
    Encounter,
    /// What the patient wants and does not want to be seen.
    Consent,
    /// What happened to the record.
    Trail,
    /// Everything else.
    Clinical,
}

impl Class {
    pub const ALL: [Self; 6] = [
        Self::Directory,
        Self::Demographic,
        Self::Encounter,
        Self::Consent,
        Self::Trail,
        Self::Clinical,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Demographic => "demographic",
            Self::Encounter => "encounter",
            Self::Consent => "consent",
            Self::Trail => "trail",
            Self::Clinical => "clinical",
        }
    }

    /// The types of it; none for the class of every type that is named nowhere.
    #[must_use]
    pub const fn types(self) -> &'static [&'static str] {
        match self {
            Self::Directory => DIRECTORY,
            Self::Demographic => DEMOGRAPHIC,
            Self::Encounter => &["Encounter"],
            Self::Consent => &["Consent"],
            Self::Trail => &["AuditEvent", "Provenance"],
            Self::Clinical => &[],
        }
    }

    #[must_use]
    pub fn of(kind: &str) -> Self {
        let named = Self::ALL.into_iter().find(|class| class.types().contains(&kind));
        named.unwrap_or(Self::Clinical)
    }

    /// May a resource of it stand for no patient, and be seen by those who are bound to their own patients?
    pub(super) fn may_be_nobodys(self, kind: &str) -> bool {
        matches!(
            kind,
            "Appointment" | "AppointmentResponse" | "Schedule" | "Slot" | "Account"
        ) || self == Self::Trail
    }
}

const DEMOGRAPHIC: &[&str] = &[
    "Patient",
    "RelatedPerson",
    "Person",
    "Appointment",
    "AppointmentResponse",
    "Schedule",
    "Slot",
    "Coverage",
    "Account",
    "CoverageEligibilityRequest",
    "CoverageEligibilityResponse",
];

const DIRECTORY: &[&str] = &[
    "Practitioner",
    "PractitionerRole",
    "Organization",
    "OrganizationAffiliation",
    "Location",
    "HealthcareService",
    "Endpoint",
    "InsurancePlan",
    "Medication",
    "MedicationKnowledge",
    "Substance",
    "SubstanceSpecification",
    "DeviceDefinition",
    "ActivityDefinition",
    "PlanDefinition",
    "Questionnaire",
    "ValueSet",
    "CodeSystem",
    "ConceptMap",
    "NamingSystem",
    "StructureDefinition",
    "StructureMap",
    "SearchParameter",
    "OperationDefinition",
    "CapabilityStatement",
    "CompartmentDefinition",
    "GraphDefinition",
    "ImplementationGuide",
    "Library",
    "Measure",
    "MessageDefinition",
    "ObservationDefinition",
    "SpecimenDefinition",
    "ChargeItemDefinition",
    "EventDefinition",
    "ExampleScenario",
    "TerminologyCapabilities",
    "TestScript",
    "CatalogEntry",
    "Evidence",
    "EvidenceVariable",
];

/// How far a permission of a role goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breadth {
    /// Every patient of the clinic.
    All,
    /// Every patient, without what is clinical ([`HIDDEN`]).
    Outline,
    /// The patients they treat; all, where the clinic demands no relationship.
    Treated,
    /// The patients for whom they have broken the glass.
    Broken,
}

impl Breadth {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Outline => "outline",
            Self::Treated => "treated",
            Self::Broken => "broken",
        }
    }
}

/// Roles as bundles: role, class, letters of `cruds`, how far.
pub(super) const BUNDLES: &[(Role, Class, &str, Breadth)] = &[
    // Runs the clinic's accounts; sees who the patients are, and clinical content only in an emergency.
    (Role::Admin, Class::Directory, "cruds", Breadth::All),
    (Role::Admin, Class::Demographic, "rs", Breadth::All),
    (Role::Admin, Class::Trail, "rs", Breadth::All),
    (Role::Admin, Class::Encounter, "rs", Breadth::Broken),
    (Role::Admin, Class::Clinical, "rs", Breadth::Broken),
    // The front desk.
    (Role::Staff, Class::Directory, "rs", Breadth::All),
    (Role::Staff, Class::Demographic, "cruds", Breadth::All),
    (Role::Staff, Class::Encounter, "rs", Breadth::Outline),
    (Role::Staff, Class::Consent, "crus", Breadth::All),
    (Role::Clinician, Class::Directory, "cruds", Breadth::All),
    (Role::Clinician, Class::Demographic, "cruds", Breadth::Treated),
    (Role::Clinician, Class::Encounter, "cruds", Breadth::Treated),
    (Role::Clinician, Class::Consent, "cruds", Breadth::Treated),
    (Role::Clinician, Class::Trail, "rs", Breadth::Treated),
    (Role::Clinician, Class::Clinical, "cruds", Breadth::Treated),
];

/// What patients may do with their own record, and those who stand for somebody in everything with that person's.
pub(super) const OWN: &[Class] = &[
    Class::Demographic,
    Class::Encounter,
    Class::Consent,
    Class::Clinical,
    Class::Trail,
];
pub(super) const OWN_LETTERS: &str = "rs";

/// A part of a record in which somebody may stand for its patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyScope {
    pub name: &'static str,
    /// The relation to the patient that gives it.
    pub relation: &'static str,
    /// What may be read of the patient's record by it ([`OWN_LETTERS`]), and nothing else.
    pub types: &'static [&'static str],
}

/// Each of them; who has them all stands for the patient in everything, and has what patients have of their own record.
pub const PROXY_SCOPES: [ProxyScope; 3] = [
    ProxyScope {
        name: "appointments",
        relation: "proxy.appointments",
        types: &["Patient", "Appointment", "AppointmentResponse", "Schedule", "Slot"],
    },
    ProxyScope {
        name: "results",
        relation: "proxy.results",
        types: &["DiagnosticReport", "Observation"],
    },
    ProxyScope {
        name: "messages",
        relation: "proxy.messages",
        types: &["Communication", "DocumentReference"],
    },
];

/// Elements of a Patient that are left out for who stands for them in a part alone: all but their name and date of birth.
/// And the search parameters that would tell them.
pub(super) const PROXY_HIDDEN: (&[&str], &[&str]) = (
    &[
        "text",
        "contained",
        "extension",
        "modifierExtension",
        "identifier",
        "telecom",
        "gender",
        "deceasedBoolean",
        "deceasedDateTime",
        "address",
        "maritalStatus",
        "multipleBirthBoolean",
        "multipleBirthInteger",
        "photo",
        "contact",
        "communication",
        "generalPractitioner",
        "managingOrganization",
        "link",
    ],
    &[
        "address",
        "address-city",
        "address-country",
        "address-postalcode",
        "address-state",
        "address-use",
        "death-date",
        "deceased",
        "email",
        "gender",
        "general-practitioner",
        "identifier",
        "language",
        "link",
        "organization",
        "phone",
        "telecom",
    ],
);

/// Elements of an Encounter that say why, and the search parameters that would tell them.
pub(super) const HIDDEN: (&[&str], &[&str]) = (
    &[
        "text",
        "contained",
        "extension",
        "modifierExtension",
        "type",
        "serviceType",
        "priority",
        "reasonCode",
        "reasonReference",
        "diagnosis",
        "hospitalization",
        "basedOn",
        "episodeOfCare",
    ],
    &[
        "based-on",
        "diagnosis",
        "episode-of-care",
        "reason-code",
        "reason-reference",
        "special-arrangement",
        "type",
    ],
);

/// What of a resource a role may change. Who is not in this table may change every element of what their role lets them write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Type of FHIR.
    pub kind: &'static str,
    /// Elements, without their choice's type or a leading underscore.
    pub elements: &'static [&'static str],
    /// Extensions of the resource itself, by their address.
    pub extensions: &'static [&'static str],
}

/// Who somebody is: the front desk writes that, and nothing of what is found about them.
pub(super) const STAFF_WRITES: &[Fields] = &[Fields {
    kind: "Patient",
    elements: &[
        "text",
        "identifier",
        "active",
        "name",
        "telecom",
        "gender",
        "birthDate",
        "deceasedBoolean",
        "deceasedDateTime",
        "address",
        "maritalStatus",
        "multipleBirthBoolean",
        "multipleBirthInteger",
        "photo",
        "contact",
        "communication",
        "generalPractitioner",
        "managingOrganization",
    ],
    extensions: &[
        "http://hl7.org/fhir/StructureDefinition/patient-birthPlace",
        "http://hl7.org/fhir/StructureDefinition/patient-citizenship",
        "http://hl7.org/fhir/StructureDefinition/patient-nationality",
        "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName",
        "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race",
        "http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity",
    ],
}];

/// What patients (and who stands for them in everything) may change of their own record: how they are reached.
pub(super) const OWN_WRITES: &[Fields] = &[Fields {
    kind: "Patient",
    elements: &["text", "telecom", "address", "contact", "communication"],
    extensions: &[],
}];

pub(super) fn fields(all: &'static [Fields], kind: &str) -> Option<&'static Fields> {
    all.iter().find(|f| f.kind == kind)
}

pub(super) fn breadths(role: Role, class: Class, letter: Letter) -> impl Iterator<Item = Breadth> {
    BUNDLES
        .iter()
        .filter(move |(r, c, letters, _)| *r == role && *c == class && letters.contains(letter.name()))
        .map(|(.., breadth)| *breadth)
}

/// What the roles and the shape of a resource say, before any look-up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Allow(&'static str),
    Deny(&'static str),
    /// Allowed when the subject has one of these relations to the resource.
    Related(&'static [&'static str]),
    /// Allowed as this type is, for this patient.
    Clinical(&'static [&'static str], Letter),
    /// Allowed as the clinical record is of the patient whom the device feeds.
    Feeds(Letter),
    /// Allowed to those who may see the chart of the patient whom the visit is about.
    Attend,
}

/// Types that a chart shows and that a patient's live channel tells.
pub(super) const CHART: &[&str] = &[
    "Observation",
    "DiagnosticReport",
    "Condition",
    "AllergyIntolerance",
    "MedicationRequest",
];
const LIVE: &[&str] = &["Observation", "DiagnosticReport"];

/// Every kind of thing that is no FHIR resource and that a rule speaks of.
pub(super) const KINDS: &[&str] = &[
    "user",
    "session",
    "credential",
    "queue",
    "patient",
    "visit",
    "visits",
    "encounter",
    "conversation",
    "device",
    "board",
    "alert",
    "appointment",
    "tenant",
    "outbox",
    "metrics",
    "oauth_client",
    "key",
    "audit",
    "policy",
    "break_glass",
    "glass",
];

/// Kinds of resource with clinical or personal content: what asks for two factors where the clinic demands them.
pub(super) fn is_clinical(kind: &str) -> bool {
    matches!(
        kind,
        "patient"
            | "device"
            | "visit"
            | "encounter"
            | "conversation"
            | "board"
            | "alert"
            | "queue"
            | "appointment"
            | "visits"
    )
}

/// Is it about being in a visit's room or leading it? Then the relation to the visit is not enough.
pub(super) fn is_in_the_room(action: Action, what: &Resource) -> bool {
    matches!(
        (what.kind, action),
        ("visit" | "encounter", Action::Join | Action::Admit)
    )
}

/// The rules of everything that is no FHIR resource: a pure function of who, what and which. The best that one of their roles
/// gives; of a role that they have in part, what was chosen of it.
pub(super) fn rule(who: &Principal, action: Action, what: &Resource) -> Rule {
    let mut best = of_role(None, who.subject_id(), action, what);
    for role in who.held() {
        let given = of_role(Some(role), who.subject_id(), action, what);
        if given.weight() > best.weight() && who.may_thing(role, what.kind, action) {
            best = given;
        }
    }
    best
}

/// Does a role give an act on other than the person's own things that nobody has without a role?
pub(super) fn is_given_by(role: Role, kind: &'static str, action: Action) -> bool {
    let what = Resource::new(kind, "another");
    let of = |role| of_role(role, "own", action, &what).weight();
    of(Some(role)) > of(None)
}

impl Rule {
    fn weight(&self) -> u8 {
        match self {
            Self::Deny(_) => 0,
            Self::Related(_) | Self::Clinical(..) | Self::Feeds(_) => 1,
            Self::Attend => 2,
            Self::Allow(_) => 3,
        }
    }
}

/// What one role says, or none.
fn of_role(role: Option<Role>, own: &str, action: Action, what: &Resource) -> Rule {
    use Action::{Administer, Admit, Join, Publish, Read, Subscribe, Write};
    let has = |one| role == Some(one);
    let leads = has(Role::Clinician) || has(Role::Admin);
    let staff = leads || has(Role::Staff);
    match (what.kind, action) {
        ("user" | "queue" | "session" | "credential", Read | Subscribe | Write)
            if own == what.id && (action != Write || matches!(what.kind, "session" | "credential")) =>
        {
            Rule::Allow("own")
        }
        ("queue", Read | Subscribe) if staff => Rule::Allow("staff see queues"),
        ("user", Administer) if has(Role::Admin) => Rule::Allow("administrator"),
        ("patient", Read) => Rule::Clinical(CHART, Letter::Read),
        ("patient", Subscribe) => Rule::Clinical(LIVE, Letter::Read),
        ("patient", Write) => Rule::Clinical(LIVE, Letter::Create),
        ("board" | "alert", Read | Subscribe | Write) if staff => Rule::Allow("staff of the clinic"),
        ("visit" | "encounter", Read | Subscribe) if staff => Rule::Allow("staff of the clinic"),
        ("visit" | "encounter", Read | Subscribe | Join) => Rule::Related(&["participant", "host", COLLEAGUE]),
        // To join somebody else's visit as a colleague.
        ("visit", Publish) if leads => Rule::Attend,
        ("visit", Admit) => Rule::Related(&["host"]),
        ("visits", Read) if has(Role::Staff) || has(Role::Admin) => Rule::Allow("staff of the clinic"),
        ("conversation", Read | Subscribe | Write | Publish) => Rule::Related(&["member"]),
        ("device", Publish | Subscribe) if has(Role::Device) && own == what.id => Rule::Allow("own device"),
        ("device", Read | Subscribe) => Rule::Feeds(Letter::Read),
        ("device", Write) => Rule::Feeds(Letter::Update),
        ("appointment", Read | Write) if staff => Rule::Allow("staff of the clinic"),
        ("tenant" | "outbox" | "metrics" | "oauth_client" | "key", Read | Administer | Write) if has(Role::Admin) => {
            if action == Write && matches!(what.kind, "outbox" | "metrics") {
                return Rule::Deny("nothing allows it");
            }
            Rule::Allow("administrator")
        }
        ("audit", Read | Administer) if has(Role::Admin) => Rule::Allow("administrator"),
        ("policy" | "break_glass", Read | Administer) if has(Role::Admin) => Rule::Allow("administrator"),
        ("glass", Write) if leads => Rule::Allow("may break the glass"),
        _ => Rule::Deny("nothing allows it"),
    }
}
