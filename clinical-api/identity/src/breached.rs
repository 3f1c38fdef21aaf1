//! Stolen passwords, asked of a service that does not learn which one was meant: the range search of Have I Been Pwned
//! (k-anonymity). It is told the first five of forty digits of the password's SHA-1, and answers with all that begin so.
//! Off unless `identity.breached_passwords_url` names a service; one that does not answer keeps nobody from choosing.

use crate::oauth::Outbound;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use medtech_kernel::{Error, Result};
use std::sync::Arc;

/// Digits of the hash that leave the house.
const PREFIX: usize = 5;

#[derive(Clone)]
pub(crate) struct Breached(Option<(Arc<str>, Outbound)>);

impl Breached {
    /// `url`: where ranges are asked for, for instance `https://api.pwnedpasswords.com/range`.
    pub(crate) fn new(url: Option<&str>, development: bool) -> Self {
        Self(url.map(|url| (url.trim_end_matches('/').into(), Outbound::new(development))))
    }

    /// 422 `identity.password_weak` for a password that was stolen somewhere.
    pub(crate) async fn refuse(&self, password: &str) -> Result<()> {
        let Some((url, outbound)) = &self.0 else {
            return Ok(());
        };
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let (prefix, rest) = hash.split_at(PREFIX);
        // Answers are filled up to one length, so that nobody on the way can tell them apart.
        let request = Request::builder()
            .method(Method::GET)
            .header(header::ACCEPT, HeaderValue::from_static("text/plain"))
            .header("add-padding", HeaderValue::from_static("true"));
        let answer = outbound.send(&format!("{url}/{prefix}"), request, Bytes::new()).await;
        let body = match answer {
            Ok(answer) if answer.status == StatusCode::OK => answer.body,
            Ok(answer) => {
                tracing::warn!(status = %answer.status, "the list of stolen passwords did not answer; accepted without");
                return Ok(());
            }
            Err(e) => {
                tracing::warn!(error = ?e, "the list of stolen passwords could not be asked; accepted without");
                return Ok(());
            }
        };
        if is_listed(&String::from_utf8_lossy(&body), rest) {
            return Err(Error::unprocessable(
                "identity.password_weak",
                "This password is on a list of stolen passwords. Choose another one: four random words do well.",
            ));
        }
        Ok(())
    }
}

/// Is the rest of a hash among the lines `REST:COUNT`? A count of nought is padding.
fn is_listed(body: &str, rest: &str) -> bool {
    body.lines()
        .filter_map(|line| line.trim().split_once(':'))
        .any(|(found, count)| {
            found.eq_ignore_ascii_case(rest) && count.trim().parse::<u64>().is_ok_and(|count| count > 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// A service as the documented one: <https://haveibeenpwned.com/API/v3#SearchingPwnedPasswordsByRange>. It answers with
    /// the lines given, and keeps what it was asked.
    async fn service(status: &'static str, lines: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/range/", listener.local_addr().expect("an address"));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let heard = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => break,
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                heard.lock().expect("not poisoned").push(text);
                let length = lines.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{lines}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (url, asked)
    }

    /// SHA-1 of "password" is 5BAA6 1E4C9B93F3F0682250B6CF8331B7EE68FD8 (FIPS 180-4; the example of the service's own page).
    const REST: &str = "1E4C9B93F3F0682250B6CF8331B7EE68FD8";

    #[tokio::test]
    async fn a_stolen_password_is_refused_and_only_five_digits_leave() {
        let lines = "003D68EB55068C33ACE09247EE4C639306B:3\r\n1E4C9B93F3F0682250B6CF8331B7EE68FD8:9545824\r\n01330C689E5D64F660D6947A93AD634EF8F:0";
        let (url, asked) = service("200 OK", lines).await;
        let breached = Breached::new(Some(&url), true);
        let refused = breached.refuse("password").await.err().map(|e| e.code);
        assert_eq!(refused, Some("identity.password_weak"));
        assert!(breached.refuse("an uncommon one of four words").await.is_ok());
        let asked = asked.lock().expect("not poisoned").clone();
        assert!(asked[0].starts_with("GET /range/5BAA6 HTTP/1.1\r\n"), "{}", asked[0]);
        assert!(asked[0].to_lowercase().contains("add-padding: true"));
        assert!(!asked[0].to_uppercase().contains(&REST[..6]) && !asked[0].contains("password"));
    }

    #[tokio::test]
    async fn padding_is_no_finding_and_a_silent_service_keeps_nobody_out() {
        let (padded, _) = service("200 OK", "1E4C9B93F3F0682250B6CF8331B7EE68FD8:0").await;
        let (broken, _) = service("503 Service Unavailable", "1E4C9B93F3F0682250B6CF8331B7EE68FD8:7").await;
        for url in [
            padded.as_str(),
            broken.as_str(),
            "http://127.0.0.1:1/range",
            "http://192.0.2.1/range",
        ] {
            assert!(Breached::new(Some(url), true).refuse("password").await.is_ok(), "{url}");
        }
        assert!(Breached::new(None, true).refuse("password").await.is_ok(), "off");
        assert!(is_listed("1e4c9b93f3f0682250b6cf8331b7ee68fd8:1", REST));
        assert!(!is_listed(&format!("{REST}:x\n{REST}\n:::\n"), REST));
    }
}
