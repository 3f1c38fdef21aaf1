//! How a clinical module attaches: it implements [`Module`] and is given a [`Ctx`], nothing else.

use crate::{
    Clock, Result,
    auth::Sessions,
    bus::{Bus, Event},
    config::Config,
    db::{Db, Migration},
    policy::{Action, Policy},
    secret::Root,
    tenant::Tenants,
    vault::Vault,
};
use axum::Router;
use std::{future::Future, sync::Arc};

/// Everything a module may lean on. Clones share it.
#[derive(Clone)]
pub struct Ctx {
    pub db: Db,
    pub bus: Bus,
    pub clock: Clock,
    pub policy: Policy,
    pub sessions: Sessions,
    pub tenants: Tenants,
    pub root: Root,
    pub vault: Vault,
    pub config: Arc<Config>,
}

/// A family of live channels, `{kind}:{id}`, and the question asked before someone joins.
#[derive(Debug)]
pub struct ChannelRule {
    pub kind: &'static str,
    /// Asked of the policy with `Resource { kind, id }`.
    pub subscribe: Action,
    /// Publications kept for those who reconnect; 0 keeps none.
    pub history: usize,
    /// How long they are kept.
    pub ttl_ms: i64,
    /// Whether members see who is there.
    pub presence: bool,
}

/// An attached service.
pub trait Module: Send + Sync + 'static {
    /// Its routes stand at `/api/{NAME}`, its durable events come under this group name.
    const NAME: &'static str;

    fn migrations() -> &'static [Migration];

    fn routes(self: Arc<Self>) -> Router;

    /// Live channels it owns.
    fn channels() -> &'static [ChannelRule] {
        &[]
    }

    /// Durable events it wants.
    fn consumes() -> &'static [&'static str] {
        &[]
    }

    /// Is an event of these kinds news to it? Asked in the transaction that records the event, of the event alone: what is
    /// not wanted is never written for this module, so whatever it may have to act on is wanted.
    fn wants(event: &Event) -> bool {
        let _ = event;
        true
    }

    /// Handles one durable event. May be called twice with the same event: be idempotent by its id.
    fn on_event(&self, event: Event) -> impl Future<Output = Result<()>> + Send {
        let _ = event;
        std::future::ready(Ok(()))
    }
}
