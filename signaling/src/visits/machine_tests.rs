//! Properties of the visit machine under any sequence of inputs.

use super::*;
use proptest::prelude::*;

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Host), Just(Side::Guest)]
}

fn input() -> impl Strategy<Value = Input> {
    let connection = prop_oneof![Just("a".to_owned()), Just("b".to_owned())];
    prop_oneof![
        2 => Just(Input::Open),
        2 => Just(Input::DeviceCheck),
        2 => Just(Input::Consent),
        3 => Just(Input::Admit),
        2 => Just(Input::Hold),
        1 => Just(Input::Leave),
        3 => (side(), connection.clone(), -50_i64..2_000)
            .prop_map(|(side, connection, at)| Input::Joined { side, connection, at }),
        2 => (side(), connection, -50_i64..2_000)
            .prop_map(|(side, connection, at)| Input::Dropped { side, connection, at }),
        1 => (proptest::option::of(0_i64..2_000), proptest::option::of(0_i64..2_000))
            .prop_map(|(host_seen, guest_seen)| Input::Restarted { host_seen, guest_seen }),
    ]
}

fn check_intervals(intervals: &[Interval]) {
    for (i, interval) in intervals.iter().enumerate() {
        if let Some(to) = interval.to {
            assert!(interval.from <= to, "an interval ends before it begins: {intervals:?}");
        } else {
            assert_eq!(
                i + 1,
                intervals.len(),
                "only the last interval may be open: {intervals:?}"
            );
        }
        if let Some(before) = i.checked_sub(1).and_then(|b| intervals.get(b)) {
            assert!(
                before.to.is_some_and(|t| t <= interval.from),
                "intervals overlap: {intervals:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn rules_hold_for_any_sequence(inputs in proptest::collection::vec((input(), 0_i64..40), 0..60), end_after in 0_usize..80) {
        let mut visit = Visit::scheduled();
        let mut now = 1_000;
        for (i, (input, step)) in inputs.iter().enumerate() {
            now += step;
            let input = if i == end_after { &Input::End } else { input };
            let before = visit.clone();
            match apply(&visit, input, now) {
                Ok((next, effects)) => {
                    // The lobby: inside only through Admit from waiting, with consent and device check on record.
                    if next.state.is_inside() {
                        prop_assert!(next.consented_at.is_some() && next.arrived_at.is_some());
                        if !before.state.is_inside() {
                            prop_assert_eq!(before.state, State::Waiting);
                            prop_assert_eq!(input, &Input::Admit);
                            prop_assert_eq!(effects, vec![Effect::Admitted]);
                        }
                    }
                    if next.state == State::InConsult && before.state != State::InConsult {
                        prop_assert!(next.host.connection.is_some() && next.guest.connection.is_some());
                    }
                    if before.state == State::Ended {
                        prop_assert_eq!(next.state, State::Ended);
                        prop_assert_eq!(&next.host.intervals, &before.host.intervals);
                        prop_assert_eq!(&next.guest.intervals, &before.guest.intervals);
                        prop_assert_eq!(next.ended_at, before.ended_at);
                    }
                    // Nobody spends time in a consultation outside it.
                    if !next.state.is_inside() {
                        for p in [&next.host, &next.guest] {
                            prop_assert!(p.intervals.last().is_none_or(|i| i.to.is_some()));
                        }
                    }
                    visit = next;
                }
                Err(_) => prop_assert_ne!(input, &Input::End, "ending is always possible"),
            }
            check_intervals(&visit.host.intervals);
            check_intervals(&visit.guest.intervals);
        }
    }

    #[test]
    fn hold_and_admit_any_number_of_times_keep_the_place(times in 1_usize..20) {
        let mut visit = waiting();
        let arrived = visit.arrived_at;
        let mut now = 5_000;
        for _ in 0..times {
            for input in [Input::Admit, Input::Hold] {
                now += 10;
                visit = apply(&visit, &input, now).expect("allowed").0;
            }
        }
        prop_assert_eq!(visit.state, State::Waiting);
        prop_assert_eq!(visit.arrived_at, arrived);
    }
}

fn waiting() -> Visit {
    let mut visit = Visit::scheduled();
    for (i, input) in [Input::Open, Input::DeviceCheck, Input::Consent].iter().enumerate() {
        visit = apply(&visit, input, 100 * i as Millis).expect("allowed").0;
    }
    visit
}

fn joined(visit: &Visit, side: Side, connection: &str, at: Millis) -> Visit {
    apply(
        visit,
        &Input::Joined {
            side,
            connection: connection.into(),
            at,
        },
        at,
    )
    .expect("allowed")
    .0
}

#[test]
fn a_connection_in_the_lobby_counts_only_from_admission() {
    let visit = joined(&joined(&waiting(), Side::Host, "h", 1_000), Side::Guest, "g", 1_100);
    assert_eq!(visit.state, State::Waiting);
    assert!(visit.guest.intervals.is_empty());
    let (visit, _) = apply(&visit, &Input::Admit, 2_000).expect("allowed");
    assert_eq!(visit.state, State::InConsult);
    assert_eq!(visit.guest.intervals, [Interval { from: 2_000, to: None }]);
}

#[test]
fn a_reload_makes_two_intervals_and_an_older_connection_that_ends_late_means_nothing() {
    let (visit, _) = apply(&waiting(), &Input::Admit, 1_000).expect("allowed");
    let visit = joined(&joined(&visit, Side::Host, "h", 1_000), Side::Guest, "g1", 1_500);
    assert_eq!(visit.state, State::InConsult);
    let dropped = Input::Dropped {
        side: Side::Guest,
        connection: "g1".into(),
        at: 2_000,
    };
    let visit = apply(&visit, &dropped, 2_000).expect("allowed").0;
    assert_eq!(visit.state, State::InConsult, "a dropped participant keeps the place");
    let visit = joined(&visit, Side::Guest, "g2", 2_500);
    let visit = apply(&visit, &dropped, 2_600).expect("allowed").0;
    assert_eq!(
        visit.guest.intervals,
        [
            Interval {
                from: 1_500,
                to: Some(2_000)
            },
            Interval { from: 2_500, to: None }
        ]
    );
}

#[test]
fn a_restart_closes_at_the_last_sight() {
    let (visit, _) = apply(&joined(&waiting(), Side::Host, "h", 900), &Input::Admit, 1_000).expect("allowed");
    let (visit, _) = apply(
        &visit,
        &Input::Restarted {
            host_seen: Some(4_000),
            guest_seen: None,
        },
        60_000,
    )
    .expect("allowed");
    assert_eq!(
        visit.host.intervals,
        [Interval {
            from: 1_000,
            to: Some(4_000)
        }]
    );
    assert_eq!(visit.state, State::Admitted);
}

#[test]
fn the_door_says_what_is_missing() {
    let fresh = Visit::scheduled();
    assert_eq!(apply(&fresh, &Input::Admit, 1).expect_err("early"), Refusal::NotWaiting);
    assert_eq!(
        apply(&fresh, &Input::Consent, 1).expect_err("early"),
        Refusal::NotOpened
    );
    let (opened, _) = apply(&fresh, &Input::Open, 1).expect("allowed");
    assert_eq!(
        apply(&opened, &Input::Consent, 2).expect_err("early"),
        Refusal::NoDeviceCheck
    );
    assert_eq!(
        apply(&opened, &Input::Hold, 2).expect_err("early"),
        Refusal::NotAdmitted
    );
    let (ended, _) = apply(&waiting(), &Input::End, 3).expect("allowed");
    assert_eq!(apply(&ended, &Input::Open, 4).expect_err("final"), Refusal::Ended);
}
