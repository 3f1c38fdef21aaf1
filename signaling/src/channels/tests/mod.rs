//! The hub behind a real listener, spoken to by an independent WebSocket client.

mod abuse;
mod kit;
mod recovery;

use super::shard::PING_SECONDS;
use kit::{Bench, CHANNEL, CONVERSATION, Client, closed, options};
use medtech_kernel::{Error, auth::Role, bus::Event, policy::relate};
use serde_json::{Value, json};

#[tokio::test]
async fn an_event_of_the_bus_reaches_its_tenants_subscribers_and_nobody_else() {
    let bench = Bench::start(options()).await;
    let mut clients = Vec::new();
    for tenant in ["north", "south", "east"] {
        let mut client = bench.enter(tenant).await;
        client.subscribe(CHANNEL).await;
        clients.push(client);
    }
    for (n, tenant) in bench.tenants().into_iter().enumerate() {
        let ctx = &bench.world.ctx;
        let event = Event::new(&ctx.clock, tenant, "alert.raised", "alert:1", &json!({ "alert": n })).unwrap();
        ctx.bus.publish(event.on(CHANNEL));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let push = client.push("pub").await;
        assert_eq!(push["channel"], CHANNEL);
        assert_eq!(push["pub"]["offset"], 1);
        let data = &push["pub"]["data"];
        assert_eq!((&data["kind"], &data["alert"]), (&json!("alert.raised"), &json!(n)));
        assert!(data["id"].is_string() && data["at"].is_string());
    }
    // Offsets, presence and history are the tenant's own too: each stands at one publication and one member.
    for client in &mut clients {
        let history = client
            .ask(json!({ "history": { "channel": CHANNEL, "limit": -1 } }))
            .await;
        assert_eq!(history["history"]["publications"].as_array().unwrap().len(), 1);
        let stats = client.ask(json!({ "presence_stats": { "channel": CHANNEL } })).await;
        assert_eq!(stats["presence_stats"], json!({ "num_clients": 1, "num_users": 1 }));
    }
}

#[tokio::test]
async fn a_token_of_another_tenant_is_worth_nothing() {
    let bench = Bench::start(options()).await;
    let token = bench.token("north", Role::Clinician).await;
    let mut client = bench.dial("south").await;
    client.command(json!({ "id": 1, "connect": { "token": token } })).await;
    assert_eq!(closed(&mut client).await, (3500, "invalid token".into()));
}

#[tokio::test]
async fn an_ended_session_is_cut_at_once_and_others_stay() {
    let bench = Bench::start(options()).await;
    let token = bench.token("north", Role::Clinician).await;
    let (mut first, mut second) = (
        bench.enter_with("north", &token).await,
        bench.enter_with("north", &token).await,
    );
    let mut other = bench.enter("north").await;
    let ctx = bench.world.ctx.clone();
    let (sessions, north) = (ctx.sessions.clone(), bench.world.north.id);
    let session = sessions.verify(north, &token).await.unwrap().session;
    let revoker = sessions.clone();
    let revoke = ctx.db.write(north, move |tx| {
        Box::pin(async move { revoker.revoke(tx, session).await })
    });
    revoke.await.unwrap();
    assert_eq!(closed(&mut first).await.0, 3500);
    assert_eq!(closed(&mut second).await.0, 3500);
    assert_eq!(other.ask(json!({ "ping": {} })).await["ping"], json!({}));
    let mut again = bench.dial("north").await;
    again.command(json!({ "id": 1, "connect": { "token": token } })).await;
    assert_eq!(closed(&mut again).await.0, 3500);
}

#[tokio::test]
async fn joining_asks_the_policy_and_publishing_is_not_for_clients() {
    let bench = Bench::start(options()).await;
    let token = bench.token("north", Role::Guest).await;
    let mut guest = bench.enter_with("north", &token).await;
    let code = |reply: &Value| reply["error"]["code"].as_i64();
    assert_eq!(
        code(&guest.ask(json!({ "subscribe": { "channel": CHANNEL } })).await),
        Some(103)
    );
    assert_eq!(
        code(&guest.ask(json!({ "subscribe": { "channel": "nothing:1" } })).await),
        Some(102)
    );
    assert_eq!(
        code(&guest.ask(json!({ "subscribe": { "channel": "board" } })).await),
        Some(102)
    );
    // Neither may someone outside of a channel look into it.
    assert_eq!(
        code(
            &guest
                .ask(json!({ "history": { "channel": CHANNEL, "limit": 5 } }))
                .await
        ),
        Some(103)
    );
    assert_eq!(
        code(&guest.ask(json!({ "presence": { "channel": CHANNEL } })).await),
        Some(103)
    );
    let mut clinician = bench.enter("north").await;
    clinician.subscribe(CHANNEL).await;
    assert_eq!(
        code(&clinician.ask(json!({ "subscribe": { "channel": CHANNEL } })).await),
        Some(105)
    );
    assert_eq!(
        code(
            &clinician
                .ask(json!({ "publish": { "channel": CHANNEL, "data": {} } }))
                .await
        ),
        Some(103)
    );
}

#[tokio::test]
async fn calls_reach_their_handler_as_the_caller_and_keep_their_order() {
    let bench = Bench::start(options()).await;
    bench.hub.rpc("who", |who, data| async move {
        let answer = json!({ "subject": who.subject, "tenant": who.tenant, "data": serde_json::from_str::<Value>(data.get()).unwrap() });
        Ok(serde_json::value::to_raw_value(&answer).unwrap())
    });
    bench.hub.rpc("no", |_, _| async {
        Err(Error::conflict("visit.link_in_use", "Open on another device."))
    });
    bench.hub.rpc("fault", |_, _| async { panic!("a handler's fault") });
    let mut client = bench.enter("south").await;
    let reply = client
        .ask(json!({ "rpc": { "method": "who", "data": { "x": [1] } } }))
        .await;
    let expected = json!({ "subject": client.subject, "tenant": bench.world.south.id, "data": { "x": [1] } });
    assert_eq!(reply["rpc"]["data"], expected);
    let error = client.ask(json!({ "rpc": { "method": "no" } })).await["error"].clone();
    assert_eq!(error, json!({ "code": 409, "message": "Open on another device." }));
    assert_eq!(
        client.ask(json!({ "rpc": { "method": "fault" } })).await["error"]["code"],
        100
    );
    assert_eq!(
        client.ask(json!({ "rpc": { "method": "unknown" } })).await["error"]["code"],
        104
    );
    // Several commands in one frame, answered in their order.
    let frame: Vec<String> = (100..110)
        .map(|id| json!({ "id": id, "rpc": { "method": "who", "data": id } }).to_string())
        .collect();
    client.text(&frame.join("\n")).await;
    for id in 100..110 {
        let reply = client.next().await;
        assert_eq!((&reply["id"], &reply["rpc"]["data"]["data"]), (&json!(id), &json!(id)));
    }
}

#[tokio::test]
async fn presence_tells_who_is_there_and_who_comes_and_goes() {
    let bench = Bench::start(options()).await;
    let mut changes = bench.hub.presence_changes();
    let mut first = bench.enter("north").await;
    first.subscribe(CHANNEL).await;
    let mut second = bench.enter("north").await;
    second.subscribe(CHANNEL).await;
    let join = first.push("join").await;
    assert_eq!(join["join"]["info"]["user"], json!(second.subject));
    let present = first.ask(json!({ "presence": { "channel": CHANNEL } })).await["presence"]["presence"].clone();
    let mut users: Vec<&Value> = present.as_object().unwrap().values().map(|i| &i["user"]).collect();
    users.sort_by_key(|u| u.to_string());
    let mut expected = [json!(first.subject), json!(second.subject)];
    expected.sort_by_key(|u| u.to_string());
    assert_eq!(users, expected.iter().collect::<Vec<_>>());
    assert_eq!(
        bench.hub.presence(bench.world.north.id, CHANNEL).await.unwrap().len(),
        2
    );
    assert_eq!(
        bench.hub.presence(bench.world.south.id, CHANNEL).await.unwrap().len(),
        0
    );
    let left = second.subject.clone();
    drop(second);
    assert_eq!(first.push("leave").await["leave"]["info"]["user"], json!(left));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let change = changes.recv().await.unwrap();
        seen.push((change.subject, change.joined));
    }
    assert_eq!(
        seen,
        [(first.subject.clone(), true), (left.clone(), true), (left, false)]
    );
    // Access withdrawn: the subscription ends, the connection stays.
    bench
        .hub
        .expel(bench.world.north.id, CHANNEL, &first.subject.clone())
        .await;
    assert_eq!(first.push("unsubscribe").await["unsubscribe"]["code"], 2000);
    assert_eq!(first.ask(json!({ "ping": {} })).await["ping"], json!({}));
}

#[tokio::test]
async fn history_pages_both_ways_and_refuses_a_strangers_epoch() {
    let bench = Bench::start(options()).await;
    let mut client = bench.enter("north").await;
    let epoch = client.subscribe(CHANNEL).await["epoch"].clone();
    for n in 1..=4 {
        bench.publish("north", CHANNEL, &json!(n));
    }
    for _ in 1..=4 {
        client.push("pub").await;
    }
    let mut ask = async |body: Value| {
        let mut body = body;
        body["channel"] = json!(CHANNEL);
        let reply = client.ask(json!({ "history": body })).await;
        let list = |v: &Value| {
            v.as_array()
                .unwrap()
                .iter()
                .map(|p| p["data"].as_i64().unwrap())
                .collect::<Vec<_>>()
        };
        match reply["history"]["publications"] {
            Value::Null => Err(reply["error"]["code"].as_i64()),
            ref list_of => Ok((list(list_of), reply["history"]["offset"].as_i64())),
        }
    };
    assert_eq!(ask(json!({})).await, Ok((vec![], Some(4))));
    assert_eq!(ask(json!({ "limit": 2 })).await, Ok((vec![1, 2], Some(4))));
    assert_eq!(
        ask(json!({ "limit": -1, "reverse": true })).await,
        Ok((vec![4, 3, 2, 1], Some(4)))
    );
    let since = json!({ "offset": 2, "epoch": epoch });
    assert_eq!(
        ask(json!({ "limit": 10, "since": since })).await,
        Ok((vec![3, 4], Some(4)))
    );
    assert_eq!(
        ask(json!({ "limit": 10, "since": since, "reverse": true })).await,
        Ok((vec![1], Some(4)))
    );
    assert_eq!(
        ask(json!({ "limit": 10, "since": { "offset": 2, "epoch": "other" } })).await,
        Err(Some(112))
    );
}

#[tokio::test]
async fn who_does_not_answer_the_ping_is_cut_and_who_does_is_not() {
    let bench = Bench::start(options()).await;
    let (mut silent, mut alive) = (bench.enter("north").await, bench.enter("north").await);
    for _ in 0..PING_SECONDS {
        bench.hub.turn().await;
    }
    assert_eq!(silent.next().await, json!({}));
    assert_eq!(alive.next().await, json!({}));
    alive.text("{}").await;
    // Its pong has been read when a later command of the same connection is answered.
    alive.ask(json!({ "ping": {} })).await;
    for _ in 0..10 {
        bench.hub.turn().await;
    }
    assert_eq!(closed(&mut silent).await, (3012, "no pong".into()));
    assert_eq!(alive.ask(json!({ "ping": {} })).await["ping"], json!({}));
    assert_eq!(bench.count("no_pong"), 1);
}

#[tokio::test]
async fn shutting_down_sends_clients_elsewhere_and_takes_no_more() {
    let bench = Bench::start(options()).await;
    let mut clients: Vec<Client> = Vec::new();
    for tenant in ["north", "south"] {
        clients.push(bench.enter(tenant).await);
    }
    let hub = bench.hub.clone();
    let shutdown = tokio::spawn(async move { hub.shutdown().await });
    for client in &mut clients {
        assert_eq!(closed(client).await, (3001, "shutdown".into()));
    }
    drop(clients);
    shutdown.await.unwrap();
    assert_eq!(bench.count("connections"), 0);
    assert!(bench.refusal("north", None).await.contains("503"));
}

#[tokio::test]
async fn what_ends_by_time_alone_ends_a_live_connection_too() {
    let bench = Bench::start(options()).await;
    let (clock, north) = (bench.world.ctx.clock.clone(), bench.world.north.id);
    let mut client = bench.enter("north").await;
    let (subject, until) = (client.subject.clone(), clock.now_ms() + 60_000);
    let related = bench.world.ctx.db.write(north, move |tx| {
        Box::pin(async move { relate(tx, &subject, "member", CONVERSATION, Some(until)).await })
    });
    related.await.unwrap();
    let reply = client.subscribe(CONVERSATION).await;
    assert_eq!(reply, json!({}), "a channel that keeps nothing is not recoverable");
    bench.publish("north", CONVERSATION, &json!("typing"));
    assert_eq!(client.push("pub").await["pub"], json!({ "data": "typing" }));
    clock.advance(300_000);
    client.text("{}").await;
    assert_eq!(client.push("unsubscribe").await["unsubscribe"]["code"], 2000);
    bench.publish("north", CONVERSATION, &json!("not for them"));
    assert_eq!(client.ask(json!({ "ping": {} })).await["ping"], json!({}));
    // The session itself lasts an hour.
    clock.advance(3_600_000);
    client.text("{}").await;
    assert_eq!(closed(&mut client).await, (3005, "connection expired".into()));
}

/// A connection that stands and answers its pings is a machine: the silence of its owner goes on.
#[tokio::test]
async fn silence_ends_a_live_connection_too_and_requests_keep_it() {
    let bench = Bench::start(options()).await;
    let (ctx, north) = (bench.world.ctx.clone(), bench.world.north.id);
    let mut tokens = Vec::new();
    for subject in ["user:1", "user:2"] {
        let sessions = ctx.sessions.clone();
        let issued = ctx.db.write(north, move |tx| {
            Box::pin(async move {
                let new = medtech_kernel::auth::NewSession {
                    subject: subject.into(),
                    name: subject.into(),
                    roles: vec![Role::Clinician],
                    ttl_ms: 12 * 3_600_000,
                    note: String::new(),
                    grant: medtech_kernel::auth::Assurance::Two.into(),
                    idle_ms: Some(15 * 60_000),
                };
                sessions.issue(tx, new).await.map(|(token, _)| token)
            })
        });
        tokens.push(issued.await.unwrap());
    }
    let mut away = bench.enter_with("north", &tokens[0]).await;
    let mut here = bench.enter_with("north", &tokens[1]).await;
    for _ in 0..2 {
        ctx.clock.advance(5 * 60_000 + 1);
        // Whoever is here is told of by requests, a call that stands by its page.
        ctx.sessions.verify(north, &tokens[1]).await.unwrap();
        for client in [&mut away, &mut here] {
            assert_eq!(client.ask(json!({ "ping": {} })).await["ping"], json!({}));
        }
    }
    let since = ctx.clock.now_ms();
    ctx.clock.advance(5 * 60_000 + 1);
    ctx.sessions.verify(north, &tokens[1]).await.unwrap();
    // Without waiting for the next word of the client.
    assert_eq!(
        ctx.sessions.close_over(north, since, ctx.clock.now_ms()).await.unwrap(),
        1
    );
    assert_eq!(closed(&mut away).await.0, 3500);
    assert_eq!(here.ask(json!({ "ping": {} })).await["ping"], json!({}));
    // And with the event lost, the connection's own look ends it.
    let mut late = bench.enter_with("north", &tokens[1]).await;
    ctx.clock.advance(15 * 60_000);
    late.text("{}").await;
    assert_eq!(closed(&mut late).await, (3005, "connection expired".into()));
}

#[tokio::test]
async fn access_withdrawn_by_a_module_ends_the_subscription_at_once() {
    let bench = Bench::start(options()).await;
    let (mut first, mut second) = (bench.enter("north").await, bench.enter("north").await);
    first.subscribe("patient:7").await;
    second.subscribe("patient:7").await;
    bench
        .hub
        .expel(bench.world.north.id, "patient:7", &first.subject.clone())
        .await;
    bench.publish("north", "patient:7", &json!(1));
    assert_eq!(second.push("pub").await["pub"]["data"], 1);
    assert_eq!(first.next().await["push"]["unsubscribe"]["code"], 2000);
    // Nothing came after it: the next thing it hears is the answer to its own question.
    assert_eq!(first.ask(json!({ "ping": {} })).await["ping"], json!({}));
}

#[tokio::test]
async fn withdrawn_access_ends_a_subscription_by_the_event_and_without_it() {
    let bench = Bench::start(options()).await;
    let (ctx, north) = (bench.world.ctx.clone(), bench.world.north.id);
    // Once told by the live event, once only by what stands in the database: an event that was lost still bites.
    for told in [true, false] {
        let mut client = bench.enter("north").await;
        let subject = client.subject.clone();
        let member = subject.clone();
        let related = ctx.db.write(north, move |tx| {
            Box::pin(async move { relate(tx, &member, "member", CONVERSATION, None).await })
        });
        related.await.unwrap();
        client.subscribe(CONVERSATION).await;
        bench.hub.watch().await;
        let policy = ctx.policy.clone();
        let gone = ctx.db.write(north, move |tx| {
            Box::pin(async move {
                medtech_kernel::policy::unrelate(tx, &subject, "member", CONVERSATION).await?;
                if told {
                    policy.announce(tx, Some(&subject))
                } else {
                    Ok(())
                }
            })
        });
        gone.await.unwrap();
        if !told {
            bench.hub.watch().await;
        }
        assert_eq!(client.push("unsubscribe").await["unsubscribe"]["code"], 2000);
    }
}
