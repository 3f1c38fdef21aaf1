//! The way in from an external broker (`mqtt.broker`): readings of known devices, acknowledged to the broker when they
//! are durable. Who a device is, the broker vouches for: it must let each publish to its own topic only.

use super::{Devices, Durable, relay::Relay, senml};
use medtech_kernel::{
    Error, Result, TenantId,
    config::{self, is_this_machine},
};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS, Transport};
use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// Publications that wait to become durable. When it is full, nothing more is read from the broker.
const WAITING: usize = 200;
/// Acknowledgements on their way to the socket: far more than can wait, so that sending one never waits for reading.
const REQUESTS: usize = 4_096;
/// Before connecting again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a device's tenant is believed.
const KNOWN_FOR: Duration = Duration::from_secs(5);
/// Devices remembered at once; past that all are looked up anew.
const REMEMBERED: usize = 10_000;

/// Connects and stays connected until the process stops.
pub(super) fn start(devices: Devices, url: &str) -> Result<()> {
    let config = &devices.0.ctx.config;
    if is_plain(&config.mqtt)? && !config.mqtt.allow_plain {
        let what = "mqtt.broker: another machine is reached by TLS alone: use mqtts://";
        return Err(Error::bad("config.invalid", what));
    }
    let address = Address::parse(url)?;
    let relay = match address.tls {
        false => None,
        true => Some(Relay::open(config, &address.host, address.port)?),
    };
    let options = options(&address, relay.as_ref().map(Relay::place));
    tokio::spawn(async move {
        // As long as anybody may connect through it.
        let _relay = relay;
        let mut stop = devices.0.stop.clone();
        let mut known = Known::default();
        loop {
            tokio::select! {
                () = connection(&devices, options.clone(), &mut known) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    });
    Ok(())
}

/// Does the way to the broker go to another machine without TLS?
pub(super) fn is_plain(config: &config::Mqtt) -> Result<bool> {
    match &config.broker {
        None => Ok(false),
        Some(url) => {
            let address = Address::parse(url)?;
            Ok(!address.tls && !is_this_machine(&address.host))
        }
    }
}

/// `mqtt[s]://[user:password@]host[:port]`
struct Address {
    tls: bool,
    host: String,
    port: u16,
    login: Option<(String, String)>,
}

impl Address {
    fn parse(url: &str) -> Result<Self> {
        let wrong = || {
            let what = "mqtt.broker: expected mqtts://user:password@host:port";
            Error::bad("config.invalid", what)
        };
        let (tls, rest) = match (url.strip_prefix("mqtts://"), url.strip_prefix("mqtt://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        let (login, address) = match rest.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, rest),
        };
        let port_follows = !address.ends_with(']');
        let (host, port) = match address.rsplit_once(':').filter(|_| port_follows) {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (address, if tls { 8883 } else { 1883 }),
        };
        let host = host.trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(wrong());
        }
        let login = login.and_then(|l| l.split_once(':'));
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
        })
    }
}

/// `way`: the socket of the relay that speaks TLS for us.
fn options(address: &Address, way: Option<&str>) -> MqttOptions {
    // A fixed client id and a kept session: what the broker was not acknowledged, it sends again.
    let mut options = MqttOptions::new("medtech-readings", way.unwrap_or(&address.host), address.port);
    if way.is_some() {
        options.set_transport(Transport::Unix);
    }
    options
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_keep_alive(Duration::from_secs(30));
    options.set_max_packet_size(64 * 1024, 64 * 1024);
    if let Some((user, password)) = &address.login {
        options.set_credentials(user, password);
    }
    options
}

/// One connection, to its end.
async fn connection(devices: &Devices, options: MqttOptions, known: &mut Known) {
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    let (waiting, inbox) = mpsc::channel(WAITING);
    let acknowledge = acknowledge(client.clone(), inbox);
    tokio::select! {
        () = receive(devices, &client, &mut events, waiting, known) => {}
        () = acknowledge => {}
    }
}

async fn receive(
    devices: &Devices,
    client: &AsyncClient,
    events: &mut EventLoop,
    waiting: mpsc::Sender<(Publish, Option<Durable>)>,
    known: &mut Known,
) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                tracing::info!("mqtt broker: connected");
                if client.try_subscribe("devices/+/readings", QoS::AtLeastOnce).is_err() {
                    return;
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                // Not even known whether it can be taken: without an acknowledgement it comes again.
                let Ok(durable) = take(devices, &publish, known).await.inspect_err(|e| {
                    tracing::error!(error = ?e, "mqtt broker: cannot look up a device");
                }) else {
                    return;
                };
                if waiting.send((publish, durable)).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(e) => {
                tracing::warn!(error = %e, "mqtt broker: connection lost");
                return;
            }
        }
    }
}

/// In the order of arrival. What could not be recorded ends the connection, so that the broker sends it again.
async fn acknowledge(client: AsyncClient, mut inbox: mpsc::Receiver<(Publish, Option<Durable>)>) {
    while let Some((publish, durable)) = inbox.recv().await {
        if let Some(durable) = durable
            && !matches!(durable.await, Ok(Ok(())))
        {
            return;
        }
        if publish.qos != QoS::AtMostOnce && client.ack(&publish).await.is_err() {
            return;
        }
    }
}

/// `None`: nothing to wait for. What can never be taken is acknowledged, or it would come again for ever.
async fn take(devices: &Devices, publish: &Publish, known: &mut Known) -> Result<Option<Durable>> {
    let device = publish
        .topic
        .strip_prefix("devices/")
        .and_then(|t| t.strip_suffix("/readings"));
    let Some(device) = device.filter(|d| !d.contains('/')) else {
        return Ok(None);
    };
    let now = devices.0.ctx.clock.now_ms();
    let Some((tenant, feeds)) = known.find(devices, device).await? else {
        tracing::info!("mqtt broker: readings of an unknown device were dropped");
        return Ok(None);
    };
    match senml::parse(&publish.payload, now) {
        Ok(readings) => Ok(Some(devices.take(tenant, device, None, &feeds, now, readings).await)),
        Err(why) => {
            tracing::info!(%tenant, device, reason = %why, "mqtt broker: a malformed pack was dropped");
            Ok(None)
        }
    }
}

/// Which tenant a device is of, and what it feeds.
#[derive(Default)]
struct Known(HashMap<String, (Instant, u64, Fed)>);

/// The clinic of a device and what it feeds, where any clinic has the device.
type Fed = Option<(TenantId, String)>;

impl Known {
    async fn find(&mut self, devices: &Devices, device: &str) -> Result<Fed> {
        let moved = devices.0.moved.load(Ordering::Relaxed);
        if let Some((since, at, found)) = self.0.get(device)
            && *at == moved
            && since.elapsed() < KNOWN_FOR
        {
            return Ok(found.clone());
        }
        let mut found = None;
        for tenant in devices.0.ctx.tenants.all() {
            match devices.feeds(tenant.id, device).await {
                Ok(None) => {}
                Ok(Some(feeds)) => {
                    found = Some((tenant.id, feeds));
                    break;
                }
                // That clinic cannot be served; the others are.
                Err(e) if e.is_refused_file() => {}
                Err(e) => return Err(e),
            }
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(device.to_owned(), (Instant::now(), moved, found.clone()));
        Ok(found)
    }
}
