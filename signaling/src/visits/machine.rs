//! The visit as a pure state machine: values and `now` in, the next values and effects out. No storage, no network.
//!
//! scheduled → device check → waiting → admitted ⇄ waiting → in consult → ended. Two rules hold whatever is sent:
//! nobody is admitted who has not consented, and an ended visit never changes again.

use medtech_kernel::clock::Millis;
use serde::{Deserialize, Serialize};

/// Where a visit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Scheduled,
    DeviceCheck,
    Waiting,
    Admitted,
    InConsult,
    Ended,
}

impl State {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::DeviceCheck => "device_check",
            Self::Waiting => "waiting",
            Self::Admitted => "admitted",
            Self::InConsult => "in_consult",
            Self::Ended => "ended",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Scheduled,
            Self::DeviceCheck,
            Self::Waiting,
            Self::Admitted,
            Self::InConsult,
            Self::Ended,
        ]
        .into_iter()
        .find(|s| s.as_str() == text)
    }

    /// Past the lobby: media flows.
    #[must_use]
    pub const fn is_inside(self) -> bool {
        matches!(self, Self::Admitted | Self::InConsult)
    }
}

/// The two sides of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Host,
    Guest,
}

/// Time spent in the consultation: connected to the room while the visit was past the lobby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub from: Millis,
    pub to: Option<Millis>,
}

/// One side's presence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// The media connection that counts now. A newer one replaces it without a gap.
    pub connection: Option<String>,
    pub intervals: Vec<Interval>,
}

/// What the machine decides on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    pub state: State,
    pub checked_at: Option<Millis>,
    pub consented_at: Option<Millis>,
    /// Start of waiting; kept through a lost connection and through being sent back, so the place in the queue is too.
    pub arrived_at: Option<Millis>,
    pub admitted_at: Option<Millis>,
    pub ended_at: Option<Millis>,
    /// It ended because it was called off before the patient was let in.
    pub cancelled_at: Option<Millis>,
    pub host: Presence,
    pub guest: Presence,
}

/// What can happen to a visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The guest opened the link.
    Open,
    DeviceCheck,
    Consent,
    Admit,
    Hold,
    End,
    /// Whoever asked for the visit calls it off.
    Cancel,
    /// The guest goes on purpose.
    Leave,
    Joined {
        side: Side,
        connection: String,
        at: Millis,
    },
    Dropped {
        side: Side,
        connection: String,
        at: Millis,
    },
    /// After a restart: no connection survived; open intervals end when each side was last seen.
    Restarted {
        host_seen: Option<Millis>,
        guest_seen: Option<Millis>,
    },
}

/// What the shell must do about it, in the same transaction or after its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Arrived,
    Admitted,
    Held,
    Ended,
    /// The guest gave the place up.
    Left,
}

/// Why an input was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Ended,
    NotOpened,
    NoDeviceCheck,
    NoConsent,
    NotWaiting,
    NotAdmitted,
}

/// The visit after `input`, and what follows from it. Repeating a command that already holds changes nothing.
pub fn apply(visit: &Visit, input: &Input, now: Millis) -> Result<(Visit, Vec<Effect>), Refusal> {
    let mut next = visit.clone();
    let mut effects = Vec::new();
    if visit.state == State::Ended {
        return match input {
            Input::End | Input::Cancel | Input::Dropped { .. } | Input::Leave | Input::Restarted { .. } => {
                Ok((next, effects))
            }
            _ => Err(Refusal::Ended),
        };
    }
    match input {
        Input::Open => {
            if visit.state == State::Scheduled {
                next.state = State::DeviceCheck;
            }
        }
        Input::DeviceCheck => {
            if visit.state == State::Scheduled {
                return Err(Refusal::NotOpened);
            }
            next.checked_at = Some(now);
        }
        Input::Consent => {
            if visit.state == State::Scheduled {
                return Err(Refusal::NotOpened);
            }
            if visit.checked_at.is_none() {
                return Err(Refusal::NoDeviceCheck);
            }
            next.consented_at = Some(now);
            if visit.state == State::DeviceCheck {
                next.state = State::Waiting;
                next.arrived_at = Some(now);
                effects.push(Effect::Arrived);
            }
        }
        Input::Admit => match visit.state {
            State::Waiting if visit.consented_at.is_none() => return Err(Refusal::NoConsent),
            State::Waiting => {
                next.state = State::Admitted;
                next.admitted_at = Some(now);
                effects.push(Effect::Admitted);
                next.open_connected(now);
            }
            State::Admitted | State::InConsult => {}
            _ => return Err(Refusal::NotWaiting),
        },
        Input::Hold => match visit.state {
            State::Admitted | State::InConsult => {
                next.close_all(now);
                next.state = State::Waiting;
                effects.push(Effect::Held);
            }
            State::Waiting => {}
            _ => return Err(Refusal::NotAdmitted),
        },
        // Nobody is cut off in the middle: the host ends what has begun.
        Input::Cancel if visit.state.is_inside() => {}
        Input::End | Input::Cancel => {
            next.close_all(now);
            next.state = State::Ended;
            next.ended_at = Some(now);
            next.cancelled_at = (*input == Input::Cancel).then_some(now);
            next.host.connection = None;
            next.guest.connection = None;
            effects.push(Effect::Ended);
        }
        Input::Leave => {
            close(&mut next.guest.intervals, now);
            next.guest.connection = None;
            if matches!(visit.state, State::Waiting | State::Admitted) {
                next.close_all(now);
                next.state = State::Scheduled;
                next.arrived_at = None;
                next.admitted_at = None;
                next.checked_at = None;
                effects.push(Effect::Left);
            }
        }
        Input::Joined { side, connection, at } => {
            next.presence_mut(*side).connection = Some(connection.clone());
            if visit.state.is_inside() {
                next.open_connected((*at).min(now).max(visit.admitted_at.unwrap_or(*at)));
            }
        }
        Input::Dropped { side, connection, at } => {
            if next.forget(*side, connection) {
                close(&mut next.presence_mut(*side).intervals, (*at).min(now));
            }
        }
        Input::Restarted { host_seen, guest_seen } => {
            for (presence, seen) in [(&mut next.host, host_seen), (&mut next.guest, guest_seen)] {
                presence.connection = None;
                // Never seen since it opened: the interval is as long as what is known, nothing.
                close(&mut presence.intervals, seen.unwrap_or(Millis::MIN).min(now));
            }
        }
    }
    Ok((next, effects))
}

impl Visit {
    /// A visit as it is when it is requested.
    #[must_use]
    pub fn scheduled() -> Self {
        Self {
            state: State::Scheduled,
            checked_at: None,
            consented_at: None,
            arrived_at: None,
            admitted_at: None,
            ended_at: None,
            cancelled_at: None,
            host: Presence::default(),
            guest: Presence::default(),
        }
    }

    #[must_use]
    pub fn presence(&self, side: Side) -> &Presence {
        match side {
            Side::Host => &self.host,
            Side::Guest => &self.guest,
        }
    }

    fn presence_mut(&mut self, side: Side) -> &mut Presence {
        match side {
            Side::Host => &mut self.host,
            Side::Guest => &mut self.guest,
        }
    }

    /// Drops `connection` if it is the one that counts; an older one that ends late means nothing.
    fn forget(&mut self, side: Side, connection: &str) -> bool {
        let presence = self.presence_mut(side);
        let counts = presence.connection.as_deref() == Some(connection);
        if counts {
            presence.connection = None;
        }
        counts
    }

    /// Opens an interval for each connected side that has none open; both inside makes it a consultation.
    fn open_connected(&mut self, at: Millis) {
        for presence in [&mut self.host, &mut self.guest] {
            if presence.connection.is_some() && presence.intervals.last().is_none_or(|i| i.to.is_some()) {
                let from = presence
                    .intervals
                    .last()
                    .and_then(|i| i.to)
                    .map_or(at, |end| end.max(at));
                presence.intervals.push(Interval { from, to: None });
            }
        }
        if self.host.connection.is_some() && self.guest.connection.is_some() {
            self.state = State::InConsult;
        }
    }

    fn close_all(&mut self, at: Millis) {
        close(&mut self.host.intervals, at);
        close(&mut self.guest.intervals, at);
    }
}

fn close(intervals: &mut [Interval], at: Millis) {
    if let Some(last) = intervals.last_mut().filter(|i| i.to.is_none()) {
        last.to = Some(at.max(last.from));
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
