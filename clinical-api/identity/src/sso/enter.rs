//! Who somebody of a provider is here: known by their identifier there, found by an address it has verified, or made.

use super::{exchange::Person, provider::Provider, store};
use crate::{Identity, NewUser, Opened, User, store as people};
use medtech_kernel::{Error, Result, TenantId, auth::Role};

fn unknown() -> Error {
    Error::forbidden(
        "sso.unknown_person",
        "You have no account here. Please ask the clinic to invite you.",
    )
}

impl Identity {
    /// A session for a person of a provider.
    pub(super) async fn enter(
        &self,
        tenant: TenantId,
        provider: &Provider,
        person: Person,
        device: &str,
    ) -> Result<Opened> {
        let user = self.someone(tenant, provider, &person).await?;
        let assurance = provider.settings.assurance(&person);
        let (this, provider, device) = (self.clone(), provider.id.clone(), device.to_owned());
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    // Locked a moment ago is locked.
                    let user = people::by_id_in(tx, user.id)
                        .await?
                        .filter(|u| u.active)
                        .ok_or_else(unknown)?;
                    store::link(tx, &provider, &person.sub, user.id).await?;
                    let opened = this
                        .open(tx, user, assurance, "outside provider", &device.into())
                        .await?;
                    store::opened(tx, opened.session, &provider, &person.sub, person.sid.as_deref()).await?;
                    // What they proved some time ago is not fresh for being told now.
                    if let Some(at) = person.auth_time {
                        this.ctx.sessions.proved_at(tx, opened.session, at).await?;
                    }
                    Ok(opened)
                })
            })
            .await
    }

    async fn someone(&self, tenant: TenantId, provider: &Provider, person: &Person) -> Result<User> {
        if let Some(id) = store::who(&self.ctx.db, tenant, &provider.id, &person.sub).await? {
            let user = people::by_id(&self.ctx.db, tenant, id).await?;
            return user.filter(|u| u.active).ok_or_else(unknown);
        }
        // A provider speaks for the domains it was given, and for no other address.
        let email = person
            .email
            .as_deref()
            .map(str::trim)
            .unwrap_or_default()
            .to_lowercase();
        let domain = email.rsplit_once('@').map(|(_, domain)| domain).unwrap_or_default();
        if !provider.settings.domains.iter().any(|d| d == domain) {
            return Err(unknown());
        }
        if let Some(user) = self.find_by_email(tenant, &email).await? {
            return Some(user).filter(|u| u.active).ok_or_else(unknown);
        }
        let role: Role = provider.settings.create.ok_or_else(unknown)?;
        let name: String = person.name.as_deref().unwrap_or(&email).chars().take(200).collect();
        let new = NewUser {
            name: if name.trim().is_empty() { email.clone() } else { name },
            email,
            roles: vec![role],
            password: None,
            practitioner: None,
            patient: None,
        };
        self.create_user(tenant, new).await
    }
}
