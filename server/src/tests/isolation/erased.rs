//! A patient who is erased: what was said and sent in their visits goes with the record, for whoever reads, in every export
//! and in every restored copy; and nobody else's goes.

use super::*;
use http::{StatusCode, header::LOCATION};
use medtech_kernel::{
    Val,
    audit::{self, Filter},
    vault::Scope,
};
use medtech_messaging::{After, Messaging};

const SAID: &str = "itches-at-night";
/// Bytes of the file that is sent.
const SIZE: usize = 1_300_000;

/// What a backup has of a clinic, as far as this is about it.
struct Backup {
    keys: Vec<(i64, Vec<u8>)>,
    bodies: Vec<(Uuid, String)>,
    title: Val,
    guest: Val,
    member: Val,
    object: (std::path::PathBuf, Vec<u8>),
    file: (Uuid, Val, Vec<u8>),
}

struct Scene<'a> {
    h: &'a House,
    w: &'a World,
    t: &'a Tenant,
    stand: &'a Stand,
    file: String,
}

impl Scene<'_> {
    async fn get(&self, who: &str, path: &str) -> (u16, String) {
        self.h.ask(self.stand.caller(who), "GET", path, None).await
    }

    fn messages(&self) -> String {
        format!(
            "/api/messaging/conversations/{}/messages",
            self.stand.id("conversation")
        )
    }

    fn conversation(&self) -> Uuid {
        self.stand.id("conversation").parse().expect("an id")
    }

    fn visit(&self) -> Uuid {
        self.stand.id("visit").parse().expect("an id")
    }

    fn object(&self) -> std::path::PathBuf {
        let dir = self.w.dir.path().join("files").join(format!("tenant-{}", self.t.id));
        dir.join("object").join(&self.file)
    }

    async fn rows(&self, sql: &'static str, args: &[Val]) -> Vec<medtech_kernel::Row> {
        self.w.ctx.db.query(self.t.id, sql, args).await.expect("rows")
    }

    async fn stands(&self) {
        let (status, text) = self.get("clinician", &self.messages()).await;
        assert!(status == 200 && text.contains(SAID), "{status} {text}");
        let (status, bytes) = self.get("clinician", &format!("/files/{}", self.file)).await;
        assert_eq!(
            (status, bytes.len()),
            (200, SIZE),
            "{}",
            bytes.chars().take(200).collect::<String>()
        );
        let shown = self.shown().await;
        let name = format!("Ada {}", self.stand.mark);
        assert!(
            shown.0 == name && shown.1 == name && shown.2.contains(&self.stand.mark),
            "{shown:?}"
        );
    }

    /// How the patient is called in the visit and in its conversation, and what the visit is called.
    async fn shown(&self) -> (String, String, String) {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let clinician = self.stand.caller("clinician");
        let path = format!("/api/visits/{}", self.stand.id("visit"));
        let visit = self.h.json(clinician, "GET", &path, Value::Null).await;
        let path = format!("/api/messaging/conversations/{}", self.stand.id("conversation"));
        let conversation = self.h.json(clinician, "GET", &path, Value::Null).await;
        let members = conversation["members"].as_array().expect("members");
        let guest = members.iter().find(|m| m["subject"] == visit["guest"]["subject"]);
        (
            text(&visit["guest"]["name"]),
            text(&guest.expect("the guest")["name"]),
            text(&visit["title"]),
        )
    }

    async fn is_gone(&self) {
        for who in ["clinician", "guest"] {
            for path in [self.messages(), format!("/files/{}", self.file)] {
                let (status, text) = self.get(who, &path).await;
                assert!(
                    status == 410 && text.contains("vault.erased"),
                    "{who} {path}: {status} {text}"
                );
            }
        }
        let shown = self.shown().await;
        assert_eq!((&*shown.0, &*shown.1, &*shown.2), ("", "", ""));
        let say = json!({"client_id": Uuid::from_u128(99), "body": {"text": "late"}}).to_string();
        let clinician = self.stand.caller("clinician");
        let (status, _) = self.h.ask(clinician, "POST", &self.messages(), Some(&say)).await;
        assert_eq!(status, 410);
        assert!(!self.object().exists());
        let m = Messaging::new(self.h.clinic.ctx.clone()).expect("messaging");
        let (t, all) = (self.t.id, After::default());
        for rows in [
            m.all_conversations(t, all, 500).await,
            m.all_messages(t, all, 500).await,
            m.all_files(t, all, 500).await,
        ] {
            assert!(rows.expect("rows").is_empty());
        }
        let sql = "SELECT COUNT(*) FROM data_key WHERE tenant = $1 AND class IN ('file', 'conversation') AND wrapped IS NOT NULL";
        assert_eq!(self.rows(sql, &[]).await[0].i64(0).expect("a count"), 0);
    }

    async fn backup(&self) -> Backup {
        let sql = "SELECT id, wrapped FROM data_key WHERE tenant = $1 AND class IN ('file', 'conversation')";
        let keys = self.rows(sql, &[]).await;
        let bodies = self.rows("SELECT id, body FROM message WHERE tenant = $1", &[]).await;
        let visit = "SELECT title, guest_name FROM visit WHERE tenant = $1 AND id = $2";
        let visit = self.rows(visit, &[self.visit().into()]).await;
        let member = "SELECT name FROM conversation_member WHERE tenant = $1 AND subject LIKE 'guest:%'";
        let member = self.rows(member, &[]).await;
        let file = "SELECT id, name, sha256 FROM shared_file WHERE tenant = $1";
        let file = self.rows(file, &[]).await;
        // Sealed as it stands.
        let text = |row: &medtech_kernel::Row, at| row.get(at).expect("a column").clone();
        Backup {
            keys: keys
                .iter()
                .map(|r| (r.i64(0).expect("id"), r.blob(1).expect("key").to_vec()))
                .collect(),
            bodies: bodies
                .iter()
                .map(|r| (r.uuid(0).expect("id"), r.string(1).expect("a body")))
                .collect(),
            title: text(&visit[0], 0),
            guest: text(&visit[0], 1),
            member: text(&member[0], 0),
            object: (self.object(), std::fs::read(self.object()).expect("the bytes")),
            file: (
                file[0].uuid(0).expect("id"),
                text(&file[0], 1),
                file[0].blob(2).expect("hash").to_vec(),
            ),
        }
    }

    async fn put_back(&self, b: &Backup) -> Result<()> {
        let t = self.t.id;
        for (id, key) in &b.keys {
            let sql = "UPDATE data_key SET wrapped = $3, gone_at = NULL WHERE tenant = $1 AND id = $2";
            self.w.forge(t, sql, vec![(*id).into(), key.clone().into()]).await?;
        }
        for (id, body) in &b.bodies {
            let sql = "UPDATE message SET body = $3 WHERE tenant = $1 AND id = $2";
            self.w.forge(t, sql, vec![(*id).into(), body.clone().into()]).await?;
        }
        let sql = "UPDATE visit SET title = $3, guest_name = $4 WHERE tenant = $1 AND id = $2";
        let args = vec![self.visit().into(), b.title.clone(), b.guest.clone()];
        self.w.forge(t, sql, args).await?;
        let sql = "UPDATE conversation_member SET name = $2 WHERE tenant = $1 AND subject LIKE 'guest:%'";
        self.w.forge(t, sql, vec![b.member.clone()]).await?;
        let sql = "UPDATE shared_file SET name = $3, sha256 = $4, size = 1300000 WHERE tenant = $1 AND id = $2";
        let args = vec![b.file.0.into(), b.file.1.clone(), b.file.2.clone().into()];
        self.w.forge(t, sql, args).await?;
        let sql = "UPDATE conversation SET mode = 'managed' WHERE tenant = $1 AND id = $2";
        self.w.forge(t, sql, vec![self.conversation().into()]).await?;
        std::fs::write(&b.object.0, &b.object.1).expect("the bytes");
        Ok(())
    }

    /// The clinic's export, as text: archives that are not sealed hold their files as they are.
    async fn export(&self) -> String {
        let admin = self.stand.caller("admin");
        let job = self.h.json(admin, "POST", "/api/tenants/own/export", json!({})).await;
        let path = format!("/api/tenants/exports/{}", job["id"].as_str().expect("an id"));
        let begun = std::time::Instant::now();
        loop {
            let now = self.h.json(admin, "GET", &path, Value::Null).await;
            if now["state"] == "done" {
                break;
            }
            assert!(now["state"] == "running" && begun.elapsed().as_secs() < 60, "{now}");
            tokio::task::yield_now().await;
        }
        let (status, archive) = self.get("admin", &format!("{path}/archive")).await;
        assert_eq!(status, 200);
        archive
    }

    /// The entries of the trail that name the patient and tell of the hub's part.
    async fn told(&self) -> Result<usize> {
        let filter = Filter {
            action: Some("delete".into()),
            ..Filter::default()
        };
        let target = format!("Patient/{}", self.stand.id("patient"));
        let found = audit::page(&self.w.ctx.db, self.t.id, &filter, 500).await?;
        let ours = |e: &&audit::Found| e.target == target && e.detail.starts_with("erased: conversations 1, files 1");
        Ok(found.iter().filter(ours).count())
    }
}

impl House {
    /// Somebody of a visit sends a file of more than one part of an export; answers its number.
    async fn send_file(&self, who: &Caller, conversation: &str) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let meta = format!(
            "filename {},conversation {}",
            STANDARD.encode("scan.bin"),
            STANDARD.encode(conversation)
        );
        let request = Request::post("/files")
            .header("host", &who.host)
            .header(
                "authorization",
                format!("Bearer {}", who.token.as_deref().unwrap_or_default()),
            )
            .header("tus-resumable", "1.0.0")
            .header("upload-length", SIZE.to_string())
            .header("upload-metadata", meta)
            .header("content-type", "application/offset+octet-stream")
            .body(Body::from("x".repeat(SIZE)))
            .expect("a request");
        let made = self.router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(made.status(), StatusCode::CREATED);
        let path = made.headers()[LOCATION].to_str().expect("text");
        path.rsplit('/').next().expect("an id").to_owned()
    }

    fn visited(&self) -> Result<crate::erasing::Visited> {
        let ctx = self.clinic.ctx.clone();
        let messaging = Arc::new(Messaging::new(ctx.clone())?);
        Ok(crate::erasing::Visited::new(ctx, messaging))
    }
}

async fn scene<'a>(h: &'a House, w: &'a World, t: &'a Tenant, stand: &'a Stand) -> Scene<'a> {
    let guest = stand.caller("guest");
    let mut s = Scene {
        h,
        w,
        t,
        stand,
        file: String::new(),
    };
    s.file = h.send_file(guest, stand.id("conversation")).await;
    let message = json!({"client_id": Uuid::from_u128(3), "body": {"text": SAID, "file": {"id": s.file}}});
    h.json(guest, "POST", &s.messages(), message).await;
    s.stands().await;
    s
}

async fn erased(w: &World) -> Result<()> {
    let h = house(w).await?;
    let (north, south) = (h.stand(w, &w.north).await?, h.stand(w, &w.south).await?);
    let (hers, his) = (
        scene(&h, w, &w.north, &north).await,
        scene(&h, w, &w.south, &south).await,
    );
    let patient = north.id("patient");
    let backup = hers.backup().await;
    let archive = hers.export().await;
    assert!(archive.contains(&"x".repeat(SIZE)) && archive.contains(SAID));

    let body = json!({"patient": patient}).to_string();
    let path = "/api/operations/erasures";
    for who in ["clinician", "guest", "staff"] {
        let (status, _) = h.ask(north.caller(who), "POST", path, Some(&body)).await;
        assert_eq!(status, 403, "{who}");
    }
    hers.stands().await;
    let (status, text) = h.ask(north.caller("admin"), "POST", path, Some(&body)).await;
    assert_eq!(status, 200, "{text}");
    hers.is_gone().await;
    assert_eq!(hers.told().await?, 1);
    let archive = hers.export().await;
    assert!(!archive.contains(&"x".repeat(1000)) && !archive.contains(SAID));
    // The other clinic's patient is not touched, nor are their keys.
    his.stands().await;

    // A copy from before: readable, until the start carries out the ledger.
    let visited = h.visited()?;
    assert_eq!(
        h.clinic.fhir.erase_again(w.north.id, &visited).await?,
        0,
        "nothing is left"
    );
    hers.put_back(&backup).await?;
    hers.stands().await;
    w.ctx.vault.erase_again(&w.ctx.db).await?;
    assert!(h.clinic.fhir.erase_again(w.north.id, &visited).await? > 0);
    hers.is_gone().await;
    assert_eq!(hers.told().await?, 2);

    // Cut short right after the ledger's line: the next start does the rest.
    let patient = south.id("patient").to_owned();
    drop(
        w.ctx
            .vault
            .announce(&w.ctx.db, w.south.id, Scope::patient(&patient))
            .await?,
    );
    his.stands().await;
    assert!(h.clinic.fhir.erase_again(w.south.id, &visited).await? > 0);
    his.is_gone().await;
    assert_eq!(his.told().await?, 1);
    assert!(audit::verify(&w.ctx.db, w.north.id).await?.is_ok());
    h.stop.send_replace(true);
    h.running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_and_sent_goes_with_the_patient() {
    let tables = app::migrations();
    on_both_engines(tables.get(1..).unwrap_or_default(), |w| Box::pin(erased(w))).await;
}
