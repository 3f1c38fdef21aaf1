//! The log of the process: one line an entry on the standard error, as text or JSON, in UTC. What others send can neither
//! begin a line of its own nor move the reader's terminal: every control character is written as its number.

use medtech_kernel::config::{Config, LogFormat};
use std::io::{self, Write};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// What is logged unless `MEDTECH_LOG` says otherwise.
const FILTER: &str = "info,str0m=warn,is=warn,dimpl=warn";

pub(crate) fn start(config: &Config) {
    let filter = EnvFilter::try_from_env("MEDTECH_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER));
    let log = subscriber(config.log.format, filter, io::stderr);
    // Only a second start could fail, and there is none.
    let _ = tracing::subscriber::set_global_default(log);
    std::panic::set_hook(Box::new(note_panic));
}

/// A panic's text may quote what it was about, and that may be a patient's: the log gets the place alone.
fn note_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "a panic; the request or task it was in has ended");
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, to: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines(to))
        .with_ansi(false)
        .with_target(true);
    match format {
        LogFormat::Text => Box::new(base.finish()),
        LogFormat::Json => Box::new(base.json().flatten_event(true).finish()),
    }
}

/// Makes sure that an entry is one line.
struct Lines<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Lines<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

/// One entry, which comes whole.
struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(entry);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        if body.chars().any(is_hidden) {
            self.0.write_all(escaped(body).as_bytes())?;
            self.0.write_all(b"\n")?;
        } else {
            self.0.write_all(entry)?;
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Ends a line, moves a terminal's cursor, or turns the direction of what is read.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As JSON writes them, so that a line of JSON stays one.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if is_hidden(c) => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use medtech_kernel::Error;
    use serde_json::Value;
    use std::sync::{Arc, Mutex, PoisonError};

    /// What was written, for whoever looks.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        pub(crate) fn lines(&self) -> Vec<String> {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let text = String::from_utf8(bytes.clone()).expect("the log is UTF-8");
            // Every way to end a line, and not only the one we mean.
            assert!(text.is_empty() || text.ends_with('\n'));
            text.split(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'])
                .filter(|l| !l.is_empty())
                .map(str::to_owned)
                .collect()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The real log, kept. Panics of this process go to it too.
    pub(crate) fn kept(format: LogFormat) -> (Kept, tracing::subscriber::DefaultGuard) {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = subscriber(format, EnvFilter::new("trace"), move || writer.clone());
        // Beside the hook of the tests, which says why one failed.
        static HOOK: std::sync::Once = std::sync::Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                note_panic(panic);
                before(panic);
            }));
        });
        (kept, tracing::subscriber::set_default(log))
    }

    /// Line ends of every kind, a terminal's commands, and a turned direction: each tries to write a line of ours.
    const FORGED: [&str; 12] = [
        "a\n2026-01-01T00:00:00Z ERROR medtech: forged",
        "a\r\n2026-01-01T00:00:00Z ERROR medtech: forged",
        "a\rforged",
        "a\u{b}forged",
        "a\u{c}forged",
        "a\u{85}forged",
        "a\u{2028}forged",
        "a\u{2029}forged",
        "\u{1b}[2J\u{1b}[1;1Hforged",
        "\u{1b}]0;title\u{7}\u{9b}31mforged",
        "a\u{8}\u{8}\u{7f}forged\0",
        "\"}\n{\"level\":\"ERROR\",\"message\":\"forged \u{202e}gpj\"}",
    ];

    fn log_everywhere(text: &str) {
        let source = || io::Error::other(text.to_owned());
        tracing::info!(field = text, "as a text");
        tracing::info!(field = %text, "shown");
        tracing::info!(field = ?text, "for programmers");
        tracing::warn!(error = %source(), "an error");
        tracing::error!(error = ?Error::internal("x.y", source()), "ours");
        tracing::info!("in the message: {text}");
        tracing::info_span!("span", field = %text).in_scope(|| tracing::info!("inside"));
        let _ = Error::internal("x.y", source()).into_response();
    }

    #[test]
    fn what_others_send_writes_no_line_of_its_own() {
        for text in FORGED {
            for format in [LogFormat::Text, LogFormat::Json] {
                let (kept, log) = kept(format);
                log_everywhere(text);
                drop(log);
                let lines = kept.lines();
                assert_eq!(lines.len(), 8, "{format:?} {text:?}: {lines:#?}");
                for line in &lines {
                    assert!(!line.chars().any(is_hidden), "{line:?}");
                    let own = match format {
                        LogFormat::Text => {
                            line.contains(" INFO ") || line.contains(" WARN ") || line.contains(" ERROR ")
                        }
                        LogFormat::Json => serde_json::from_str::<Value>(line).is_ok_and(|v| v["level"].is_string()),
                    };
                    assert!(own, "{line:?}");
                }
            }
        }
    }

    #[test]
    fn entries_say_when_in_utc_how_grave_and_where_from_for_people_and_for_programs() {
        let (kept_json, log) = kept(LogFormat::Json);
        let before = medtech_kernel::Clock::system().now_ms();
        tracing::warn!(tenant = 7, "something");
        drop(log);
        let line = &kept_json.lines()[0];
        let entry: Value = serde_json::from_str(line).expect("a line is JSON");
        assert_eq!(
            (&entry["level"], &entry["message"], &entry["tenant"]),
            (&"WARN".into(), &"something".into(), &7.into())
        );
        assert_eq!(entry["target"], "medtech::log::tests");
        let at = entry["timestamp"].as_str().expect("a time");
        assert!(at.ends_with('Z'), "{at}");
        let at = medtech_kernel::clock::parse_rfc3339(at).expect("RFC 3339");
        assert!((before..before + 60_000).contains(&at));

        let (kept_text, log) = kept(LogFormat::Text);
        tracing::warn!(tenant = 7, "something");
        drop(log);
        let line = &kept_text.lines()[0];
        let (at, rest) = line.split_once(' ').expect("a time first");
        assert!(
            at.ends_with('Z') && medtech_kernel::clock::parse_rfc3339(at).is_some(),
            "{line}"
        );
        assert_eq!(rest.trim_start(), "WARN medtech::log::tests: something tenant=7");
    }
}
