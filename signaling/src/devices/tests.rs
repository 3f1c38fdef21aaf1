//! The device door, from outside: programs of others, and packets nobody should send.

mod tls;

use super::*;
use futures_util::{SinkExt, StreamExt};
use medtech_kernel::{
    Tenant,
    auth::{Assurance, NewSession, Role},
    id,
    policy::{announce, relate, relate_only},
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use std::{process::Command, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

struct Door<'a> {
    world: &'a World,
    devices: Devices,
    address: SocketAddr,
    live: mpsc::Receiver<Event>,
    _stop: watch::Sender<bool>,
}

struct Wearable {
    id: String,
    token: String,
}

async fn door(world: &World, broker: Option<String>) -> Result<Door<'_>> {
    let mut ctx = world.ctx.clone();
    let mut config = (*ctx.config).clone();
    config.mqtt.bind = SocketAddr::from(([127, 0, 0, 1], 0));
    config.mqtt.broker = broker;
    ctx.config = Arc::new(config);
    let live = ctx.bus.attach_live()?;
    let (stop, stopped) = watch::channel(false);
    let devices = Devices::start(ctx, stopped).await?;
    Ok(Door {
        world,
        address: devices.addr(),
        devices,
        live,
        _stop: stop,
    })
}

impl Door<'_> {
    fn consumed(&self) {
        self.world.ctx.bus.register("probe", &[READINGS]);
    }

    async fn wearable(&self, tenant: &Tenant, feeds: Option<&'static str>) -> Result<Wearable> {
        let (sessions, device) = (
            self.world.ctx.sessions.clone(),
            id::new_id(&self.world.ctx.clock).to_string(),
        );
        let subject = format!("device:{device}");
        let token = self
            .world
            .ctx
            .db
            .write(tenant.id, move |tx| {
                Box::pin(async move {
                    if let Some(feeds) = feeds {
                        relate(tx, &subject, "feeds", feeds, None).await?;
                    }
                    let (name, note) = ("Wearable".to_owned(), String::new());
                    sessions
                        .issue(
                            tx,
                            NewSession {
                                subject,
                                name,
                                roles: vec![Role::Device],
                                ttl_ms: 1_000_000,
                                note,
                                grant: Assurance::Bearer.into(),
                                idle_ms: None,
                            },
                        )
                        .await
                })
            })
            .await?
            .0;
        Ok(Wearable { id: device, token })
    }

    async fn recorded(&self, tenant: &Tenant) -> Result<Vec<Value>> {
        let events = self.world.ctx.bus.waiting(tenant.id, "probe").await?;
        let json = |e: &Event| serde_json::from_str(e.body.get()).expect("json");
        Ok(events.iter().map(json).collect())
    }

    async fn mosquitto_pub(&self, w: &Wearable, more: &[&str]) -> (bool, String) {
        let mut command = Command::new("mosquitto_pub");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.address.port().to_string(),
            "-u",
            &w.id,
            "-P",
            &w.token,
        ]);
        command.args(more);
        let out = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("task")
            .expect("mosquitto_pub is installed");
        let text = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    async fn connect(&self, version: u8, w: &Wearable, client: &str) -> Raw {
        let mut raw = Raw(TcpStream::connect(self.address).await.expect("connect"));
        raw.0
            .write_all(&connect(version, &w.id, &w.token, client))
            .await
            .expect("write");
        let ack = raw.packet().await;
        assert_eq!((ack[0], ack[3]), (0x20, 0), "{ack:02x?}");
        raw
    }
}

/// A client that sends whatever it likes.
struct Raw(TcpStream);

impl Raw {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("write");
    }

    async fn packet(&mut self) -> Vec<u8> {
        let mut head = [0; 2];
        timeout(Duration::from_secs(20), self.0.read_exact(&mut head))
            .await
            .expect("in time")
            .expect("an answer");
        let (mut packet, mut len) = (head.to_vec(), usize::from(head[1] & 0x7F));
        if head[1] & 0x80 != 0 {
            let next = self.0.read_u8().await.expect("length");
            packet.push(next);
            len += usize::from(next) << 7;
        }
        let mut rest = vec![0; len];
        self.0.read_exact(&mut rest).await.expect("rest");
        packet.extend(rest);
        packet
    }

    /// Everything until the server closes.
    async fn last_words(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        // A reset counts as closed: the server may leave bytes of ours unread.
        let _ = timeout(Duration::from_secs(20), self.0.read_to_end(&mut all))
            .await
            .expect("the server closes");
        all
    }
}

fn text(t: &str) -> Vec<u8> {
    [&u16::try_from(t.len()).expect("short").to_be_bytes()[..], t.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let low = u8::try_from(len & 0x7F).expect("seven bits");
        len >>= 7;
        out.push(if len > 0 { low | 0x80 } else { low });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn connect(version: u8, user: &str, password: &str, client: &str) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    let body = [
        &text("MQTT")[..],
        &[version, 0xC2, 0, 60],
        properties,
        &text(client),
        &text(user),
        &text(password),
    ]
    .concat();
    packet(0x10, &body)
}

fn connect_alive(w: &Wearable, seconds: u8) -> Vec<u8> {
    let body = [
        &text("MQTT")[..],
        &[5, 0xC2, 0, seconds, 0],
        &text("alive"),
        &text(&w.id),
        &text(&w.token),
    ]
    .concat();
    packet(0x10, &body)
}

fn publish(version: u8, qos: u8, id: u16, topic: &str, payload: &str) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if version == 5 {
        body.push(0);
    }
    body.extend_from_slice(payload.as_bytes());
    packet(0x30 | qos << 1, &body)
}

const PACK: &str =
    r#"[{"bn":"","n":"heart-rate","u":"beat/min","v":72},{"n":"spo2|59408-5","u":"%","v":97.50,"t":-2}]"#;
const PING: [u8; 2] = [0xC0, 0];

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_others_publish() {
    on_both_engines(&[], |world| Box::pin(others(world))).await;
}

async fn others(world: &World) -> Result<()> {
    let mut d = door(world, None).await?;
    d.consumed();
    let w = d.wearable(&world.north, Some("patient:p1")).await?;
    let topic = format!("devices/{}/readings", w.id);
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let (ok, said) = d
                .mosquitto_pub(&w, &["-V", version, "-q", qos, "-t", &topic, "-m", PACK])
                .await;
            // 5 is told that the maximum is QoS 1, so its client does not even send.
            let sent = ok && !said.contains("QoS not supported");
            assert_eq!(sent, !(version == "mqttv5" && qos == "2"), "{version} {qos}: {said}");
        }
    }
    let live = timeout(Duration::from_secs(20), d.live.recv())
        .await
        .expect("live")
        .expect("open");
    assert_eq!(
        (&*live.kind, live.channel.as_deref(), live.tenant),
        ("reading", Some("patient:p1"), world.north.id)
    );
    let body: Value = live.parse()?;
    let now = rfc3339(world.ctx.clock.now_ms());
    assert_eq!(
        body,
        json!({"code": "heart-rate", "name": "heart-rate", "value": 72, "unit": "beat/min", "at": now, "device": w.id})
    );
    let second: Value = d.live.recv().await.expect("open").parse()?;
    assert_eq!((&second["code"], &second["name"]), (&json!("59408-5"), &json!("spo2")));

    // QoS 0 is recorded as well, only unacknowledged: a marker after it shows that all before it are there.
    let (ok, _) = d
        .mosquitto_pub(&w, &["-q", "1", "-t", &topic, "-m", r#"[{"n":"marker","v":1}]"#])
        .await;
    assert!(ok);
    let recorded = d.recorded(&world.north).await?;
    let lines: Vec<&Value> = recorded
        .iter()
        .flat_map(|r| r["readings"].as_array().expect("readings"))
        .collect();
    assert_eq!(
        lines.iter().filter(|l| l["name"] == "59408-5").count(),
        5,
        "each publication once"
    );
    assert_eq!(
        (&recorded[0]["device"], &recorded[0]["feeds"]),
        (&json!(w.id), &json!("patient:p1"))
    );
    let measured = rfc3339(world.ctx.clock.now_ms() - 2_000);
    assert_eq!(
        (&lines[1]["received_at"], &lines[1]["at"], &lines[1]["unit"]),
        (&json!(now), &json!(measured), &json!("%"))
    );
    assert_eq!(
        lines[1]["value"].to_string(),
        "97.50",
        "the digits as the device wrote them"
    );
    assert!(d.recorded(&world.south).await?.is_empty());

    for (what, args) in [
        (
            "another device's topic",
            ["-V", "mqttv5", "-q", "1", "-t", "devices/other/readings", "-m", PACK],
        ),
        ("not SenML", ["-V", "mqttv5", "-q", "1", "-t", &topic, "-m", "72"]),
        (
            "not SenML, 3.1.1",
            ["-V", "mqttv311", "-q", "1", "-t", &topic, "-m", "72"],
        ),
    ] {
        let before = d.recorded(&world.north).await?.len();
        let (_, said) = d.mosquitto_pub(&w, &args).await;
        assert_eq!(d.recorded(&world.north).await?.len(), before, "{what}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rumqttc_is_told_why_and_hears_its_commands() -> Result<()> {
    use rumqttc::v5::{
        AsyncClient, Event as Heard, MqttOptions,
        mqttbytes::{QoS, v5::Packet},
    };
    let world = World::sqlite(&[]).await?;
    let d = door(&world, None).await?;
    d.consumed();
    let w = d.wearable(&world.north, Some("patient:p1")).await?;
    let mut options = MqttOptions::new("phone", "127.0.0.1", d.address.port());
    options.set_credentials(&w.id, &w.token);
    let (client, mut events) = AsyncClient::new(options, 16);
    client
        .subscribe(format!("devices/{}/commands", w.id), QoS::AtLeastOnce)
        .await
        .expect("queued");
    let topic = format!("devices/{}/readings", w.id);
    for payload in ["[]", PACK] {
        client
            .publish(&topic, QoS::AtLeastOnce, false, payload)
            .await
            .expect("queued");
    }
    let (mut acks, mut command) = (Vec::new(), None);
    while acks.len() < 2 || command.is_none() {
        match timeout(Duration::from_secs(20), events.poll())
            .await
            .expect("in time")
            .expect("connected")
        {
            Heard::Incoming(Packet::PubAck(ack)) => {
                acks.push((ack.reason as u32, ack.properties.and_then(|p| p.reason_string)))
            }
            Heard::Incoming(Packet::SubAck(_)) => {
                assert_eq!(d.devices.command(world.north.id, &w.id, "beep".into()), 1)
            }
            Heard::Incoming(Packet::Publish(publish)) => command = Some(publish.payload),
            _ => {}
        }
    }
    assert_eq!(
        acks[0].1.as_deref(),
        Some("a pack holds 1 to 200 records with measurements")
    );
    assert_eq!(acks[1].1, None);
    assert_ne!(acks[0].0, acks[1].0);
    assert_eq!(command.as_deref(), Some(&b"beep"[..]));
    assert_eq!(d.recorded(&world.north).await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_decide() {
    on_both_engines(&[], |world| Box::pin(credentials(world))).await;
}

async fn credentials(world: &World) -> Result<()> {
    let d = door(world, None).await?;
    d.consumed();
    let mine = d.wearable(&world.north, Some("patient:p1")).await?;
    let other = d.wearable(&world.north, Some("patient:p2")).await?;
    let south = d.wearable(&world.south, Some("patient:p1")).await?;
    let (_, user) = world
        .sign_in(&world.north, &format!("user:{}", mine.id), Role::Admin)
        .await?;
    let forged = south.token.replacen(
        &format!("mt_{}_", world.south.id),
        &format!("mt_{}_", world.north.id),
        1,
    );
    for token in ["", "x", "mt_99_x", &other.token, &south.token, &user, &forged] {
        for (version, code) in [(4, 4), (5, 0x86)] {
            let mut raw = Raw(TcpStream::connect(d.address).await.expect("connect"));
            raw.send(&connect(version, &mine.id, token, "c")).await;
            // Sent in the same breath: nothing is processed before the credential is checked.
            raw.send(&publish(version, 1, 1, &format!("devices/{}/readings", mine.id), PACK))
                .await;
            let words = raw.last_words().await;
            assert_eq!((words[0], words[3]), (0x20, code), "{words:02x?}");
        }
    }
    assert!(d.recorded(&world.north).await?.is_empty() && d.recorded(&world.south).await?.is_empty());

    // Nobody is measured: the device is told.
    let idle = d.wearable(&world.north, None).await?;
    let mut raw = d.connect(5, &idle, "c").await;
    raw.send(&publish(5, 1, 7, &format!("devices/{}/readings", idle.id), PACK))
        .await;
    let ack = raw.packet().await;
    assert_eq!((ack[0], ack[2..5].to_vec()), (0x40, vec![0, 7, 0x87]));
    assert!(String::from_utf8_lossy(&ack).contains("not assigned"), "{ack:02x?}");

    // Taken over by the same client id, left alone by another; cut when the credential goes.
    let mut first = d.connect(5, &mine, "one").await;
    let mut second = d.connect(5, &mine, "two").await;
    let mut again = d.connect(5, &mine, "one").await;
    let words = first.last_words().await;
    assert_eq!((words[0], words[2]), (0xE0, 0x8E), "{words:02x?}");
    second.send(&PING).await;
    assert_eq!(second.packet().await, [0xD0, 0]);
    let principal = world.ctx.sessions.verify(world.north.id, &mine.token).await?;
    let revoked = Revoked {
        session: principal.session,
        elsewhere: false,
        subject: principal.subject,
    };
    d.devices.on_live(&Event::new(
        &world.ctx.clock,
        world.north.id,
        "session.revoked",
        "k",
        &revoked,
    )?);
    for raw in [&mut second, &mut again] {
        let words = raw.last_words().await;
        assert_eq!((words[0], words[2]), (0xE0, 0x98), "{words:02x?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_given_to_somebody_else_writes_to_them_from_then_on() {
    on_both_engines(&[], |world| Box::pin(given_on(world))).await;
}

async fn given_on(world: &World) -> Result<()> {
    let mut d = door(world, None).await?;
    d.consumed();
    let band = d.wearable(&world.north, Some("patient:p1")).await?;
    let mut raw = d.connect(5, &band, "c").await;
    let (topic, subject) = (format!("devices/{}/readings", band.id), format!("device:{}", band.id));
    for (packet, patient) in [(1, "patient:p1"), (2, "patient:p2"), (3, "")] {
        if packet > 1 {
            let (bus, subject) = (world.ctx.bus.clone(), subject.clone());
            let whom = Some(patient).filter(|p| !p.is_empty());
            world
                .ctx
                .db
                .write(world.north.id, move |tx| {
                    Box::pin(async move {
                        assert_eq!(relate_only(tx, &subject, "feeds", whom).await?.len(), 1);
                        announce(&bus, tx, Some(&subject))
                    })
                })
                .await?;
            let told = loop {
                let event = d.live.recv().await.expect("live");
                if event.kind == "access.changed" {
                    break event;
                }
            };
            d.devices.on_live(&told);
        }
        raw.send(&publish(5, 1, packet, &topic, PACK)).await;
        let ack = raw.packet().await;
        let code = ack.get(4).copied().unwrap_or(0);
        assert_eq!(
            (ack[0], code),
            (0x40, if patient.is_empty() { 0x87 } else { 0 }),
            "{ack:02x?}"
        );
    }
    let recorded = d.recorded(&world.north).await?;
    let fed: Vec<_> = recorded.iter().map(|r| r["feeds"].as_str().expect("feeds")).collect();
    assert_eq!(fed, ["patient:p1", "patient:p2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_means_durable() {
    on_both_engines(&[], |world| Box::pin(durable(world))).await;
}

async fn durable(world: &World) -> Result<()> {
    let d = door(world, None).await?;
    let w = d.wearable(&world.north, Some("patient:p1")).await?;
    let topic = format!("devices/{}/readings", w.id);

    // Nowhere to keep it: no acknowledgement, and the connection ends so that the device sends again.
    for version in [4, 5] {
        let mut raw = d.connect(version, &w, "c").await;
        raw.send(&publish(version, 1, 1, &topic, PACK)).await;
        let words = raw.last_words().await;
        assert_ne!(words.first(), Some(&0x40), "{words:02x?}");
    }

    d.consumed();
    for version in [4, 5] {
        let before = d.recorded(&world.north).await?.len();
        let mut raw = d.connect(version, &w, "c").await;
        for id in 1..=3 {
            raw.send(&publish(version, 1, id, &topic, PACK)).await;
        }
        raw.send(&PING).await;
        assert_eq!(raw.packet().await, [0xD0, 0], "read, and not yet acknowledged");
        for id in 1..=3 {
            let ack = raw.packet().await;
            assert_eq!((ack[0], &ack[2..4]), (0x40, &[0, id][..]), "in order");
            assert_eq!(
                d.recorded(&world.north).await?.len(),
                before + 1,
                "one row for the group, there at the first answer"
            );
        }
    }
    // More than may be unacknowledged: held back, not lost and not cut.
    let mut raw = d.connect(4, &w, "c").await;
    let many: Vec<u8> = (1..=500)
        .flat_map(|id| publish(4, 1, id, &topic, r#"[{"n":"x","v":1}]"#))
        .collect();
    raw.send(&many).await;
    for id in 1..=500_u16 {
        assert_eq!(raw.packet().await, [&[0x40, 2][..], &id.to_be_bytes()].concat());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_packets_end_with_a_reason() -> Result<()> {
    let world = World::sqlite(&[]).await?;
    let d = door(&world, None).await?;
    d.consumed();
    let w = d.wearable(&world.north, Some("patient:p1")).await?;
    let topic = format!("devices/{}/readings", w.id);
    let good = connect(4, &w.id, &w.token, "c");
    let mut trailing = good.clone();
    trailing[1] += 1;
    trailing.push(0);
    let old = packet(0x10, &[&text("MQIsdp")[..], &[3, 2, 0, 60], &text("c")].concat());
    let future = packet(0x10, &[&text("MQTT")[..], &[6, 2, 0, 60], &text("c")].concat());
    // Before anybody is known.
    for (what, bytes, answer) in [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![]),
        ("publish before connect", publish(4, 0, 0, &topic, PACK), vec![]),
        ("ping before connect", PING.to_vec(), vec![]),
        ("3.1", old, vec![0x20, 2, 0, 1]),
        ("a version to come", future, vec![0x20, 3, 0, 0x84, 0]),
        ("trailing bytes", trailing, vec![]),
        (
            "a length that never ends",
            vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            vec![],
        ),
        (
            "a huge connect",
            [&[0x10, 0xFF, 0xFF, 0xFF, 0x7F][..], &text("MQTT"), &[4, 2, 0, 60, 0, 0]].concat(),
            vec![],
        ),
    ] {
        let mut raw = Raw(TcpStream::connect(d.address).await.expect("connect"));
        raw.send(&bytes).await;
        assert_eq!(raw.last_words().await, answer, "{what}");
    }
    // From a device that is known: 5 says why, 3.1.1 can only close.
    let alias = packet(
        0x32,
        &[&text(&topic)[..], &[0, 1, 3, 0x23, 0, 1], PACK.as_bytes()].concat(),
    );
    let big = publish(5, 1, 1, &topic, &"x".repeat(70_000));
    let mut reserved = publish(5, 0, 0, &topic, PACK);
    reserved[0] = 0x36;
    for (what, bytes, code) in [
        ("second connect", connect(5, &w.id, &w.token, "c"), 0x82),
        ("a server's packet", vec![0xD0, 0], 0x82),
        ("wildcard topic", publish(5, 1, 1, "devices/+/readings", PACK), 0x90),
        ("topic alias", alias, 0x94),
        ("oversize", big, 0x95),
        ("QoS 2", publish(5, 2, 1, &topic, PACK), 0x9B),
        ("QoS 3", reserved, 0x81),
        ("packet id 0", publish(5, 1, 0, &topic, PACK), 0x81),
        (
            "QoS 0 to a foreign topic",
            publish(5, 0, 0, "devices/x/readings", PACK),
            0x87,
        ),
        ("QoS 0 without sense", publish(5, 0, 0, &topic, "{}"), 0x99),
    ] {
        let mut raw = d.connect(5, &w, "c").await;
        raw.send(&bytes).await;
        let words = raw.last_words().await;
        assert_eq!(
            (words.first(), words.get(2)),
            (Some(&0xE0), Some(&code)),
            "{what}: {words:02x?}"
        );
    }
    for (what, bytes) in [
        ("foreign topic", publish(4, 1, 1, "devices/x/readings", PACK)),
        ("wildcard topic", publish(4, 1, 1, "#", PACK)),
        ("empty topic", publish(4, 1, 1, "", PACK)),
        ("system topic", publish(4, 1, 1, "$SYS/x", PACK)),
        ("without sense", publish(4, 1, 1, &topic, "\u{0}")),
        ("ping with a body", vec![0xC0, 1, 0]),
    ] {
        let mut raw = d.connect(4, &w, "c").await;
        raw.send(&bytes).await;
        assert!(raw.last_words().await.is_empty(), "{what}");
    }
    // A will is for the own readings; who falls silent is cut.
    let properties: &[u8] = &[0];
    let will = |topic: &str| {
        let body = [
            &text("MQTT")[..],
            &[5, 0xC6, 0, 1],
            properties,
            &text("w"),
            properties,
            &text(topic),
            &text(PACK),
        ]
        .concat();
        packet(0x10, &[body, text(&w.id), text(&w.token)].concat())
    };
    let mut raw = Raw(TcpStream::connect(d.address).await.expect("connect"));
    raw.send(&will("devices/x/readings")).await;
    assert_eq!(raw.last_words().await.get(3), Some(&0x87));
    let mut raw = Raw(TcpStream::connect(d.address).await.expect("connect"));
    raw.send(&connect_alive(&w, 1)).await;
    assert_eq!(raw.packet().await[0], 0x20);
    let words = raw.last_words().await;
    assert_eq!(
        (words.first(), words.get(2)),
        (Some(&0xE0), Some(&0x8D)),
        "{words:02x?}"
    );
    // Subscriptions: own commands, nothing else; then a command arrives.
    let mut raw = d.connect(5, &w, "c").await;
    let own = format!("devices/{}/commands", w.id);
    let filters = ["#", "devices/+/commands", "devices/x/commands", &topic, &own];
    let body: Vec<u8> = filters.iter().flat_map(|f| [text(f), vec![1]].concat()).collect();
    raw.send(&packet(0x82, &[&[0, 9, 0][..], &body].concat())).await;
    let ack = raw.packet().await;
    assert_eq!(ack[ack.len() - 5..], [0xA2, 0xA2, 0x87, 0x87, 1], "{ack:02x?}");
    assert_eq!(d.devices.command(world.south.id, &w.id, "x".into()), 0);
    assert_eq!(d.devices.command(world.north.id, &w.id, "beep".into()), 1);
    let command = raw.packet().await;
    assert!(command[0] == 0x32 && command.ends_with(b"beep"), "{command:02x?}");

    assert!(
        d.recorded(&world.north).await?.is_empty(),
        "nothing of all that was recorded"
    );
    // And the door still stands.
    let (ok, said) = d.mosquitto_pub(&w, &["-q", "1", "-t", &topic, "-m", PACK]).await;
    assert!(ok, "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_websocket_frames_need_not_align() -> Result<()> {
    let world = World::sqlite(&[]).await?;
    let d = door(&world, None).await?;
    d.consumed();
    let w = d.wearable(&world.north, Some("patient:p1")).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let routes = d.devices.router();
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
    let mut request = format!("ws://{address}/mqtt").into_client_request().expect("request");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", http::HeaderValue::from_static("mqtt"));
    let (mut ws, response) = tokio_tungstenite::connect_async(request).await.expect("upgrade");
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
    let topic = format!("devices/{}/readings", w.id);
    let bytes = [connect(4, &w.id, &w.token, "c"), publish(4, 1, 1, &topic, PACK)].concat();
    for part in bytes.chunks(7) {
        ws.send(Message::binary(part.to_vec())).await.expect("send");
    }
    let mut heard = Vec::new();
    while heard.len() < 8 {
        heard.extend_from_slice(&ws.next().await.expect("frame").expect("frame").into_data());
    }
    assert_eq!(heard, [0x20, 2, 0, 0, 0x40, 2, 0, 1]);
    assert_eq!(d.recorded(&world.north).await?.len(), 1);
    server.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_broker_is_consumed() -> Result<()> {
    let world = World::sqlite(&[]).await?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    let conf = world.dir.path().join("mosquitto.conf");
    std::fs::write(&conf, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).expect("conf");
    let quiet = std::process::Stdio::null();
    let broker = Command::new("mosquitto").arg("-c").arg(&conf).stderr(quiet).spawn();
    let _broker = Stopped(broker.expect("mosquitto is installed"));
    let mut d = door(&world, Some(format!("mqtt://127.0.0.1:{port}"))).await?;
    d.consumed();
    let w = d.wearable(&world.south, Some("patient:p9")).await?;
    // The broker keeps nothing for a client it does not know yet, so publish until the first reading comes through.
    let outcome = timeout(Duration::from_secs(30), async {
        loop {
            for (topic, payload) in [
                ("devices/unknown/readings", PACK),
                ("devices/a/b/readings", PACK),
                (&*format!("devices/{}/readings", w.id), "junk"),
            ] {
                mosquitto_to(port, topic, payload).await;
            }
            mosquitto_to(port, &format!("devices/{}/readings", w.id), PACK).await;
            if let Ok(Some(event)) = timeout(Duration::from_millis(500), d.live.recv()).await {
                return event;
            }
        }
    })
    .await;
    let event = outcome.expect("a reading came through");
    assert_eq!(
        (event.tenant, event.channel.as_deref()),
        (world.south.id, Some("patient:p9"))
    );
    let recorded = timeout(Duration::from_secs(20), async {
        loop {
            let rows = d.recorded(&world.south).await?;
            if !rows.is_empty() {
                return Ok::<_, Error>(rows);
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("recorded")?;
    assert_eq!(recorded[0]["device"], json!(w.id));
    assert!(d.recorded(&world.north).await?.is_empty());
    Ok(())
}

/// A program that ends with the test.
struct Stopped(std::process::Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

async fn mosquitto_to(port: u16, topic: &str, payload: &str) {
    let mut command = Command::new("mosquitto_pub");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-q",
        "1",
        "-t",
        topic,
        "-m",
        payload,
    ]);
    let _ = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("task");
}
