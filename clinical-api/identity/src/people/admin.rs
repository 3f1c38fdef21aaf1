//! What administrators do with the people of their clinic. Whatever takes rights away ends that person's sessions in the
//! same transaction, and with them their sockets and media.

use super::{Standing, name, roles, store, words};
use crate::{Identity, User, audited, mail::Letter, unknown_user};
use medtech_kernel::{
    Error, Result, TenantId, Tx,
    auth::{Principal, Role},
    policy,
};
use serde::Deserialize;
use uuid::Uuid;

/// What is to change; what is absent stays. An empty identifier unlinks.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Edit {
    pub(crate) name: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) roles: Option<Vec<Role>>,
    pub(crate) practitioner_id: Option<String>,
    pub(crate) patient_id: Option<String>,
}

/// What is done with somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Lock,
    Unlock,
    EndSessions,
    /// Everything they sign in with is forgotten; they come in by a new link.
    Reset,
}

impl Identity {
    /// Changes name, roles, and who the person is in the record. New roles end the sessions that carry the old ones.
    pub(crate) async fn edit(&self, who: &Principal, id: Uuid, edit: Edit) -> Result<store::Person> {
        // Who may act for whom is as good as a key: both ask for a fresh proof.
        if edit.email.is_some() || edit.roles.is_some() || edit.practitioner_id.is_some() || edit.patient_id.is_some() {
            who.require_fresh(self.ctx.clock.now_ms())?;
        }
        let new_name = edit.name.as_deref().map(name).transpose()?;
        let new_email = edit.email.as_deref().map(crate::address).transpose()?;
        if new_email.is_some() && who.subject == format!("user:{id}") {
            return Err(Error::conflict(
                "identity.email_own",
                "Your own address you change on your account's page, where the new one is proved.",
            ));
        }
        let new_roles = edit.roles.map(roles).transpose()?;
        for (kind, wanted) in [("Practitioner", &edit.practitioner_id), ("Patient", &edit.patient_id)] {
            if let Some(id) = wanted.as_deref().filter(|id| !id.is_empty()) {
                self.require_record(who.tenant, kind, id).await?;
            }
        }
        let (bus, sessions, actor) = (self.ctx.bus.clone(), self.ctx.sessions.clone(), who.subject.clone());
        let (this, parts) = (self.clone(), self.clone_parts(&self.clinic(who.tenant)?));
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let person = store::one_in(tx, id).await?.ok_or_else(unknown_user)?;
                    let before = person.user;
                    super::own_roles::known_in(tx, new_roles.as_deref().unwrap_or_default()).await?;
                    let linked = |wanted: Option<String>, now: &Option<String>| match wanted {
                        None => now.clone(),
                        Some(id) => Some(id).filter(|id| !id.is_empty()),
                    };
                    let after = User {
                        name: new_name.unwrap_or_else(|| before.name.clone()),
                        email: new_email.unwrap_or_else(|| before.email.clone()),
                        roles: new_roles.unwrap_or_else(|| before.roles.clone()),
                        practitioner: linked(edit.practitioner_id, &before.practitioner),
                        patient: linked(edit.patient_id, &before.patient),
                        ..before.clone()
                    };
                    if before.roles.contains(&Role::Admin) && !after.roles.contains(&Role::Admin) {
                        guard(tx, &before).await?;
                    }
                    if after == before {
                        return store::one_in(tx, id).await?.ok_or_else(unknown_user);
                    }
                    store::update(tx, &after).await?;
                    let subject = after.subject();
                    if before.email != after.email {
                        this.move_in(tx, &before, &after.email).await?;
                        // Nor does the address of before take it back: the administrator knows whom they speak with.
                        crate::address::store::end_all(tx, id).await?;
                        for to in [&before, &after] {
                            this.mail(tx, to, Letter::AddressMoved, None, None).await?;
                        }
                        if matches!(person.standing, Standing::Invited | Standing::Expired) {
                            parts.send_in(tx, &after, &actor, &medtech_kernel::id::token()).await?;
                        }
                    }
                    for (kind, old, new) in [
                        ("practitioner", &before.practitioner, &after.practitioner),
                        ("patient", &before.patient, &after.patient),
                    ] {
                        relink(tx, &subject, kind, old.as_deref(), new.as_deref()).await?;
                    }
                    let mut detail = Vec::new();
                    if before.roles != after.roles {
                        detail.push(format!("roles {} -> {}", words(&before.roles), words(&after.roles)));
                    }
                    if before.name != after.name {
                        detail.push("name".to_owned());
                    }
                    if before.email != after.email {
                        detail.push("e-mail address".to_owned());
                    }
                    if (&before.practitioner, &before.patient) != (&after.practitioner, &after.patient) {
                        let of = |u: &User| {
                            let part = |kind: &str, id: &Option<String>| id.as_ref().map(|id| format!("{kind}/{id}"));
                            let parts = [part("Practitioner", &u.practitioner), part("Patient", &u.patient)];
                            let parts: Vec<String> = parts.into_iter().flatten().collect();
                            if parts.is_empty() {
                                "none".to_owned()
                            } else {
                                parts.join(" ")
                            }
                        };
                        detail.push(format!("record {} -> {}", of(&before), of(&after)));
                    }
                    audited(tx, &actor, "update", &subject, "success", &detail.join(", ")).await?;
                    if before.roles != after.roles || detail.iter().any(|d| d.starts_with("record")) {
                        sessions.revoke_subject(tx, &subject).await?;
                    }
                    crate::tell(&bus, tx, &after).await?;
                    store::one_in(tx, id).await?.ok_or_else(unknown_user)
                })
            })
            .await
    }

    pub(crate) async fn act(&self, who: &Principal, id: Uuid, act: Act) -> Result<store::Person> {
        if matches!(act, Act::Reset | Act::Unlock) {
            who.require_fresh(self.ctx.clock.now_ms())?;
        }
        let parts = self.clone_parts(&self.clinic(who.tenant)?);
        let (bus, sessions, actor) = (self.ctx.bus.clone(), self.ctx.sessions.clone(), who.subject.clone());
        let this = self.clone();
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let person = store::one_in(tx, id).await?.ok_or_else(unknown_user)?;
                    let (subject, user) = (person.user.subject(), person.user);
                    let detail = match act {
                        Act::Lock => {
                            if user.active {
                                guard(tx, &user).await?;
                                store::set_active(tx, id, false).await?;
                                store::drop_links(tx, id).await?;
                            }
                            "locked"
                        }
                        Act::Unlock => {
                            if !user.active {
                                parts.room_in(tx).await?;
                                store::set_active(tx, id, true).await?;
                            }
                            "unlocked"
                        }
                        Act::EndSessions => "sessions ended",
                        Act::Reset => {
                            store::set_password(tx, id, None).await?;
                            store::drop_links(tx, id).await?;
                            this.reset_second_factors(tx, id).await?;
                            "sign-in reset"
                        }
                    };
                    if act != Act::Unlock {
                        sessions.revoke_subject(tx, &subject).await?;
                    }
                    audited(tx, &actor, "update", &subject, "success", detail).await?;
                    let now = store::one_in(tx, id).await?.ok_or_else(unknown_user)?;
                    crate::tell(&bus, tx, &now.user).await?;
                    if act == Act::Reset && now.standing == Standing::Active {
                        // They have nothing left to come in with but this.
                        parts
                            .send_in(tx, &now.user, &actor, &medtech_kernel::id::token())
                            .await?;
                    }
                    Ok(now)
                })
            })
            .await
    }

    /// 422 unless the record has such a resource.
    async fn require_record(&self, tenant: TenantId, kind: &'static str, id: &str) -> Result<()> {
        let found = self.records()?.read(tenant, &medtech_fhir::Access::All, kind, id).await;
        found.map(drop).map_err(|_| {
            let text = format!("There is no such {kind} in the record.");
            Error::unprocessable("identity.record_unknown", text)
        })
    }
}

/// A clinic is never left without somebody who can let others in.
async fn guard(tx: &mut Tx, user: &User) -> Result<()> {
    if !user.roles.contains(&Role::Admin) || !user.active || store::has_other_admins(tx, user.id).await? {
        return Ok(());
    }
    Err(Error::conflict(
        "identity.last_admin",
        "This is the clinic's last administrator. Make somebody else one first.",
    ))
}

async fn relink(tx: &mut Tx, subject: &str, kind: &str, old: Option<&str>, new: Option<&str>) -> Result<()> {
    if old == new {
        return Ok(());
    }
    if let Some(id) = old {
        policy::unrelate(tx, subject, "self", &format!("{kind}:{id}")).await?;
    }
    match new {
        Some(id) => policy::relate(tx, subject, "self", &format!("{kind}:{id}"), None).await,
        None => Ok(()),
    }
}
