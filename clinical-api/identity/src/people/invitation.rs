//! Asking somebody in: a user without any proof yet, and a mail with a link by which they choose one.

use super::{name, roles, store};
use crate::{
    Identity, NewUser, User, address, audited,
    mail::{self, AccountMail, Letter},
    store as users, unknown_user,
};
use medtech_kernel::{Error, Result, Tenant, TenantId, Tx, auth::Role, clock::Millis, id, policy};
use uuid::Uuid;

const DAY: Millis = 24 * 3_600_000;

/// Someone who was asked in.
#[derive(Clone, Debug)]
pub struct Invited {
    pub user: User,
    /// `/enter#…` at the clinic's own address: whoever has it comes in, once.
    pub link: String,
    pub expires_at: Millis,
}

impl Identity {
    /// Makes a user and sends the invitation. `actor` is who asks.
    pub async fn invite(&self, tenant: TenantId, actor: &str, new: NewUser) -> Result<Invited> {
        let clinic = self.clinic(tenant)?;
        let user = self.draft(&new)?;
        let (secret, this) = (id::token(), self.clone_parts(&clinic));
        let actor = actor.to_owned();
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    this.add_in(tx, &user, None, &actor).await?;
                    this.send_in(tx, &user, &actor, &secret).await
                })
            })
            .await
    }

    /// Sends the invitation again; the link of before opens nothing any more.
    pub(crate) async fn invite_again(&self, tenant: TenantId, actor: &str, user: Uuid) -> Result<Invited> {
        let clinic = self.clinic(tenant)?;
        let (secret, this) = (id::token(), self.clone_parts(&clinic));
        let actor = actor.to_owned();
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    let person = store::one_in(tx, user).await?.ok_or_else(unknown_user)?;
                    if person.standing == super::Standing::Active {
                        return Err(Error::conflict(
                            "identity.not_invited",
                            "This person has come in already.",
                        ));
                    }
                    if !person.user.active {
                        this.room_in(tx).await?;
                        store::set_active(tx, user, true).await?;
                    }
                    store::drop_links(tx, user).await?;
                    this.send_in(
                        tx,
                        &User {
                            active: true,
                            ..person.user
                        },
                        &actor,
                        &secret,
                    )
                    .await
                })
            })
            .await
    }

    /// Takes an invitation back: the link opens nothing, and the person is locked until asked again.
    pub(crate) async fn withdraw(&self, tenant: TenantId, actor: &str, user: Uuid) -> Result<()> {
        let (actor, sessions, bus) = (actor.to_owned(), self.ctx.sessions.clone(), self.ctx.bus.clone());
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    let person = store::one_in(tx, user).await?.ok_or_else(unknown_user)?;
                    if !store::withdraw(tx, user).await? {
                        return Err(Error::conflict(
                            "identity.not_invited",
                            "There is no invitation to take back.",
                        ));
                    }
                    store::set_active(tx, user, false).await?;
                    store::drop_links(tx, user).await?;
                    let subject = person.user.subject();
                    sessions.revoke_subject(tx, &subject).await?;
                    let gone = User {
                        active: false,
                        ..person.user
                    };
                    crate::tell(&bus, tx, &gone).await?;
                    audited(tx, &actor, "update", &subject, "success", "invitation withdrawn").await
                })
            })
            .await
    }

    pub(crate) fn clinic(&self, tenant: TenantId) -> Result<Tenant> {
        let unknown = || Error::not_found("tenant.unknown", "There is no such clinic.");
        self.ctx.tenants.by_id(tenant).ok_or_else(unknown)
    }

    /// Where links of a clinic lead.
    pub(crate) fn address_of(&self, clinic: &Tenant) -> String {
        self.ctx.tenants.address_of(clinic, &self.ctx.config.public_url())
    }

    /// A user as it will be stored, everything checked.
    pub(crate) fn draft(&self, new: &NewUser) -> Result<User> {
        Ok(User {
            id: id::new_id(&self.ctx.clock),
            email: address(&new.email)?,
            name: name(&new.name)?,
            roles: roles(new.roles.clone())?,
            active: true,
            practitioner: new.practitioner.clone(),
            patient: new.patient.clone(),
        })
    }

    pub(crate) fn clone_parts(&self, clinic: &Tenant) -> Parts {
        Parts {
            bus: self.ctx.bus.clone(),
            base: self.address_of(clinic),
            clinic: clinic.clone(),
        }
    }
}

/// What a transaction needs of the module.
pub(crate) struct Parts {
    bus: medtech_kernel::bus::Bus,
    clinic: Tenant,
    base: String,
}

impl Parts {
    /// 403 `tenant.quota_users` when the clinic has as many people as it may.
    pub(crate) async fn room_in(&self, tx: &mut Tx) -> Result<()> {
        let Some(most) = self.clinic.quotas.users else {
            return Ok(());
        };
        if store::count_in(tx).await? < i64::from(most) {
            return Ok(());
        }
        Err(Error::forbidden(
            "tenant.quota_users",
            format!("Your clinic may have {most} people. Lock someone who has left, or ask for more."),
        ))
    }

    /// Stores a new user with what they are in the record, and tells who listens.
    pub(crate) async fn add_in(&self, tx: &mut Tx, user: &User, password: Option<&str>, actor: &str) -> Result<()> {
        self.room_in(tx).await?;
        super::own_roles::known_in(tx, &user.roles).await?;
        if !users::insert(tx, user, password).await? {
            return Err(Error::conflict(
                "identity.email_taken",
                "There is a user with this address already.",
            ));
        }
        let subject = user.subject();
        for (kind, id) in [("practitioner", &user.practitioner), ("patient", &user.patient)] {
            if let Some(id) = id {
                policy::relate(tx, &subject, "self", &format!("{kind}:{id}"), None).await?;
            }
        }
        crate::tell(&self.bus, tx, user).await?;
        let detail = format!("user, roles {}", super::words(&user.roles));
        audited(tx, actor, "create", &subject, "success", &detail).await
    }

    /// The link and the mail that carries it.
    pub(crate) async fn send_in(&self, tx: &mut Tx, user: &User, actor: &str, secret: &str) -> Result<Invited> {
        let expires_at = tx.now() + i64::from(self.clinic.settings.invitation_days) * DAY;
        // Whoever sends it does not know in which browser it will be opened.
        let link = users::NewLink {
            user: user.id,
            expires_at,
            uses: 1,
            browser: None,
            birth_date: false,
            reset: false,
        };
        users::insert_link(tx, id::sha256(secret.as_bytes()), &link).await?;
        store::invite(tx, user.id, actor, expires_at).await?;
        let language = store::profile_in(tx, user.id).await?.language;
        let link = format!("{}/enter#{secret}", self.base);
        let path = format!("/enter#{secret}");
        let mail = AccountMail {
            origin: Some(&self.base),
            path: Some(&path),
            language: Some(language.as_deref().unwrap_or(&self.clinic.settings.language)),
            until_at: Some(expires_at),
            ..AccountMail::to(user, Letter::Invitation)
        };
        mail::record(&self.bus, tx, user, &mail).await?;
        audited(tx, actor, "create", &user.subject(), "success", "invitation").await?;
        Ok(Invited {
            user: user.clone(),
            link,
            expires_at,
        })
    }
}

/// The first administrator of a new clinic.
pub(crate) fn first(email: String, name: String) -> NewUser {
    NewUser {
        email,
        name,
        roles: vec![Role::Admin],
        password: None,
        practitioner: None,
        patient: None,
    }
}

impl Identity {
    /// Asks a new clinic's first administrator in; the link is for whoever made the clinic to pass on, besides the mail.
    pub async fn invite_first(&self, tenant: TenantId, actor: &str, email: String, name: String) -> Result<Invited> {
        self.invite(tenant, actor, first(email, name)).await
    }
}

impl Identity {
    /// How many people of a clinic can sign in.
    pub async fn count(&self, tenant: TenantId) -> Result<i64> {
        store::count(&self.ctx.db, tenant).await
    }

    /// The people of a clinic by number, as JSON, for an export; after the last one seen.
    pub async fn export(&self, tenant: TenantId, after: Uuid, limit: i64) -> Result<Vec<(Uuid, serde_json::Value)>> {
        let rows = store::all(&self.ctx.db, tenant, after, limit).await?;
        let shown = |(u, at): (User, Millis)| {
            let value = serde_json::json!({
                "id": u.id, "email": u.email, "name": u.name, "roles": u.roles, "active": u.active,
                "practitioner": u.practitioner, "patient": u.patient, "created_at": medtech_kernel::clock::rfc3339(at),
            });
            (u.id, value)
        };
        Ok(rows.into_iter().map(shown).collect())
    }
}
