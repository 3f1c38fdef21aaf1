//! The only place where concrete parts meet: database, bus, media, messaging, notifications, modules, hub, router.

use crate::{erasing::Visited, joints, keys, sealing, tls::Tls};
use axum::Router;
use medtech_appointments::Appointments;
use medtech_fhir::Fhir;
use medtech_identity::Identity;
use medtech_kernel::{
    Clock, Ctx, Db, Error, Migration, Module, Result,
    auth::Sessions,
    bus::{Bus, Event},
    config::Config,
    db::{Location, PageKeys},
    policy::Policy,
    secret::Root,
    tenant::Tenants,
    upkeep,
    vault::{self, Ledger, Opened, Vault},
};
use medtech_media_sfu::SfuConfig;
use medtech_messaging::Messaging;
use medtech_notifications::Notifications;
use medtech_records::Records;
use medtech_signaling::{
    channels::Hub,
    devices::Devices,
    livekit::{LiveKit, LiveKitConfig, RoomEvent},
    visits::{Visits, media::Media},
};
use medtech_tenants::TenantsModule;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use zeroize::Zeroizing;

/// Every part's tables, in the order they are made.
pub(crate) fn migrations() -> Vec<&'static [Migration]> {
    vec![
        medtech_kernel::MIGRATIONS,
        medtech_fhir::MIGRATIONS,
        Identity::migrations(),
        TenantsModule::migrations(),
        Records::migrations(),
        Appointments::migrations(),
        Messaging::migrations(),
        Notifications::migrations(),
        Visits::migrations(),
    ]
}

/// The ground: opens the storage and brings it up to date. Nothing runs yet.
pub(crate) async fn open(config: Config) -> Result<Ctx> {
    match unlock(&config, None).await? {
        Opened::Open(root) => open_with(config, root).await,
        Opened::Sealed(why) => Err(why.into()),
    }
}

/// Asks for the root key. One is made only where no data is.
pub(crate) async fn unlock(config: &Config, given: Option<Zeroizing<String>>) -> Result<Opened> {
    let secrets = config.data_dir.join("secrets");
    let key_at_hand = secrets.join("vault.json").exists() || config.vault.key_file(&config.data_dir).exists();
    let data = match config.location() {
        _ if key_at_hand => true,
        Location::Sqlite(dir) => dir.join("system.db").exists(),
        location => {
            let db = Db::open(location, PageKeys::none(), Clock::system(), migrations()).await?;
            !Tenants::open(db).await?.all().is_empty()
        }
    };
    let config = config.clone();
    // A passphrase takes a core for a while.
    tokio::task::spawn_blocking(move || vault::unlock(&config, given, data))
        .await
        .map_err(|e| Error::internal("vault.unlock", e))?
}

/// The ground, with the root key at hand.
pub(crate) async fn open_with(config: Config, root: Root) -> Result<Ctx> {
    let clock = Clock::system();
    let vault = Vault::new(root.clone(), Ledger::at(config.vault.erasure_ledger(&config.data_dir)));
    let db = Db::open(
        config.location(),
        PageKeys::of_vault(&vault),
        clock.clone(),
        migrations(),
    )
    .await?;
    let db = db.with_vault(vault.clone());
    vault.load(&db).await?;
    let bus = Bus::new(db.clone(), clock.clone());
    let tenants = Tenants::open(db.clone()).await?;
    let ctx = Ctx {
        policy: Policy::new(db.clone(), bus.clone(), clock.clone(), tenants.clone()),
        sessions: Sessions::new(db.clone(), bus.clone(), clock.clone()).guarded(tenants.clone()),
        db,
        bus,
        clock,
        tenants,
        root,
        vault,
        config: Arc::new(config),
    };
    register_consumers(&ctx);
    Ok(ctx)
}

/// Every consuming group is known before the first write, so that nothing recorded is missed.
pub(crate) fn register_consumers(ctx: &Ctx) {
    register::<Identity>(ctx);
    Identity::register(&ctx.bus);
    register::<TenantsModule>(ctx);
    register::<Records>(ctx);
    register::<Appointments>(ctx);
    register::<Messaging>(ctx);
    register::<Notifications>(ctx);
    register::<Visits>(ctx);
}

fn register<M: Module>(ctx: &Ctx) {
    if !M::consumes().is_empty() {
        ctx.bus.register_wanting(M::NAME, M::consumes(), M::wants);
    }
}

/// The clinical modules that also serve the subcommands: they need no port and no thread.
#[derive(Clone)]
pub(crate) struct Clinic {
    pub(crate) ctx: Ctx,
    pub(crate) fhir: Fhir,
    pub(crate) identity: Arc<Identity>,
    pub(crate) appointments: Arc<Appointments>,
    pub(crate) records: Arc<Records>,
}

/// Makes the clinical modules.
pub(crate) fn clinic(ctx: Ctx) -> Clinic {
    let fhir = Fhir::new(ctx.clone());
    Clinic {
        identity: Arc::new(
            Identity::new(ctx.clone())
                .with_records(fhir.clone())
                .with_birth_dates(Arc::new(joints::Births(fhir.clone()))),
        ),
        appointments: Arc::new(Appointments::new(ctx.clone(), fhir.clone())),
        records: Arc::new(Records::new(ctx.clone(), fhir.clone())),
        fhir,
        ctx,
    }
}

/// Everything at work.
pub(crate) struct Running {
    pub(crate) router: Router,
    pub(crate) mqtt: SocketAddr,
    pub(crate) mqtts: Option<SocketAddr>,
    hub: Hub,
    livekit: LiveKit,
    policy: Policy,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts every service and joins them. They end when `stop` turns true; [`Running::stop`] waits for that.
pub(crate) async fn start(clinic: &Clinic, tls: Option<&Tls>, stop: watch::Receiver<bool>) -> Result<Running> {
    let ctx = clinic.ctx.clone();

    // Media and its signalling.
    let (livekit, room_events) = start_media(&ctx)?;

    // Messages, notices, visits, devices.
    let messaging = Arc::new(Messaging::new(ctx.clone())?);
    let notifications = Arc::new(Notifications::new(ctx.clone())?);
    let house = Arc::new(joints::Household {
        identity: clinic.identity.clone(),
        messaging: messaging.clone(),
    });
    let tenants = Arc::new(TenantsModule::new(ctx.clone(), clinic.fhir.clone(), house));
    let rooms: Arc<dyn Media> = Arc::new(joints::Rooms(livekit.clone()));
    let visits = Visits::new(ctx.clone(), rooms, Arc::new(joints::VisitChats(messaging.clone())));
    let devices = {
        let tls = tls.map(|tls| tls.mqtt.clone());
        Devices::start_with(ctx.clone(), medtech_records::describe, tls, stop.clone()).await?
    };

    // Live channels: the rules of every module, the commands that clients may call, and who is where.
    let rules = [
        Identity::channels(),
        TenantsModule::channels(),
        Records::channels(),
        Appointments::channels(),
        Messaging::channels(),
        Notifications::channels(),
        Visits::channels(),
    ];
    let hub = Hub::start(ctx.clone(), rules.into_iter().flatten().collect())?;
    joints::rpc(&hub, &messaging, &visits);
    let listening = devices.clone();
    hub.listen(move |event| listening.on_live(event));
    joints::end_media_with_session(&hub, &livekit);
    joints::recheck_rooms_on_withdrawal(&hub, &visits);

    // What goes on beside the requests.
    let mut tasks = visits.start(stop.clone()).await?;
    tasks.extend(tenants.start(&stop));
    tasks.push(tokio::spawn(upkeep::run(
        ctx.db.clone(),
        ctx.tenants.clone(),
        stop.clone(),
    )));
    tasks.push(tokio::spawn(sealing::run(
        ctx.clone(),
        clinic.fhir.clone(),
        messaging.clone(),
        stop.clone(),
    )));
    tasks.push(tokio::spawn(
        ctx.sessions.clone().watch_over(ctx.tenants.clone(), stop.clone()),
    ));
    tasks.push(tokio::spawn(upkeep::scrub(
        ctx.db.clone(),
        ctx.tenants.clone(),
        stop.clone(),
    )));
    tasks.push(tokio::spawn(joints::follow_rooms(
        room_events,
        visits.clone(),
        stop.clone(),
    )));
    tasks.push(tokio::spawn(joints::follow_presence(
        hub.presence_changes(),
        visits.clone(),
        stop.clone(),
    )));
    tasks.extend(notifications.clone().start(stop.clone()));
    tasks.push(tokio::spawn(clinic.fhir.clone().backfill(stop.clone())));
    tasks.extend(messaging.clone().start_scanner(stop.clone()).await?);
    tasks.push(medtech_kernel::audit::keep(ctx.clone(), stop.clone()));
    tasks.push(tokio::spawn(vault::keep(
        ctx.vault.clone(),
        ctx.db.clone(),
        stop.clone(),
    )));
    let visits = Arc::new(visits);
    tasks.extend(consume(&ctx, &clinic.identity, &stop));
    let (telling, tell) = clinic.identity.tell_applications(&stop);
    tasks.extend(telling);
    hub.listen(tell);
    tasks.extend(consume(&ctx, &tenants, &stop));
    tasks.extend(consume(&ctx, &clinic.records, &stop));
    tasks.extend(consume(&ctx, &clinic.appointments, &stop));
    tasks.extend(consume(&ctx, &messaging, &stop));
    tasks.extend(consume(&ctx, &notifications, &stop));
    tasks.extend(consume(&ctx, &visits, &stop));

    // Every mount point.
    let router = Router::new()
        .merge(keys::routes(
            clinic.fhir.clone(),
            Visited::new(ctx.clone(), messaging.clone()),
        ))
        .merge(clinic.identity.for_applications(clinic.fhir.router()))
        .merge(clinic.identity.oauth_routes())
        .merge(module(&clinic.identity))
        .merge(module(&tenants))
        .merge(module(&clinic.records))
        .merge(module(&clinic.appointments))
        .merge(module(&messaging))
        .merge(module(&notifications))
        .merge(module(&visits))
        .merge(messaging.clone().file_routes())
        .merge(notifications.clone().outbox_routes())
        .merge(devices.router())
        .merge(hub.router())
        .merge(livekit.router())
        .merge(medtech_web_client::router());
    Ok(Running {
        router,
        mqtt: devices.addr(),
        mqtts: devices.tls_addr(),
        hub,
        livekit,
        policy: ctx.policy.clone(),
        tasks,
    })
}

impl Running {
    /// Tells clients to go elsewhere, then waits for the tasks that `stop` has told to end.
    pub(crate) async fn stop(self) {
        self.hub.shutdown().await;
        self.policy.refusals().flush().await;
        if let Err(e) = self.livekit.shut_down().await {
            tracing::warn!(error = %e, "media did not end well");
        }
        for task in self.tasks {
            if tokio::time::timeout(Duration::from_secs(5), task).await.is_err() {
                tracing::warn!("a task did not end in time");
            }
        }
    }
}

fn start_media(ctx: &Ctx) -> Result<(LiveKit, mpsc::Receiver<RoomEvent>)> {
    let media = &ctx.config.media;
    let config = LiveKitConfig {
        media: SfuConfig {
            udp_port: media.udp_port,
            threads: media.threads,
            advertise: media.advertise.clone(),
        },
        keys: Arc::new(joints::TenantKeys {
            root: ctx.root.clone(),
            tenants: ctx.tenants.clone(),
        }),
        clock: ctx.clock.clone(),
    };
    LiveKit::start(config).map_err(|e| {
        Error::unavailable(
            "app.media",
            format!("The media service cannot start: {e}. `medtech doctor` says more."),
        )
    })
}

/// A module's routes at `/api/{NAME}`.
fn module<M: Module>(module: &Arc<M>) -> Router {
    Router::new().nest(&format!("/api/{}", M::NAME), module.clone().routes())
}

/// A module's worker, where it consumes anything.
fn consume<M: Module>(ctx: &Ctx, module: &Arc<M>, stop: &watch::Receiver<bool>) -> Option<JoinHandle<()>> {
    if M::consumes().is_empty() {
        return None;
    }
    let module = module.clone();
    let handler = move |event: Event| {
        let module = module.clone();
        async move { module.on_event(event).await }
    };
    Some(ctx.bus.consume(M::NAME, ctx.tenants.clone(), stop.clone(), handler))
}
