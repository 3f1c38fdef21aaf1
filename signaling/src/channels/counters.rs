//! What the hub counts, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Default)]
        pub(super) struct Counters { $($(#[$doc])* pub(super) $name: AtomicU64,)* }

        impl Counters {
            /// Names and values.
            pub(super) fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Open now.
    connections,
    /// Ever accepted.
    accepted,
    /// Turned away: limit, drain, unknown tenant, origin.
    refused,
    commands,
    /// Commands answered with an error.
    failed,
    published,
    /// Frames given to sockets.
    delivered,
    /// Of these, frames that had to wait in a socket's queue.
    queued,
    /// Clients cut for reading too slowly.
    slow,
    no_pong,
    /// Clients cut for malformed commands or frames.
    malformed,
    recovered,
    unrecovered,
    /// Times an epoch had to change because publications were lost.
    lost,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(super) fn sub(counter: &AtomicU64, n: u64) {
    counter.fetch_sub(n, Ordering::Relaxed);
}
