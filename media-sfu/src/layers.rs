//! Which simulcast layer a subscription gets: as large as asked for and allowed, never a dead one.

use crate::ids::Layer;

/// Which of the three layers currently carry packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AliveLayers([bool; 3]);

impl AliveLayers {
    pub(crate) fn set(&mut self, layer: Layer, alive: bool) -> bool {
        match self.0.get_mut(layer.index()) {
            Some(slot) => std::mem::replace(slot, alive) != alive,
            None => false,
        }
    }

    pub(crate) fn has(self, layer: Layer) -> bool {
        self.0.get(layer.index()).copied().unwrap_or(false)
    }

    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = Layer> {
        (0u8..3).map(Layer).filter(move |l| self.has(*l))
    }
}

/// The largest living layer not above `max`; if none is that small, the smallest living one, because a picture that is
/// larger than asked for is better than none.
pub(crate) fn choose(alive: AliveLayers, max: Layer) -> Option<Layer> {
    alive.iter().rev().find(|l| *l <= max).or_else(|| alive.iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_a_dead_layer_and_never_none_while_one_lives(bits in 0u8..8, max in 0u8..3) {
            let mut alive = AliveLayers::default();
            for i in 0..3 {
                alive.set(Layer(i), bits & (1 << i) != 0);
            }
            let got = choose(alive, Layer(max));
            prop_assert_eq!(got.is_some(), bits != 0);
            if let Some(layer) = got {
                prop_assert!(alive.has(layer));
                // Nothing alive lies between the choice and the wish.
                let better = alive.iter().any(|l| l <= Layer(max) && (layer > Layer(max) || l > layer));
                prop_assert!(!better);
            }
        }
    }
}
