//! Recovery tells the truth: after any disconnect a client has each message exactly once, or is told that it has not.

use super::kit::{Bench, CHANNEL, Client, SHORT, options};
use crate::channels::Options;
use proptest::prelude::*;
use serde_json::{Value, json};

/// What a well-behaved client keeps: its position, and what it was given.
#[derive(Default)]
struct Follower {
    offset: i64,
    epoch: Value,
    seen: Vec<i64>,
    /// Messages it was told to have missed.
    told: i64,
}

impl Follower {
    async fn subscribe(&mut self, client: &mut Client, channel: &str) {
        let mut ask = json!({ "channel": channel });
        if self.epoch.is_string() {
            ask["recover"] = json!(true);
            ask["offset"] = json!(self.offset);
            ask["epoch"] = self.epoch.clone();
        }
        let reply = client.ask(json!({ "subscribe": ask })).await["subscribe"].clone();
        assert_eq!(reply["recoverable"], true, "{reply}");
        if reply["recovered"] == true {
            assert_eq!(reply["epoch"], self.epoch);
            assert_eq!(reply["offset"], json!(self.offset));
            for publication in reply["publications"].as_array().unwrap() {
                self.take(publication);
            }
        } else {
            let top = reply["offset"].as_i64().unwrap();
            self.told += top - self.offset;
            (self.offset, self.epoch) = (top, reply["epoch"].clone());
        }
    }

    fn take(&mut self, publication: &Value) {
        let offset = publication["offset"].as_i64().unwrap();
        assert_eq!(offset, self.offset + 1, "a gap or a repetition that nobody told of");
        self.offset = offset;
        self.seen.push(publication["data"].as_i64().unwrap());
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Publishes so many.
    Publish(u8),
    /// Reads so many of what should come.
    Read(u8),
    /// Loses the connection, whatever is under way.
    Drop,
    Return,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (1_u8..8).prop_map(Act::Publish),
        2 => (1_u8..6).prop_map(Act::Read),
        2 => Just(Act::Drop),
        3 => Just(Act::Return),
    ];
    prop::collection::vec(act, 1..24)
}

async fn play(acts: Vec<Act>, channel: &str, kept: i64) {
    let bench = Bench::start(options()).await;
    let token = bench.token("north", medtech_kernel::auth::Role::Clinician).await;
    let mut follower = Follower::default();
    let mut client = Some(bench.enter_with("north", &token).await);
    follower.subscribe(client.as_mut().unwrap(), channel).await;
    let (mut sent, mut at_drop) = (0, 0);
    for act in acts.into_iter().chain([Act::Return]) {
        match (act, &mut client) {
            (Act::Publish(n), _) => {
                for _ in 0..n {
                    sent += 1;
                    bench.publish("north", channel, &json!(sent));
                }
            }
            (Act::Read(n), Some(client)) => {
                for _ in 0..i64::from(n).min(sent - follower.offset) {
                    follower.take(&client.push("pub").await["pub"]);
                }
            }
            (Act::Drop, present) => {
                at_drop = follower.offset;
                *present = None;
            }
            (Act::Return, None) => {
                let mut back = bench.enter_with("north", &token).await;
                let told = follower.told;
                follower.subscribe(&mut back, channel).await;
                // It is told of a gap only when there is one.
                assert_eq!(follower.told > told, sent - at_drop > kept);
                client = Some(back);
            }
            _ => {}
        }
    }
    let mut client = client.unwrap();
    while follower.offset < sent {
        follower.take(&client.push("pub").await["pub"]);
    }
    assert_eq!(i64::try_from(follower.seen.len()).unwrap() + follower.told, sent);
    assert!(follower.seen.is_sorted_by(|a, b| a < b));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn each_message_exactly_once_or_told(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(acts, SHORT, 5));
    }
}

/// The same while a publisher does not wait for anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_under_a_publisher_that_never_stops() {
    let bench = Bench::start(options()).await;
    let token = bench.token("north", medtech_kernel::auth::Role::Clinician).await;
    let (hub, tenant) = (bench.hub.clone(), bench.world.north.id);
    let publisher = tokio::spawn(async move {
        for n in 1..=900 {
            hub.publish(tenant, CHANNEL, n.to_string()).unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut follower = Follower::default();
    let mut round = 0;
    while follower.offset < 900 {
        let mut client = bench.enter_with("north", &token).await;
        follower.subscribe(&mut client, CHANNEL).await;
        round += 1;
        for _ in 0..(round * 7) % 40 {
            if follower.offset == 900 {
                break;
            }
            follower.take(&client.push("pub").await["pub"]);
        }
    }
    publisher.await.unwrap();
    // The history keeps a thousand, so nothing after the first subscription may be missing.
    assert_eq!(i64::try_from(follower.seen.len()).unwrap() + follower.told, 900);
    assert_eq!(bench.count("unrecovered"), 0);
}

#[tokio::test]
async fn old_publications_are_not_recovered_and_the_client_is_told() {
    let bench = Bench::start(options()).await;
    let mut client = bench.enter("north").await;
    let mut follower = Follower::default();
    follower.subscribe(&mut client, SHORT).await;
    bench.publish("north", SHORT, &json!(1));
    client.push("pub").await;
    bench.world.ctx.clock.advance(60_001);
    client.ask(json!({ "unsubscribe": { "channel": SHORT } })).await;
    follower.subscribe(&mut client, SHORT).await;
    assert_eq!((follower.told, follower.seen.len()), (1, 0));
}

/// An inbox of one message, and a publisher that does not wait: publications are lost, and whoever is subscribed is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_publications_change_the_epoch_and_subscribers_subscribe_again() {
    let bench = Bench::start(Options { inbox: 1, ..options() }).await;
    let mut client = bench.enter("north").await;
    let mut follower = Follower::default();
    follower.subscribe(&mut client, CHANNEL).await;
    let before = follower.epoch.clone();
    let mut sent = 0;
    while bench.count("lost") == 0 {
        sent += 1;
        assert!(sent < 1_000_000, "an inbox of one never overflowed");
        bench.publish("north", CHANNEL, &json!(sent));
        if sent % 64 == 0 {
            // Something to notice the loss by, as the ping wheel's tick is.
            bench.hub.turn().await;
        }
    }
    loop {
        let push = client.next().await["push"].clone();
        if push["unsubscribe"]["code"] == 2500 {
            break;
        }
        follower.take(&push["pub"]);
    }
    assert!(follower.seen.is_sorted_by(|a, b| a < b) && follower.seen.len() < sent);
    // A second loss that is still to be noticed is noticed now.
    for _ in 0..3 {
        bench.hub.turn().await;
    }
    follower.subscribe(&mut client, CHANNEL).await;
    assert_ne!(follower.epoch, before);
    assert_eq!(bench.count("unrecovered"), 1);
    bench.publish("north", CHANNEL, &json!(1_000_001));
    assert_eq!(client.push("pub").await["pub"]["data"], 1_000_001);
}
