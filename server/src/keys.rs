//! Keys, for administrators: how they stand, a new version, and what must never be read again. By route and at the machine.

use crate::{app, cli::Keys, erasing::Visited, say, sealing};
use axum::{
    Extension, Json, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use http::StatusCode;
use medtech_fhir::Fhir;
use medtech_kernel::{
    Ctx, Db, Error, Result, Tenant, TenantId,
    audit::{self, Entry, Origin},
    auth::Principal,
    config::Config,
    db::{Engine, PageKeys},
    policy::{Action, Resource},
    vault::{self, Class, Scope},
};
use medtech_messaging::Messaging;
use serde::Deserialize;
use serde_json::json;
use std::{fs::File, process::ExitCode, sync::Arc};
use zeroize::Zeroizing;

/// `/api/operations/keys*` and `/api/operations/erasures`; `unseal` answers that there is nothing to do.
pub(crate) fn routes(fhir: Fhir, visited: Visited) -> Router {
    Router::new()
        .route("/api/operations/keys", get(standing))
        .route("/api/operations/keys/rotate", post(rotate))
        .route("/api/operations/erasures", post(erase))
        .route(
            "/api/operations/unseal",
            post(|| async { Error::conflict("vault.open", "The vault is open.") }),
        )
        .with_state((fhir, visited))
}

async fn administrator(ctx: &Ctx, who: &Principal, action: Action) -> Result<()> {
    ctx.policy.require(who, action, &Resource::new("key", "tenant")).await
}

async fn standing(Extension(ctx): Extension<Ctx>, who: Principal) -> Result<impl IntoResponse> {
    administrator(&ctx, &who, Action::Read).await?;
    vault::standing(&ctx.vault, &ctx.db, who.tenant).await.map(Json)
}

async fn rotate(Extension(ctx): Extension<Ctx>, who: Principal) -> Result<impl IntoResponse> {
    administrator(&ctx, &who, Action::Administer).await?;
    who.require_fresh(ctx.clock.now_ms())?;
    // In a task of its own: a client that goes away does not leave it half done.
    let task = tokio::spawn(
        Origin::current()
            .scope(async move { vault::rotate(&ctx.vault, &ctx.db, who.tenant, &who.subject, true).await }),
    );
    task.await.map_err(|e| Error::internal("vault.rotation", e))?.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Erase {
    patient: String,
}

async fn erase(
    State((fhir, visited)): State<(Fhir, Visited)>,
    Extension(ctx): Extension<Ctx>,
    who: Principal,
    Json(what): Json<Erase>,
) -> Result<impl IntoResponse> {
    administrator(&ctx, &who, Action::Administer).await?;
    who.require_fresh(ctx.clock.now_ms())?;
    let task = tokio::spawn(Origin::current().scope(async move {
        fhir.erase_patient(who.tenant, &what.patient, &who.subject, &visited)
            .await
    }));
    let resources = task.await.map_err(|e| Error::internal("vault.erasure", e))??;
    Ok((StatusCode::OK, Json(json!({ "resources": resources }))))
}

/// `medtech keys ...`
pub(crate) async fn run(config: Config, what: Keys) -> Result<ExitCode> {
    if let Keys::Protect { current, next } = what {
        let read = |file: Option<String>| -> Result<Option<Zeroizing<String>>> {
            let Some(file) = file else { return Ok(None) };
            let text = std::fs::read_to_string(file).map_err(|e| Error::bad("vault.passphrase_file", e.to_string()))?;
            let text = Zeroizing::new(text);
            Ok(Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())))
        };
        vault::protect(&config, read(current)?, read(next)?)?;
        say(&format!("The root key is now kept as `{}`.", config.vault.root.name()));
        return Ok(ExitCode::SUCCESS);
    }
    let serving = is_served(&config);
    if let Keys::AcceptRestored { tenant } = what {
        return accept_restored(config, tenant).await;
    }
    let clinic = app::clinic(app::open(config).await?);
    let ctx = clinic.ctx.clone();
    match what {
        Keys::Status { tenant } => {
            let tenants = match tenant {
                Some(slug) => vec![named(&ctx, &slug)?],
                None => ctx.tenants.all(),
            };
            let (lines, foreign) = ctx.vault.ledger()?;
            say(&format!(
                "root key: {}; erasures: {lines}",
                ctx.config.vault.root.name()
            ));
            if foreign > 0 {
                say(&format!(
                    "WRONG  {foreign} lines of the erasure ledger were not written with this root key"
                ));
            }
            for tenant in tenants {
                match vault::standing(&ctx.vault, &ctx.db, tenant.id).await {
                    Ok(s) => {
                        let keys: Vec<String> = s
                            .data_keys
                            .iter()
                            .map(|(v, n)| format!("{n} under version {v}"))
                            .collect();
                        say(&format!(
                            "{}: version {}; data keys: {}; destroyed: {}",
                            tenant.slug,
                            s.version,
                            if keys.is_empty() {
                                "none".to_owned()
                            } else {
                                keys.join(", ")
                            },
                            s.destroyed
                        ));
                        say(&format!("  {}", sealing::progress(&ctx, tenant.id).await?));
                    }
                    Err(e) if e.code == "vault.no_key" => say(&format!("{}: destroyed", tenant.slug)),
                    Err(e) => return Err(e),
                }
            }
        }
        Keys::Rotate { tenant } => {
            let tenant = named(&ctx, &tenant)?;
            let done = vault::rotate(&ctx.vault, &ctx.db, tenant.id, "system", !serving).await?;
            say(&format!(
                "{}: version {}; {} data keys wrapped with it",
                tenant.slug, done.version, done.rewrapped
            ));
        }
        Keys::Rewrap { tenant } => {
            let tenant = named(&ctx, &tenant)?;
            let done = vault::rewrap(&ctx.vault, &ctx.db, tenant.id).await?;
            say(&format!("{}: {done} data keys wrapped anew", tenant.slug));
        }
        Keys::Shred { tenant, class, subject } => {
            let tenant = named(&ctx, &tenant)?;
            if class == Class::Patient {
                let visited = Visited::new(ctx.clone(), Arc::new(Messaging::new(ctx.clone())?));
                let erasing = clinic.fhir.erase_patient(tenant.id, &subject, "system", &visited);
                let resources = erasing.await?;
                say(&format!("{}: erased, with {resources} resources", tenant.slug));
            } else {
                let scope = Scope {
                    class,
                    subject: &subject,
                };
                let done = ctx.vault.shred(&ctx.db, tenant.id, scope, "system").await?;
                say(if done {
                    "The key is destroyed."
                } else {
                    "The key was destroyed before."
                });
            }
        }
        Keys::Protect { .. } | Keys::AcceptRestored { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes a database file that was put back for the newest one. Stands in the system's trail, and in the clinic's.
async fn accept_restored(config: Config, tenant: Option<String>) -> Result<ExitCode> {
    let lock = crate::serve::lock(&config.data_dir)?;
    let done = if tenant.is_none() {
        let root = match app::unlock(&config, None).await? {
            vault::Opened::Open(root) => root,
            vault::Opened::Sealed(why) => return Err(why.into()),
        };
        let ledger = vault::Ledger::at(config.vault.erasure_ledger(&config.data_dir));
        let keys = PageKeys::of_vault(&vault::Vault::new(root, ledger));
        Db::accept_restored_system(&config.location(), &keys).await?
    } else {
        true
    };
    let ctx = app::open(config).await?;
    let (file, done) = match &tenant {
        None => (TenantId::SYSTEM, done),
        Some(slug) => {
            let tenant = named(&ctx, slug)?.id;
            (tenant, ctx.db.accept_restored(tenant).await?)
        }
    };
    // Now that it can be read: keys it brought back are destroyed before anybody is served from it.
    ctx.vault.erase_again(&ctx.db).await?;
    if !done {
        return Err(Error::conflict("db.no_files", "PostgreSQL keeps no files of ours."));
    }
    for trail in std::collections::BTreeSet::from([TenantId::SYSTEM, file]) {
        ctx.db
            .write(trail, move |tx| {
                Box::pin(async move {
                    let target = format!("database:{file}");
                    let entry = Entry {
                        actor: "system",
                        action: "execute",
                        target: &target,
                        outcome: "success",
                        detail: "restored file accepted",
                    };
                    audit::write(tx, entry).await
                })
            })
            .await?;
    }
    ctx.db.settle().await?;
    drop(lock);
    say("The file is taken for the newest from now on. `medtech audit verify` says whether its trail lost entries.");
    Ok(ExitCode::SUCCESS)
}

fn named(ctx: &Ctx, slug: &str) -> Result<Tenant> {
    let unknown = || Error::not_found("tenant.unknown", format!("There is no clinic `{slug}` here."));
    ctx.tenants.by_slug(slug).ok_or_else(unknown)
}

/// Does a server run on this data? On PostgreSQL it may run anywhere.
pub(crate) fn is_served(config: &Config) -> bool {
    let lock = File::options().write(true).open(config.data_dir.join("server.lock"));
    lock.is_ok_and(|file| file.try_lock().is_err()) || config.database.url.is_some()
}

/// What `medtech doctor` says of the vault of an open store.
pub(crate) async fn doctor(ctx: &Ctx) -> Result<(String, Option<String>)> {
    let (lines, foreign) = ctx.vault.ledger()?;
    let engine = match ctx.db.engine() {
        Engine::Sqlite => "a file for each clinic",
        Engine::Postgres => "PostgreSQL",
    };
    let what = format!(
        "vault: open, root key kept as `{}`, {engine}, {lines} erasures",
        ctx.config.vault.root.name()
    );
    let mut unfinished = Vec::new();
    for tenant in ctx.tenants.all() {
        let all = vault::progress(&ctx.db, tenant.id).await?;
        if all.is_empty() || all.iter().any(|p| p.done_at.is_none()) {
            unfinished.push(tenant.slug.to_string());
        }
    }
    let what = match unfinished.as_slice() {
        [] => what,
        some => format!(
            "{what}; older rows still to be sealed in {} (goes on while the server runs)",
            some.join(", ")
        ),
    };
    Ok(match foreign {
        0 => (what, None),
        n => (
            format!("{what}, {n} foreign lines in the ledger"),
            Some("put the erasure ledger back from its newest copy".to_owned()),
        ),
    })
}
