//! From where an act came: the session, the network, and whether the session's token was taken at the machine. It goes with the
//! task that serves a request, so that no handler can forget it; a transaction takes it along ([`crate::Db::write`]).

use crate::auth::Principal;
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};
use uuid::Uuid;

/// In the column `issued` of what is done with a token that was taken at the machine.
pub(super) const MACHINE: &str = "machine";

/// From where an act came. Nothing is known of what the server does by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    pub session: Option<Uuid>,
    /// Cut: see [`super::network`].
    pub network: Option<String>,
    /// The session's token was taken at the machine, in the name of the person.
    pub machine: bool,
}

tokio::task_local! {
    static HERE: Arc<Mutex<Origin>>;
}

impl Origin {
    /// Of something that a session holds open.
    #[must_use]
    pub fn of(who: &Principal) -> Self {
        Self {
            session: Some(who.session),
            network: None,
            machine: who.grant.machine,
        }
    }

    /// Runs `work` as coming from here.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        HERE.scope(Arc::new(Mutex::new(self)), work).await
    }

    /// Of what runs now. Empty outside of any [`Origin::scope`].
    #[must_use]
    pub fn current() -> Self {
        HERE.try_with(|here| here.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default()
    }

    /// It is known now who asks.
    pub fn found(who: &Principal) {
        // Outside of a scope, as in a test of one handler, there is nobody to tell.
        let _ = HERE.try_with(|here| {
            let mut here = here.lock().unwrap_or_else(PoisonError::into_inner);
            here.session = Some(who.session);
            here.machine = who.grant.machine;
        });
    }
}
