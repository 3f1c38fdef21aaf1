//! What more than one of the tests sends, and waits for.
use base64::{Engine, engine::general_purpose::STANDARD};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Looks at what others make so: a pause between two looks, which leaves the machine to them, and a minute in all.
pub(crate) struct Looks(Instant, &'static str);

impl Looks {
    pub(crate) fn for_(what: &'static str) -> Self {
        Self(Instant::now(), what)
    }

    pub(crate) async fn again(&self) {
        assert!(
            self.0.elapsed() < Duration::from_secs(60),
            "not after a minute: {}",
            self.1
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The headers of an upload that brings its bytes along (tus 1.0.0, creation-with-upload).
pub(crate) fn with_upload(name: &str, kind: &str, conversation: Uuid, length: usize) -> [(&'static str, String); 3] {
    let conversation = conversation.to_string();
    let pairs = [("filename", name), ("filetype", kind), ("conversation", &conversation)];
    let metadata = pairs.map(|(key, value)| format!("{key} {}", STANDARD.encode(value)));
    [
        ("upload-length", length.to_string()),
        ("upload-metadata", metadata.join(",")),
        ("content-type", "application/offset+octet-stream".to_owned()),
    ]
}
