//! What is told: alerts of a board, notifications of a person, and the words of a mail. Pure.

use medtech_kernel::clock::{Millis, serde_rfc3339};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// After this many failed attempts a mail is given up, and listed as dead.
pub const MAX_ATTEMPTS: i64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Critical]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    pub subject: String,
    pub name: String,
}

/// Something a team has to see, until someone says that they take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub id: String,
    pub board: String,
    pub severity: Severity,
    /// Neutral: says that something is there, not what was found.
    pub title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_ref: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    #[serde(with = "serde_rfc3339")]
    pub at: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<Party>,
    #[serde(default, with = "serde_rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<Millis>,
}

/// Body of the durable event `alert.raised`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AlertRaised {
    pub alert: Alert,
    /// Subjects of those who are told beside the board.
    #[serde(default)]
    pub recipients: Vec<String>,
}

/// Body of the durable event `user.changed`, whose key is the subject. What is absent stays as it was.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UserChanged {
    #[serde(default)]
    pub subject: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
    /// Empty: no longer to be reached by mail.
    #[serde(default)]
    pub email: Option<String>,
    #[serde(default)]
    pub language: Option<String>,
    /// `false`: no longer to be told anything outside the application.
    #[serde(default)]
    pub active: Option<bool>,
}

/// What one person is told in the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notification {
    pub id: Uuid,
    pub kind: String,
    pub title: String,
    pub link: Option<String>,
    #[serde(with = "serde_rfc3339")]
    pub at: Millis,
    #[serde(with = "serde_rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub read_at: Option<Millis>,
}

/// A link is a path of this application, or none: a mail or a board never leads elsewhere.
#[must_use]
pub fn own_path(link: Option<String>) -> Option<String> {
    link.filter(|l| l.starts_with('/') && !l.starts_with("//") && !l.contains(['\\', '\r', '\n']))
}

/// How long to wait after a failed attempt: 15 s, doubled each time, at most an hour, spread over the upper half by
/// `dice` (any byte) so that many mails do not come back together.
#[must_use]
pub fn backoff(attempts: i64, dice: u8) -> Millis {
    let full = (15_000_i64 << attempts.clamp(0, 16)).min(3_600_000);
    full / 2 + full / 2 * i64::from(dice) / 255
}

/// The words of a mail. It has no field for content: all it can say is that there is something to see, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Letter {
    pub subject: String,
    pub body: String,
}

impl Letter {
    /// The mail that tells of a notification. `url` is the application's address without a path.
    #[must_use]
    pub fn compose(language: &str, clinic: &str, name: &str, url: &str) -> Self {
        let primary = language.split(['-', '_']).next().unwrap_or_default();
        let (subject, hello, text, reason) = match primary {
            "de" => (
                "Neue Mitteilung",
                "Guten Tag",
                "für Sie liegt eine neue Mitteilung bereit. Zum Lesen bitte anmelden:",
                "Diese Nachricht enthält mit Absicht keine medizinischen Angaben.",
            ),
            "es" => (
                "Nuevo aviso",
                "Hola",
                "tiene un aviso nuevo. Inicie sesión para verlo:",
                "Por su seguridad, este mensaje no contiene datos médicos.",
            ),
            "fr" => (
                "Nouvelle notification",
                "Bonjour",
                "une nouvelle notification vous attend. Connectez-vous pour la lire :",
                "Ce message ne contient volontairement aucune donnée médicale.",
            ),
            _ => (
                "New notification",
                "Hello",
                "there is a new notification for you. Sign in to read it:",
                "This message contains no medical details, on purpose.",
            ),
        };
        Self::put_together(clinic, name, subject, hello, text, &format!("{url}/"), reason)
    }

    /// Names become one line each: a mail's head is made of lines.
    pub(crate) fn put_together(
        clinic: &str,
        name: &str,
        subject: &str,
        hello: &str,
        text: &str,
        url: &str,
        reason: &str,
    ) -> Self {
        let line = |text: &str| {
            text.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect::<String>()
        };
        let (clinic, name) = (line(clinic), line(name));
        let hello = if name.is_empty() {
            format!("{hello},")
        } else {
            format!("{hello} {name},")
        };
        Self {
            subject: format!("{clinic}: {subject}"),
            body: format!("{hello}\r\n\r\n{text}\r\n{url}\r\n\r\n{reason}\r\n{clinic}\r\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_one_subject_line_in_the_readers_language() {
        let l = Letter::compose("de-AT", "North\r\nBcc: x@y.z", "Anna", "https://n.example");
        assert_eq!(l.subject, "North  Bcc: x@y.z: Neue Mitteilung");
        assert!(l.body.contains("https://n.example/\r\n") && l.body.starts_with("Guten Tag Anna,"));
        assert_eq!(Letter::compose("xx", "N", "", "u").subject, "N: New notification");
    }

    #[test]
    fn links_stay_at_home() {
        assert_eq!(own_path(Some("/app/board".into())).as_deref(), Some("/app/board"));
        for away in [
            "https://evil.example",
            "//evil.example",
            "/\\evil",
            "javascript:x",
            "/a\r\nb",
        ] {
            assert_eq!(own_path(Some(away.into())), None, "{away}");
        }
    }

    #[test]
    fn waiting_grows_to_an_hour_at_most() {
        assert_eq!((backoff(0, 0), backoff(0, 255)), (7_500, 15_000));
        for n in 0..20 {
            assert!(backoff(n, 0) * 2 >= backoff(n, 255) && backoff(n, 255) <= 3_600_000);
            assert!(backoff(n + 1, 255) >= backoff(n, 255));
        }
    }
}
