//! What a password hash costs: chosen by measuring this machine, never less than the floor, the same for every account.

use crate::{Identity, audited, store};
use medtech_kernel::{Error, Result, TenantId, clock::Millis};
use std::time::{Duration, Instant};

/// Parameters of argon2id, one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// In KiB.
    pub(crate) memory: u32,
    pub(crate) passes: u32,
}

/// OWASP's floor: 19 MiB, two passes.
pub(crate) const FLOOR: Cost = Cost {
    memory: 19_456,
    passes: 2,
};
/// What one hash may take of memory: with every hashing thread at work, half a GiB.
pub(crate) const MOST_MEMORY: u32 = 65_536;
const MOST_PASSES: u32 = 24;
/// What a hash should take: no one minds it once a day, a guesser minds it every time.
pub(crate) const TARGET: Duration = Duration::from_millis(250);
/// What a hash may take. A machine that needs longer for the floor keeps the floor.
pub(crate) const LONGEST: Duration = Duration::from_millis(1000);

impl Cost {
    /// Blocks of 1 KiB that are filled: what the time goes into.
    pub(crate) fn work(self) -> u64 {
        u64::from(self.memory) * u64::from(self.passes)
    }

    /// The work that is missing from `self` to `full`, as parameters of their own: a hash made when less was asked takes as
    /// long to refuse as any other, so that nobody learns whose is old.
    pub(crate) fn missing(self, full: Self) -> Option<Self> {
        let left = full.work().checked_sub(self.work())?;
        let memory = u32::try_from(left / u64::from(full.passes.max(1))).ok()?;
        // Argon2 fills eight blocks at least.
        (memory >= 8).then_some(Self {
            memory,
            passes: full.passes,
        })
    }
}

/// The dearest parameters that stay near [`TARGET`]: memory first, which is what a guesser's hardware lacks, then passes.
pub(crate) fn choose(mut measure: impl FnMut(Cost) -> Duration) -> Cost {
    // The first one also touches the memory for the first time.
    let floor = measure(FLOOR).min(measure(FLOOR));
    if floor >= TARGET {
        return FLOOR;
    }
    let times = |time: Duration| TARGET.as_secs_f64() / time.as_secs_f64().max(1e-6);
    let wide = Cost {
        memory: MOST_MEMORY,
        ..FLOOR
    };
    let time = measure(wide);
    let mut chosen = if time > TARGET {
        let memory = whole(f64::from(FLOOR.memory) * times(floor)).clamp(FLOOR.memory, MOST_MEMORY);
        Cost { memory, ..FLOOR }
    } else {
        let passes = whole(f64::from(FLOOR.passes) * times(time)).clamp(FLOOR.passes, MOST_PASSES);
        Cost { passes, ..wide }
    };
    // A measurement may have been lucky: what is chosen is measured itself, and stepped down from.
    while chosen != FLOOR && measure(chosen) > TARGET * 3 / 2 {
        chosen = if chosen.passes > FLOOR.passes {
            Cost {
                passes: chosen.passes - 1,
                ..chosen
            }
        } else {
            let memory = (chosen.memory / 4 * 3).max(FLOOR.memory);
            Cost { memory, ..chosen }
        };
    }
    chosen
}

/// Of a positive number within the range of parameters.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "invariant: bounded on both sides before the cast"
)]
fn whole(number: f64) -> u32 {
    number.clamp(0.0, f64::from(u32::MAX)) as u32
}

/// What was found, for the operator.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// In KiB.
    pub memory: u32,
    pub passes: u32,
    pub took: Duration,
    /// It is what passwords are hashed with from now on.
    pub taken: bool,
}

impl Identity {
    /// Takes what this installation measured at its first start, or measures now.
    pub async fn calibrate(&self) -> Result<()> {
        if let Some((cost, _)) = store::hash_cost(&self.ctx.db).await? {
            self.hasher.set(cost);
            return Ok(());
        }
        self.measure().await.map(drop)
    }

    /// Measures again. What stands is only given up for more work, or where it has become too slow.
    pub async fn measure(&self) -> Result<Measured> {
        let stored = store::hash_cost(&self.ctx.db).await?.map(|(cost, _)| cost);
        let (chosen, took, stands) = tokio::task::spawn_blocking(move || {
            let chosen = choose(time);
            let stands = stored.is_some_and(|s| s.work() >= chosen.work() && time(s) <= LONGEST);
            let now = stored.filter(|_| stands).unwrap_or(chosen);
            (now, time(now), stands)
        })
        .await
        .map_err(|e| Error::internal("identity.calibrate", e))?;
        if !stands {
            let took_ms = Millis::try_from(took.as_millis()).unwrap_or(Millis::MAX);
            let noted = self.ctx.db.write(TenantId::SYSTEM, move |tx| {
                Box::pin(async move {
                    store::set_hash_cost(tx, chosen, took_ms).await?;
                    let text = format!("password hash m={} t={}", chosen.memory, chosen.passes);
                    audited(tx, "system", "update", "identity", "success", &text).await
                })
            });
            noted.await?;
        }
        self.hasher.set(chosen);
        Ok(Measured {
            memory: chosen.memory,
            passes: chosen.passes,
            took,
            taken: !stands,
        })
    }
}

fn time(cost: Cost) -> Duration {
    let from = Instant::now();
    // What the hash is does not matter; that it could not be made would show at the first password.
    let _ = crate::password::derive(&[0; 32], "a password to measure", &[0; 16], cost);
    from.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that fills so many KiB in a millisecond.
    fn machine(kib_per_ms: u64) -> impl FnMut(Cost) -> Duration {
        move |cost| Duration::from_micros(cost.work() * 1000 / kib_per_ms)
    }

    #[test]
    fn parameters_follow_the_machine_and_never_fall_below_the_floor() {
        for kib_per_ms in [1, 10, 100, 150, 156, 400, 1000, 2000, 5000, 20_000, 1_000_000] {
            let chosen = choose(machine(kib_per_ms));
            let took = machine(kib_per_ms)(chosen);
            assert!(
                chosen.memory >= FLOOR.memory && chosen.passes >= FLOOR.passes,
                "{chosen:?}"
            );
            assert!(
                chosen.memory <= MOST_MEMORY && chosen.passes <= MOST_PASSES,
                "{chosen:?}"
            );
            assert!(chosen == FLOOR || took <= TARGET * 3 / 2, "{kib_per_ms}: {took:?}");
            assert!(chosen == FLOOR || took <= LONGEST);
            let most = chosen.passes == MOST_PASSES;
            assert!(
                most || took >= TARGET / 2,
                "{kib_per_ms} makes use of what is there: {chosen:?} {took:?}"
            );
        }
        assert_eq!(choose(machine(100)), FLOOR);
        assert!(choose(machine(1500)).passes > 2, "memory first, then passes");
    }

    #[test]
    fn a_machine_that_stutters_is_stepped_down_from() {
        // Lucky at first, then four times slower.
        let mut calls = 0;
        let chosen = choose(|cost| {
            calls += 1;
            machine(if calls < 4 { 2000 } else { 500 })(cost)
        });
        assert!(machine(500)(chosen) <= TARGET * 3 / 2, "{chosen:?}");
    }

    #[test]
    fn an_old_hash_is_filled_up_to_the_work_of_a_new_one() {
        let full = Cost {
            memory: MOST_MEMORY,
            passes: 5,
        };
        for old in [
            FLOOR,
            Cost {
                memory: 30_000,
                passes: 3,
            },
            Cost {
                memory: 65_536,
                passes: 4,
            },
        ] {
            let missing = old.missing(full).expect("something is missing");
            let all = old.work() + missing.work();
            assert!(all <= full.work() && full.work() - all < 8, "{old:?} {missing:?}");
        }
        assert_eq!(full.missing(full), None);
        assert_eq!(full.missing(FLOOR), None, "a dearer one is not made cheaper");
    }
}
