//! A clinic's files as a whole, as an export reads them: the bytes that were sent, in clear, in parts.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use crate::common::with_upload;
use axum::{Extension, Router, body::Body};
use http::{Request, StatusCode};
use medtech_kernel::{
    Module, Result,
    auth::Role,
    id,
    testkit::{World, on_both_engines},
    vault::{Class, Scope},
};
use medtech_messaging::{After, Messaging};
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;
use uuid::Uuid;

const ANNA: &str = "user:0190c1b0-0000-7000-8000-00000000000a";
const PIECE: usize = 1 << 20;

async fn exported(w: &World) -> Result<()> {
    let m = Arc::new(Messaging::new(w.ctx.clone())?);
    let (this, members) = (m.clone(), [(ANNA.to_owned(), "Anna".to_owned())]);
    let make = w.ctx.db.write(w.north.id, move |tx| {
        Box::pin(async move { this.create_conversation_in(tx, "t", "t", &members).await })
    });
    let conversation = make.await?;
    let (_, token) = w.sign_in(&w.north, ANNA, Role::Clinician).await?;
    let app: Router = m.clone().file_routes().layer(Extension(w.ctx.clone()));
    // Several sealed chunks and more than one part of an export; a part of one chunk; nothing at all.
    let large: Vec<u8> = (0..(5 * PIECE / 2 + 7)).map(|n| (n * 31 % 251) as u8).collect();
    let sent = [large, b"a short note".to_vec(), Vec::new()];
    for (n, bytes) in sent.iter().enumerate() {
        let mut request = Request::post("/files")
            .header("host", "north.localhost")
            .header("authorization", format!("Bearer {token}"))
            .header("tus-resumable", "1.0.0");
        for (name, value) in with_upload(
            &format!("{n}.bin"),
            "application/octet-stream",
            conversation,
            bytes.len(),
        ) {
            request = request.header(name, value);
        }
        let answer = app.clone().oneshot(request.body(Body::from(bytes.clone())).unwrap());
        assert_eq!(answer.await.unwrap().status(), StatusCode::CREATED);
    }

    let rows = m.all_files(w.north.id, After::default(), 500).await?;
    assert_eq!(rows.len(), sent.len());
    assert!(m.all_files(w.south.id, After::default(), 500).await?.is_empty());
    let named = |n: usize| {
        let is_it = |(_, row): &&(After, Value)| row["name"] == format!("{n}.bin");
        &rows.iter().find(is_it).unwrap().1
    };
    for (n, bytes) in sent.iter().enumerate() {
        let row = named(n);
        let file: Uuid = row["id"].as_str().unwrap().parse().unwrap();
        let (mut read, size) = (Vec::new(), row["size"].as_u64().unwrap());
        while (read.len() as u64) < size {
            let at = read.len() as u64;
            let part = m.file_part(w.north.id, file, at..size.min(at + PIECE as u64)).await?;
            assert!(!part.is_empty());
            read.extend(part);
        }
        assert!(read == *bytes, "{} bytes came out as {}", bytes.len(), read.len());
        let hash: String = id::sha256(&read).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(row["sha256"], hash);
        // Not another clinic's to ask for.
        let foreign = m.file_part(w.south.id, file, 0..1).await.unwrap_err();
        assert_eq!(foreign.code, "file.unknown");
    }
    let note: Uuid = named(1)["id"].as_str().unwrap().parse().unwrap();
    let subject = note.to_string();
    let scope = Scope {
        class: Class::File,
        subject: &subject,
    };
    w.ctx.vault.shred(&w.ctx.db, w.north.id, scope, "user:admin").await?;
    let gone = m.file_part(w.north.id, note, 0..1).await.unwrap_err();
    assert_eq!(gone.code, "vault.erased");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clinics_files_come_out_as_they_were_sent() {
    on_both_engines(&[Messaging::migrations()], |w| Box::pin(exported(w))).await;
}
