//! What an attacker, or a careless client, sends. Nothing of it is accepted.

mod assertions;
mod authorizations;
mod doors;
mod tokens;

use super::kit::{Answer, Kit, Pairs, TABLES};
use http::StatusCode;
use medtech_kernel::testkit::on_both_engines;

/// The cases so far; each must be refused.
#[derive(Default)]
pub(super) struct Cases {
    seen: Vec<String>,
    accepted: Vec<String>,
}

impl Cases {
    pub(super) fn refused(&mut self, name: &str, accepted: bool) {
        assert!(!self.seen.iter().any(|s| s == name), "{name} twice");
        self.seen.push(name.to_owned());
        if accepted {
            self.accepted.push(name.to_owned());
        }
    }

    /// A token request: refused with an error of the protocol, and nothing given.
    pub(super) fn token(&mut self, name: &str, answer: &Answer) {
        let given = answer.json.get("access_token").is_some() || answer.status.is_success();
        let said = answer.json.get("error").is_some() || answer.status == StatusCode::METHOD_NOT_ALLOWED;
        assert!(said, "{name}: {} {}", answer.status, answer.text);
        assert!(!answer.status.is_server_error(), "{name}: {}", answer.text);
        self.refused(name, given);
    }
}

pub(super) fn with<'a>(pairs: &Pairs<'a>, name: &'a str, value: &str) -> Pairs<'a> {
    let mut pairs = without(pairs, name);
    pairs.push((name, value.to_owned()));
    pairs
}

pub(super) fn without<'a>(pairs: &Pairs<'a>, name: &str) -> Pairs<'a> {
    pairs.iter().filter(|(n, _)| *n != name).cloned().collect()
}

#[tokio::test]
async fn none_is_accepted() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let mut cases = Cases::default();
            let (client, other) = (kit.public().await, kit.public().await);
            authorizations::authorizations(&kit, &mut cases, &client).await?;
            tokens::codes(&kit, &mut cases, w, &client, &other).await?;
            assertions::assertions(&kit, &mut cases, w, &client).await?;
            doors::others(&kit, &mut cases, w, &client, &other).await?;
            authorizations::decisions(&kit, &mut cases, w, &client).await?;
            tokens::refreshes(&kit, &mut cases, w, &client, &other).await?;
            let (all, accepted) = (cases.seen.len(), cases.accepted);
            #[expect(clippy::print_stdout, reason = "the count is what this test is asked for")]
            {
                println!("OAuth and SMART: {all} hostile cases, {} accepted", accepted.len());
            }
            assert!(accepted.is_empty(), "{accepted:#?}");
            assert!(all >= 60, "{all}");
            Ok(())
        })
    })
    .await;
}
