//! Mails about an account: recorded as durable events for the module that sends.

use crate::{Identity, User};
use medtech_kernel::{
    Result, Tx,
    bus::{Bus, Event},
    clock::Millis,
};
use serde::Serialize;

/// What a mail says. Its words are with the module that sends it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Letter {
    /// Carries the path of a sign-in link.
    SignInLink,
    /// Somebody asked for a link to an account that does not sign in by link.
    SignInLinkRefused,
    /// Carries the path of a link by which a new password is chosen.
    PasswordReset,
    /// What the person signs in with was changed.
    SecurityChanged,
    /// Carries the path of the link by which somebody comes in for the first time.
    Invitation,
    /// To a new address: carries the path of the link that proves it.
    AddressConfirm,
    /// To whose address it is already: somebody wanted it for their account.
    AddressTaken,
    /// To the address of now: another one was asked for. Carries the path that takes it back.
    AddressAsked,
    /// To the address of before: it is another one now. Carries the path that takes it back.
    AddressChanged,
    /// To both: an administrator changed it.
    AddressMoved,
}

/// Body of `account.mail`, whose key is the subject.
#[derive(Serialize)]
pub(crate) struct AccountMail<'a> {
    pub(crate) address: &'a str,
    pub(crate) name: &'a str,
    pub(crate) letter: Letter,
    /// The site's own address; absent: the installation's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<&'a str>,
    /// Where it points to, with its secret behind `#`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<&'a str>,
    /// Absent: the one that the module which sends knows of the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) language: Option<&'a str>,
    /// When that way closes, where the letter says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until_at: Option<Millis>,
}

impl<'a> AccountMail<'a> {
    pub(crate) fn to(user: &'a User, letter: Letter) -> Self {
        Self {
            address: &user.email,
            name: &user.name,
            letter,
            origin: None,
            path: None,
            language: None,
            until_at: None,
        }
    }
}

/// Records the mail in the transaction of what it tells of.
pub(crate) async fn record(bus: &Bus, tx: &mut Tx, user: &User, mail: &AccountMail<'_>) -> Result<()> {
    let event = Event::of(tx, "account.mail", user.subject(), mail)?;
    bus.record(tx, event).await
}

impl Identity {
    pub(crate) async fn mail(
        &self,
        tx: &mut Tx,
        user: &User,
        letter: Letter,
        origin: Option<&str>,
        path: Option<&str>,
    ) -> Result<()> {
        let mail = AccountMail {
            origin,
            path,
            ..AccountMail::to(user, letter)
        };
        record(&self.ctx.bus, tx, user, &mail).await
    }
}
