//! How a subscriber's bandwidth is shared: voice first, then the smallest picture of every track, then larger ones.

use crate::ids::Layer;

/// Bits a second measured on each layer; `None` where the layer is dead.
pub(crate) type Rates = [Option<u64>; 3];

/// A video subscription that wants bandwidth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    pub rates: Rates,
    /// The largest layer the subscriber has a use for.
    pub max: Layer,
    /// What it has now.
    pub granted: Grant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Up to this layer.
    UpTo(Layer),
    /// There is no room even for the smallest.
    Paused,
}

/// Room that must be left before a subscription gets more than it has, in percent: going up and down again hurts more
/// than waiting.
const UP_PERCENT: u64 = 115;
/// The smallest picture is kept until the estimate is well below it, in percent of its rate.
const KEEP_PERCENT: u64 = 80;

/// Share `budget` (bits a second, after audio) among the demands, in their order. Only a strained path takes a picture away
/// that is being sent; on others its smallest layer stays, whatever the budget.
pub(crate) fn allocate(budget: u64, demands: &[Demand], strained: bool) -> Vec<Grant> {
    let mut left = budget;
    let mut grants: Vec<(Grant, usize)> = demands.iter().map(|_| (Grant::Paused, 0)).collect();
    for (demand, (grant, step)) in demands.iter().zip(&mut grants) {
        let Some(first) = steps(demand).first().copied() else {
            // Nothing flows, so nothing needs holding back.
            (*grant, *step) = (Grant::UpTo(Layer::HIGH), usize::MAX);
            continue;
        };
        let percent = if demand.granted == Grant::Paused {
            UP_PERCENT
        } else {
            KEEP_PERCENT
        };
        let stays = !strained && demand.granted != Grant::Paused;
        if stays || first.1 * percent / 100 <= left {
            left = left.saturating_sub(first.1);
            *grant = Grant::UpTo(first.0);
        } else {
            *step = usize::MAX;
        }
    }
    // One step up for each in turn, until nobody can take another.
    let mut moved = true;
    while moved {
        moved = false;
        for (demand, (grant, step)) in demands.iter().zip(&mut grants) {
            let steps = steps(demand);
            let (Some(now), Some(next)) = (steps.get(*step), steps.get(step.saturating_add(1))) else {
                continue;
            };
            let extra = next.1.saturating_sub(now.1);
            let held = matches!(demand.granted, Grant::UpTo(layer) if layer >= next.0);
            let percent = if held { 100 } else { UP_PERCENT };
            if extra * percent / 100 <= left {
                left = (left + now.1).saturating_sub(next.1);
                *grant = Grant::UpTo(next.0);
                *step += 1;
                moved = true;
            }
        }
    }
    grants.into_iter().map(|(grant, _)| grant).collect()
}

/// Whether a wider path would change nothing: each has one size only, and gets it.
pub(crate) fn settled(demands: &[Demand], grants: &[Grant]) -> bool {
    let settled = |(demand, grant): (&Demand, &Grant)| steps(demand).len() <= 1 && *grant != Grant::Paused;
    demands.iter().zip(grants).all(settled)
}

/// What all demands together could use.
pub(crate) fn desired(demands: &[Demand]) -> u64 {
    demands
        .iter()
        .filter_map(|d| steps(d).iter().map(|(_, rate)| *rate).max())
        .sum()
}

/// The living layers that are of use, smallest first. If none is small enough, the smallest living one.
fn steps(demand: &Demand) -> Vec<(Layer, u64)> {
    let alive = || {
        (0u8..3)
            .zip(demand.rates)
            .filter_map(|(i, rate)| Some((Layer(i), rate?)))
    };
    let useful: Vec<(Layer, u64)> = alive().filter(|(layer, _)| *layer <= demand.max).collect();
    if useful.is_empty() {
        alive().take(1).collect()
    } else {
        useful
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn demand() -> impl Strategy<Value = Demand> {
        let rate = proptest::option::of(0u64..3_000_000);
        ([rate.clone(), rate.clone(), rate], 0u8..3, 0u8..4).prop_map(|(rates, max, granted)| Demand {
            rates,
            max: Layer(max),
            granted: if granted == 3 {
                Grant::Paused
            } else {
                Grant::UpTo(Layer(granted))
            },
        })
    }

    fn cost(demand: &Demand, grant: Grant) -> u64 {
        match grant {
            Grant::Paused => 0,
            Grant::UpTo(layer) => steps(demand)
                .iter()
                .rev()
                .find(|(l, _)| *l <= layer)
                .map_or(0, |(_, rate)| *rate),
        }
    }

    proptest! {
        /// Larger pictures are given out of what is left only; smallest ones may overdraw by their tolerance.
        #[test]
        fn the_budget_is_kept(budget in 0u64..10_000_000, demands in proptest::collection::vec(demand(), 0..8)) {
            let grants = allocate(budget, &demands, true);
            let total: u64 = demands.iter().zip(&grants).map(|(d, g)| cost(d, *g)).sum();
            let smallest: u64 = demands.iter().filter_map(|d| steps(d).first().map(|s| s.1)).sum();
            prop_assert!(total <= budget.max(smallest), "{} of {}", total, budget);
            for (demand, grant) in demands.iter().zip(grants) {
                if let (Grant::UpTo(layer), Some(first)) = (grant, steps(demand).first()) {
                    prop_assert!(layer <= demand.max.max(first.0));
                }
            }
        }

        /// With plenty everybody gets what is of use, and the answer does not waver.
        #[test]
        fn plenty_serves_all_and_stands(demands in proptest::collection::vec(demand(), 0..8)) {
            let grants = allocate(u64::MAX / 4, &demands, true);
            for (demand, grant) in demands.iter().zip(&grants) {
                if let Some((best, _)) = steps(demand).last() {
                    prop_assert_eq!(*grant, Grant::UpTo(*best));
                }
            }
            let budget = desired(&demands);
            let settled: Vec<Demand> = demands.iter().zip(&grants).map(|(d, g)| Demand { granted: *g, ..*d }).collect();
            prop_assert_eq!(allocate(budget, &settled, true), grants, "what is held is kept while it just fits");
        }
    }

    #[test]
    fn small_pictures_of_all_come_before_a_large_one_of_one() {
        let demand = Demand {
            rates: [Some(150_000), Some(500_000), Some(1_700_000)],
            max: Layer::HIGH,
            granted: Grant::Paused,
        };
        assert_eq!(allocate(400_000, &[demand; 2], true), [Grant::UpTo(Layer(0)); 2]);
        assert_eq!(
            allocate(800_000, &[demand; 2], true),
            [Grant::UpTo(Layer(1)), Grant::UpTo(Layer(0))]
        );
        assert_eq!(allocate(100_000, &[demand; 2], true), [Grant::Paused; 2]);
    }
}
