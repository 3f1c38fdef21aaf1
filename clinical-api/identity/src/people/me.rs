//! Everyone's own page: what they are called, how they are reached, how they like it; and the first minute of somebody who
//! was asked in.

use super::{name, store};
use crate::{Identity, User, audited, store as users, unknown_user};
use medtech_kernel::{Error, Result, Tenant, Tx, auth::Principal, tenant::LANGUAGES};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

#[derive(Debug, Serialize)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) email: String,
    /// Asked for, and not yet proved by the link that went there.
    pub(crate) new_email: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) phone: Option<String>,
    pub(crate) pronouns: Option<String>,
    /// What stands where nothing is chosen.
    pub(crate) defaults: Defaults,
    /// Asked in, and has not yet said how they will sign in.
    pub(crate) invited: bool,
    pub(crate) has_record: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Defaults {
    pub(crate) language: String,
    pub(crate) zone: Arc<str>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProfile {
    name: String,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    phone: Option<String>,
    #[serde(default)]
    pronouns: Option<String>,
}

/// How somebody likes it. A field that is absent stands at its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Preferences {
    theme: Theme,
    text_size: TextSize,
    contrast: Contrast,
    /// A sound when a patient arrives.
    arrival_sound: bool,
    /// Notices by mail besides those in the application.
    mail_notices: bool,
    captions: bool,
    clock: Clock,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            theme: Theme::Auto,
            text_size: TextSize::Normal,
            contrast: Contrast::Auto,
            arrival_sound: true,
            mail_notices: true,
            captions: false,
            clock: Clock::Auto,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Theme {
    Auto,
    Light,
    Dark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TextSize {
    Normal,
    Large,
    Larger,
    Largest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Contrast {
    Auto,
    More,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Clock {
    #[serde(rename = "auto")]
    Auto,
    #[serde(rename = "12")]
    Twelve,
    #[serde(rename = "24")]
    TwentyFour,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acceptance {
    /// How they write their own name.
    #[serde(default)]
    name: Option<String>,
    /// Absent: they will use a passkey, or links.
    #[serde(default)]
    password: Option<String>,
}

/// How mails reach somebody.
pub(crate) struct Contact {
    pub(crate) mails: bool,
    pub(crate) language: Option<String>,
}

pub(crate) async fn contact_in(tx: &mut Tx, user: Uuid) -> Result<Contact> {
    let stored = store::profile_in(tx, user).await?;
    Ok(Contact {
        mails: preferences_of(&stored)?.mail_notices,
        language: stored.language,
    })
}

fn preferences_of(stored: &store::Profile) -> Result<Preferences> {
    match &stored.preferences {
        None => Ok(Preferences::default()),
        Some(text) => serde_json::from_str(text).map_err(|e| Error::internal("identity.preferences", e)),
    }
}

fn own_id(who: &Principal) -> Result<Uuid> {
    let id = who.subject.strip_prefix("user:").and_then(|id| id.parse().ok());
    id.ok_or_else(|| Error::forbidden("identity.not_a_user", "This is for people who signed in."))
}

fn shown(user: User, new_email: Option<String>, stored: store::Profile, clinic: &Tenant, invited: bool) -> Profile {
    Profile {
        name: user.name,
        email: user.email,
        new_email,
        language: stored.language,
        zone: stored.zone,
        phone: stored.phone,
        pronouns: stored.pronouns,
        defaults: Defaults {
            language: clinic.settings.language.clone(),
            zone: clinic.zone.clone(),
        },
        invited,
        has_record: user.patient.is_some(),
    }
}

impl NewProfile {
    fn check(&self) -> Result<()> {
        let wrong = |code, text| Err(Error::unprocessable(code, text));
        if self.language.as_deref().is_some_and(|l| !LANGUAGES.contains(&l)) {
            return wrong("identity.language", "This language is not one of the product's.");
        }
        if self
            .zone
            .as_deref()
            .is_some_and(|z| jiff::tz::TimeZone::get(z).is_err())
        {
            return wrong("tenant.zone", "The time zone is not one of the IANA database.");
        }
        let phone = |p: &str| {
            let digits = p.chars().filter(char::is_ascii_digit).count();
            (5..=15).contains(&digits)
                && p.len() <= 30
                && p.chars().all(|c| c.is_ascii_digit() || " +-()/.".contains(c))
        };
        if self.phone.as_deref().is_some_and(|p| !phone(p)) {
            return wrong("identity.phone", "A phone number has 5 to 15 digits.");
        }
        if self
            .pronouns
            .as_deref()
            .is_some_and(|p| p.chars().count() > 40 || p.chars().any(char::is_control))
        {
            return wrong("identity.pronouns", "Pronouns have at most 40 characters.");
        }
        Ok(())
    }
}

fn given(text: Option<String>) -> Option<String> {
    text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}

impl Identity {
    pub(crate) async fn profile(&self, who: &Principal) -> Result<Profile> {
        let (id, clinic) = (own_id(who)?, self.clinic(who.tenant)?);
        let user = users::by_id(&self.ctx.db, who.tenant, id)
            .await?
            .ok_or_else(unknown_user)?;
        let stored = store::profile(&self.ctx.db, who.tenant, id).await?;
        let invited = store::has_open_invitation(&self.ctx.db, who.tenant, id).await?;
        let new_email = self.address_to_be(who.tenant, id).await?;
        Ok(shown(user, new_email, stored, &clinic, invited))
    }

    pub(crate) async fn set_profile(&self, who: &Principal, new: NewProfile) -> Result<Profile> {
        let id = own_id(who)?;
        let new = NewProfile {
            name: name(&new.name)?,
            language: given(new.language),
            zone: given(new.zone),
            phone: given(new.phone),
            pronouns: given(new.pronouns),
        };
        new.check()?;
        let (bus, actor) = (self.ctx.bus.clone(), who.subject.clone());
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let user = users::by_id_in(tx, id).await?.ok_or_else(unknown_user)?;
                    let stored = store::profile_in(tx, id).await?;
                    let user = User { name: new.name, ..user };
                    store::update(tx, &user).await?;
                    let changed = store::Profile {
                        language: new.language,
                        zone: new.zone,
                        phone: new.phone,
                        pronouns: new.pronouns,
                        preferences: stored.preferences,
                    };
                    store::put_profile(tx, id, &changed).await?;
                    crate::tell(&bus, tx, &user).await?;
                    audited(tx, &actor, "update", &actor, "success", "profile").await
                })
            })
            .await?;
        self.profile(who).await
    }

    pub(crate) async fn preferences(&self, who: &Principal) -> Result<Preferences> {
        preferences_of(&store::profile(&self.ctx.db, who.tenant, own_id(who)?).await?)
    }

    pub(crate) async fn set_preferences(&self, who: &Principal, new: Preferences) -> Result<Preferences> {
        let id = own_id(who)?;
        let text = serde_json::to_string(&new).map_err(|e| Error::internal("identity.preferences", e))?;
        let (bus, actor) = (self.ctx.bus.clone(), who.subject.clone());
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let user = users::by_id_in(tx, id).await?.ok_or_else(unknown_user)?;
                    let stored = store::profile_in(tx, id).await?;
                    let changed = store::Profile {
                        preferences: Some(text),
                        ..stored
                    };
                    store::put_profile(tx, id, &changed).await?;
                    crate::tell(&bus, tx, &user).await?;
                    audited(tx, &actor, "update", &actor, "success", "preferences").await
                })
            })
            .await?;
        Ok(new)
    }

    /// Somebody who was asked in has come, and says how they will sign in from now on.
    pub(crate) async fn accept_invitation(&self, who: &Principal, with: Acceptance) -> Result<Profile> {
        let id = own_id(who)?;
        // The session that the link opened is the proof; an old one is none.
        who.require_fresh(self.ctx.clock.now_ms())?;
        let new_name = with.name.as_deref().map(name).transpose()?;
        let password = match &with.password {
            Some(password) => {
                let user = users::by_id(&self.ctx.db, who.tenant, id)
                    .await?
                    .ok_or_else(unknown_user)?;
                Some(self.new_password(who.tenant, password, &user).await?)
            }
            None => None,
        };
        let (bus, actor) = (self.ctx.bus.clone(), who.subject.clone());
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    if !store::accept(tx, id).await? {
                        return Err(Error::conflict("identity.not_invited", "There is no open invitation."));
                    }
                    let user = users::by_id_in(tx, id).await?.ok_or_else(unknown_user)?;
                    let user = User {
                        name: new_name.unwrap_or_else(|| user.name.clone()),
                        ..user
                    };
                    store::update(tx, &user).await?;
                    if let Some(phc) = password {
                        store::set_password(tx, id, Some(phc)).await?;
                    }
                    store::drop_links(tx, id).await?;
                    crate::tell(&bus, tx, &user).await?;
                    audited(tx, &actor, "update", &actor, "success", "invitation accepted").await
                })
            })
            .await?;
        self.profile(who).await
    }
}
