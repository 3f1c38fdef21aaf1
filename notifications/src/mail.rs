//! The way out for mails: an SMTP server, or the local outbox when none is configured.

use crate::model::Letter;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    address::Envelope,
    message::{Mailbox, header::ContentType},
    transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters},
};
use medtech_kernel::{
    Error, Result,
    clock::Millis,
    config::{self, is_this_machine},
};
use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};
use url::Url;
use uuid::Uuid;

/// A server that says nothing for so long counts as failed.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Who sends, and through what.
pub(crate) struct Mailer {
    pub(crate) from: Mailbox,
    pub(crate) smtp: Option<AsyncSmtpTransport<Tokio1Executor>>,
}

/// Does the way to the mail server go to another machine without demanding TLS?
pub fn is_mail_plain(config: &config::Mail) -> Result<bool> {
    match &config.smtp {
        None => Ok(false),
        Some(url) => {
            let (url, far) = address(url, config)?;
            Ok(far && !is_guarded(&url))
        }
    }
}

fn wrong(e: impl std::fmt::Display) -> Error {
    Error::bad("config.mail_smtp", format!("mail.smtp: {e}"))
}

fn is_guarded(url: &Url) -> bool {
    url.scheme() == "smtps"
        || url
            .query_pairs()
            .any(|(key, value)| key == "tls" && value == "required")
}

/// The address as it is used, and whether it leads to another machine: then STARTTLS is demanded where nothing is said.
fn address(url: &str, config: &config::Mail) -> Result<(Url, bool)> {
    let mut url = Url::parse(url).map_err(wrong)?;
    let far = !url.host_str().is_some_and(is_this_machine);
    let silent = url.scheme() == "smtp" && !url.query_pairs().any(|(key, _)| key == "tls");
    if far && silent && !config.allow_plain {
        url.query_pairs_mut().append_pair("tls", "required");
    }
    Ok((url, far))
}

fn transport(url: &str, config: &config::Mail) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let (url, far) = address(url, config)?;
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.as_str()).map_err(wrong)?;
    if far && !is_guarded(&url) && !config.allow_plain {
        return Err(wrong(
            "another machine is reached by TLS alone: use smtps://, or smtp:// without `tls=`",
        ));
    }
    if let (Some(root), Some(host), true) = (&config.root_cert, url.host_str(), is_guarded(&url)) {
        let tls = trusting(root, host)?;
        builder = builder.tls(match url.scheme() {
            "smtps" => Tls::Wrapper(tls),
            _ => Tls::Required(tls),
        });
    }
    Ok(builder.timeout(Some(TIMEOUT)).build())
}

/// Believes the authorities of this file, and no others.
fn trusting(root: &Path, host: &str) -> Result<TlsParameters> {
    let wrong = |e: &dyn std::fmt::Display| {
        let what = format!("mail.root_cert: {}: {e}", root.display());
        Error::bad("config.mail_root_cert", what)
    };
    let pem = std::fs::read(root).map_err(|e| wrong(&e))?;
    TlsParameters::builder(host.to_owned())
        .certificate_store(CertificateStore::None)
        .add_root_certificate(Certificate::from_pem(&pem).map_err(|e| wrong(&e))?)
        .build()
        .map_err(|e| wrong(&e))
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
            Some(url) => Some(transport(url, config)?),
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
