//! Time as a dependency: everything that needs "now" is handed a [`Clock`].

use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior},
};

/// Milliseconds since the Unix epoch, UTC.
pub type Millis = i64;

/// Tells the time. Clones share one source.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<watch::Sender<Millis>>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(start: Millis) -> Self {
        Self(Source::Manual(Arc::new(watch::Sender::new(start))))
    }

    #[must_use]
    pub fn now_ms(&self) -> Millis {
        match &self.0 {
            Source::System => jiff::Timestamp::now().as_millisecond(),
            Source::Manual(at) => *at.borrow(),
        }
    }

    /// Moves a manual clock; does nothing to the machine's.
    pub fn advance(&self, by: Millis) {
        if let Source::Manual(at) = &self.0 {
            at.send_modify(|now| *now += by);
        }
    }

    /// Beats of this clock for work that is done again and again: the first at once, each later one no sooner than `period`
    /// after the one before was taken. Needs a runtime with time.
    #[must_use]
    pub fn every(&self, period: Duration) -> Beats {
        Beats(match &self.0 {
            Source::System => Beat::System({
                let mut beats = tokio::time::interval(period);
                beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
                beats
            }),
            Source::Manual(at) => Beat::Manual {
                now: at.subscribe(),
                due: Millis::MIN,
                period: Millis::try_from(period.as_millis()).unwrap_or(Millis::MAX),
            },
        })
    }
}

/// See [`Clock::every`].
#[derive(Debug)]
pub struct Beats(Beat);

#[derive(Debug)]
enum Beat {
    System(Interval),
    Manual {
        now: watch::Receiver<Millis>,
        due: Millis,
        period: Millis,
    },
}

impl Beats {
    /// Waits for the next beat. Nothing is lost when it is not awaited to its end.
    pub async fn next(&mut self) {
        match &mut self.0 {
            Beat::System(beats) => {
                beats.tick().await;
            }
            Beat::Manual { now, due, period } => match now.wait_for(|now| *now >= *due).await.map(|now| *now) {
                Ok(now) => *due = now.saturating_add(*period),
                // Nobody can move that clock any more.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// RFC 3339 in UTC with milliseconds, the form of every time in our JSON.
#[must_use]
pub fn rfc3339(at: Millis) -> String {
    match jiff::Timestamp::from_millisecond(at) {
        Ok(t) => format!("{t:.3}"),
        Err(_) => "1970-01-01T00:00:00.000Z".to_owned(),
    }
}

/// Parses RFC 3339 with any offset; `None` when it is not one.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    text.parse::<jiff::Timestamp>().ok().map(|t| t.as_millisecond())
}

/// Serde form of a [`Millis`] field: RFC 3339 outside, milliseconds inside.
pub mod serde_rfc3339 {
    use super::{Millis, parse_rfc3339, rfc3339};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(at: &Millis, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&rfc3339(*at))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Millis, D::Error> {
        let text = String::deserialize(d)?;
        parse_rfc3339(&text).ok_or_else(|| D::Error::custom("expected an RFC 3339 time"))
    }

    /// The same for an optional field.
    pub mod option {
        use super::{Deserialize, Deserializer, Error, Millis, Serializer, parse_rfc3339, rfc3339};

        pub fn serialize<S: Serializer>(at: &Option<Millis>, s: S) -> Result<S::Ok, S::Error> {
            match at {
                Some(at) => s.serialize_some(&rfc3339(*at)),
                None => s.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Millis>, D::Error> {
            match Option::<String>::deserialize(d)? {
                None => Ok(None),
                Some(t) => parse_rfc3339(&t)
                    .map(Some)
                    .ok_or_else(|| D::Error::custom("expected an RFC 3339 time")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clock_that_stands_still_beats_when_it_is_moved() {
        let clock = Clock::manual(0);
        let mut beats = clock.every(Duration::from_secs(30));
        let beat = async |beats: &mut Beats| {
            // Polled once: what is not there now comes only by moving the clock.
            tokio::select! { biased; () = beats.next() => true, () = std::future::ready(()) => false }
        };
        assert!(beat(&mut beats).await, "the first is at once");
        clock.advance(29_999);
        assert!(!beat(&mut beats).await);
        clock.advance(1);
        assert!(beat(&mut beats).await);
        // What was missed is made up by one.
        clock.advance(300_000);
        assert!(beat(&mut beats).await);
        assert!(!beat(&mut beats).await);
    }

    #[test]
    fn rfc3339_round_trip_keeps_milliseconds() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(parse_rfc3339("2023-11-14T23:13:20.123+01:00"), Some(1_700_000_000_123));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
