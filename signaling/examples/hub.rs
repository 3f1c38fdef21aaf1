//! A small server with nothing but the live channels, for trying clients: three tenants on one port
//! (`north.localhost`, `south.localhost`, `east.localhost`), a signed-in clinician in each, and two calls: `echo` answers
//! what it is given, `publish {channel, data}` publishes it.
//!
//! Prints one JSON line `{port, tokens: {north, south, east}}`; ends when its standard input ends.

use medtech_kernel::{ChannelRule, Clock, Ctx, Error, auth::Role, policy::Action, testkit::World};
use medtech_signaling::channels::Hub;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

static BOARD: ChannelRule = ChannelRule {
    kind: "board",
    subscribe: Action::Subscribe,
    history: 100,
    ttl_ms: 300_000,
    presence: true,
};
static PATIENT: ChannelRule = ChannelRule {
    kind: "patient",
    subscribe: Action::Subscribe,
    history: 5,
    ttl_ms: 300_000,
    presence: false,
};

#[derive(serde::Deserialize)]
struct Publish {
    channel: String,
    data: Box<RawValue>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = World::sqlite(&[]).await?;
    // The test world's clock stands still; limits and histories need one that runs.
    let ctx = Ctx {
        clock: Clock::system(),
        ..world.ctx.clone()
    };
    let hub = Hub::start(ctx, vec![&BOARD, &PATIENT])?;
    hub.rpc("echo", |_, data| async move { Ok(data) });
    let publisher = hub.clone();
    hub.rpc("publish", move |who, data| {
        let hub = publisher.clone();
        async move {
            let ask: Publish =
                serde_json::from_str(data.get()).map_err(|_| Error::bad("publish.body", "channel, data"))?;
            hub.publish(who.tenant, &ask.channel, ask.data.get())?;
            Ok(RawValue::NULL.to_owned())
        }
    });
    let mut tokens = BTreeMap::new();
    for tenant in [&world.north, &world.south, &world.east] {
        let (_, token) = world
            .sign_in(tenant, "user:0191d1e0-0000-7000-8000-000000000001", Role::Clinician)
            .await?;
        tokens.insert(tenant.slug.to_string(), token);
    }
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let line = serde_json::json!({ "port": listener.local_addr()?.port(), "tokens": tokens });
    #[expect(clippy::print_stdout, reason = "the line is this program's answer")]
    {
        println!("{line}");
    }
    let stop = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let serve = axum::serve(listener, hub.router());
    tokio::select! {
        served = serve => served?,
        ended = stop => { ended??; }
    }
    hub.shutdown().await;
    Ok(())
}
