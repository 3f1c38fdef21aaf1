//! Nonces of 96 bits: 64 random ones for each run of a thread, and a counter. A random one for each page would cost as
//! much as the cipher.
//!
//! The random part is never stored, so a copied or restored file repeats nothing, and it is drawn anew long before the
//! counter could wrap, so that a machine that was put back to an earlier moment soon leaves what it may repeat.

use crate::Refusal;
use aws_lc_rs::{aead::NONCE_LEN, rand};
use std::cell::Cell;

/// Nonces of one random part. With 2^32 pages under one key that makes 2^22 parts; two alike have a chance of 2^-21.
const RUN: u32 = 1024;

thread_local! {
    static RUNNING: Cell<([u8; 8], u32)> = const { Cell::new(([0; 8], RUN)) };
}

/// The next nonce of this thread.
pub(crate) fn next() -> Result<[u8; NONCE_LEN], Refusal> {
    let (mut part, mut count) = RUNNING.get();
    if count >= RUN {
        rand::fill(&mut part).map_err(|_| Refusal::NoRandomness)?;
        count = 0;
    }
    RUNNING.set((part, count + 1));
    let mut nonce = [0; NONCE_LEN];
    let (random, counter) = nonce.split_at_mut(part.len());
    random.copy_from_slice(&part);
    counter.copy_from_slice(&count.to_be_bytes());
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_nonce_comes_twice_over_runs_and_threads() {
        let draw = || (0..RUN * 5 / 2).map(|_| next().unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let all: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        let parts: HashSet<&[u8]> = all.iter().map(|n| &n[..8]).collect();
        assert_eq!(parts.len(), 4 * 3);
    }
}
