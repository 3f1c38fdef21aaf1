//! The way out for mails: an SMTP server, or the local outbox when none is configured.

use crate::model::Letter;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    address::Envelope,
    message::{Mailbox, header::ContentType},
};
use medtech_kernel::{Error, Result, clock::Millis, config};
use std::time::{Duration, UNIX_EPOCH};
use uuid::Uuid;

/// A server that says nothing for so long counts as failed.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Who sends, and through what.
pub(crate) struct Mailer {
    pub(crate) from: Mailbox,
    pub(crate) smtp: Option<AsyncSmtpTransport<Tokio1Executor>>,
}

/// How an attempt ended, in words for the delivery log: codes and classes, never the server's text (it may quote the
/// address or the mail).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attempted {
    Sent,
    /// Trying again is of no use.
    Refused(String),
    /// Trying again may help.
    Failed(String),
}

impl Mailer {
    /// Reads the configuration; a malformed address or URL stops the start, with its key named.
    pub(crate) fn open(config: &config::Mail) -> Result<Self> {
        let from = config
            .from
            .parse()
            .map_err(|e| Error::bad("config.mail_from", format!("mail.from: {e}")))?;
        let smtp = match &config.smtp {
            None => None,
            Some(url) => {
                let wrong = |e| Error::bad("config.mail_smtp", format!("mail.smtp: {e}"));
                let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).map_err(wrong)?;
                Some(builder.timeout(Some(TIMEOUT)).build())
            }
        };
        Ok(Self { from, smtp })
    }

    /// Hands a letter to the mail server. `id` becomes the Message-ID: a mail sent twice after a crash is recognised as
    /// one by the reader's program.
    pub(crate) async fn send(
        &self,
        smtp: &AsyncSmtpTransport<Tokio1Executor>,
        id: Uuid,
        at: Millis,
        to: &str,
        letter: &Letter,
    ) -> Attempted {
        let message = match self.message(id, at, to, letter) {
            Ok(message) => message,
            Err(why) => return Attempted::Refused(why),
        };
        match smtp.send(message).await {
            Ok(_) => Attempted::Sent,
            Err(e) => {
                let why = match e.status() {
                    Some(code) => format!("smtp {code}"),
                    None if e.is_timeout() => "timeout".to_owned(),
                    None => "no connection".to_owned(),
                };
                if e.is_permanent() {
                    Attempted::Refused(why)
                } else {
                    Attempted::Failed(why)
                }
            }
        }
    }

    fn message(&self, id: Uuid, at: Millis, to: &str, letter: &Letter) -> std::result::Result<Message, String> {
        let to: Mailbox = to.parse().map_err(|_| "address".to_owned())?;
        let envelope =
            Envelope::new(Some(self.from.email.clone()), vec![to.email.clone()]).map_err(|_| "address".to_owned())?;
        let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(at).unwrap_or(0));
        Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(&letter.subject)
            .date(at)
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .header(ContentType::TEXT_PLAIN)
            .envelope(envelope)
            .body(letter.body.clone())
            .map_err(|_| "message".to_owned())
    }
}
