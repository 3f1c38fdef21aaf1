//! The rules as data, for the screens and for the page `docs/security/access.md`: read off the tables that decide, so that
//! what is shown is what holds.

use super::{
    Action, Class, Resource, label,
    table::{
        self, BUNDLES, Breadth, Fields, HIDDEN, KINDS, OWN, OWN_LETTERS, OWN_WRITES, PROXY_HIDDEN, PROXY_SCOPES, Rule,
        STAFF_WRITES,
    },
};
use crate::{
    TenantId,
    auth::{Principal, Role},
};
use serde::Serialize;
use std::fmt::Write;
use uuid::Uuid;

const ROLES: [Role; 6] = [
    Role::Admin,
    Role::Clinician,
    Role::Staff,
    Role::Patient,
    Role::Guest,
    Role::Device,
];

/// Everything the tables say.
#[derive(Debug, Serialize)]
pub struct Matrix {
    pub roles: Vec<OfRole>,
    pub classes: Vec<OfClass>,
    /// Left out of what is seen in outline.
    pub hidden: &'static [&'static str],
    /// In which parts somebody may stand for a patient.
    pub proxies: Vec<OfProxy>,
    pub labels: Labels,
}

#[derive(Debug, Serialize)]
pub struct OfRole {
    pub role: &'static str,
    /// By class of FHIR types.
    pub records: Vec<Grant>,
    /// By kind of everything else.
    pub things: Vec<Thing>,
    /// Where not every element may be written.
    pub writes: Vec<Writes>,
}

#[derive(Debug, Serialize)]
pub struct Grant {
    pub class: &'static str,
    /// Of `cruds`: create, read, update, delete, search.
    pub letters: &'static str,
    /// `all`, `outline`, `treated`, `broken`, or `own`: the person's own record, and that of whom they stand for in everything.
    pub breadth: &'static str,
}

#[derive(Debug, Serialize)]
pub struct Thing {
    pub kind: &'static str,
    pub action: &'static str,
    /// `all`, `own`, `related`, `record` (as the patient's record is open) or `chart` (whoever sees the patient's chart).
    pub how: &'static str,
    /// One of these, where related.
    pub relations: &'static [&'static str],
}

#[derive(Debug, Serialize)]
pub struct Writes {
    pub kind: &'static str,
    pub elements: &'static [&'static str],
    pub extensions: &'static [&'static str],
}

#[derive(Debug, Serialize)]
pub struct OfClass {
    pub class: &'static str,
    pub types: &'static [&'static str],
}

#[derive(Debug, Serialize)]
pub struct OfProxy {
    pub scope: &'static str,
    /// What they may read of it.
    pub letters: &'static str,
    pub types: &'static [&'static str],
}

#[derive(Debug, Serialize)]
pub struct Labels {
    pub related: &'static [&'static str],
    pub named: &'static [&'static str],
}

/// The rules as they are.
#[must_use]
pub fn matrix() -> Matrix {
    Matrix {
        roles: ROLES.into_iter().map(of_role).collect(),
        classes: Class::ALL
            .into_iter()
            .map(|c| OfClass {
                class: c.name(),
                types: c.types(),
            })
            .collect(),
        hidden: HIDDEN.0,
        proxies: PROXY_SCOPES
            .iter()
            .map(|s| OfProxy {
                scope: s.name,
                letters: OWN_LETTERS,
                types: s.types,
            })
            .collect(),
        labels: Labels {
            related: label::RELATED,
            named: label::NAMED,
        },
    }
}

fn of_role(role: Role) -> OfRole {
    let mut records: Vec<Grant> = BUNDLES
        .iter()
        .filter(|(of, ..)| *of == role)
        .map(
            |(_, class, letters, breadth): &(Role, Class, &'static str, Breadth)| Grant {
                class: class.name(),
                letters,
                breadth: breadth.name(),
            },
        )
        .collect();
    let mut limits: &'static [Fields] = &[];
    if role == Role::Patient {
        let own = |class: &Class| Grant {
            class: class.name(),
            letters: OWN_LETTERS,
            breadth: "own",
        };
        records.extend(OWN.iter().map(own));
        // Of these types alone, and of them some elements.
        records.extend(OWN_WRITES.iter().map(|f| Grant {
            class: Class::of(f.kind).name(),
            letters: "u",
            breadth: "own",
        }));
        limits = OWN_WRITES;
    } else if role == Role::Staff {
        limits = STAFF_WRITES;
    }
    let mut things = Vec::new();
    for kind in KINDS {
        for action in Action::ALL {
            things.extend(thing(role, kind, action));
        }
    }
    OfRole {
        role: role.name(),
        records,
        things,
        writes: limits
            .iter()
            .map(|f| Writes {
                kind: f.kind,
                elements: f.elements,
                extensions: f.extensions,
            })
            .collect(),
    }
}

/// Asks the rule itself, for somebody of this role and no other: about their own thing and about another's.
fn thing(role: Role, kind: &'static str, action: Action) -> Option<Thing> {
    let subject = match role {
        Role::Device => "device:own",
        Role::Guest => "guest:own",
        _ => "user:own",
    };
    let who = Principal {
        tenant: TenantId::SYSTEM,
        subject: subject.to_owned(),
        roles: vec![role],
        session: Uuid::nil(),
        name: "".into(),
        grant: Default::default(),
        proved_at: 0,
    };
    let asked = |id: &str| table::rule(&who, action, &Resource::new(kind, id));
    let (how, relations): (_, &'static [&'static str]) = match (asked("another"), asked("own")) {
        (Rule::Allow(_), _) => ("all", &[]),
        (_, Rule::Allow(_)) => ("own", &[]),
        (Rule::Related(relations), _) => ("related", relations),
        // What the role may see of a record decides, and guests and devices see none.
        (Rule::Clinical(..) | Rule::Feeds(_), _) if !matches!(role, Role::Guest | Role::Device) => ("record", &[]),
        (Rule::Attend, _) => ("chart", &[]),
        _ => return None,
    };
    Some(Thing {
        kind,
        action: action.name(),
        how,
        relations,
    })
}

/// The page for people, in Markdown.
#[must_use]
pub fn document() -> String {
    let m = matrix();
    let mut out = String::from(HEAD);
    let list = |all: &[&str]| all.iter().map(|x| format!("`{x}`")).collect::<Vec<_>>().join(", ");
    // Writing into a string does not fail.
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line("\n## Records, by role\n\n| role | class | may | whose |\n|---|---|---|---|".to_owned());
    for role in &m.roles {
        for g in &role.records {
            let only = if g.letters == "u" {
                " (single elements, see below)"
            } else {
                ""
            };
            line(format!(
                "| {} | {}{only} | `{}` | {} |",
                role.role,
                g.class,
                g.letters,
                whose(g.breadth)
            ));
        }
    }
    line("\n## Classes\n\n| class | types of FHIR R4 |\n|---|---|".to_owned());
    for c in &m.classes {
        let types = if c.types.is_empty() {
            "every other type".to_owned()
        } else {
            list(c.types)
        };
        line(format!("| {} | {types} |", c.class));
    }
    line(format!(
        "\nLeft out of an Encounter seen in outline: {}.",
        list(m.hidden)
    ));
    line(PROXIES.to_owned());
    for p in &m.proxies {
        line(format!("| {} | `{}` | {} |", p.scope, p.letters, list(p.types)));
    }
    line(format!(
        "\nLeft out of the Patient for who stands for them in a part alone: {}.",
        list(PROXY_HIDDEN.0)
    ));
    line("\n## Single elements\n\n| role | type | may write | extensions |\n|---|---|---|---|".to_owned());
    for role in &m.roles {
        for w in &role.writes {
            line(format!(
                "| {} | {} | {} | {} |",
                role.role,
                w.kind,
                list(w.elements),
                list(w.extensions)
            ));
        }
    }
    line(ELEMENTS.to_owned());
    line("\n## Everything else, by role\n\n| role | kind | act | how |\n|---|---|---|---|".to_owned());
    for role in &m.roles {
        let mut rows: Vec<(&str, String, String)> = Vec::new();
        for t in &role.things {
            let how = match t.how {
                "related" => format!("related as {}", list(t.relations)),
                other => how(other).to_owned(),
            };
            match rows
                .last_mut()
                .filter(|(kind, _, known)| *kind == t.kind && *known == how)
            {
                Some((_, acts, _)) => {
                    let _ = write!(acts, ", {}", t.action);
                }
                None => rows.push((t.kind, t.action.to_owned(), how)),
            }
        }
        for (kind, acts, how) in rows {
            line(format!("| {} | {kind} | {acts} | {how} |", role.role));
        }
    }
    line(format!(
        "\n## Labels\n\nShown to those who treat the patient: {}.\n\nShown to those whom the patient's Consent names, and in an emergency: {}.",
        list(m.labels.related),
        list(m.labels.named)
    ));
    out
}

fn whose(breadth: &str) -> &'static str {
    match breadth {
        "all" => "every patient of the clinic",
        "outline" => "every patient, in outline",
        "treated" => "the patients they treat (all, where the clinic demands no relationship)",
        "broken" => "patients for whom they have broken the glass",
        _ => "their own, and of whom they stand for in everything",
    }
}

fn how(name: &str) -> &'static str {
    match name {
        "all" => "any of the clinic",
        "own" => "their own",
        "record" => "as the patient's record is open to them",
        _ => "where they see the patient's chart",
    }
}

const HEAD: &str = "# Who may do what\n\n<!-- Written by `kernel/src/policy/matrix.rs`, and held to it by a test: `MEDTECH_WRITE=1 cargo test -p medtech-kernel the_page` writes it anew. -->\n
One function decides for REST, search, live channels, rooms and devices, in this order; a denial at any step stands, and what nothing allows is
denied:

1. the clinic is served, and the person known surely enough (two factors, where the clinic demands them, for everything clinical);
2. the scopes of the application that acts for them (SMART App Launch 2.2), and the patient it was launched with;
3. their roles, as below (`kernel/src/policy/table.rs` is the whole of it);
4. their relation to the patient or the thing: `self`, `proxy.appointments`, `proxy.results` and `proxy.messages`, `treats` (from Appointment,
   Encounter, CareTeam, EpisodeOfCare, ServiceRequest and the patient's practitioner, each for its time), `break_glass` (one patient, one hour),
   `member`, `host`, `participant`, `colleague`, `feeds`;
5. the patient's Consent; 6. security labels; 7. what is left out of what they see.

Whoever is in a visit's room is asked for again when access was withdrawn, and every 30 seconds. Hosts must still be of the staff and not be denied by
the patient; colleagues must still see the chart. A day's appointments are those that each may see in the record, with its patient.\n";

const PROXIES: &str = "\n## Standing for a patient\n
Whoever stands for a patient has the parts of the record that were agreed, until the end that was agreed, and no longer than the patient is a minor
where that was the reason. Who has all the parts has what the patients themselves have, but for the list of who saw the record. Who has some reads
these types and changes nothing; the chart and the live channel of the patient are open to `results`, and say no more than that and who the patient
is. Conversations, their files and visits are open to who takes part in them (`member`, `participant`), whatever the part.\n
| part | may | types |\n|---|---|---|";

const ELEMENTS: &str = "\nA write of anything else of that type by that role is answered 403 and names the element. Security labels (`meta.security`) are closed to these
roles, too. Who is not in the table may write every element of what their role lets them write. What is hidden from a writer is kept as it was, whatever they send.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_tables_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security/access.md");
        if std::env::var_os("MEDTECH_WRITE").is_some() {
            std::fs::write(path, document()).expect("the page");
        }
        let page = std::fs::read_to_string(path).expect("the page");
        assert_eq!(
            page,
            document(),
            "docs/security/access.md is not what the tables say: write it anew"
        );
    }

    #[test]
    fn every_rule_of_a_thing_is_shown() {
        // Each kind that a rule names, read off its text: a rule for a new kind must come into the list.
        let text = include_str!("table.rs");
        let rules = &text[text.find("pub(super) fn rule(").expect("the rules")..];
        let parts: Vec<&str> = rules.split('"').collect();
        for pair in parts.chunks(2) {
            let [before, kind] = pair else { continue };
            // The first name of a match arm, or one more of it.
            let is_kind = before.ends_with("        (") || before.ends_with(" | ");
            assert!(!is_kind || KINDS.contains(kind), "{kind}");
        }
        for kind in KINDS {
            let shown = matrix().roles.iter().any(|r| r.things.iter().any(|t| t.kind == *kind));
            assert!(shown, "{kind}: nobody may do anything with it");
        }
    }

    #[test]
    fn administrators_see_clinical_content_in_an_emergency_alone() {
        let all = matrix();
        let admin = all.roles.iter().find(|r| r.role == "admin").expect("admin");
        for g in admin
            .records
            .iter()
            .filter(|g| matches!(g.class, "clinical" | "encounter"))
        {
            assert_eq!((g.letters, g.breadth), ("rs", "broken"));
        }
    }
}
