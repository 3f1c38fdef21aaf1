//! Files and the scanner: nothing is read before it was found clean. Against a clamd at `MEDTECH_TEST_CLAMD` where one is
//! named (tests/scripts/clamd.sh), and always against a small one of our own that speaks the same protocol.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

use crate::common::{Looks, with_upload};
use axum::{Extension, Router, body::Body};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use medtech_kernel::{
    BoxFuture, Module, Result,
    auth::Role,
    config::Config,
    testkit::{World, on_both_engines},
};
use medtech_messaging::{
    Messaging,
    files::scan,
    model::{Draft, DraftBody, DraftFile},
};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tower::ServiceExt;
use uuid::Uuid;

const ANNA: &str = "user:0190c1b0-0000-7000-8000-00000000000a";

/// The standard test file of scanners (eicar.org), in two halves so that this source is not taken for it.
fn eicar() -> Vec<u8> {
    let (first, second) = (
        r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD",
        "-ANTIVIRUS-TEST-FILE!$H+H*",
    );
    [first, second].concat().into_bytes()
}

/// What the small scanner breaks off at.
const CHOKES: &[u8] = b"more than I can chew";

/// Speaks INSTREAM of clamd(8): finds the test file, refuses what is longer than `most`, and breaks off at [`CHOKES`].
async fn clamd(listener: TcpListener, most: usize) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, most));
    }
}

async fn answer(mut stream: TcpStream, most: usize) -> std::io::Result<()> {
    let mut command = Vec::new();
    while command.last() != Some(&0) {
        command.push(stream.read_u8().await?);
    }
    if command == b"zPING\0" {
        return stream.write_all(b"PONG\0").await;
    }
    assert_eq!(command, b"zINSTREAM\0");
    let mut all = Vec::new();
    loop {
        let length = stream.read_u32().await? as usize;
        if length == 0 {
            break;
        }
        if all.len() + length > most {
            return stream.write_all(b"INSTREAM size limit exceeded. ERROR\0").await;
        }
        let mut piece = vec![0; length];
        stream.read_exact(&mut piece).await?;
        if piece == CHOKES {
            return Ok(());
        }
        all.extend(piece);
    }
    let found = all.windows(68).any(|w| w == eicar());
    let answer: &[u8] = if found {
        b"stream: Eicar-Test-Signature FOUND\0"
    } else {
        b"stream: OK\0"
    };
    stream.write_all(answer).await
}

struct Scene {
    app: Router,
    m: Arc<Messaging>,
    ctx: medtech_kernel::Ctx,
    north: medtech_kernel::TenantId,
    conversation: Uuid,
    token: String,
    scanner: Option<String>,
    stop: watch::Sender<bool>,
}

impl Scene {
    async fn new(w: &World, scanner: Option<&str>) -> Result<Self> {
        let mut ctx = w.ctx.clone();
        let mut config = Config::clone(&ctx.config);
        config.files.scanner = scanner.map(str::to_owned);
        ctx.config = Arc::new(config);
        let m = Arc::new(Messaging::new(ctx.clone())?);
        let maker = m.clone();
        let members = [(ANNA.to_owned(), "Anna".to_owned())];
        let conversation = ctx
            .db
            .write(w.north.id, move |tx| {
                Box::pin(async move { maker.create_conversation_in(tx, "t", "t", &members).await })
            })
            .await?;
        let (stop, stopped) = watch::channel(false);
        m.clone().start_scanner(stopped).await?;
        let app = Router::new()
            .nest("/api/messaging", m.clone().routes())
            .merge(m.clone().file_routes())
            .layer(Extension(ctx.clone()));
        let token = w.sign_in(&w.north, ANNA, Role::Clinician).await?.1;
        Ok(Self {
            app,
            m,
            ctx,
            north: w.north.id,
            conversation,
            token,
            scanner: scanner.map(str::to_owned),
            stop,
        })
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Response<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "north.localhost")
            .header("tus-resumable", "1.0.0")
            .header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.app
            .clone()
            .oneshot(request.body(Body::from(body)).unwrap())
            .await
            .unwrap()
    }

    async fn upload(&self, name: &str, kind: &str, bytes: Vec<u8>) -> String {
        let headers = with_upload(name, kind, self.conversation, bytes.len());
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let made = self.ask("POST", "/files", &headers, bytes).await;
        assert_eq!(made.status(), StatusCode::CREATED);
        made.headers()["location"].to_str().unwrap().to_owned()
    }

    /// (status, code, body) of a download.
    async fn get(&self, path: &str) -> (u16, String, Vec<u8>) {
        let got = self.ask("GET", path, &[], Vec::new()).await;
        let status = got.status().as_u16();
        let bytes = got.into_body().collect().await.unwrap().to_bytes().to_vec();
        let code = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|v| v["code"].as_str().map(str::to_owned));
        (status, code.unwrap_or_default(), bytes)
    }

    /// The download once the scanner has had its say.
    async fn settled(&self, path: &str) -> (u16, String, Vec<u8>) {
        let looks = Looks::for_("the scanner has had its say");
        loop {
            let got = self.get(path).await;
            if !["file.checking", "file.scanner_away"].contains(&got.1.as_str()) {
                return got;
            }
            looks.again().await;
        }
    }

    async fn say(&self, path: &str) -> Value {
        let who = self.ctx.sessions.verify(self.north, &self.token).await.unwrap();
        let file = Some(DraftFile { id: id_of(path) });
        let draft = Draft {
            client_id: Uuid::now_v7(),
            body: DraftBody { text: None, file },
        };
        let sent = self.m.send(&who, self.conversation, draft).await.unwrap();
        serde_json::to_value(sent).unwrap()["message"]["body"]["file"]["state"].clone()
    }

    async fn states(&self) -> Vec<Value> {
        let path = format!("/api/messaging/conversations/{}/messages", self.conversation);
        let (_, _, bytes) = self.get(&path).await;
        let page: Value = serde_json::from_slice(&bytes).unwrap();
        let all = page["messages"].as_array().unwrap();
        all.iter().map(|m| m["body"]["file"]["state"].clone()).collect()
    }
}

fn id_of(path: &str) -> Uuid {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

fn both(body: impl for<'a> Fn(&'a World) -> BoxFuture<'a, Result<()>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(on_both_engines(&[Messaging::migrations()], body));
}

async fn own_clamd(most: usize) -> (String, SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    (format!("tcp://{at}"), at, tokio::spawn(clamd(listener, most)))
}

#[test]
fn a_harmful_file_is_refused_and_a_clean_one_read() {
    both(|w| {
        Box::pin(async move {
            let (own, _, _task) = own_clamd(1 << 20).await;
            for scanner in std::env::var("MEDTECH_TEST_CLAMD").into_iter().chain([own]) {
                let s = Scene::new(w, Some(&scanner)).await?;
                assert_eq!(scan::check(&config(&s)).await, Some(Ok(())));
                let clean = s.upload("note.txt", "text/plain", b"nothing wrong".to_vec()).await;
                // In the middle of a file of several chunks, so that it spans what is sent as pieces.
                let harm = [vec![b'a'; 65_500], eicar(), vec![b'b'; 70_000]].concat();
                let alone = s.upload("eicar.com", "application/pdf", eicar()).await;
                let inside = s.upload("long.txt", "text/plain", harm).await;
                let empty = s.upload("empty.txt", "text/plain", Vec::new()).await;
                assert_eq!(s.settled(&clean).await, (200, String::new(), b"nothing wrong".to_vec()));
                assert_eq!(s.settled(&empty).await.0, 200);
                let (status, code, _) = s.settled(&alone).await;
                assert_eq!((status, code.as_str()), (403, "file.harmful"), "{scanner}");
                let (status, code, _) = s.settled(&inside).await;
                assert_eq!((status, code.as_str()), (403, "file.harmful"), "{scanner}");
                // The bytes are gone; the chat says what happened.
                assert_eq!(s.say(&alone).await, "harmful");
                assert_eq!(s.say(&clean).await, "clean");
                assert_eq!(s.states().await, ["harmful", "clean"]);
                let object = w
                    .ctx
                    .config
                    .data_dir
                    .join(format!("files/tenant-{}/object", w.north.id));
                assert!(!object.join(id_of(&alone).to_string()).exists());
                assert!(object.join(id_of(&clean).to_string()).exists());
                s.stop.send_replace(true);
                // With the scanner taken away again, what it found harmful stays refused.
                let later = Scene::new(w, None).await?;
                assert_eq!(later.get(&alone).await.1, "file.harmful");
                assert_eq!(later.get(&clean).await.0, 200);
            }
            Ok(())
        })
    });
}

#[test]
fn without_the_scanner_files_wait_and_say_so_and_go_on_when_it_is_back() {
    both(|w| {
        Box::pin(async move {
            // An older file, from before there was a scanner.
            let before = Scene::new(w, None).await?;
            let old = before.upload("old.txt", "text/plain", b"old".to_vec()).await;
            assert_eq!(before.get(&old).await.0, 200);
            assert_eq!(before.say(&old).await, Value::Null);

            let (scanner, at, task) = own_clamd(1 << 20).await;
            task.abort();
            let _ = task.await;
            let s = Scene::new(w, Some(&scanner)).await?;
            assert!(scan::check(&config(&s)).await.unwrap().is_err());
            let s = Scene {
                conversation: before.conversation,
                ..s
            };
            let new = s.upload("new.txt", "text/plain", b"new".to_vec()).await;
            assert_eq!(s.say(&new).await, "waiting");
            let looks = Looks::for_("the scanner is found away");
            while s.get(&new).await.1 != "file.scanner_away" {
                looks.again().await;
            }
            for path in [&old, &new] {
                let (status, code, _) = s.get(path).await;
                assert_eq!((status, code.as_str()), (503, "file.scanner_away"));
            }
            assert_eq!(s.states().await, ["waiting", "waiting"]);

            let listener = TcpListener::bind(at).await.unwrap();
            let _back = tokio::spawn(clamd(listener, 1 << 20));
            assert_eq!(s.settled(&new).await.2, b"new");
            assert_eq!(s.settled(&old).await.2, b"old");
            assert_eq!(s.states().await, ["clean", "clean"]);
            Ok(())
        })
    });
}

#[test]
fn what_the_scanner_does_not_read_whole_is_not_let_through_and_holds_up_nothing() {
    both(|w| {
        Box::pin(async move {
            let (scanner, _, _task) = own_clamd(100_000).await;
            let s = Scene::new(w, Some(&scanner)).await?;
            let large = s.upload("large.txt", "text/plain", vec![b'x'; 1_000_000]).await;
            let small = s.upload("small.txt", "text/plain", b"small".to_vec()).await;
            assert_eq!(s.settled(&small).await.2, b"small");
            let (status, code, _) = s.get(&large).await;
            assert_eq!((status, code.as_str()), (409, "file.checking"));
            Ok(())
        })
    });
}

#[test]
fn a_file_at_which_the_scanner_breaks_off_holds_up_no_other() {
    both(|w| {
        Box::pin(async move {
            let (scanner, _, _task) = own_clamd(1 << 20).await;
            let s = Scene::new(w, Some(&scanner)).await?;
            let bad = s.upload("bad.txt", "text/plain", CHOKES.to_vec()).await;
            let good = s.upload("good.txt", "text/plain", b"good".to_vec()).await;
            assert_eq!(s.settled(&good).await.2, b"good");
            // The scanner is not away, and the file is still waiting.
            let (status, code, _) = s.get(&bad).await;
            assert_eq!((status, code.as_str()), (409, "file.checking"));
            Ok(())
        })
    });
}

#[test]
fn harmful_bytes_that_a_crash_has_left_go_at_the_next_start() {
    both(|w| {
        Box::pin(async move {
            let (scanner, _, _task) = own_clamd(1 << 20).await;
            let s = Scene::new(w, Some(&scanner)).await?;
            let bad = s.upload("eicar.txt", "text/plain", eicar()).await;
            let good = s.upload("good.txt", "text/plain", b"good".to_vec()).await;
            assert_eq!(s.settled(&bad).await.1, "file.harmful");
            assert_eq!(s.settled(&good).await.2, b"good");
            let objects = (w.ctx.config.data_dir).join(format!("files/tenant-{}/object", w.north.id));
            let object = objects.join(id_of(&bad).to_string());
            // The worker deletes after the verdict is known.
            let looks = Looks::for_("it is deleted");
            while object.exists() {
                looks.again().await;
            }
            s.stop.send_replace(true);
            for scanner in [Some(scanner.as_str()), None] {
                // As it stands when the process ends between the verdict and the deletion.
                std::fs::write(&object, eicar()).unwrap();
                let again = Scene::new(w, scanner).await?;
                assert!(!object.exists(), "{scanner:?}");
                assert_eq!(again.get(&bad).await.1, "file.harmful");
                assert_eq!(again.get(&good).await.2, b"good");
                again.stop.send_replace(true);
            }
            // What cannot be deleted stays refused, and keeps nothing from starting.
            std::fs::create_dir_all(object.join("in the way")).unwrap();
            let again = Scene::new(w, Some(&scanner)).await?;
            assert_eq!(again.get(&bad).await.1, "file.harmful");
            std::fs::remove_dir_all(&object).unwrap();
            Ok(())
        })
    });
}

fn config(s: &Scene) -> Config {
    let mut config = Config::default();
    config.files.scanner.clone_from(&s.scanner);
    config
}
