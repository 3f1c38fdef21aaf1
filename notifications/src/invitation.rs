//! The mail that asks somebody in. Its link is a secret, so it is kept in no table of ours: the event carries it until the
//! mail server has taken it, or it is given up.

use crate::{
    MAIL_GROUP, Notifications,
    mail::Attempted,
    model::{Letter, MAX_ATTEMPTS, backoff},
    store,
};
use medtech_kernel::{
    Result,
    bus::{self, Event},
    clock::Millis,
    id,
};
use serde::{Deserialize, Serialize};

/// Durable event of whoever keeps the accounts; its key is the subject.
pub(crate) const INVITED: &str = "user.invited";

#[derive(Clone, Serialize, Deserialize)]
struct Invited {
    to: String,
    name: String,
    language: String,
    link: String,
    expires_at: Millis,
    /// Attempts that failed.
    #[serde(default)]
    attempts: i64,
}

impl Notifications {
    /// One attempt. A failure is tried again later, while the link still opens.
    pub(crate) async fn invited(&self, event: Event) -> Result<()> {
        let invited: Invited = event.parse()?;
        let clinic = self.ctx.tenants.by_id(event.tenant);
        let day = clinic.as_ref().map(|t| t.day(invited.expires_at)).unwrap_or_default();
        let name = clinic.map(|t| t.name);
        let letter = Letter::invitation(
            &invited.language,
            name.as_deref().unwrap_or("MedTech"),
            &invited.name,
            &invited.link,
            &day,
        );
        let attempted = match &self.mailer.smtp {
            Some(smtp) => self.mailer.send(smtp, event.id, event.at, &invited.to, &letter).await,
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
                    if !bus::once(tx, MAIL_GROUP, event.id).await? {
                        return Ok(());
                    }
                    let number = invited.attempts + 1;
                    match attempted {
                        Attempted::Sent if local => {
                            store::keep_mail(tx, event.id, &from, &invited.to, &letter).await?;
                        }
                        Attempted::Sent => {}
                        Attempted::Failed(_) if number < MAX_ATTEMPTS && tx.now() < invited.expires_at => {
                            let [dice] = id::random::<1>();
                            let due = tx.now() + backoff(number - 1, dice);
                            let again = Invited {
                                attempts: number,
                                ..invited
                            };
                            let again = Event::of(tx, INVITED, event.key.clone(), &again)?;
                            ctx.bus.record_at(tx, again, due).await?;
                        }
                        Attempted::Failed(why) | Attempted::Refused(why) => {
                            tracing::warn!(tenant = %tx.tenant(), subject = event.key, number, why, "an invitation could not be sent");
                        }
                    }
                    Ok(())
                })
            })
            .await
    }
}
