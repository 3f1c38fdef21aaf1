//! `medtech serve`: every service in this process, until it is told to stop.

use crate::{
    app, demo,
    erasing::Visited,
    gateway,
    gateway::Door,
    links, ops, say, sealed, tls,
    tls::{Gate, Tls},
};
use medtech_kernel::{
    Ctx, Error, Result,
    config::Config,
    vault::{Opened, Sealed},
};
use medtech_messaging::Messaging;
use std::{fs::File, net::SocketAddr, path::Path, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// The kernel would otherwise hold megabytes for a slow reader, outside our own bounds.
const SEND_BUFFER: u32 = 64 * 1024;
/// How long open requests may take to end after the signal to stop.
const GRACE: Duration = Duration::from_secs(8);

pub(crate) async fn serve(mut config: Config) -> Result<ExitCode> {
    let _lock = lock(&config.data_dir)?;
    let hangup = tls::hangup()?;
    let tls = Tls::open(&config)?;
    let mut ports = Ports::open(&mut config, tls.as_ref())?;
    let demo = config.demo;

    let Some(ctx) = ground(&mut ports, config).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    refuse_privileges(&ctx).await?;
    let clinic = app::clinic(ctx.clone());
    // A restored copy may hold what was erased since.
    let visited = Visited::new(ctx.clone(), Arc::new(Messaging::new(ctx.clone())?));
    for tenant in ctx.tenants.all() {
        match clinic.fhir.erase_again(tenant.id, &visited).await {
            Ok(0) => {}
            Ok(gone) => tracing::warn!(tenant = %tenant.id, gone, "erased again what a restore had brought back"),
            // One clinic's file that is refused does not keep the others from being served; every use of it answers so.
            Err(e) if e.is_refused_file() => {
                tracing::error!(tenant = %tenant.id, error = ?e, "the database file of a clinic is refused");
            }
            Err(e) => return Err(e),
        }
    }
    clinic.identity.calibrate().await?;
    let (stop, stopped) = watch::channel(false);
    let certificates = tls.as_ref().map(|tls| tls.certificates.clone());
    let (metrics, running) = (
        ops::Metrics::new(ctx.clone(), certificates.clone()),
        app::start(&clinic, tls.as_ref(), stopped.clone()).await?,
    );
    if demo {
        demo::ensure(&clinic).await?;
    }
    let told = told_to_stop()?;
    let router = gateway::around(running.router.clone(), metrics, ctx.clone());
    let server = tokio::spawn(gateway::serve(
        ports.doors(),
        router,
        gateway::PATIENCE,
        stopped.clone(),
    ));

    let acme = match &tls {
        Some(tls) => tls.on_ground(&ctx).await?,
        None => None,
    };
    let watch = tls::keep(certificates, acme, hangup, stopped.clone());

    say(&format!("\nMedTech is ready at {}", ctx.config.public_url()));
    if demo {
        for (who, address) in links::demo_addresses(&clinic).await? {
            say(&format!("  {who:<10} {address}"));
        }
    }
    if let Some(port) = running.mqtts.map(|address| address.port()) {
        say(&format!("  {:<10} mqtts://localhost:{port}", "mqtts"));
    }
    say(&format!(
        "  {:<10} mqtt://localhost:{}\n",
        "devices",
        running.mqtt.port()
    ));

    told.await?;
    tracing::info!("stopping");
    let _ = stop.send(true);
    running.stop().await;
    watch.join_all().await;
    // Whoever has not finished by then is cut: clients resume, and nothing that was acknowledged is lost.
    if tokio::time::timeout(GRACE, server).await.is_err() {
        tracing::info!("connections were still open after the grace period");
    }
    clinic.fhir.flush_audit().await;
    medtech_kernel::audit::checkpoint_all(&ctx).await;
    Ok(ExitCode::SUCCESS)
}

/// Opens the storage, and waits for the root key where it is missing; `None` when told to stop before it came.
async fn ground(ports: &mut Ports, config: Config) -> Result<Option<Ctx>> {
    let is_closed = |e: &Error| e.code.starts_with("vault.");
    let sealed = |e: Error| Sealed {
        why: e.message.into_owned(),
        mend: "`medtech doctor` says more.".to_owned(),
    };
    let mut opened = match app::unlock(&config, None).await {
        Err(e) if is_closed(&e) => Opened::Sealed(sealed(e)),
        other => other?,
    };
    loop {
        match opened {
            Opened::Open(root) => match app::open_with(config.clone(), root).await {
                Err(e) if e.code == "vault.sealed" => opened = Opened::Sealed(sealed(e)),
                other => return other.map(Some),
            },
            Opened::Sealed(why) => {
                // The ports stay ours while the little server is exchanged for the great one.
                let doors = ports.lend()?;
                match sealed::wait(doors, &config, why, signal()).await? {
                    Some(root) => opened = Opened::Open(root),
                    None => return Ok(None),
                }
            }
        }
    }
}

/// The web ports, open from the start to the end.
struct Ports {
    plain: TcpListener,
    secured: Option<(TcpListener, Gate)>,
}

impl Ports {
    /// Ports that were left to the system are written into the configuration.
    fn open(config: &mut Config, tls: Option<&Tls>) -> Result<Self> {
        let plain = listen(config.http.bind)?;
        config.http.bind.set_port(plain.local_addr().map_err(io)?.port());
        let secured = match tls {
            None => None,
            Some(tls) => {
                let listener = listen(config.http.tls_bind)?;
                config.http.tls_bind.set_port(listener.local_addr().map_err(io)?.port());
                Some((listener, tls.web.clone()))
            }
        };
        Ok(Self { plain, secured })
    }

    /// The same ports for somebody who gives them up before us.
    fn lend(&mut self) -> Result<Vec<Door>> {
        let copy = |listener: &TcpListener| -> std::io::Result<TcpListener> {
            TcpListener::from_std(std::os::fd::AsFd::as_fd(listener).try_clone_to_owned()?.into())
        };
        // What waits on the first registration of a port ends with it: ours is made anew as well.
        let (mine, theirs) = (copy(&self.plain).map_err(io)?, copy(&self.plain).map_err(io)?);
        self.plain = mine;
        let mut doors = vec![Door::plain(theirs)];
        if let Some((listener, tls)) = &mut self.secured {
            let (mine, theirs) = (copy(listener).map_err(io)?, copy(listener).map_err(io)?);
            *listener = mine;
            doors.push(Door::secured(theirs, tls.clone()));
        }
        Ok(doors)
    }

    fn doors(self) -> Vec<Door> {
        let secured = self.secured.map(|(listener, tls)| Door::secured(listener, tls));
        std::iter::once(Door::plain(self.plain)).chain(secured).collect()
    }
}

/// A role above row security sees every clinic, whatever the walls say.
async fn refuse_privileges(ctx: &Ctx) -> Result<()> {
    if !ctx.db.is_above_row_security().await? {
        return Ok(());
    }
    if ctx.config.database.allow_privileged_role {
        tracing::warn!("the database role stands above row security: nothing but the program keeps clinics apart");
        return Ok(());
    }
    Err(Error::conflict(
        "app.privileged_role",
        "The role of database.url is a superuser or has BYPASSRLS, so the database would not keep the clinics apart. \
         Make another (CREATE ROLE app LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD ...), name it in database.url, and the \
         present one in database.owner_url. For a trial: database.allow_privileged_role = true.",
    ))
}

/// Two servers on one data directory would both deliver the outbox: the second is refused.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    std::fs::create_dir_all(dir).map_err(io)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("server.lock"))
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::conflict(
            "app.data_dir_in_use",
            format!("A server is already running on {}.", dir.display()),
        )),
        Err(std::fs::TryLockError::Error(e)) => Err(io(e)),
    }
}

fn listen(addr: SocketAddr) -> Result<TcpListener> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = if addr.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.set_nodelay(true)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|e| {
        Error::unavailable(
            "app.port",
            format!("Cannot listen on {addr}: {e}. `medtech doctor` says more."),
        )
    })
}

async fn signal() -> Result<()> {
    told_to_stop()?.await
}

/// Listens from the moment it is called, not only when it is waited for: who asks to stop at once is heard.
fn told_to_stop() -> Result<impl Future<Output = Result<()>>> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(io)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            pressed = tokio::signal::ctrl_c() => pressed.map_err(io),
        }
    })
}

fn io(error: std::io::Error) -> Error {
    Error::internal("app.io", error)
}
