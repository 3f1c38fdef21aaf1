//! The tables, as pure functions; decisions over a store are tested where they are asked for (FHIR, records, live channels).

use super::{
    Action, Resource,
    table::{Rule, rule},
};
use crate::{
    TenantId,
    auth::{Principal, Role},
};
use uuid::Uuid;

fn who(subject: &str, role: Role) -> Principal {
    Principal {
        tenant: TenantId::from_number(1),
        subject: subject.into(),
        roles: vec![role],
        session: Uuid::nil(),
        name: "x".into(),
        grant: Default::default(),
        proved_at: 0,
    }
}

#[test]
fn a_guest_is_never_allowed_by_role() {
    let guest = who("guest:g", Role::Guest);
    for kind in [
        "patient",
        "visit",
        "encounter",
        "conversation",
        "board",
        "queue",
        "device",
        "appointment",
        "tenant",
        "user",
        "alert",
    ] {
        for action in [
            Action::Read,
            Action::Write,
            Action::Subscribe,
            Action::Publish,
            Action::Admit,
            Action::Join,
            Action::Administer,
        ] {
            assert!(
                !matches!(rule(&guest, action, &Resource::new(kind, "1")), Rule::Allow(_)),
                "{kind} {action:?}"
            );
        }
    }
}

#[test]
fn a_device_reaches_only_itself() {
    let device = who("device:d", Role::Device);
    assert!(matches!(
        rule(&device, Action::Publish, &Resource::new("device", "d")),
        Rule::Allow(_)
    ));
    assert!(matches!(
        rule(&device, Action::Publish, &Resource::new("device", "e")),
        Rule::Deny(_)
    ));
}

#[test]
fn conversations_are_for_members_whatever_the_role() {
    let admin = who("user:a", Role::Admin);
    assert_eq!(
        rule(&admin, Action::Read, &Resource::new("conversation", "c")),
        Rule::Related(&["member"])
    );
}
