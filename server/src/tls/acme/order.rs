//! The conversation with the authority about one name (RFC 8555, 7.4): order, proof, request, certificate.

use super::{
    Acme,
    answer::{Answer, kind},
    store::{self, Stored},
};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use medtech_kernel::config::AcmeChallenge;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a proof or a certificate is waited for, asked for with growing distances.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));
/// Of what an authority says, as much is kept.
const WORDS: usize = 300;

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: String,
    /// Too much was asked: nothing is, for a while.
    pub(super) is_limited: bool,
    /// The authority does not know our account.
    pub(super) is_unknown: bool,
}

impl Failure {
    pub(super) fn new(why: impl Into<String>) -> Self {
        let mut why: String = why.into().chars().filter(|c| !c.is_control()).take(WORDS).collect();
        if why.is_empty() {
            why.push_str("no reason given");
        }
        Self {
            why,
            is_limited: false,
            is_unknown: false,
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let is = |word: &str| match &e {
            Error::Api(problem) => {
                let said = problem.r#type.as_deref().unwrap_or_default();
                said.strip_prefix("urn:ietf:params:acme:error:") == Some(word)
            }
            _ => false,
        };
        Self {
            is_limited: is("rateLimited"),
            is_unknown: is("accountDoesNotExist"),
            ..Self::new(e.to_string())
        }
    }
}

impl From<medtech_kernel::Error> for Failure {
    fn from(e: medtech_kernel::Error) -> Self {
        Self::new(format!("{}: {}", e.code, e.message))
    }
}

impl Acme {
    /// A new certificate for a name, proven in this way if the authority takes it, else in another of ours.
    pub(super) async fn obtain(&self, host: &str, way: AcmeChallenge) -> Result<Stored, Failure> {
        let account = self.account().await?;
        let names = [Identifier::Dns(host.to_owned())];
        let mut order = account.new_order(&NewOrder::new(&names)).await?;
        self.prove(&mut order, host, way).await?;
        let mut stored = Stored {
            key: order.finalize().await?,
            certificate: String::new(),
        };
        stored.certificate = order.poll_certificate(&POLL).await?;
        Ok(stored)
    }

    /// Answers what is asked, and waits until the authority has seen it.
    async fn prove(&self, order: &mut Order, host: &str, way: AcmeChallenge) -> Result<(), Failure> {
        let mut answered = Vec::new();
        let outcome = self.answer_all(order, host, way, &mut answered).await;
        for (way, token) in &answered {
            let (way, token) = (*way, token.as_str());
            if let Err(e) = (Answer { way, host, token }).end(&self.ctx.db).await {
                tracing::warn!(error = ?e, "an answer to the authority stays until its end");
            }
        }
        outcome
    }

    async fn answer_all(
        &self,
        order: &mut Order,
        host: &str,
        way: AcmeChallenge,
        answered: &mut Vec<(AcmeChallenge, String)>,
    ) -> Result<(), Failure> {
        let mut all = order.authorizations();
        while let Some(authorization) = all.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => continue,
                _ => return Err(Failure::new("the authority takes no proof for this name")),
            }
            let offers = |t: &ChallengeType| authorization.challenges.iter().any(|c| c.r#type == *t);
            let ways = std::iter::once(way).chain(self.ways.iter().copied());
            let Some(way) = ways.into_iter().find(|way| offers(&kind(*way).1)) else {
                return Err(Failure::new("the authority offers none of our ways to prove the name"));
            };
            let Some(mut challenge) = authorization.challenge(kind(way).1) else {
                return Err(Failure::new("the authority took its challenge back"));
            };
            let token = challenge.token.clone();
            let ends = self.ctx.clock.now_ms() + super::CLAIM;
            let proof = challenge.key_authorization();
            answered.push((way, token.clone()));
            let answer = Answer {
                way,
                host,
                token: &token,
            };
            answer.put(&self.ctx.db, proof.as_str(), ends).await?;
            challenge.set_ready().await?;
        }
        let seen = order.poll_ready(&POLL).await;
        if let Ok(OrderStatus::Ready) = seen {
            return Ok(());
        }
        // What it has against the proof stands with the challenge.
        let mut all = order.authorizations();
        while let Some(authorization) = all.next().await {
            let mut authorization = authorization?;
            let state = authorization.refresh().await?;
            if let Some(problem) = state.challenges.iter().find_map(|c| c.error.as_ref()) {
                return Err(Error::Api(problem.clone()).into());
            }
        }
        Err(seen
            .err()
            .map_or_else(|| Failure::new("the order is invalid"), Failure::from))
    }

    /// Our account there; made at the first use, its key drawn then.
    async fn account(&self) -> Result<Account, Failure> {
        let builder = Account::builder_with_http(Box::new(self.caller.clone()));
        if let Some(stored) = store::account(&self.ctx.db, &self.directory).await? {
            let credentials: AccountCredentials = serde_json::from_str(&stored).map_err(Error::from)?;
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let (account, credentials) = builder.create(&new, self.directory.clone(), None).await?;
        let text = Zeroizing::new(serde_json::to_string(&credentials).map_err(Error::from)?);
        store::keep_account(&self.ctx.db, &self.directory, text).await?;
        Ok(account)
    }
}
