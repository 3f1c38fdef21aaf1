//! The people of a clinic: invited, given roles, locked, let go; what they say about themselves; and who acts for whom.
//!
//! [`admin`] is what administrators do, [`invitation`] how somebody comes in, [`me`] everyone's own page, [`proxy`] the
//! parent or carer of a patient, [`records`] the resource that a person is.

mod admin;
mod http;
mod invitation;
mod me;
mod own_roles;
mod proxy;
mod records;
pub(crate) mod store;

pub(crate) use http::routes;
pub use invitation::Invited;
pub(crate) use me::contact_in;
pub(crate) use own_roles::routes as role_routes;

use medtech_kernel::{Error, Result, auth::Role};

/// How a person stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    Active,
    /// Asked in, and not here yet.
    Invited,
    /// Asked in, and the invitation's time is over.
    Expired,
    Locked,
}

/// The roles a person can be given, each once, in one order.
pub(crate) fn roles(mut roles: Vec<Role>) -> Result<Vec<Role>> {
    const OF_PEOPLE: [Role; 4] = [Role::Admin, Role::Clinician, Role::Staff, Role::Patient];
    if roles.is_empty() || roles.iter().any(|r| !OF_PEOPLE.contains(r) && r.own().is_none()) {
        return Err(no_role());
    }
    // Those of the clinic's own come last.
    roles.sort_by_key(|r| (OF_PEOPLE.iter().position(|o| o == r).unwrap_or(OF_PEOPLE.len()), *r));
    roles.dedup();
    Ok(roles)
}

fn no_role() -> Error {
    Error::unprocessable(
        "identity.roles",
        "A user is an administrator, clinician, member of staff or patient, or has a role of the clinic's own.",
    )
}

pub(crate) fn name(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
        return Err(Error::unprocessable("identity.name", "A name has 1 to 200 characters."));
    }
    Ok(name.to_owned())
}

pub(crate) fn words(roles: &[Role]) -> String {
    let names: Vec<String> = roles.iter().map(ToString::to_string).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests;
