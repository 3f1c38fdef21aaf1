//! What happens to an alert: onto the board, to those concerned, out by mail; and what people do with it.

use crate::{
    MAIL_DUE, Notifications, letters,
    mail::Attempted,
    model::{Alert, AlertRaised, Letter, MAX_ATTEMPTS, Notification, Party, UserChanged, backoff, own_path},
    store::{self, Contact, Way},
};
use medtech_kernel::{
    Ctx, Error, Module, Result, Tx, audit,
    auth::Principal,
    bus::{self, Event},
    id,
    policy::{Action, Resource},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Body of the durable event `notifications.mail_due`.
#[derive(Serialize, Deserialize)]
struct MailDue {
    delivery: Uuid,
}

impl Notifications {
    /// `alert.raised`: stores the alert, shows it on the board, tells each recipient once.
    pub(crate) async fn alert_raised(&self, event: Event) -> Result<()> {
        let mut raised: AlertRaised = event.parse()?;
        raised.alert.link = own_path(raised.alert.link.take());
        // Only this service acknowledges.
        (raised.alert.acknowledged_by, raised.alert.acknowledged_at) = (None, None);
        let ctx = self.ctx.clone();
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    if !bus::once(tx, Self::NAME, event.id).await? || !store::add_alert(tx, &raised.alert).await? {
                        return Ok(());
                    }
                    let channel = format!("board:{}", raised.alert.board);
                    let live = Event::of(
                        tx,
                        "alert.raised",
                        channel.clone(),
                        &serde_json::json!({ "alert": raised.alert }),
                    )?;
                    ctx.bus.publish_after(tx, live.on(channel));
                    for subject in raised.recipients.iter().collect::<BTreeSet<_>>() {
                        tell(&ctx, tx, subject, &raised.alert).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// `user.changed`: keeps the contact up to date.
    pub(crate) async fn user_changed(&self, event: Event) -> Result<()> {
        let change: UserChanged = event.parse()?;
        let subject = change.subject.clone().unwrap_or_else(|| event.key.clone());
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    if !bus::once(tx, Self::NAME, event.id).await? {
                        return Ok(());
                    }
                    if change.active == Some(false) {
                        return store::drop_contact(tx, &subject).await;
                    }
                    let known = store::contact(tx, &subject).await?;
                    let known = known.unwrap_or(Contact {
                        name: String::new(),
                        email: None,
                        language: "en".to_owned(),
                    });
                    let contact = Contact {
                        name: change.name.unwrap_or(known.name),
                        email: change.email.or(known.email).filter(|e| !e.is_empty()),
                        language: change.language.unwrap_or(known.language),
                    };
                    store::put_contact(tx, &subject, &contact).await
                })
            })
            .await
    }

    /// `account.mail`: a mail about somebody's account, to the address that the account has.
    pub(crate) async fn account_mail(&self, event: Event) -> Result<()> {
        let mail: letters::AccountMail = event.parse()?;
        let url = self.ctx.config.public_url();
        let url = mail
            .path
            .as_deref()
            .map(|path| format!("{}{path}", mail.origin.as_deref().unwrap_or(&url)));
        let ctx = self.ctx.clone();
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    if !bus::once(tx, Self::NAME, event.id).await? {
                        return Ok(());
                    }
                    let known = store::contact(tx, &event.key).await?;
                    let contact = Contact {
                        language: mail
                            .language
                            .or(known.map(|c| c.language))
                            .unwrap_or_else(|| "en".to_owned()),
                        name: mail.name,
                        email: None,
                    };
                    let way = Way {
                        letter: mail.letter.name(),
                        url,
                        until_at: mail.until_at,
                    };
                    let delivery = store::add_delivery(tx, event.id, &mail.address, &contact, way).await?;
                    ctx.bus.record(tx, mail_event(tx, delivery)?).await
                })
            })
            .await
    }

    /// `notifications.mail_due`: one attempt. What it came to is logged; a failure is tried again later, until it is given
    /// up. The event itself always succeeds, so one dead mailbox holds nobody up.
    pub(crate) async fn mail_due(&self, event: Event) -> Result<()> {
        let MailDue { delivery } = event.parse()?;
        let Some(row) = store::delivery(&self.ctx.db, event.tenant, delivery)
            .await?
            .filter(|d| d.pending)
        else {
            return Ok(());
        };
        let tenant = self.ctx.tenants.by_id(event.tenant);
        let until = tenant.as_ref().zip(row.until_at).map(|(t, at)| t.day(at));
        let url = self.ctx.config.public_url();
        let clinic = tenant.as_ref().map_or("MedTech", |t| &*t.name);
        let letter = match letters::AccountLetter::parse(&row.letter) {
            Some(kind) => {
                let url = row.url.as_deref().unwrap_or(&url);
                kind.compose(&row.language, clinic, &row.name, url, until.as_deref())
            }
            None => Letter::compose(&row.language, clinic, &row.name, &url),
        };
        let attempted = match &self.mailer.smtp {
            Some(smtp) => self.mailer.send(smtp, delivery, event.at, &row.address, &letter).await,
            None => Attempted::Sent,
        };
        let (ctx, from, local) = (
            self.ctx.clone(),
            self.mailer.from.to_string(),
            self.mailer.smtp.is_none(),
        );
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    if !bus::once(tx, crate::MAIL_GROUP, event.id).await? {
                        return Ok(());
                    }
                    let number = row.attempts + 1;
                    let (state, outcome, detail) = match attempted {
                        Attempted::Sent if local => ("sent", "sent", "local outbox".to_owned()),
                        Attempted::Sent => ("sent", "sent", "smtp".to_owned()),
                        Attempted::Refused(why) => ("dead", "refused", why),
                        Attempted::Failed(why) if number >= MAX_ATTEMPTS => ("dead", "failed", why),
                        Attempted::Failed(why) => ("pending", "failed", why),
                    };
                    if !store::note_attempt(tx, delivery, number, state, outcome, &detail).await? {
                        return Ok(());
                    }
                    if local {
                        store::keep_mail(tx, delivery, &from, &row.address, &letter).await?;
                    }
                    match state {
                        "pending" => {
                            let [dice] = id::random::<1>();
                            let due = tx.now() + backoff(number - 1, dice);
                            ctx.bus.record_at(tx, mail_event(tx, delivery)?, due).await?;
                        }
                        "dead" => tracing::warn!(tenant = %tx.tenant(), %delivery, number, detail, "mail given up"),
                        _ => {}
                    }
                    Ok(())
                })
            })
            .await
    }

    /// The caller's own notifications, newest first.
    pub async fn list(&self, who: &Principal) -> Result<Vec<Notification>> {
        store::notifications(&self.ctx.db, who.tenant, &who.subject).await
    }

    /// Marks one of the caller's notifications as read.
    pub async fn mark_read(&self, who: &Principal, notification: Uuid) -> Result<()> {
        let subject = who.subject.clone();
        let known = self.ctx.db.write(who.tenant, move |tx| {
            Box::pin(async move { store::mark_read(tx, &subject, notification).await })
        });
        if known.await? {
            Ok(())
        } else {
            Err(Error::not_found(
                "notification.unknown",
                "There is no such notification.",
            ))
        }
    }

    /// The alerts of a board: open ones first, then the newest.
    pub async fn board(&self, who: &Principal, board: &str) -> Result<Vec<Alert>> {
        self.require(who, Action::Read, board).await?;
        store::board(&self.ctx.db, who.tenant, board).await
    }

    /// Takes an alert. Who was first stays; the answer says who.
    pub async fn acknowledge(&self, who: &Principal, alert: &str) -> Result<Alert> {
        let unknown = || Error::not_found("alert.unknown", "There is no such alert.");
        let found = store::alert(&self.ctx.db, who.tenant, alert).await?;
        // To those who may not see its board it does not exist.
        let board = found.map(|a| a.board).ok_or_else(unknown)?;
        self.require(who, Action::Write, &board).await.map_err(|_| unknown())?;
        let (ctx, who, alert) = (self.ctx.clone(), who.clone(), alert.to_owned());
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let by = Party {
                        subject: who.subject.clone(),
                        name: who.name.to_string(),
                    };
                    let first = store::acknowledge(tx, &alert, &by).await?;
                    let now = store::alert_in(tx, &alert).await?.ok_or_else(unknown)?;
                    if first {
                        let target = format!("alert:{alert}");
                        let entry = audit::Entry {
                            actor: &by.subject,
                            action: "update",
                            target: &target,
                            outcome: "success",
                            detail: "acknowledge",
                        };
                        audit::write(tx, entry).await?;
                        let channel = format!("board:{}", now.board);
                        let live = Event::of(
                            tx,
                            "alert.acknowledged",
                            channel.clone(),
                            &serde_json::json!({ "alert": now }),
                        )?;
                        ctx.bus.publish_after(tx, live.on(channel).by(&by.subject));
                    }
                    Ok(now)
                })
            })
            .await
    }

    /// The newest attempts of deliveries, for administrators.
    pub async fn deliveries(&self, who: &Principal) -> Result<Vec<store::Attempt>> {
        self.ctx
            .policy
            .require(who, Action::Read, &Resource::new("outbox", "deliveries"))
            .await?;
        store::log(&self.ctx.db, who.tenant).await
    }

    async fn require(&self, who: &Principal, action: Action, board: &str) -> Result<()> {
        self.ctx
            .policy
            .require(who, action, &Resource::new("board", board))
            .await
    }
}

/// Tells one person of an alert: in the application at once, and by mail where there is an address.
async fn tell(ctx: &Ctx, tx: &mut Tx, subject: &str, alert: &Alert) -> Result<()> {
    let notification = Notification {
        id: id::uuid_v7(tx.now()),
        kind: "alert".to_owned(),
        title: alert.title.clone(),
        link: alert.link.clone(),
        at: tx.now(),
        read_at: None,
    };
    let source = format!("alert:{}", alert.id);
    if !store::add_notification(tx, subject, &source, &notification).await? {
        return Ok(());
    }
    let body = serde_json::json!({ "notification": notification });
    let live = Event::of(tx, "notification.created", subject, &body)?;
    ctx.bus.publish_after(tx, live.on(subject));
    if let Some(contact) = store::contact(tx, subject).await?
        && let Some(address) = &contact.email
    {
        let delivery = store::add_delivery(tx, notification.id, address, &contact, Way::default()).await?;
        ctx.bus.record(tx, mail_event(tx, delivery)?).await?;
    }
    Ok(())
}

fn mail_event(tx: &Tx, delivery: Uuid) -> Result<Event> {
    Event::of(tx, MAIL_DUE, format!("delivery:{delivery}"), &MailDue { delivery })
}
