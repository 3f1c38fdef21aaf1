//! A small server with only messaging and files, for trying a tus client by hand and for the test that kills it.
//!
//! `files <data dir> <port>`: prints the address, a token and a conversation, one a line. What it made in the data
//! directory it finds there again. SQLite, loopback, one member.

use axum::{Extension, Router};
use medtech_kernel::{
    Clock, Ctx, Db, Error, Module, Result,
    auth::{Assurance, NewSession, Role, Sessions},
    bus::Bus,
    config::Config,
    db::{Location, PageKeys},
    policy::Policy,
    secret::Root,
    tenant::Tenants,
    vault::{Ledger, Vault},
};
use medtech_messaging::Messaging;
use std::{io::Write, net::Ipv4Addr, path::PathBuf, sync::Arc};

const OWNER: &str = "user:0190c1b0-0000-7000-8000-00000000000a";

#[tokio::main]
async fn main() -> Result<()> {
    let usage = || Error::bad("example.usage", "files <data dir> <port>");
    let mut args = std::env::args().skip(1);
    let data_dir = PathBuf::from(args.next().ok_or_else(usage)?);
    let port: u16 = args.next().and_then(|p| p.parse().ok()).ok_or_else(usage)?;

    let clock = Clock::system();
    let all = vec![medtech_kernel::MIGRATIONS, Messaging::migrations()];
    let root = Root::open(&data_dir.join("root.key"))?;
    let vault = Vault::new(root.clone(), Ledger::at(data_dir.join("erasures.jsonl")));
    let db = Db::open(
        Location::Sqlite(data_dir.join("db")),
        PageKeys::of_vault(&vault),
        clock.clone(),
        all,
    )
    .await?;
    let db = db.with_vault(vault.clone());
    vault.load(&db).await?;
    let bus = Bus::new(db.clone(), clock.clone());
    let tenants = Tenants::open(db.clone()).await?;
    let fresh = tenants.all().is_empty();
    let tenant = match tenants.all().into_iter().next() {
        Some(tenant) => tenant,
        None => tenants.create("demo", "Demo", "UTC", &[]).await?,
    };
    let ctx = Ctx {
        policy: Policy::new(db.clone(), bus.clone(), clock.clone(), tenants.clone()),
        sessions: Sessions::new(db.clone(), bus.clone(), clock.clone()).guarded(tenants.clone()),
        root,
        vault,
        config: Arc::new(Config {
            data_dir: data_dir.clone(),
            ..Config::default()
        }),
        db,
        bus,
        clock,
        tenants,
    };
    let messaging = Arc::new(Messaging::new(ctx.clone())?);
    let facts = data_dir.join("facts.txt");
    if fresh {
        let (m, sessions) = (messaging.clone(), ctx.sessions.clone());
        let made = ctx.db.write(tenant.id, move |tx| {
            Box::pin(async move {
                let members = [(OWNER.to_owned(), "Owner".to_owned())];
                let conversation = m.create_conversation_in(tx, "example", "Example", &members).await?;
                let new = NewSession {
                    subject: OWNER.to_owned(),
                    name: "Owner".to_owned(),
                    roles: vec![Role::Clinician],
                    ttl_ms: 3_600_000,
                    note: "example".to_owned(),
                    grant: Assurance::Two.into(),
                    idle_ms: None,
                };
                let (token, _) = sessions.issue(tx, new).await?;
                Ok(format!("{token}\n{conversation}\n"))
            })
        });
        std::fs::write(&facts, made.await?).map_err(|e| Error::internal("example.facts", e))?;
    }
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|e| Error::internal("example.bind", e))?;
    let address = listener
        .local_addr()
        .map_err(|e| Error::internal("example.address", e))?;
    let facts = std::fs::read_to_string(&facts).map_err(|e| Error::internal("example.facts", e))?;
    let mut out = std::io::stdout();
    out.write_all(format!("{address}\n{facts}").as_bytes())
        .map_err(|e| Error::internal("example.print", e))?;
    out.flush().map_err(|e| Error::internal("example.print", e))?;
    let app = Router::new()
        .nest("/api/messaging", messaging.clone().routes())
        .merge(messaging.file_routes())
        .layer(Extension(ctx));
    axum::serve(listener, app)
        .await
        .map_err(|e| Error::internal("example.serve", e))
}
