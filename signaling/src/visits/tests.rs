//! The visit over HTTP, on both engines: the story, the refusals, a second and a third tenant, a crash.

use super::{
    media::{Media, MediaEvent, Present, Rights},
    *,
};
use ::http::{Request, StatusCode};
use axum::body::Body;
use http_body_util::BodyExt;
use medtech_kernel::{
    Tenant,
    auth::Role,
    id,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use std::sync::Mutex;
use tower::ServiceExt;

/// A media part that writes down what it is told.
#[derive(Default)]
struct Rooms {
    said: Mutex<Vec<String>>,
    /// Who is in a room.
    present: Mutex<Vec<Present>>,
    /// So many of the next calls fail.
    failing: std::sync::atomic::AtomicUsize,
    /// Bumped at each call, so that a test can wait for one.
    calls: tokio::sync::watch::Sender<usize>,
}

impl Rooms {
    fn note(&self, what: String) -> BoxFuture<'_, Result<()>> {
        use std::sync::atomic::Ordering::Relaxed;
        let fails = self
            .failing
            .fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1))
            .is_ok();
        if !fails {
            self.said.lock().expect("lock").push(what);
        }
        self.calls.send_modify(|n| *n += 1);
        Box::pin(async move {
            match fails {
                true => Err(Error::unavailable("media.busy", "busy")),
                false => Ok(()),
            }
        })
    }

    /// The next call fails, and has failed when this returns.
    async fn fail_once(&self, during: impl Future<Output = ()>) {
        let mut calls = self.calls.subscribe();
        self.failing.store(1, std::sync::atomic::Ordering::Relaxed);
        during.await;
        while self.failing.load(std::sync::atomic::Ordering::Relaxed) > 0 {
            calls.changed().await.expect("rooms");
        }
    }

    async fn until(&self, wanted: &str) {
        let mut calls = self.calls.subscribe();
        while self.said.lock().expect("lock").last().is_none_or(|last| last != wanted) {
            calls.changed().await.expect("rooms");
        }
    }
}

impl Media for Rooms {
    fn token(&self, _: TenantId, room: &str, identity: &str, _: &str, rights: Rights) -> Result<String> {
        Ok(format!("{room}|{identity}|{}", rights.publish))
    }
    fn set_rights<'a>(
        &'a self,
        _: TenantId,
        _: &'a str,
        identity: &'a str,
        rights: Rights,
    ) -> BoxFuture<'a, Result<()>> {
        self.note(format!("rights {identity} {}", rights.publish))
    }
    fn remove<'a>(&'a self, _: TenantId, _: &'a str, identity: &'a str) -> BoxFuture<'a, Result<()>> {
        self.note(format!("remove {identity}"))
    }
    fn present(&self, _: TenantId) -> BoxFuture<'_, Result<Vec<Present>>> {
        let present = self.present.lock().expect("lock").clone();
        Box::pin(async move { Ok(present) })
    }
    fn close<'a>(&'a self, _: TenantId, room: &'a str) -> BoxFuture<'a, Result<()>> {
        self.note(format!("close {room}"))
    }
}

struct Talk;

impl Conversations for Talk {
    fn create_in<'a>(
        &'a self,
        tx: &'a mut Tx,
        _: &'a str,
        _: &'a str,
        _: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<Uuid>> {
        let id = id::uuid_v7(tx.now());
        Box::pin(async move { Ok(id) })
    }

    fn add_in<'a>(&'a self, tx: &'a mut Tx, id: Uuid, subject: &'a str, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { relate(tx, subject, "member", &format!("conversation:{id}"), None).await })
    }

    fn remove_in<'a>(&'a self, tx: &'a mut Tx, id: Uuid, subject: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { unrelate(tx, subject, "member", &format!("conversation:{id}")).await })
    }
}

struct Stage<'a> {
    world: &'a World,
    visits: Visits,
    rooms: Arc<Rooms>,
    router: axum::Router,
    stop: tokio::sync::watch::Sender<bool>,
}

const PROBE: &[&str] = &[
    "visit.arrived",
    "visit.admitted",
    "visit.held",
    "visit.ended",
    "visit.farewell",
];

async fn stage(world: &World) -> Result<Stage<'_>> {
    let stage = still(world);
    stage.visits.start(stage.stop.subscribe()).await?;
    Ok(stage)
}

/// A stage on which nothing happens by itself.
fn still(world: &World) -> Stage<'_> {
    let rooms = Arc::new(Rooms::default());
    let visits = Visits::new(world.ctx.clone(), rooms.clone(), Arc::new(Talk));
    world.ctx.bus.register("probe", PROBE);
    let (stop, _) = tokio::sync::watch::channel(false);
    let router = Arc::new(visits.clone())
        .routes()
        .layer(axum::Extension(world.ctx.clone()));
    Stage {
        world,
        visits,
        rooms,
        router,
        stop,
    }
}

struct Booked {
    id: Uuid,
    link: String,
    host: String,
    guest: String,
}

impl Stage<'_> {
    async fn book(&self, tenant: &Tenant) -> Result<Booked> {
        let clock = &self.world.ctx.clock;
        let booked = Booked {
            id: id::new_id(clock),
            link: id::token(),
            host: "user:0198c1de-0000-7000-8000-000000000001".into(),
            guest: format!("guest:{}", id::new_id(clock)),
        };
        let hash: String = id::sha256(booked.link.as_bytes())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let body = json!({
            "visit_id": booked.id, "title": "Check-up", "start": "2026-03-02T09:05:00Z",
            "host": {"subject": booked.host, "name": "Dr. Host"}, "guest": {"subject": booked.guest, "name": "Pat Guest"},
            "subject_ref": "Patient/p1", "context_ref": "Appointment/a1", "link_hash": hash,
        });
        let event = Event::new(
            clock,
            tenant.id,
            "visit.requested",
            format!("visit:{}", booked.id),
            &body,
        )?;
        self.visits.on_event(event.clone()).await?;
        // Delivered twice: at least once is what durable events promise.
        self.visits.on_event(event).await?;
        Ok(booked)
    }

    async fn call(
        &self,
        tenant: &Tenant,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        self.keyed(tenant, token, method, path, body, None).await
    }

    async fn keyed(
        &self,
        tenant: &Tenant,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
        key: Option<&str>,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("{}.localhost:8080", tenant.slug));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map_or(Body::empty(), |b| Body::from(b.to_string()));
        let request = request
            .header("content-type", "application/json")
            .body(body)
            .expect("request");
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn open(&self, tenant: &Tenant, link: &str, device: u128, take_over: bool) -> (StatusCode, Value) {
        let body =
            json!({"link": link, "device": {"id": Uuid::from_u128(device), "name": "Firefox"}, "take_over": take_over});
        self.call(tenant, None, "POST", "/open", Some(body)).await
    }

    async fn event(&self, tenant: &Tenant, id: Uuid, who: &str, connection: &str, active: bool) -> Result<()> {
        let at = self.world.ctx.clock.now_ms();
        let event = MediaEvent {
            tenant: tenant.id,
            room: id.to_string(),
            identity: who.into(),
            connection: connection.into(),
            active,
            at,
        };
        self.visits.on_media_event(event).await
    }

    async fn facts(&self, tenant: &Tenant) -> Result<Vec<(String, Value)>> {
        let events = self.world.ctx.bus.waiting(tenant.id, "probe").await?;
        let fact = |e: Event| (e.kind.to_string(), serde_json::from_str(e.body.get()).expect("json"));
        Ok(events.into_iter().map(fact).collect())
    }

    /// To the waiting room; answers the guest's token.
    async fn arrive(&self, tenant: &Tenant, booked: &Booked, device: u128) -> String {
        let (status, opened) = self.open(tenant, &booked.link, device, false).await;
        assert_eq!(status, 200, "{opened}");
        let token = opened["access_token"].as_str().expect("token").to_owned();
        let check = json!({"camera": "denied", "microphone": "ok", "speaker": "skipped"});
        let (status, visit) = self
            .call(
                tenant,
                Some(&token),
                "POST",
                &format!("/{}/device-check", booked.id),
                Some(check),
            )
            .await;
        assert_eq!(
            (status.as_u16(), &visit["state"]),
            (200, &json!("device_check")),
            "a denied camera does not end a visit"
        );
        let consent = json!({"accepted": true, "text_version": "2026-01", "language": "en"});
        let (status, visit) = self
            .call(
                tenant,
                Some(&token),
                "POST",
                &format!("/{}/consent", booked.id),
                Some(consent),
            )
            .await;
        assert_eq!((status.as_u16(), &visit["state"]), (200, &json!("waiting")), "{visit}");
        token
    }
}

#[tokio::test]
async fn the_story_of_a_visit() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(story(world))).await;
}

async fn story(world: &World) -> Result<()> {
    let s = stage(world).await?;
    let mut live = world.ctx.bus.attach_live()?;
    let (north, clock) = (&world.north, &world.ctx.clock);
    let b = s.book(north).await?;
    let (_, host) = world.sign_in(north, &b.host, Role::Clinician).await?;
    let path = |what: &str| format!("/{}/{what}", b.id);

    let (status, early) = s.call(north, Some(&host), "POST", &path("admit"), None).await;
    assert_eq!((status.as_u16(), &early["code"]), (409, &json!("visit.not_waiting")));

    clock.advance(1_000);
    while live.try_recv().is_ok() {}
    let guest = s.arrive(north, &b, 1).await;
    let mut pushed = Vec::new();
    while let Ok(event) = live.try_recv() {
        pushed.push((event.channel.clone().expect("channel"), event.parse::<Value>()?));
    }
    let queue = format!("queue:{}", b.host.trim_start_matches("user:"));
    let last = |channel: &str| {
        pushed
            .iter()
            .rev()
            .find(|(c, _)| c == channel)
            .map(|(_, v)| v["visit"].clone())
            .expect("pushed")
    };
    assert_eq!(
        (
            &last(&queue)["state"],
            &last(&queue)["subject_ref"],
            &last(&queue)["position"]
        ),
        (&json!("waiting"), &json!("Patient/p1"), &json!(1))
    );
    let guest_view = last(&format!("encounter:{}", b.id));
    assert_eq!(guest_view["guest"]["online"], true);
    assert!(
        guest_view.get("subject_ref").is_none() && guest_view.get("context_ref").is_none(),
        "{guest_view}"
    );

    let (_, ticket) = s.call(north, Some(&guest), "POST", &path("media"), None).await;
    assert_eq!(
        ticket["token"],
        format!("{}|{}|false", b.id, b.guest),
        "no rights in the lobby"
    );
    assert_eq!(ticket["url"], "ws://north.localhost:8080/");
    s.event(north, b.id, &b.guest, "g1", true).await?;
    s.event(north, b.id, &b.host, "h1", true).await?;

    clock.advance(10_000);
    let admitted_at = clock.now_ms();
    let (_, visit) = s.call(north, Some(&host), "POST", &path("admit"), None).await;
    assert_eq!(visit["state"], "in_consult");
    s.rooms.until(&format!("rights {} true", b.guest)).await;

    clock.advance(5_000);
    let (_, visit) = s
        .keyed(north, Some(&host), "POST", &path("hold"), None, Some("k1"))
        .await;
    assert_eq!((&visit["state"], &visit["position"]), (&json!("waiting"), &json!(1)));
    s.rooms.until(&format!("rights {} false", b.guest)).await;
    clock.advance(1_000);
    let (_, visit) = s.call(north, Some(&host), "POST", &path("admit"), None).await;
    assert_eq!(visit["state"], "in_consult", "admitted again without a re-join");
    let (_, visit) = s
        .keyed(north, Some(&host), "POST", &path("hold"), None, Some("k1"))
        .await;
    assert_eq!(visit["state"], "in_consult", "a retried command is not done twice");

    // The same commands over the live socket.
    let (principal, _) = world.sign_in(north, &b.host, Role::Clinician).await?;
    let params = serde_json::value::to_raw_value(&json!({"id": b.id})).expect("json");
    let answer = rpc::handle(&s.visits, "visit.admit", &principal, &params).await?;
    assert_eq!(
        serde_json::from_str::<Value>(answer.get()).expect("json")["state"],
        "in_consult"
    );
    let nonsense = serde_json::value::to_raw_value(&json!({"id": 7})).expect("json");
    let refused = rpc::handle(&s.visits, "visit.end", &principal, &nonsense).await;
    assert_eq!(refused.expect_err("refused").code, "rpc.params");

    clock.advance(4_000);
    s.event(north, b.id, &b.guest, "g1", false).await?;
    clock.advance(2_000);
    s.event(north, b.id, &b.guest, "g2", true).await?;
    clock.advance(3_000);
    let (_, visit) = s.call(north, Some(&host), "POST", &path("end"), None).await;
    assert_eq!(visit["state"], "ended");
    s.rooms.until(&format!("close {}", b.id)).await;

    let facts = s.facts(north).await?;
    let kinds: Vec<&str> = facts.iter().map(|(k, _)| k.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "visit.arrived",
            "visit.admitted",
            "visit.held",
            "visit.admitted",
            "visit.ended",
            "visit.farewell"
        ]
    );
    let at = |ms: i64| json!(medtech_kernel::clock::rfc3339(admitted_at + ms));
    assert_eq!(
        facts[4].1["participants"][0]["intervals"],
        json!([{"from": at(0), "to": at(5_000)}, {"from": at(6_000), "to": at(15_000)}])
    );
    assert_eq!(
        facts[4].1["participants"][1]["intervals"],
        json!([{"from": at(0), "to": at(5_000)}, {"from": at(6_000), "to": at(10_000)}, {"from": at(12_000), "to": at(15_000)}])
    );
    assert_eq!(facts[4].1["context_ref"], "Appointment/a1");

    // The guest still reads the summary, until the grace is over; the link is done.
    assert_eq!(
        s.call(north, Some(&guest), "GET", &format!("/{}", b.id), None).await.0,
        200
    );
    let (status, gone) = s.open(north, &b.link, 1, false).await;
    assert_eq!((status.as_u16(), &gone["code"]), (410, &json!("visit.ended")));
    let farewell = Event::new(clock, north.id, "visit.farewell", "farewell", &facts[5].1)?;
    s.visits.on_event(farewell).await?;
    assert_eq!(
        s.call(north, Some(&guest), "GET", &format!("/{}", b.id), None).await.0,
        401
    );
    assert!(audit::verify(&world.ctx.db, north.id).await?.is_ok());
    Ok(())
}

#[tokio::test]
async fn links_and_doors() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(doors(world))).await;
}

async fn doors(world: &World) -> Result<()> {
    let s = stage(world).await?;
    let (north, south, east, clock) = (&world.north, &world.south, &world.east, &world.ctx.clock);
    let b = s.book(north).await?;

    let (status, problem) = s.open(north, &format!("{}x", b.link), 1, false).await;
    assert_eq!((status.as_u16(), &problem["code"]), (403, &json!("visit.link_invalid")));
    for other in [south, east] {
        assert_eq!(
            s.open(other, &b.link, 1, false).await.0,
            403,
            "a link opens nothing in another clinic"
        );
    }

    let first = s.arrive(north, &b, 1).await;
    let (status, problem) = s.open(north, &b.link, 2, true).await;
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (409, &json!("visit.link_in_use")),
        "seen a moment ago"
    );
    s.event(north, b.id, &b.guest, "g1", true).await?;
    clock.advance(60_000);
    assert_eq!(s.open(north, &b.link, 2, true).await.0, 409, "still connected");
    s.event(north, b.id, &b.guest, "g1", false).await?;
    clock.advance(31_000);
    assert_eq!(
        s.open(north, &b.link, 2, false).await.0,
        409,
        "taking over is asked for, never silent"
    );
    let (status, opened) = s.open(north, &b.link, 2, true).await;
    assert_eq!(
        (status.as_u16(), &opened["visit"]["state"], &opened["visit"]["position"]),
        (200, &json!("waiting"), &json!(1))
    );
    assert_eq!(
        s.call(north, Some(&first), "GET", &format!("/{}", b.id), None).await.0,
        401,
        "the older session is revoked"
    );
    let second = opened["access_token"].as_str().expect("token");
    assert_eq!(
        s.open(north, &b.link, 2, false).await.0,
        200,
        "a reload on the same browser comes back"
    );

    // Whom the visit is not for.
    let (_, stranger) = world.sign_in(north, "guest:someone-else", Role::Guest).await?;
    let (_, foreign) = world.sign_in(south, &b.host, Role::Admin).await?;
    let (_, colleague) = world.sign_in(north, "user:colleague", Role::Clinician).await?;
    for what in ["admit", "hold", "end", "leave", "media", "device-check", "consent"] {
        let body = match what {
            "device-check" => json!({"camera": "ok", "microphone": "ok", "speaker": "ok"}),
            "consent" => json!({"accepted": true, "text_version": "1", "language": "en"}),
            _ => json!({}),
        };
        let path = format!("/{}/{what}", b.id);
        assert_eq!(
            s.call(north, Some(&stranger), "POST", &path, Some(body.clone()))
                .await
                .0,
            403,
            "{what}"
        );
        assert_eq!(
            s.call(north, Some(&foreign), "POST", &path, Some(body.clone())).await.0,
            401,
            "{what}"
        );
        assert!(
            matches!(
                s.call(south, Some(&foreign), "POST", &path, Some(body.clone()))
                    .await
                    .0
                    .as_u16(),
                403 | 404
            ),
            "{what}"
        );
        assert_eq!(
            s.call(north, Some(&colleague), "POST", &path, Some(body)).await.0,
            403,
            "{what}: not the colleague's visit"
        );
        assert_eq!(
            s.call(north, None, "POST", &path, Some(json!({}))).await.0,
            401,
            "{what}"
        );
    }
    let (_, south_view) = s.call(south, Some(&foreign), "GET", &format!("/{}", b.id), None).await;
    assert_eq!(south_view["code"], "visit.unknown");
    assert_eq!(
        s.call(north, Some(second), "POST", &format!("/{}/admit", b.id), None)
            .await
            .0,
        403,
        "a guest cannot admit"
    );
    let (status, _) = s.call(north, Some(&colleague), "GET", "/?all=1", None).await;
    assert_eq!(status, 403);

    // Expiry, and a link that is past it.
    let late = s.book(north).await?;
    clock.advance(25 * 3_600_000);
    let (status, problem) = s.open(north, &late.link, 1, false).await;
    assert_eq!((status.as_u16(), &problem["code"]), (410, &json!("visit.link_expired")));
    Ok(())
}

#[tokio::test]
async fn a_crash_loses_nothing_acknowledged() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(crash(world))).await;
}

async fn crash(world: &World) -> Result<()> {
    let (north, clock) = (&world.north, &world.ctx.clock);
    let (b, other, from) = {
        let s = stage(world).await?;
        let b = s.book(north).await?;
        s.arrive(north, &b, 1).await;
        clock.advance(1_000);
        let other = s.book(north).await?;
        s.arrive(north, &other, 2).await;
        let (_, host) = world.sign_in(north, &b.host, Role::Clinician).await?;
        s.event(north, b.id, &b.guest, "g", true).await?;
        s.event(north, b.id, &b.host, "h", true).await?;
        let (_, visit) = s
            .call(north, Some(&host), "POST", &format!("/{}/admit", b.id), None)
            .await;
        assert_eq!(visit["state"], "in_consult");
        let from = clock.now_ms();
        clock.advance(7_000);
        s.visits.beat().await;
        clock.advance(2_000);
        (b, other, from)
    };
    // Nothing of the process survives but its store.
    clock.advance(600_000);
    let s = stage(world).await?;
    let record = store::read(&world.ctx.db, north.id, b.id).await?.expect("there");
    assert_eq!(record.now.state, State::InConsult);
    assert_eq!(
        record.now.guest.intervals,
        [machine::Interval {
            from,
            to: Some(from + 7_000)
        }]
    );
    assert_eq!(record.now.guest.connection, None);
    s.event(north, b.id, &b.guest, "g2", true).await?;
    let record = store::read(&world.ctx.db, north.id, b.id).await?.expect("there");
    assert_eq!(record.now.guest.intervals.len(), 2, "back in the same visit");

    // The queue: the one who waits keeps the place, shown as away.
    let (_, host) = world.sign_in(north, &b.host, Role::Clinician).await?;
    let (_, list) = s.call(north, Some(&host), "GET", "/", None).await;
    let waiting = list["visits"]
        .as_array()
        .expect("list")
        .iter()
        .find(|v| v["id"] == json!(other.id))
        .expect("listed");
    assert_eq!(
        (&waiting["position"], &waiting["guest"]["online"]),
        (&json!(1), &json!(false))
    );

    // Leaving on purpose gives the place up, and says so to the rooms.
    let (_, opened) = s.open(north, &other.link, 2, false).await;
    let token = opened["access_token"].as_str().expect("token");
    let (_, left) = s
        .call(north, Some(token), "POST", &format!("/{}/leave", other.id), None)
        .await;
    assert_eq!((&left["state"], left.get("position")), (&json!("scheduled"), None));
    Ok(())
}

#[tokio::test]
async fn whoever_loses_what_a_room_rests_on_is_put_out() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(withdrawn(world))).await;
}

/// A host of the clinic, a colleague who treats the patient, and what each can lose.
async fn withdrawn(world: &World) -> Result<()> {
    let (north, ctx) = (&world.north, &world.ctx);
    world.demand_relationships(north).await?;
    let s = stage(world).await?;
    let b = s.book(north).await?;
    let about = format!("visit:{}", b.id);
    let write = async |subject: &'static str, relation: &'static str, object: String, on: bool| {
        ctx.db
            .write(north.id, move |tx| {
                Box::pin(async move {
                    match on {
                        true => relate(tx, subject, relation, &object, None).await,
                        false => unrelate(tx, subject, relation, &object).await,
                    }
                })
            })
            .await
    };
    let visit = about.clone();
    let asked = ctx.db.write(north.id, move |tx| {
        Box::pin(async move { relate(tx, &visit, "about", "patient:p1", None).await })
    });
    asked.await?;
    let (host, host_token) = world.sign_in(north, &b.host, Role::Clinician).await?;
    let (_, colleague) = world.sign_in(north, "user:colleague", Role::Clinician).await?;
    let (_, desk) = world.sign_in(north, "user:desk", Role::Staff).await?;
    let path = |what: &str| format!("/{}/{what}", b.id);
    let may = |visit: &Value| visit["may"].clone();

    // Without treating the patient: a look at the visit, and no way in.
    for token in [&colleague, &desk] {
        let (status, seen) = s.call(north, Some(token), "GET", &format!("/{}", b.id), None).await;
        assert_eq!((status.as_u16(), may(&seen)), (200, json!([])));
        for what in ["colleagues", "media"] {
            assert_eq!(
                s.call(north, Some(token), "POST", &path(what), None).await.0,
                403,
                "{what}"
            );
        }
    }
    write("user:colleague", "treats", "patient:p1".into(), true).await?;
    let (_, seen) = s
        .call(north, Some(&colleague), "GET", &format!("/{}", b.id), None)
        .await;
    assert_eq!(
        may(&seen),
        json!(["join"]),
        "the chart's reader may join, and is not in the call yet"
    );
    assert_eq!(
        s.call(north, Some(&colleague), "POST", &path("media"), None).await.0,
        403
    );

    let guest = s.arrive(north, &b, 1).await;
    let (status, joined) = s.call(north, Some(&colleague), "POST", &path("colleagues"), None).await;
    assert_eq!((status.as_u16(), may(&joined)), (200, json!(["talk"])));
    let (_, patients_view) = s.call(north, Some(&guest), "GET", &format!("/{}", b.id), None).await;
    assert_eq!(
        patients_view["colleagues"],
        json!([{"subject": "user:colleague", "name": "user:colleague"}]),
        "the patient sees who takes part"
    );
    let (_, ticket) = s.call(north, Some(&colleague), "POST", &path("media"), None).await;
    assert_eq!(
        ticket["token"],
        format!("{}|user:colleague|false", b.id),
        "no more than the guest while that waits"
    );
    let (_, admitted) = s.call(north, Some(&host_token), "POST", &path("admit"), None).await;
    assert_eq!(may(&admitted), json!(["lead", "talk"]));
    s.rooms.until("rights user:colleague true").await;
    for what in ["admit", "hold", "end"] {
        assert_eq!(
            s.call(north, Some(&colleague), "POST", &path(what), None).await.0,
            403,
            "{what}: leads nothing"
        );
    }

    let trail = audit::about(&ctx.db, north.id, "p1", None, 50).await?;
    for step in ["device-check", "consent", "a colleague joined", "admit"] {
        assert!(
            trail.iter().any(|e| e.detail == step && e.target == about),
            "{step}: in the patient's own log"
        );
    }

    let here = |all: &[&str]| {
        *s.rooms.present.lock().expect("lock") = all.iter().map(|who| inside(b.id, who, None)).collect();
    };
    here(&[&b.host, &b.guest, "user:colleague"]);
    assert_eq!(s.visits.recheck(north.id).await?, 0, "all are there rightly");
    assert!(
        !s.rooms
            .said
            .lock()
            .expect("lock")
            .iter()
            .any(|said| said.starts_with("remove"))
    );

    // The treatment ends: the live event is enough.
    write("user:colleague", "treats", "patient:p1".into(), false).await?;
    s.visits.look_again(north.id);
    s.rooms.until("remove user:colleague").await;
    here(&[&b.host, &b.guest]);
    // The picture stops first; then the part in the visit and its conversation is written off.
    while s.call(north, Some(&guest), "GET", &format!("/{}", b.id), None).await.1["colleagues"] != json!([]) {
        tokio::task::yield_now().await;
    }
    assert_eq!(s.visits.recheck(north.id).await?, 0);
    assert_eq!(
        s.call(north, Some(&colleague), "POST", &path("media"), None).await.0,
        403
    );

    // Back again, and then the role goes.
    write("user:colleague", "treats", "patient:p1".into(), true).await?;
    assert_eq!(
        s.call(north, Some(&colleague), "POST", &path("colleagues"), None)
            .await
            .0,
        200
    );
    let sessions = ctx.sessions.clone();
    let ended = ctx.db.write(north.id, move |tx| {
        Box::pin(async move { sessions.revoke_subject(tx, "user:colleague").await })
    });
    ended.await?;
    let (_, demoted) = world.sign_in(north, "user:colleague", Role::Patient).await?;
    here(&[&b.host, &b.guest, "user:colleague"]);
    assert_eq!(
        s.visits.recheck(north.id).await?,
        1,
        "a lost event is made good by the look every half minute"
    );
    assert_eq!(s.call(north, Some(&demoted), "POST", &path("media"), None).await.0, 403);

    // Joined and in no room, for the conversation alone.
    let chat = chat_of(&s, north, b.id).await?;
    let reads = async |who: &Principal| Ok::<_, Error>(ctx.policy.decide(who, Action::Read, &chat).await?.allow);
    let takes_part = async || {
        let (_, seen) = s.call(north, Some(&guest), "GET", &format!("/{}", b.id), None).await;
        seen["colleagues"] != json!([])
    };
    assert!(!takes_part().await && !reads(&world.sign_in(north, "user:colleague", Role::Patient).await?.0).await?);
    let end_sessions = async || {
        let sessions = ctx.sessions.clone();
        let ended = ctx.db.write(north.id, move |tx| {
            Box::pin(async move { sessions.revoke_subject(tx, "user:colleague").await })
        });
        ended.await
    };
    here(&[&b.host, &b.guest]);
    for signs_in_again in [true, false] {
        end_sessions().await?;
        let (who, token) = world.sign_in(north, "user:colleague", Role::Clinician).await?;
        assert_eq!(
            s.call(north, Some(&token), "POST", &path("colleagues"), None).await.0,
            200
        );
        assert!(reads(&who).await? && takes_part().await);
        assert_eq!(
            s.visits.recheck(north.id).await?,
            0,
            "a reload keeps the session and the part"
        );
        assert!(reads(&who).await? && takes_part().await);
        end_sessions().await?;
        if signs_in_again {
            world.sign_in(north, "user:colleague", Role::Patient).await?;
        }
        assert_eq!(
            s.visits.recheck(north.id).await?,
            1,
            "in no room, and looked at all the same"
        );
        assert!(
            !reads(&who).await? && !takes_part().await,
            "signs in again: {signs_in_again}"
        );
    }
    assert_eq!(s.visits.recheck(north.id).await?, 0, "nothing is left to end");

    // The patient denies the host.
    here(&[&b.host, &b.guest]);
    write(leak(&b.host), "self", "practitioner:d1".into(), true).await?;
    let rules = json!({"resourceType": "Consent", "status": "active", "scope": {"text": "x"}, "patient": {"reference": "Patient/p1"},
        "provision": {"type": "deny", "actor": [{"role": {"text": "x"}, "reference": {"reference": "Practitioner/d1"}}]}});
    let kept = ctx.db.write(north.id, move |tx| {
        Box::pin(async move { medtech_kernel::policy::consent::replace(tx, "c1", Some(&rules)).await })
    });
    kept.await?;
    assert_eq!(s.visits.recheck(north.id).await?, 1);
    assert_eq!(
        s.rooms.said.lock().expect("lock").last(),
        Some(&format!("remove {}", host.subject))
    );
    assert_eq!(
        s.call(north, Some(&host_token), "POST", &path("media"), None).await.0,
        403
    );
    Ok(())
}

#[tokio::test]
async fn a_room_that_missed_a_change_of_its_visit_is_brought_in_line_again() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(missed(world))).await;
}

async fn missed(world: &World) -> Result<()> {
    let (north, clock) = (&world.north, &world.ctx.clock);
    let s = stage(world).await?;
    let b = s.book(north).await?;
    let (_, host) = world.sign_in(north, &b.host, Role::Clinician).await?;
    let command = async |what: &str| {
        let path = format!("/{}/{what}", b.id);
        assert_eq!(s.call(north, Some(&host), "POST", &path, None).await.0, 200, "{what}");
    };
    s.arrive(north, &b, 1).await;
    command("admit").await;
    let (lets, bars) = (format!("rights {} true", b.guest), format!("rights {} false", b.guest));
    s.rooms.until(&lets).await;

    // What the guest may do is asked of the room, which fails once. Nobody has to do anything more.
    s.rooms.fail_once(command("hold")).await;
    assert_eq!(s.rooms.said.lock().expect("lock").last(), Some(&lets));
    clock.advance(1_000);
    s.rooms.until(&bars).await;

    // A room that heard nothing at all: the look every half minute says it again, and closes what has ended.
    *s.rooms.present.lock().expect("lock") = vec![inside(b.id, &b.guest, None)];
    let said = || std::mem::take(&mut *s.rooms.said.lock().expect("lock"));
    said();
    s.visits.recheck(north.id).await?;
    assert_eq!(said(), [bars]);
    s.rooms.fail_once(command("end")).await;
    assert_eq!(said(), [""; 0]);
    clock.advance(1_000);
    let close = format!("close {}", b.id);
    s.rooms.until(&close).await;
    said();
    s.visits.recheck(north.id).await?;
    assert_eq!(said().first(), Some(&close));
    Ok(())
}

#[tokio::test]
async fn one_clinics_trouble_is_not_anothers() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(trouble(world))).await;
}

fn inside(visit: Uuid, who: &str, connection: Option<&str>) -> Present {
    Present {
        room: visit.to_string(),
        identity: who.to_owned(),
        connection: connection.map(str::to_owned),
    }
}

/// Makes a visit's row one that cannot be read, or again what it was.
async fn spoil(world: &World, tenant: &Tenant, visit: Uuid, state: &'static str) -> Result<()> {
    let sql = "UPDATE visit SET state = $3 WHERE tenant = $1 AND id = $2";
    world.forge(tenant.id, sql, vec![visit.into(), state.into()]).await?;
    Ok(())
}

async fn trouble(world: &World) -> Result<()> {
    let s = still(world);
    let mut live = world.ctx.bus.attach_live()?;
    let (north, south, clock) = (&world.north, &world.south, &world.ctx.clock);
    let mut all = Vec::new();
    for tenant in [north, south] {
        for device in [1, 2] {
            let b = s.book(tenant).await?;
            s.arrive(tenant, &b, device).await;
            s.visits.on_presence(tenant.id, b.id, &b.guest, true).await?;
            all.push((tenant, b));
        }
    }
    let online = async |live: &mut mpsc::Receiver<Event>| -> Result<Vec<(Uuid, bool)>> {
        while live.try_recv().is_ok() {}
        s.visits.beat().await;
        let mut shown = Vec::new();
        while let Ok(event) = live.try_recv() {
            if event.channel.as_ref().is_some_and(|c| c.starts_with("encounter:")) {
                let visit = event.parse::<Value>()?["visit"].clone();
                let id = visit["id"].as_str().and_then(|id| id.parse().ok()).expect("id");
                shown.push((id, visit["guest"]["online"] == json!(true)));
            }
        }
        shown.sort_unstable();
        Ok(shown)
    };
    online(&mut live).await?;
    for (tenant, b) in &all {
        s.visits.on_presence(tenant.id, b.id, &b.guest, false).await?;
    }
    clock.advance(6_000);
    let gone = |of: &[usize]| {
        let mut gone: Vec<_> = of.iter().map(|n| (all[*n].1.id, false)).collect();
        gone.sort_unstable();
        gone
    };
    // A visit of each clinic cannot be read: the others are shown all the same, at this beat.
    for n in [0, 2] {
        spoil(world, all[n].0, all[n].1.id, "nonsense").await?;
    }
    assert_eq!(online(&mut live).await?, gone(&[1, 3]));
    for n in [0, 2] {
        spoil(world, all[n].0, all[n].1.id, "waiting").await?;
    }
    assert_eq!(
        online(&mut live).await?,
        gone(&[0, 2]),
        "what failed is shown at the next beat"
    );
    assert_eq!(online(&mut live).await?, gone(&[]), "and once");
    Ok(())
}

#[tokio::test]
async fn no_media_event_is_lost_to_a_moments_trouble() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(kept(world))).await;
}

async fn kept(world: &World) -> Result<()> {
    let (north, south, clock) = (&world.north, &world.south, &world.ctx.clock);
    let s = still(world);
    let (b, other) = (s.book(north).await?, s.book(south).await?);
    let (_, host) = world.sign_in(north, &b.host, Role::Clinician).await?;
    s.arrive(north, &b, 1).await;
    s.event(north, b.id, &b.host, "h1", true).await?;
    s.call(north, Some(&host), "POST", &format!("/{}/admit", b.id), None)
        .await;
    let (events, inbox) = mpsc::channel(16);
    let follows = tokio::spawn(s.visits.clone().follow_media(inbox, Some, s.stop.subscribe()));
    let send = async |tenant: &Tenant, visit: Uuid, who: &str, connection: &str, active: bool| {
        let event = MediaEvent {
            tenant: tenant.id,
            room: visit.to_string(),
            identity: who.to_owned(),
            connection: connection.to_owned(),
            active,
            at: clock.now_ms(),
        };
        events.send(event).await.expect("followed");
    };
    // Taken in behind the one that fails: another clinic does not wait for it.
    let elsewhere = async |connection: &'static str| {
        send(south, other.id, &other.host, connection, true).await;
        loop {
            let record = store::read(&world.ctx.db, south.id, other.id).await?.expect("there");
            if record.now.host.connection.as_deref() == Some(connection) {
                return Ok::<_, Error>(());
            }
            tokio::task::yield_now().await;
        }
    };
    spoil(world, north, b.id, "nonsense").await?;
    let joined = clock.now_ms();
    send(north, b.id, &b.guest, "g1", true).await;
    elsewhere("h1").await?;
    clock.advance(2_000);
    send(north, b.id, &b.guest, "g1", false).await;
    elsewhere("h2").await?;
    clock.advance(7_000);
    send(north, b.id, &b.guest, "g2", true).await;
    elsewhere("h3").await?;
    spoil(world, north, b.id, "admitted").await?;
    clock.advance(1_000);
    let record = loop {
        let record = store::read(&world.ctx.db, north.id, b.id).await?.expect("there");
        if record.now.guest.connection.as_deref() == Some("g2") {
            break record;
        }
        tokio::task::yield_now().await;
    };
    let spent: Vec<_> = record.now.guest.intervals.iter().map(|i| (i.from, i.to)).collect();
    assert_eq!(
        spent,
        [(joined, Some(joined + 2_000)), (joined + 9_000, None)],
        "as it was"
    );
    assert_eq!(record.now.state, State::InConsult);
    drop(events);
    follows.await.expect("ends with its events");
    Ok(())
}

#[tokio::test]
async fn what_no_event_told_is_seen_by_the_look_every_half_minute() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(untold(world))).await;
}

async fn untold(world: &World) -> Result<()> {
    let (north, clock) = (&world.north, &world.ctx.clock);
    let s = stage(world).await?;
    let b = s.book(north).await?;
    let (_, host) = world.sign_in(north, &b.host, Role::Clinician).await?;
    s.arrive(north, &b, 1).await;
    s.event(north, b.id, &b.host, "h1", true).await?;
    s.event(north, b.id, &b.guest, "g1", true).await?;
    s.call(north, Some(&host), "POST", &format!("/{}/admit", b.id), None)
        .await;
    let begun = clock.now_ms();
    let look = async |after: Millis, guest: Option<&str>| -> Result<Vec<(Millis, Option<Millis>)>> {
        clock.advance(after);
        let guest = guest.map(|connection| inside(b.id, &b.guest, Some(connection)));
        *s.rooms.present.lock().expect("lock") = std::iter::once(inside(b.id, &b.host, Some("h1")))
            .chain(guest)
            .collect();
        s.visits.recheck(north.id).await?;
        let record = store::read(&world.ctx.db, north.id, b.id).await?.expect("there");
        Ok(record
            .now
            .guest
            .intervals
            .iter()
            .map(|i| (i.from - begun, i.to.map(|to| to - begun)))
            .collect())
    };
    assert_eq!(look(1_000, Some("g1")).await?, [(0, None)]);
    // Gone, and nobody said so. It may be on its way, so one look is not enough; then it counts from the first.
    assert_eq!(look(9_000, None).await?, [(0, None)]);
    assert_eq!(look(10_000, None).await?, [(0, Some(10_000))]);
    assert_eq!(look(1_000, Some("g2")).await?, [(0, Some(10_000))]);
    assert_eq!(look(8_000, Some("g2")).await?, [(0, Some(10_000)), (21_000, None)]);
    // What the event tells in the meantime is left to it.
    look(500, Some("g3")).await?;
    s.event(north, b.id, &b.guest, "g3", true).await?;
    assert_eq!(look(500, Some("g3")).await?, [(0, Some(10_000)), (21_000, None)]);
    Ok(())
}

#[tokio::test]
async fn a_visit_that_nobody_has_come_to_moves_with_its_appointment() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(moved(world))).await;
}

const HOUR: Millis = 3_600_000;

/// Delivers the event twice, as the bus may.
async fn told(s: &Stage<'_>, tenant: &Tenant, kind: &'static str, visit: Uuid, body: Value) -> Result<()> {
    let event = Event::new(&s.world.ctx.clock, tenant.id, kind, format!("visit:{visit}"), &body)?.by("user:desk");
    s.visits.on_event(event.clone()).await?;
    s.visits.on_event(event).await
}

async fn moved(world: &World) -> Result<()> {
    let (north, south, ctx) = (&world.north, &world.south, &world.ctx);
    let clock = &ctx.clock;
    let s = stage(world).await?;
    let (b, begun) = (s.book(north).await?, s.book(north).await?);
    let guest = s.arrive(north, &begun, 2).await;
    let target = format!("visit:{}", b.id);
    let about = async || {
        let target = target.clone();
        let asked = ctx.db.write(north.id, move |tx| {
            Box::pin(async move { patient_of(tx, &target).await })
        });
        asked.await
    };
    let visit = target.clone();
    let related = ctx.db.write(north.id, move |tx| {
        Box::pin(async move { relate(tx, &visit, "about", "patient:p1", None).await })
    });
    related.await?;
    let thursday = clock.now_ms() + 72 * HOUR;
    let plan = |visit: Uuid| {
        json!({"visit_id": visit, "start": medtech_kernel::clock::rfc3339(thursday),
            "link_expires": medtech_kernel::clock::rfc3339(thursday + 12 * HOUR), "subject_ref": "Patient/p2", "guest_name": "Sam Right"})
    };
    told(&s, south, "visit.rescheduled", b.id, plan(b.id)).await?;
    assert_eq!(about().await?.as_deref(), Some("p1"), "another clinic moves nothing");
    for id in [b.id, begun.id] {
        told(&s, north, "visit.rescheduled", id, plan(id)).await?;
    }
    assert_eq!(about().await?.as_deref(), Some("p2"));
    for patient in ["p1", "p2"] {
        let trail = audit::about(&ctx.db, north.id, patient, None, 50).await?;
        let told = trail.iter().filter(|e| e.detail == "rescheduled" && e.target == target);
        assert_eq!(told.count(), 1, "{patient}: in their log, once");
    }
    let (_, seen) = s
        .call(north, Some(&guest), "GET", &format!("/{}", begun.id), None)
        .await;
    assert_eq!(
        (&seen["start"], &seen["guest"]["name"]),
        (&json!("2026-03-02T09:05:00.000Z"), &json!("Pat Guest")),
        "who waits is not moved"
    );

    // Two days later the old link's time is long over.
    clock.advance(71 * HOUR);
    let (_, host) = world.sign_in(north, &b.host, Role::Clinician).await?;
    let (_, list) = s.call(north, Some(&host), "GET", "/", None).await;
    let mine = list["visits"]
        .as_array()
        .expect("list")
        .iter()
        .find(|v| v["id"] == json!(b.id))
        .cloned();
    let mine = mine.expect("the host's list has it");
    assert_eq!(
        (&mine["start"], &mine["subject_ref"], &mine["guest"]["name"]),
        (
            &json!(medtech_kernel::clock::rfc3339(thursday)),
            &json!("Patient/p2"),
            &json!("Sam Right")
        )
    );
    let (status, opened) = s.open(north, &b.link, 1, false).await;
    assert_eq!(
        (status.as_u16(), &opened["me"]["name"]),
        (200, &json!("Sam Right")),
        "{opened}"
    );
    clock.advance(13 * HOUR);
    let (status, late) = s.open(north, &b.link, 1, false).await;
    assert_eq!((status.as_u16(), &late["code"]), (410, &json!("visit.link_expired")));
    assert!(audit::verify(&ctx.db, north.id).await?.is_ok());
    Ok(())
}

#[tokio::test]
async fn a_cancelled_visit_is_over_and_says_so_at_its_door() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(called_off(world))).await;
}

async fn called_off(world: &World) -> Result<()> {
    let (north, south) = (&world.north, &world.south);
    let s = stage(world).await?;
    let (b, waits, talks) = (s.book(north).await?, s.book(north).await?, s.book(north).await?);
    let (_, host) = world.sign_in(north, &b.host, Role::Clinician).await?;
    let guest = s.arrive(north, &waits, 2).await;
    s.arrive(north, &talks, 3).await;
    s.call(north, Some(&host), "POST", &format!("/{}/admit", talks.id), None)
        .await;

    told(&s, south, "visit.cancelled", b.id, json!({"visit_id": b.id})).await?;
    assert_eq!(
        s.open(north, &b.link, 1, false).await.0,
        200,
        "another clinic cancels nothing"
    );
    for booked in [&b, &waits, &talks] {
        told(&s, north, "visit.cancelled", booked.id, json!({"visit_id": booked.id})).await?;
    }
    for (booked, device) in [(&b, 1), (&waits, 2)] {
        let (status, problem) = s.open(north, &booked.link, device, false).await;
        assert_eq!((status.as_u16(), &problem["code"]), (410, &json!("visit.cancelled")));
        let admit = format!("/{}/admit", booked.id);
        assert_eq!(
            s.call(north, Some(&host), "POST", &admit, None).await.0,
            410,
            "nobody is admitted"
        );
    }
    // Who waited is told on the page that is open.
    let (_, seen) = s
        .call(north, Some(&guest), "GET", &format!("/{}", waits.id), None)
        .await;
    assert_eq!(seen["state"], "ended");
    assert!(seen["cancelled_at"].is_string(), "{seen}");
    let (status, problem) = s
        .call(north, Some(&guest), "POST", &format!("/{}/media", waits.id), None)
        .await;
    assert_eq!((status.as_u16(), &problem["code"]), (410, &json!("visit.cancelled")));
    let ended = s
        .facts(north)
        .await?
        .into_iter()
        .filter(|(kind, _)| kind == "visit.ended");
    assert_eq!(ended.count(), 2, "each once");

    // A conversation is not cut off; the host ends it, and then it has ended as any other.
    let (_, list) = s.call(north, Some(&host), "GET", "/", None).await;
    let left: Vec<&Value> = list["visits"]
        .as_array()
        .expect("list")
        .iter()
        .map(|v| &v["id"])
        .collect();
    assert_eq!(left, [&json!(talks.id)]);
    s.call(north, Some(&host), "POST", &format!("/{}/end", talks.id), None)
        .await;
    let (_, problem) = s.open(north, &talks.link, 3, false).await;
    assert_eq!(problem["code"], "visit.ended");
    Ok(())
}

#[tokio::test]
async fn older_visits_are_related_to_their_patient_at_the_start() {
    on_both_engines(&[MIGRATIONS], |world| Box::pin(older(world))).await;
}

async fn older(world: &World) -> Result<()> {
    let (north, south, ctx) = (&world.north, &world.south, &world.ctx);
    world.demand_relationships(north).await?;
    let s = stage(world).await?;
    // Asked for as before: rows without the relation. One has ended, and one is about somebody else by now.
    let (old, over, known) = (s.book(north).await?, s.book(north).await?, s.book(north).await?);
    let abroad = s.book(south).await?;
    let (_, host) = world.sign_in(north, &over.host, Role::Clinician).await?;
    s.arrive(north, &over, 1).await;
    for what in ["admit", "end"] {
        let path = format!("/{}/{what}", over.id);
        assert_eq!(s.call(north, Some(&host), "POST", &path, None).await.0, 200);
    }
    let (visit, treats) = (format!("visit:{}", known.id), "patient:p1");
    let kept = ctx.db.write(north.id, move |tx| {
        Box::pin(async move {
            relate(tx, &visit, "about", "patient:p2", None).await?;
            relate(tx, "user:colleague", "treats", treats, None).await
        })
    });
    kept.await?;
    let about = async |tenant: TenantId, visit: Uuid| {
        let target = format!("visit:{visit}");
        let asked = ctx
            .db
            .write(tenant, move |tx| Box::pin(async move { patient_of(tx, &target).await }));
        asked.await
    };
    let (_, colleague) = world.sign_in(north, "user:colleague", Role::Clinician).await?;
    let join = format!("/{}/colleagues", old.id);
    assert_eq!(about(north.id, old.id).await?, None);
    assert_eq!(s.call(north, Some(&colleague), "POST", &join, None).await.0, 403);

    for start in 1..=2 {
        let again = stage(world).await?;
        let of = [old.id, over.id, known.id];
        let mut found = Vec::new();
        for visit in of {
            found.push(about(north.id, visit).await?);
        }
        assert_eq!(
            found,
            [Some("p1".to_owned()), None, Some("p2".to_owned())],
            "start {start}"
        );
        assert_eq!(about(south.id, abroad.id).await?.as_deref(), Some("p1"), "each clinic");
        let target = format!("visit:{}", old.id);
        let trail = audit::about(&ctx.db, north.id, "p1", None, 50).await?;
        let told = trail
            .iter()
            .filter(|e| e.target == target && e.detail == "related to the patient it is about");
        assert_eq!(told.count(), 1, "written down once, start {start}");
        assert_eq!(again.call(north, Some(&colleague), "POST", &join, None).await.0, 200);
    }
    Ok(())
}

/// The conversation of a visit.
async fn chat_of(s: &Stage<'_>, tenant: &Tenant, visit: Uuid) -> Result<medtech_kernel::policy::Resource> {
    let record = store::read(&s.world.ctx.db, tenant.id, visit).await?.expect("a visit");
    let id = record.conversation.expect("a conversation");
    Ok(medtech_kernel::policy::Resource::new("conversation", id.to_string()))
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}
