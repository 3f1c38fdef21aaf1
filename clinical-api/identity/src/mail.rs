//! Mails about an account: recorded as durable events for the module that sends.

use crate::{Identity, User};
use medtech_kernel::{Result, Tx, bus::Event};
use serde::Serialize;

/// What a mail says. Its words are with the module that sends it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Letter {
    /// Carries the path of a sign-in link.
    SignInLink,
    /// Somebody asked for a link to an account that does not sign in by link.
    SignInLinkRefused,
    /// What the person signs in with was changed.
    SecurityChanged,
}

/// Body of `account.mail`, whose key is the subject.
#[derive(Serialize)]
struct AccountMail<'a> {
    address: &'a str,
    name: &'a str,
    letter: Letter,
    /// The site's own address; absent: the installation's.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
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
        let body = AccountMail {
            address: &user.email,
            name: &user.name,
            letter,
            origin,
            path,
        };
        let event = Event::of(tx, "account.mail", user.subject(), &body)?;
        self.ctx.bus.record(tx, event).await
    }
}
