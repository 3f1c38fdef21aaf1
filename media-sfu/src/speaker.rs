//! Who speaks: audio levels of RFC 6464 gathered over an interval and smoothed.

/// Frames louder than this (in -dBov) count as speech.
const LOUD_DBOV: u8 = 35;
/// A track is active when at least this share of its frames was loud.
const LOUD_SHARE: f32 = 0.4;
/// Weight of the newest interval in the smoothed level.
const SMOOTHING: f32 = 0.6;
/// Below this a level is silence.
const SILENCE: f32 = 0.005;

#[derive(Debug, Default, Clone)]
pub(crate) struct SpeakerMeter {
    frames: u32,
    loud: u32,
    /// Sum of the levels of the loud frames, -dBov.
    loud_sum: u32,
    level: f32,
}

impl SpeakerMeter {
    /// `level`: 0 is the loudest, 127 silence.
    pub(crate) fn observe(&mut self, level: u8) {
        self.frames += 1;
        if level <= LOUD_DBOV {
            self.loud += 1;
            self.loud_sum += u32::from(level);
        }
    }

    /// Close the interval; the level in 0..=1, rounded so that small wavering is no news, or `None` for silence.
    pub(crate) fn close(&mut self) -> Option<f32> {
        let active = self.frames > 0 && self.loud as f32 >= self.frames as f32 * LOUD_SHARE && self.loud > 0;
        let now = if active {
            let mean = self.loud_sum as f32 / self.loud as f32;
            10f32.powf(-mean / 20.0)
        } else {
            0.0
        };
        self.level = SMOOTHING * now + (1.0 - SMOOTHING) * self.level;
        (self.frames, self.loud, self.loud_sum) = (0, 0, 0);
        let rounded = (self.level * 20.0).ceil() / 20.0;
        (self.level > SILENCE).then_some(rounded.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_is_heard_and_fades() {
        let mut meter = SpeakerMeter::default();
        assert_eq!(meter.close(), None);
        (0..20).for_each(|_| meter.observe(10));
        assert!(meter.close().is_some_and(|l| l > 0.1));
        let mut quiet = 0;
        while meter.close().is_some() {
            quiet += 1;
            assert!(quiet < 10, "silence must be noticed");
        }
        (0..20).for_each(|_| meter.observe(80));
        assert_eq!(meter.close(), None, "background noise is not speech");
    }
}
