//! tus 1.0 and downloads, by the protocol's own words, through the real router.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use crate::common::with_upload;
use axum::{Extension, Router, body::Body};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use medtech_kernel::{
    BoxFuture, Module, Result,
    audit::{self, Filter},
    auth::Role,
    testkit::{World, on_both_engines},
    vault::{Class, Scope},
};
use medtech_messaging::{Messaging, files::Limits};
use std::sync::Arc;
use tower::ServiceExt;
use uuid::Uuid;

const ANNA: &str = "user:0190c1b0-0000-7000-8000-00000000000a";
const GUEST: &str = "guest:0190c1b0-0000-7000-8000-00000000000b";
const STRANGER: &str = "user:0190c1b0-0000-7000-8000-00000000000c";

struct Scene {
    app: Router,
    ctx: medtech_kernel::Ctx,
    conversation: Uuid,
    anna: String,
    guest: String,
    stranger: String,
    foreign: String,
}

impl Scene {
    async fn new(w: &World) -> Result<Self> {
        let mut m = Messaging::new(w.ctx.clone())?;
        m.files.limits = Limits {
            max_file: 1_000,
            max_owned: 1_500,
            max_owned_by_guest: 5,
            max_pending: 3,
            keep_pending: 1_000,
        };
        let m = Arc::new(m);
        let make = |tenant: &medtech_kernel::Tenant| {
            let (m, members) = (
                m.clone(),
                [
                    (ANNA.to_owned(), "Anna".to_owned()),
                    (GUEST.to_owned(), "Gus".to_owned()),
                ],
            );
            w.ctx.db.write(tenant.id, move |tx| {
                Box::pin(async move { m.create_conversation_in(tx, "t", "t", &members).await })
            })
        };
        let conversation = make(&w.north).await?;
        make(&w.south).await?;
        let app = Router::new()
            .nest("/api/messaging", m.clone().routes())
            .merge(m.file_routes())
            .layer(Extension(w.ctx.clone()));
        Ok(Self {
            app,
            ctx: w.ctx.clone(),
            conversation,
            anna: w.sign_in(&w.north, ANNA, Role::Clinician).await?.1,
            guest: w.sign_in(&w.north, GUEST, Role::Guest).await?.1,
            stranger: w.sign_in(&w.north, STRANGER, Role::Admin).await?.1,
            foreign: w.sign_in(&w.south, ANNA, Role::Clinician).await?.1,
        })
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response<Body> {
        let host = if token == self.foreign {
            "south.localhost"
        } else {
            "north.localhost"
        };
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.app
            .clone()
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap()
    }

    async fn tus(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
        let mut all = vec![("tus-resumable", "1.0.0")];
        all.extend_from_slice(headers);
        self.ask(method, path, &self.anna, &all, body).await
    }

    fn metadata(&self) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let pairs = [
            ("filename", "a/b.txt".to_owned()),
            ("filetype", "text/plain".into()),
            ("conversation", self.conversation.to_string()),
        ];
        pairs
            .iter()
            .map(|(k, v)| format!("{k} {}", STANDARD.encode(v)))
            .collect::<Vec<_>>()
            .join(",")
    }

    async fn create(&self, length: u64) -> String {
        let created = self
            .tus(
                "POST",
                "/files",
                &[
                    ("upload-length", &length.to_string()),
                    ("upload-metadata", &self.metadata()),
                ],
                "",
            )
            .await;
        assert_eq!(created.status(), StatusCode::CREATED);
        assert_eq!(header(&created, "tus-resumable"), "1.0.0");
        header(&created, "location").to_owned()
    }

    async fn patch(&self, path: &str, offset: u64, more: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
        let offset = offset.to_string();
        let mut headers = vec![
            ("content-type", "application/offset+octet-stream"),
            ("upload-offset", offset.as_str()),
        ];
        headers.extend_from_slice(more);
        self.tus("PATCH", path, &headers, body).await
    }

    async fn offset(&self, path: &str) -> String {
        let head = self.tus("HEAD", path, &[], "").await;
        assert_eq!(
            (head.status(), header(&head, "cache-control")),
            (StatusCode::OK, "no-store")
        );
        header(&head, "upload-offset").to_owned()
    }

    async fn complete(&self, content: &'static str) -> String {
        let path = self.create(content.len() as u64).await;
        assert_eq!(
            self.patch(&path, 0, &[], content).await.status(),
            StatusCode::NO_CONTENT
        );
        path
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |v| v.to_str().unwrap())
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn both(body: impl for<'a> Fn(&'a World) -> BoxFuture<'a, Result<()>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(on_both_engines(&[Messaging::migrations()], body));
}

#[test]
fn options_tell_what_the_server_does() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            let options = s.ask("OPTIONS", "/files", "", &[], "").await;
            assert_eq!(options.status(), StatusCode::NO_CONTENT);
            assert_eq!(header(&options, "tus-version"), "1.0.0");
            assert_eq!(
                header(&options, "tus-extension"),
                "creation,creation-with-upload,expiration,checksum,termination"
            );
            assert_eq!(header(&options, "tus-checksum-algorithm"), "sha256,sha1");
            assert_eq!(header(&options, "tus-max-size"), "1000");
            Ok(())
        })
    });
}

#[test]
fn upload_in_pieces_and_read_by_range() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            let path = s.create(11).await;
            assert_eq!(s.offset(&path).await, "0");
            let head = s.tus("HEAD", &path, &[], "").await;
            assert_eq!(
                (header(&head, "upload-length"), header(&head, "upload-metadata")),
                ("11", s.metadata().as_str())
            );
            let part = s.patch(&path, 0, &[], "hello ").await;
            assert_eq!(
                (part.status(), header(&part, "upload-offset")),
                (StatusCode::NO_CONTENT, "6")
            );
            assert!(header(&part, "upload-expires").ends_with("GMT"));
            assert_eq!(s.patch(&path, 0, &[], "hello ").await.status(), StatusCode::CONFLICT);
            assert_eq!(s.patch(&path, 7, &[], "orld").await.status(), StatusCode::CONFLICT);
            assert_eq!(
                s.patch(&path, 6, &[], "world!").await.status(),
                StatusCode::PAYLOAD_TOO_LARGE
            );
            assert_eq!(
                s.ask("GET", &path, &s.anna, &[], "").await.status(),
                StatusCode::NOT_FOUND
            );
            let rest = s
                .tus(
                    "POST",
                    &path,
                    &[
                        ("x-http-method-override", "PATCH"),
                        ("content-type", "application/offset+octet-stream"),
                        ("upload-offset", "6"),
                    ],
                    "world",
                )
                .await;
            assert_eq!(
                (rest.status(), header(&rest, "upload-offset")),
                (StatusCode::NO_CONTENT, "11")
            );
            assert_eq!(s.offset(&path).await, "11");

            let whole = s.ask("GET", &path, &s.guest, &[], "").await;
            assert_eq!(whole.status(), StatusCode::OK);
            let etag = header(&whole, "etag").to_owned();
            assert_eq!(
                etag,
                "\"b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9\""
            );
            assert_eq!(header(&whole, "content-type"), "text/plain; charset=utf-8");
            assert_eq!(
                header(&whole, "content-disposition"),
                "attachment; filename=\"b.txt\"; filename*=UTF-8''b.txt"
            );
            assert_eq!(header(&whole, "x-content-type-options"), "nosniff");
            assert_eq!(
                header(&whole, "content-security-policy"),
                "default-src 'none'; sandbox; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            );
            assert_eq!(header(&whole, "cache-control"), "private, no-store");
            assert_eq!(text(whole).await, "hello world");
            for (range, status, content_range, body) in [
                ("bytes=6-", 206, "bytes 6-10/11", "world"),
                ("bytes=0-0", 206, "bytes 0-0/11", "h"),
                ("bytes=-3", 206, "bytes 8-10/11", "rld"),
                ("bytes=11-", 416, "bytes */11", ""),
            ] {
                let part = s.ask("GET", &path, &s.guest, &[("range", range)], "").await;
                assert_eq!(
                    (part.status().as_u16(), header(&part, "content-range")),
                    (status, content_range)
                );
                assert_eq!(text(part).await, body);
            }
            // A preview stands in the trail once a while for each session; a whole download always.
            let named = async |detail: &str| {
                let (filter, target) = (Filter::default(), path.replacen("/files/", "File/", 1));
                let all = audit::page(&s.ctx.db, w.north.id, &filter, 200).await.unwrap();
                all.iter().filter(|e| e.target == target && e.detail == detail).count()
            };
            assert_eq!((named("download, a part").await, named("download").await), (1, 1));
            s.ask("GET", &path, &s.anna, &[("range", "bytes=0-0")], "").await;
            assert_eq!(named("download, a part").await, 2, "another session");
            s.ctx.clock.advance(15 * 60_000);
            for range in ["bytes=0-0", "bytes=1-1"] {
                s.ask("GET", &path, &s.guest, &[("range", range)], "").await;
            }
            assert_eq!(named("download, a part").await, 3);
            let changed = s
                .ask(
                    "GET",
                    &path,
                    &s.guest,
                    &[("range", "bytes=6-"), ("if-range", "\"other\"")],
                    "",
                )
                .await;
            assert_eq!(changed.status(), StatusCode::OK);
            let same = s.ask("GET", &path, &s.guest, &[("if-none-match", &etag)], "").await;
            assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
            Ok(())
        })
    });
}

#[test]
fn a_wrong_checksum_keeps_nothing() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            let path = s.create(6).await;
            let abc = ("upload-checksum", "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
            let wrong = s.patch(&path, 0, &[abc], "abd").await;
            assert_eq!(wrong.status().as_u16(), 460);
            assert_eq!(s.offset(&path).await, "0");
            assert_eq!(
                s.patch(&path, 0, &[("upload-checksum", "crc32 AAAA")], "abc")
                    .await
                    .status(),
                StatusCode::BAD_REQUEST
            );
            assert_eq!(header(&s.patch(&path, 0, &[abc], "abc").await, "upload-offset"), "3");
            assert_eq!(header(&s.patch(&path, 3, &[abc], "abc").await, "upload-offset"), "6");
            assert_eq!(text(s.ask("GET", &path, &s.anna, &[], "").await).await, "abcabc");
            Ok(())
        })
    });
}

#[test]
fn a_broken_connection_keeps_what_came() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            let broken = |then_break: &'static str| {
                let pieces = [Ok(then_break), Err(std::io::Error::other("reset"))];
                Body::from_stream(futures_util::stream::iter(pieces))
            };
            let path = s.create(6).await;
            assert_eq!(
                s.patch(&path, 0, &[], broken("abc")).await.status(),
                StatusCode::BAD_REQUEST
            );
            assert_eq!(s.offset(&path).await, "3");
            // With a promised checksum the piece cannot be trusted.
            let promised = [("upload-checksum", "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=")];
            assert_eq!(
                s.patch(&path, 3, &promised, broken("ab")).await.status(),
                StatusCode::BAD_REQUEST
            );
            assert_eq!(s.offset(&path).await, "3");
            // A stream longer than announced is cut off at the length.
            let long = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("def"), Ok("ghi")]));
            assert_eq!(
                s.patch(&path, 3, &promised[..0], long).await.status(),
                StatusCode::PAYLOAD_TOO_LARGE
            );
            assert_eq!(s.offset(&path).await, "6");
            assert_eq!(text(s.ask("GET", &path, &s.anna, &[], "").await).await, "abcdef");
            Ok(())
        })
    });
}

#[test]
fn malformed_requests_and_limits_have_their_statuses() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            let meta = s.metadata();
            let old = s
                .ask(
                    "POST",
                    "/files",
                    &s.anna,
                    &[("tus-resumable", "0.2.2"), ("upload-length", "1")],
                    "",
                )
                .await;
            assert_eq!(
                (old.status(), header(&old, "tus-version")),
                (StatusCode::PRECONDITION_FAILED, "1.0.0")
            );
            for (headers, status) in [
                (vec![("upload-length", "1001"), ("upload-metadata", meta.as_str())], 413),
                (vec![("upload-length", "-1"), ("upload-metadata", meta.as_str())], 400),
                (vec![("upload-length", "x"), ("upload-metadata", meta.as_str())], 400),
                (vec![("upload-metadata", meta.as_str())], 400),
                (
                    vec![("upload-defer-length", "1"), ("upload-metadata", meta.as_str())],
                    400,
                ),
                (vec![("upload-length", "1")], 400),
            ] {
                assert_eq!(
                    s.tus("POST", "/files", &headers, "").await.status().as_u16(),
                    status,
                    "{headers:?}"
                );
            }
            let guest = [
                ("tus-resumable", "1.0.0"),
                ("upload-length", "6"),
                ("upload-metadata", meta.as_str()),
            ];
            assert_eq!(
                s.ask("POST", "/files", &s.guest, &guest, "").await.status(),
                StatusCode::PAYLOAD_TOO_LARGE
            );
            let path = s.create(1_000).await;
            let over = s
                .tus(
                    "POST",
                    "/files",
                    &[("upload-length", "501"), ("upload-metadata", &meta)],
                    "",
                )
                .await;
            assert_eq!(over.status(), StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(
                s.tus("PATCH", &path, &[("upload-offset", "0")], "x").await.status(),
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            );
            for id in [
                "/files/..%2f..%2fetc%2fpasswd",
                "/files/0190c1b0-0000-7000-8000-0000000000ff",
                "/files/%00",
            ] {
                assert_eq!(s.tus("HEAD", id, &[], "").await.status(), StatusCode::NOT_FOUND, "{id}");
            }
            s.create(1).await;
            s.create(1).await;
            let many = s
                .tus(
                    "POST",
                    "/files",
                    &[("upload-length", "1"), ("upload-metadata", &meta)],
                    "",
                )
                .await;
            assert_eq!(many.status(), StatusCode::TOO_MANY_REQUESTS);
            // Time passes: what was not finished is gone, and its room free again.
            s.ctx.clock.advance(1_000);
            assert_eq!(s.patch(&path, 0, &[], "x").await.status(), StatusCode::GONE);
            s.create(1).await;
            assert_eq!(s.tus("HEAD", &path, &[], "").await.status(), StatusCode::NOT_FOUND);
            Ok(())
        })
    });
}

#[test]
fn creation_with_upload_and_termination() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            let meta = s.metadata();
            let headers = [
                ("upload-length", "5"),
                ("upload-metadata", meta.as_str()),
                ("content-type", "application/offset+octet-stream"),
            ];
            let created = s.tus("POST", "/files", &headers, "hel").await;
            assert_eq!(
                (created.status(), header(&created, "upload-offset")),
                (StatusCode::CREATED, "3")
            );
            let path = header(&created, "location").to_owned();
            assert_eq!(s.tus("DELETE", &path, &[], "").await.status(), StatusCode::NO_CONTENT);
            assert_eq!(s.tus("HEAD", &path, &[], "").await.status(), StatusCode::NOT_FOUND);
            let empty = s.create(0).await;
            assert_eq!(s.offset(&empty).await, "0");
            assert_eq!(s.ask("GET", &empty, &s.anna, &[], "").await.status(), StatusCode::OK);
            Ok(())
        })
    });
}

#[test]
fn only_members_read_and_only_the_owner_writes() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            let (done, open) = (s.complete("secret").await, s.create(5).await);
            assert_eq!(
                s.ask("GET", &done, "", &[], "").await.status(),
                StatusCode::UNAUTHORIZED
            );
            for token in [&s.stranger, &s.foreign] {
                assert_eq!(
                    s.ask("GET", &done, token, &[], "").await.status(),
                    StatusCode::NOT_FOUND
                );
                let meta = s.metadata();
                let create = [
                    ("tus-resumable", "1.0.0"),
                    ("upload-length", "1"),
                    ("upload-metadata", meta.as_str()),
                ];
                assert_eq!(
                    s.ask("POST", "/files", token, &create, "").await.status(),
                    StatusCode::FORBIDDEN
                );
            }
            let append = [
                ("tus-resumable", "1.0.0"),
                ("content-type", "application/offset+octet-stream"),
                ("upload-offset", "0"),
            ];
            for token in [&s.guest, &s.stranger, &s.foreign] {
                assert_eq!(
                    s.ask("PATCH", &open, token, &append, "x").await.status(),
                    StatusCode::NOT_FOUND
                );
                assert_eq!(
                    s.ask("DELETE", &open, token, &append, "").await.status(),
                    StatusCode::NOT_FOUND
                );
            }
            Ok(())
        })
    });
}

#[test]
fn a_message_names_only_a_finished_file_of_its_conversation() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            let id = |path: &str| path.rsplit_once('/').unwrap().1.to_owned();
            let (done, open) = (s.complete("secret").await, s.create(5).await);
            let send = |client: u128, conversation: Uuid, file: String| {
                let body =
                    serde_json::json!({ "client_id": Uuid::from_u128(client), "body": { "file": { "id": file } } });
                let path = format!("/api/messaging/conversations/{conversation}/messages");
                let (s, body) = (&s, body.to_string());
                async move {
                    s.ask("POST", &path, &s.anna, &[("content-type", "application/json")], body)
                        .await
                }
            };
            assert_eq!(
                send(1, s.conversation, id(&open)).await.status(),
                StatusCode::UNPROCESSABLE_ENTITY
            );
            assert_eq!(
                send(2, s.conversation, Uuid::nil().to_string()).await.status(),
                StatusCode::UNPROCESSABLE_ENTITY
            );
            let m = Arc::new(Messaging::new(w.ctx.clone())?);
            let members = [(ANNA.to_owned(), "Anna".to_owned())];
            let other = w
                .ctx
                .db
                .write(w.north.id, move |tx| {
                    Box::pin(async move { m.create_conversation_in(tx, "o", "o", &members).await })
                })
                .await?;
            assert_eq!(
                send(3, other, id(&done)).await.status(),
                StatusCode::UNPROCESSABLE_ENTITY
            );
            let sent = send(4, s.conversation, id(&done)).await;
            assert_eq!(sent.status(), StatusCode::CREATED);
            let sent: serde_json::Value = serde_json::from_str(&text(sent).await).unwrap();
            let file = serde_json::json!({
                "id": id(&done), "name": "b.txt", "type": "text/plain", "size": 6,
                "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
            });
            assert_eq!(sent["message"]["body"]["file"], file);
            // What a message names stays.
            assert_eq!(s.tus("DELETE", &done, &[], "").await.status(), StatusCode::CONFLICT);
            Ok(())
        })
    });
}

/// What a member is told when the disk is not as it was written, and when the key is gone.
#[test]
fn a_tampered_swapped_or_cut_file_is_refused_and_a_shredded_one_is_gone() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            let (one, two) = (s.complete("the first").await, s.complete("the other").await);
            let place = |path: &str| {
                let id = path.rsplit_once('/').unwrap().1;
                w.dir.path().join(format!("files/tenant-{}/object/{id}", w.north.id))
            };
            let get = async |path: &str| s.ask("GET", path, &s.anna, &[], Body::empty()).await.status().as_u16();
            let bytes = std::fs::read(place(&one)).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("first"));
            let mut changed = bytes.clone();
            changed[15] ^= 1;
            for broken in [
                changed,
                bytes[..bytes.len() - 1].to_vec(),
                Vec::new(),
                std::fs::read(place(&two)).unwrap(),
            ] {
                std::fs::write(place(&one), broken).unwrap();
                assert_eq!(get(&one).await, 500);
            }
            std::fs::write(place(&one), &bytes).unwrap();
            assert_eq!(get(&one).await, 200);
            let scope = Scope {
                class: Class::File,
                subject: one.rsplit_once('/').unwrap().1,
            };
            assert!(s.ctx.vault.shred(&s.ctx.db, w.north.id, scope, "user:admin").await?);
            assert_eq!((get(&one).await, get(&two).await), (410, 200));
            Ok(())
        })
    });
}

/// What a browser would do with a file is decided by its bytes and its name, never by its sender's word.
#[test]
fn a_lying_type_is_served_as_unknown_bytes_and_a_hostile_name_stays_a_name() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            let (html, svg) = ("<html><script>x</script>", "<svg xmlns='x'><script>x</script></svg>");
            let (png, pdf) = ("\u{89}PNG", "%PDF-1.7");
            let unknown = "application/octet-stream";
            for (name, claimed, content, served, disposition) in [
                (
                    "a.png",
                    "image/png",
                    html,
                    unknown,
                    "attachment; filename=\"a.png\"; filename*=UTF-8''a.png",
                ),
                (
                    "a.jpg",
                    "image/jpeg",
                    svg,
                    unknown,
                    "attachment; filename=\"a.jpg\"; filename*=UTF-8''a.jpg",
                ),
                (
                    "a.svg",
                    "image/svg+xml",
                    svg,
                    unknown,
                    "attachment; filename=\"a.svg\"; filename*=UTF-8''a.svg",
                ),
                (
                    "a.html",
                    "text/html",
                    html,
                    unknown,
                    "attachment; filename=\"a.html\"; filename*=UTF-8''a.html",
                ),
                // Packed, so nothing that a browser reads as XML.
                (
                    "a.docx",
                    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                    "PK\u{3}\u{4}\u{14}\0\0\0\u{8}\0",
                    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                    "attachment; filename=\"a.docx\"; filename*=UTF-8''a.docx",
                ),
                // Not the bytes of a PNG: UTF-8 of its first character.
                (
                    "b.png",
                    "image/png",
                    png,
                    unknown,
                    "attachment; filename=\"b.png\"; filename*=UTF-8''b.png",
                ),
                (
                    "a.pdf",
                    "application/pdf",
                    pdf,
                    "application/pdf",
                    "attachment; filename=\"a.pdf\"; filename*=UTF-8''a.pdf",
                ),
                (
                    "\"; filename=\"evil.html\r\nSet-Cookie: a=b;.txt",
                    "text/plain",
                    "x",
                    "text/plain; charset=utf-8",
                    "attachment; filename=\"_; filename=_evil.htmlSet-Cookie: a=b;.txt\"; \
                     filename*=UTF-8''%22%3B%20filename%3D%22evil.htmlSet-Cookie%3A%20a%3Db%3B.txt",
                ),
                (
                    "<img src=x onerror=alert(1)>.txt",
                    "text/plain",
                    "x",
                    "text/plain; charset=utf-8",
                    "attachment; filename=\"<img src=x onerror=alert(1)>.txt\"; \
                     filename*=UTF-8''%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E.txt",
                ),
                (
                    "..\\..\\x.csv",
                    "text/csv",
                    "a,b",
                    "text/csv; charset=utf-8",
                    "attachment; filename=\"x.csv\"; filename*=UTF-8''x.csv",
                ),
            ] {
                let headers = with_upload(name, claimed, s.conversation, content.len());
                let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
                let made = s.tus("POST", "/files", &headers, content).await;
                assert_eq!(made.status(), StatusCode::CREATED, "{name}");
                let got = s.ask("GET", header(&made, "location"), &s.guest, &[], "").await;
                assert_eq!(
                    (header(&got, "content-type"), header(&got, "content-disposition")),
                    (served, disposition)
                );
                assert_eq!(header(&got, "x-content-type-options"), "nosniff");
                assert!(header(&got, "content-security-policy").starts_with("default-src 'none'; sandbox;"));
                assert_eq!(text(got).await, content);
                s.tus("DELETE", header(&made, "location"), &[], "").await;
            }
            Ok(())
        })
    });
}

/// A small archive that would unpack to gigabytes takes what it weighs, and is answered as it came.
#[test]
fn an_archive_is_never_unpacked() {
    both(|w| {
        Box::pin(async move {
            let s = Scene::new(w).await?;
            // The local header of a file that says it is 4 GiB large, and nonsense behind it.
            let bomb = "PK\u{3}\u{4}\u{14}\0\0\0\u{8}\0\0\0\0\0\0\0\0\0\u{1}\0\0\0\u{7f}\u{7f}\u{7f}\u{7f}\u{1}\0\0\0anonsense";
            let path = s.complete(bomb).await;
            let got = s.ask("GET", &path, &s.anna, &[], "").await;
            assert_eq!(
                header(&got, "content-type"),
                "application/octet-stream",
                "it said text/plain"
            );
            assert_eq!(text(got).await, bomb);
            Ok(())
        })
    });
}
