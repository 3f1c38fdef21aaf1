//! The server without its root key: it says so, takes the passphrase or waits for the key file, and serves nothing else.

use crate::{app, gateway, gateway::Door, say};
use axum::{
    Json, Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode, header};
use medtech_kernel::{
    Error, Result,
    config::{Config, RootKind},
    id,
    secret::Root,
    vault::{Opened, Sealed},
};
use serde::Deserialize;
use serde_json::json;
use std::{
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, watch};
use zeroize::Zeroizing;

/// How often the key file is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// After a wrong passphrase the next one waits.
const PENALTY: Duration = Duration::from_secs(2);
const CODE: &str = "vault.sealed";

struct Desk {
    config: Config,
    why: Mutex<Sealed>,
    /// One guess at a time: each costs the memory and time of argon2id.
    guess: Arc<Semaphore>,
    opened: mpsc::Sender<Root>,
}

impl Desk {
    fn why(&self) -> Sealed {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves the little there is until the root key is there; `None` when it is time to stop first.
pub(crate) async fn wait(
    doors: Vec<Door>,
    config: &Config,
    why: Sealed,
    stop: impl Future<Output = Result<()>>,
) -> Result<Option<Root>> {
    say(&format!("\nMedTech is sealed: {} {}\n", why.why, why.mend));
    tracing::warn!("the vault is sealed; nothing is served until it is opened");
    let (opened, mut roots) = mpsc::channel(1);
    let desk = Arc::new(Desk {
        config: config.clone(),
        why: Mutex::new(why),
        guess: Arc::new(Semaphore::new(1)),
        opened,
    });
    let (ended, end) = watch::channel(false);
    // A passphrase is not for the wire in clear.
    let router = gateway::no_strangers(routes(desk.clone()), config);
    let server = tokio::spawn(gateway::serve(doors, router, gateway::PATIENCE, end));
    let mut stop = std::pin::pin!(stop);
    let mut look = tokio::time::interval(LOOK);
    let mut seen = traces(config);
    let root = loop {
        tokio::select! {
            stopped = &mut stop => { stopped?; break None }
            root = roots.recv() => break root,
            _ = look.tick() => {}
        }
        let now = traces(config);
        if now != seen {
            seen = now;
            match app::unlock(config, None).await {
                Ok(Opened::Open(root)) => break Some(root),
                Ok(Opened::Sealed(why)) => *desk.why.lock().unwrap_or_else(PoisonError::into_inner) = why,
                Err(e) => tracing::warn!(error = ?e, "what appeared does not open the vault"),
            }
        }
    };
    let _ = ended.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(5), server).await;
    Ok(root)
}

/// When a file was last changed: seconds and nanoseconds.
type Trace = (i64, i64);

/// What tells that the operator has put something in its place.
fn traces(config: &Config) -> [Option<Trace>; 3] {
    // A change of its rights counts, too.
    let changed = |path: &std::path::Path| path.metadata().ok().map(|m| (m.ctime(), m.ctime_nsec()));
    let vault = &config.vault;
    [
        changed(&vault.key_file(&config.data_dir)),
        vault.passphrase_file.as_deref().and_then(changed),
        changed(&config.data_dir.join("secrets").join("vault.json")),
    ]
}

fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/operations/unseal", post(unseal))
        .fallback(refuse)
        .with_state(desk)
}

async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    let why = desk.why();
    let body = json!({"sealed": true, "why": why.why, "mend": why.mend});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn refuse(State(desk): State<Arc<Desk>>) -> Response {
    let why = desk.why();
    let mut response = Error::unavailable(CODE, format!("The server is sealed. {}", why.why)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Deserialize)]
struct Given {
    passphrase: String,
}

async fn unseal(State(desk): State<Arc<Desk>>, body: axum::body::Bytes) -> Result<Response> {
    let given: Given = serde_json::from_slice(&body)
        .map_err(|_| Error::bad("vault.unseal", "Send JSON with the member `passphrase`."))?;
    let given = Zeroizing::new(given.passphrase);
    if desk.config.vault.root != RootKind::Passphrase {
        return Err(Error::conflict("vault.no_passphrase", desk.why().mend));
    }
    let turn = desk.guess.clone().try_acquire_owned().map_err(|_| {
        Error::too_many(
            "vault.guessing",
            "One passphrase at a time. Try again in a few seconds.",
        )
    })?;
    match app::unlock(&desk.config, Some(given)).await {
        Ok(Opened::Open(root)) => {
            // Full only when another request has opened it in this moment.
            let _ = desk.opened.try_send(root);
            Ok(Json(json!({"sealed": false})).into_response())
        }
        Ok(Opened::Sealed(why)) => Err(why.into()),
        Err(e) => {
            tracing::warn!(code = e.code, "the vault was not opened");
            tokio::spawn(async move {
                tokio::time::sleep(PENALTY).await;
                drop(turn);
            });
            Err(e)
        }
    }
}

const SCRIPT: &str = "const f=document.querySelector('form'),o=document.querySelector('output');
f?.addEventListener('submit',async e=>{e.preventDefault();o.textContent='Opening…';
const r=await fetch('/api/operations/unseal',{method:'POST',headers:{'content-type':'application/json'},
body:JSON.stringify({passphrase:f.elements.passphrase.value})});
if(r.ok){o.textContent='Open. Loading…';setTimeout(()=>location.reload(),3000)}
else{o.textContent=(await r.json()).detail}});";

async fn page(State(desk): State<Arc<Desk>>) -> Response {
    let why = desk.why();
    let form = match desk.config.vault.root {
        RootKind::Passphrase => {
            "<form><label>Passphrase <input name=passphrase type=password autocomplete=off required></label>
             <button>Open the vault</button></form><output role=status></output>"
        }
        _ => "",
    };
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>
<title>MedTech is sealed</title><main><h1>MedTech is sealed</h1>
<p>{}</p><p>{}</p>{form}</main><script>{SCRIPT}</script></html>",
        escape(&why.why),
        escape(&why.mend),
    );
    let script = STANDARD.encode(id::sha256(SCRIPT.as_bytes()));
    let rule = format!("default-src 'none'; script-src 'sha256-{script}'; connect-src 'self'; frame-ancestors 'none'");
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Html(page)).into_response();
    let headers = response.headers_mut();
    if let Ok(rule) = HeaderValue::from_str(&rule) {
        headers.insert(header::CONTENT_SECURITY_POLICY, rule);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
