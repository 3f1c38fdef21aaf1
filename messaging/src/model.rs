//! What a conversation, a message and a receipt are, and the limits they keep. Pure: values in, values out.

use crate::files::scan::Verdict;
use medtech_kernel::{
    Error, Result,
    clock::{Millis, serde_rfc3339},
    id,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Bytes of UTF-8 in one message's text.
pub const MAX_TEXT: usize = 16 * 1024;
/// Characters of a conversation's title.
pub const MAX_TITLE: usize = 200;
/// Messages of one page.
pub const MAX_PAGE: i64 = 500;
/// Messages of a page when the client names no number.
pub const DEFAULT_PAGE: i64 = 100;

/// What a reader of something erased is told, as the vault tells it whose key is gone.
pub(crate) fn erased() -> Error {
    Error::gone("vault.erased", "This was erased, and cannot be read again.")
}

/// Who can read a conversation besides its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The server keeps the text and can search it.
    Managed,
    /// End-to-end encrypted, with a visible records custodian.
    Recorded,
    /// End-to-end encrypted, members only.
    Strict,
    /// Nobody any more: its key was destroyed.
    Erased,
}

impl Mode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::Recorded => "recorded",
            Self::Strict => "strict",
            Self::Erased => "erased",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "managed" => Ok(Self::Managed),
            "recorded" => Ok(Self::Recorded),
            "strict" => Ok(Self::Strict),
            "erased" => Ok(Self::Erased),
            _ => Err(Error::bad(
                "conversation.mode_unknown",
                "The mode is one of managed, recorded or strict.",
            )),
        }
    }

    /// Only managed conversations carry messages yet. Refusing beats storing what was meant to be encrypted in the clear.
    pub fn require_supported(self) -> Result<()> {
        match self {
            Self::Managed => Ok(()),
            Self::Erased => Err(erased()),
            Self::Recorded | Self::Strict => Err(Error::unprocessable(
                "conversation.mode_unsupported",
                "End-to-end encrypted conversations are not available on this server.",
            )),
        }
    }
}

/// A person or device as shown beside a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    pub subject: String,
    pub name: String,
}

/// A completed file as a message shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    pub id: Uuid,
    pub name: String,
    #[serde(rename = "type")]
    pub media_type: String,
    /// Bytes.
    pub size: i64,
    /// Hexadecimal, lower case.
    pub sha256: String,
    /// What the scanner said, where there is one. Of the moment of the answer, and never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Verdict>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileRef>,
}

/// A message as every client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// 1, 2, 3, ... in its conversation, without gaps.
    pub seq: i64,
    pub id: Uuid,
    pub client_id: Uuid,
    pub conversation_id: Uuid,
    pub sender: Party,
    #[serde(with = "serde_rfc3339")]
    pub at: Millis,
    pub body: Body,
}

/// A member and how far the messages have come: everything up to and including that number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub subject: String,
    pub name: String,
    pub delivered_upto: i64,
    pub read_upto: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conversation {
    pub id: Uuid,
    pub title: String,
    pub mode: &'static str,
    pub members: Vec<Member>,
    pub last_seq: i64,
}

/// A message as its sender hands it in.
#[derive(Clone, Debug, Deserialize)]
pub struct Draft {
    pub client_id: Uuid,
    pub body: DraftBody,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct DraftBody {
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub file: Option<DraftFile>,
}

/// Only the id counts; name, size and hash come from the server's own record of the file.
#[derive(Clone, Debug, Deserialize)]
pub struct DraftFile {
    pub id: Uuid,
}

impl Draft {
    /// Keeps the limits: something to say, not too long, storable on every engine.
    pub fn check(&self) -> Result<()> {
        let text = self.body.text.as_deref();
        if text.is_none_or(|t| t.trim().is_empty()) && self.body.file.is_none() {
            return Err(Error::unprocessable("message.empty", "A message needs text or a file."));
        }
        if text.is_some_and(|t| t.len() > MAX_TEXT) {
            return Err(Error::too_large(
                "message.too_long",
                "The text is longer than 16 KiB. Send it as a file.",
            ));
        }
        if text.is_some_and(|t| t.contains('\0')) {
            return Err(Error::bad("message.nul", "The text contains a NUL character."));
        }
        Ok(())
    }

    /// SHA-256 over conversation and content: the same for a repeat, another for a different message.
    #[must_use]
    pub fn digest(&self, conversation: Uuid) -> [u8; 32] {
        let mut bytes = conversation.as_bytes().to_vec();
        bytes.extend_from_slice(self.body.file.as_ref().map_or(Uuid::nil(), |f| f.id).as_bytes());
        bytes.push(u8::from(self.body.text.is_some()));
        bytes.extend_from_slice(self.body.text.as_deref().unwrap_or_default().as_bytes());
        id::sha256(&bytes)
    }
}

/// How far a member says messages have come. Cursors only ever move forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_upto: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_upto: Option<i64>,
}

/// A pair of cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursors {
    pub delivered_upto: i64,
    pub read_upto: i64,
}

impl Cursors {
    /// The cursors after `receipt`: never backward, never past `last`; what is read has been delivered.
    pub fn advance(self, receipt: Receipt, last: i64) -> Result<Self> {
        let named = [receipt.delivered_upto, receipt.read_upto];
        if named == [None, None] {
            return Err(Error::bad(
                "receipt.empty",
                "A receipt names delivered_upto or read_upto.",
            ));
        }
        if named.iter().flatten().any(|&n| n < 0 || n > last) {
            return Err(Error::unprocessable(
                "receipt.out_of_range",
                "There is no message with that number yet.",
            ));
        }
        let read_upto = self.read_upto.max(receipt.read_upto.unwrap_or(0));
        let delivered_upto = self
            .delivered_upto
            .max(receipt.delivered_upto.unwrap_or(0))
            .max(read_upto);
        Ok(Self {
            delivered_upto,
            read_upto,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draft(text: Option<&str>) -> Draft {
        Draft {
            client_id: Uuid::nil(),
            body: DraftBody {
                text: text.map(str::to_owned),
                file: None,
            },
        }
    }

    #[test]
    fn limits_are_kept() {
        assert!(draft(Some("x")).check().is_ok());
        for (text, code) in [
            (None, "message.empty"),
            (Some(" \n"), "message.empty"),
            (Some("a\0b"), "message.nul"),
        ] {
            assert_eq!(draft(text).check().unwrap_err().code, code);
        }
        let limit = "a".repeat(MAX_TEXT);
        assert!(draft(Some(&limit)).check().is_ok());
        assert_eq!(
            draft(Some(&format!("{limit}a"))).check().unwrap_err().code,
            "message.too_long"
        );
    }

    #[test]
    fn digest_tells_conversation_and_content_apart() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(draft(Some("x")).digest(a), draft(Some("x")).digest(a));
        assert_ne!(draft(Some("x")).digest(a), draft(Some("x")).digest(b));
        assert_ne!(draft(Some("x")).digest(a), draft(Some("y")).digest(a));
    }

    #[test]
    fn modes_other_than_managed_are_refused() {
        assert!(Mode::parse("managed").unwrap().require_supported().is_ok());
        for mode in ["recorded", "strict"] {
            assert_eq!(
                Mode::parse(mode).unwrap().require_supported().unwrap_err().code,
                "conversation.mode_unsupported"
            );
        }
        assert!(Mode::parse("open").is_err());
    }

    proptest! {
        #[test]
        fn cursors_never_go_back_nor_past_the_end(
            steps in prop::collection::vec((prop::option::of(-3_i64..30), prop::option::of(-3_i64..30)), 1..40),
            last in 0_i64..25,
        ) {
            let mut now = Cursors { delivered_upto: 0, read_upto: 0 };
            for (delivered_upto, read_upto) in steps {
                let valid = [delivered_upto, read_upto].iter().flatten().all(|n| (0..=last).contains(n))
                    && (delivered_upto.is_some() || read_upto.is_some());
                match now.advance(Receipt { delivered_upto, read_upto }, last) {
                    Ok(next) => {
                        prop_assert!(valid);
                        prop_assert!(next.read_upto >= now.read_upto && next.delivered_upto >= now.delivered_upto);
                        prop_assert!(next.read_upto <= next.delivered_upto && next.delivered_upto <= last);
                        prop_assert!(read_upto.is_none_or(|r| next.read_upto >= r));
                        now = next;
                    }
                    Err(_) => prop_assert!(!valid),
                }
            }
        }
    }
}
