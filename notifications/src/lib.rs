//! Notifications: from durable events to boards, people and mailboxes, with retries, a log and an end to trying.
//!
//! [`service`] has the acts, [`model`] their values and the words of a mail. Two groups consume: `notifications` what is
//! to be told, and [`MAIL_GROUP`] what is to be sent, so that a slow mail server never delays a board.

mod http;
mod letters;
mod mail;
pub mod model;
mod outbox_page;
pub mod service;
mod store;

pub use mail::is_mail_plain;
pub use store::{Attempt, SHEETS};

use axum::Router;
use mail::Mailer;
use medtech_kernel::{ChannelRule, Ctx, Error, Migration, Module, Result, bus::Event, db::Script, policy::Action};
use std::sync::Arc;
use tokio::{sync::watch, task::JoinHandle};

/// The module. Made once; shared.
pub struct Notifications {
    pub(crate) ctx: Ctx,
    pub(crate) mailer: Mailer,
}

/// The group that sends.
pub const MAIL_GROUP: &str = "notifications.mail";
const MAIL_DUE: &str = "notifications.mail_due";

impl Notifications {
    /// Reads the mail configuration and registers [`MAIL_GROUP`].
    pub fn new(ctx: Ctx) -> Result<Self> {
        let mailer = Mailer::open(&ctx.config.mail)?;
        ctx.bus.register(MAIL_GROUP, &[MAIL_DUE]);
        Ok(Self { ctx, mailer })
    }

    /// Sends what is due, until `stop` turns true. What the module consumes is delivered by its composer.
    #[must_use]
    pub fn start(self: Arc<Self>, stop: watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
        let (bus, tenants) = (self.ctx.bus.clone(), self.ctx.tenants.clone());
        let sender = bus.consume(MAIL_GROUP, tenants, stop, move |event| {
            let this = self.clone();
            async move { this.mail_due(event).await }
        });
        vec![sender]
    }

    /// The local outbox page, `/dev/outbox`, to be merged at the root.
    pub fn outbox_routes(self: Arc<Self>) -> Router {
        outbox_page::routes(self)
    }
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        module: "notifications",
        number: 1,
        sql: Script::Both(include_str!("../migrations/0001_init.sql")),
    },
    Migration {
        module: "notifications",
        number: 2,
        sql: Script::Both(include_str!("../migrations/0002_account_mail.sql")),
    },
    Migration {
        module: "notifications",
        number: 3,
        sql: Script::Both(include_str!("../migrations/0003_letter_until.sql")),
    },
];

const CHANNELS: &[ChannelRule] = &[
    ChannelRule {
        kind: "user",
        subscribe: Action::Subscribe,
        history: 100,
        ttl_ms: 10 * 60 * 1000,
        presence: false,
    },
    ChannelRule {
        kind: "board",
        subscribe: Action::Subscribe,
        history: 200,
        ttl_ms: 10 * 60 * 1000,
        presence: false,
    },
];

impl Module for Notifications {
    const NAME: &'static str = "notifications";

    fn migrations() -> &'static [Migration] {
        MIGRATIONS
    }

    fn routes(self: Arc<Self>) -> Router {
        http::routes(self)
    }

    fn channels() -> &'static [ChannelRule] {
        CHANNELS
    }

    fn consumes() -> &'static [&'static str] {
        &["account.mail", "alert.raised", "user.changed"]
    }

    async fn on_event(&self, event: Event) -> Result<()> {
        match &*event.kind {
            "account.mail" => self.account_mail(event).await,
            "alert.raised" => self.alert_raised(event).await,
            "user.changed" => self.user_changed(event).await,
            _ => Err(Error::internal(
                "notifications.event",
                "an event of a kind that was not asked for",
            )),
        }
    }
}
