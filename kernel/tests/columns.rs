//! Texts of single columns: sealed where rows lie in clear, found again where they are looked up, and mended where an
//! older release wrote them.

use medtech_kernel::{
    BoxFuture, Migration, Result, TenantId, Val,
    db::{Engine, Insert, Script, Ty},
    testkit::{World, on_both_engines, scan::legible},
    vault::{self, Blind, Cell, Field, Sheet},
};
use uuid::Uuid;

const PEOPLE: &[Migration] = &[Migration {
    module: "people",
    number: 1,
    sql: Script::Both(
        "CREATE TABLE person (tenant BIGINT NOT NULL, id UUID NOT NULL, name TEXT NOT NULL, note TEXT, mail TEXT NOT NULL,
         mail_sealed TEXT, PRIMARY KEY (tenant, id), UNIQUE (tenant, mail));
         CREATE TABLE way (tenant BIGINT NOT NULL, place TEXT NOT NULL, mark TEXT NOT NULL, person UUID NOT NULL,
         PRIMARY KEY (tenant, place, mark))",
    ),
}];
const NAME: Field = Field::new("person", "name");
const NOTE: Field = Field::new("person", "note");
const MAIL: Blind = Blind::new("person", "mail");
const MAIL_SHOWN: Field = Field::new("person", "mail_sealed");
static SHEETS: &[Sheet] = &[Sheet {
    table: "person",
    key: &["id"],
    cells: &[
        Cell::Sealed(NAME),
        Cell::Sealed(NOTE),
        Cell::Blind(MAIL, Some(MAIL_SHOWN)),
    ],
}];
const MARK: Blind = Blind::new("way", "mark");
/// Before the people: what goes wrong with one table is none of the other's business.
static WAYS: &[Sheet] = &[Sheet {
    table: "way",
    key: &["place", "mark"],
    cells: &[Cell::Blind(MARK, None)],
}];

const ADD: &str = "INSERT INTO person (tenant, id, name, note, mail, mail_sealed) VALUES ($1, $2, $3, $4, $5, $6)";
const CLEAR: &str = "INSERT INTO person (tenant, id, name, note, mail) VALUES ($1, $2, $3, $4, $5)";
const BY_MAIL: &str = "SELECT id, name, note, COALESCE(mail_sealed, mail) FROM person
    WHERE tenant = $1 AND (mail = $2 OR mail = $3)";
const RAW: &str = "SELECT name, note, mail, mail_sealed FROM person WHERE tenant = $1 ORDER BY id";
const WAY: &str = "INSERT INTO way (tenant, place, mark, person) VALUES ($1, $2, $3, $4)";
const WHERE_TO: &str = "SELECT mark, person FROM way WHERE tenant = $1 ORDER BY person";
const SWAP: &str = "UPDATE person SET name = (SELECT name FROM person WHERE tenant = $1 AND id = $2)
    WHERE tenant = $1 AND id = $3";

async fn both(body: impl for<'a> Fn(&'a World) -> BoxFuture<'a, Result<()>>) {
    on_both_engines(&[PEOPLE], body).await;
}

async fn exec(w: &World, tenant: TenantId, sql: &'static str, args: Vec<Val>) -> Result<u64> {
    w.ctx
        .db
        .write(tenant, move |tx| Box::pin(async move { tx.exec(sql, &args).await }))
        .await
}

async fn add(w: &World, tenant: TenantId, id: Uuid, name: &str, note: Option<&str>, mail: &str) -> Result<u64> {
    let args = vec![
        id.into(),
        NAME.seal(id, name),
        NOTE.seal_opt(id, note),
        MAIL.of(mail),
        MAIL_SHOWN.seal(id, mail),
    ];
    exec(w, tenant, ADD, args).await
}

type Person = (String, Option<String>, String);

async fn find(w: &World, tenant: TenantId, mail: &str) -> Result<Option<Person>> {
    let row = w
        .ctx
        .db
        .query_opt(tenant, BY_MAIL, &[MAIL.of(mail), mail.into()])
        .await?;
    let Some(row) = row else { return Ok(None) };
    let id = row.uuid(0)?;
    Ok(Some((
        NAME.open(&row, 1, id)?,
        NOTE.open_opt(&row, 2, id)?,
        MAIL_SHOWN.open(&row, 3, id)?,
    )))
}

#[tokio::test]
async fn a_sealed_text_comes_back_and_opens_in_its_place_alone() {
    both(|w| {
        Box::pin(async move {
            let (north, south) = (w.north.id, w.south.id);
            let (ada, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
            add(w, north, ada, "Ada Quillfeather", Some(""), "ada@quill.example").await?;
            add(w, north, bob, "Bob", None, "bob@quill.example").await?;
            add(w, south, ada, "Ada Quillfeather", Some("x"), "ada@quill.example").await?;
            let ada_found = Some((
                "Ada Quillfeather".into(),
                Some(String::new()),
                "ada@quill.example".into(),
            ));
            assert_eq!(find(w, north, "ada@quill.example").await?, ada_found);
            assert_eq!(find(w, north, "bob@quill.example").await?.map(|p| p.1), Some(None));
            assert_eq!(find(w, north, "eve@quill.example").await?, None);
            // The same text is told from another where it must be unique, and only there.
            let twice = add(w, north, Uuid::from_u128(3), "Ada", None, "ada@quill.example").await;
            assert_eq!(twice.unwrap_err().code, "db.constraint");
            let nul = add(w, north, Uuid::from_u128(4), "A\0da", None, "nul@quill.example").await;
            assert_eq!(nul.unwrap_err().code, "text.nul");

            if w.ctx.db.engine() == Engine::Sqlite {
                return Ok(());
            }
            let rows = w.columns().await?;
            assert_eq!(legible(&rows, &["Quillfeather", "quill.example"]), Vec::<String>::new());
            let owner = w.owner().await?.expect("PostgreSQL");
            let (here, there) = (owner.query(north, RAW, &[]).await?, owner.query(south, RAW, &[]).await?);
            assert_ne!(here[0].text(0)?, there[0].text(0)?, "sealed twice, never alike");
            assert_ne!(
                here[0].text(2)?,
                there[0].text(2)?,
                "blinded with each clinic's own key"
            );
            // A store that forgets to open shows nothing.
            assert!(w.ctx.db.query(north, RAW, &[]).await?[0].text(0).is_err());
            // Ada's name in Bob's row.
            w.forge(north, SWAP, vec![ada.into(), bob.into()]).await?;
            let moved = find(w, north, "bob@quill.example").await.unwrap_err();
            assert_eq!(moved.code, "vault.tampered");
            Ok(())
        })
    })
    .await;
}

/// What somebody writes is theirs, however it begins: in a sealed column, in a clear one, and as a question.
#[tokio::test]
async fn a_text_that_begins_like_a_sealed_one_is_a_text() {
    both(|w| {
        Box::pin(async move {
            let north = w.north.id;
            let real = "sealed2:AAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
            for (n, text) in (1..).zip(["sealed2:a", "sealed2:", real, "plain1:sealed2:a", "plain1:a", "plain1:"]) {
                let id = Uuid::from_u128(n);
                // Its columns as clear ones, as codes and addresses of resources are.
                exec(w, north, CLEAR, vec![id.into(), text.into(), text.into(), text.into()]).await?;
                let rows = w.ctx.db.query(north, BY_MAIL, &[text.into(), text.into()]).await?;
                assert_eq!(rows.len(), 1, "{text}");
                assert_eq!(
                    (rows[0].text(1)?, rows[0].opt_text(2)?, rows[0].text(3)?),
                    (text, Some(text), text)
                );
                // As a person's name.
                let id = Uuid::from_u128(100 + n);
                let mail = format!("{n}@quill.example");
                add(w, north, id, text, Some(text), &mail).await?;
                assert_eq!(
                    find(w, north, &mail).await?,
                    Some((text.into(), Some(text.into()), mail))
                );
            }
            // In a transaction, and many rows at once.
            static MANY: Insert = Insert::new("person", &[("id", Ty::Uuid), ("name", Ty::Text), ("mail", Ty::Text)]);
            let values = vec![Uuid::from_u128(200).into(), "sealed2:b".into(), "sealed2:many".into()];
            let name = w.ctx.db.write(north, move |tx| {
                Box::pin(async move {
                    tx.insert(&MANY, &values).await?;
                    let asked = ["sealed2:many".into(), "sealed2:many".into()];
                    tx.query_one(BY_MAIL, &asked).await?.string(1)
                })
            });
            assert_eq!(name.await?, "sealed2:b");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn rows_of_an_older_release_are_sealed_beside_the_work_and_cut_off_begun_again() {
    both(|w| {
        Box::pin(async move {
            let north = w.north.id;
            let old = |n: u128| -> Vec<Val> {
                let mail = format!("old{n}@quill.example");
                vec![
                    Uuid::from_u128(n).into(),
                    format!("Quillfeather {n}").into(),
                    "itches".into(),
                    mail.into(),
                ]
            };
            for n in 1..=250 {
                exec(w, north, CLEAR, old(n)).await?;
            }
            exec(w, w.south.id, CLEAR, old(1)).await?;
            // Read as they are, before anything is swept.
            let third = Some((
                "Quillfeather 3".into(),
                Some("itches".into()),
                "old3@quill.example".into(),
            ));
            assert_eq!(find(w, north, "old3@quill.example").await?, third);
            if w.ctx.db.engine() == Engine::Sqlite {
                assert_eq!(vault::sweep(&w.ctx.db, north, SHEETS).await?, 0, "its pages are sealed");
                return Ok(());
            }
            let all = legible(&w.columns().await?, &["Quillfeather", "quill.example", "itches"]);
            assert_eq!(all.len(), 3, "{all:?}");

            // Cut off after its first pieces, at whatever point it has come to.
            {
                let sweep = vault::sweep(&w.ctx.db, north, SHEETS);
                tokio::pin!(sweep);
                let mut progress = Vec::new();
                while progress.is_empty() {
                    tokio::select! {
                        done = &mut sweep => { done?; }
                        seen = vault::progress(&w.ctx.db, north) => progress = seen?,
                    }
                }
            }
            assert_eq!(find(w, north, "old3@quill.example").await?, third);
            add(w, north, Uuid::from_u128(999), "New", None, "new@quill.example").await?;
            vault::sweep(&w.ctx.db, north, SHEETS).await?;
            let progress = vault::progress(&w.ctx.db, north).await?;
            assert_eq!(progress.len(), 1);
            assert!(progress[0].done_at.is_some() && progress[0].rows == 250, "{progress:?}");
            assert_eq!(vault::sweep(&w.ctx.db, north, SHEETS).await?, 0, "nothing is left");
            for n in [1_u32, 100, 101, 250] {
                let found = find(w, north, &format!("old{n}@quill.example")).await?.expect("found");
                assert_eq!(found.0, format!("Quillfeather {n}"));
                assert_eq!(found.2, format!("old{n}@quill.example"));
            }
            // The other clinic's rows are its own sweep's.
            assert_eq!(legible(&w.columns().await?, &["Quillfeather"]).len(), 1);
            vault::sweep(&w.ctx.db, w.south.id, SHEETS).await?;
            let left = legible(&w.columns().await?, &["Quillfeather", "quill.example", "itches"]);
            assert_eq!(left, Vec::<String>::new());
            Ok(())
        })
    })
    .await;
}

/// Before texts that begin like sealed ones were told from them, they went in as they were.
#[tokio::test]
async fn an_old_text_that_only_begins_like_a_sealed_one_is_read_and_swept() {
    both(|w| {
        Box::pin(async move {
            let north = w.north.id;
            let long = format!("sealed2:{} ", "a".repeat(60));
            let texts = [
                "sealed2:",
                "sealed2:a",
                "sealed2:Quillfeather, Ada of the long corridor, north wing",
                &long,
            ];
            for (n, text) in (1..).zip(texts) {
                let mail = format!("blind1:{n}@quill.example");
                let row = vec![Uuid::from_u128(n).into(), text.into(), text.into(), mail.into()];
                w.forge(north, CLEAR, row).await?;
            }
            let read = async || -> Result<()> {
                for (n, text) in (1..).zip(texts) {
                    let mail = format!("blind1:{n}@quill.example");
                    let found = find(w, north, &mail).await?;
                    assert_eq!(found, Some((text.into(), Some(text.into()), mail)), "{text}");
                }
                Ok(())
            };
            read().await?;
            if w.ctx.db.engine() == Engine::Sqlite {
                return Ok(());
            }
            // In a column that is not sealed, too.
            let rows = w.ctx.db.query(north, RAW, &[]).await?;
            assert_eq!(rows[1].text(0)?, "sealed2:a");
            assert_eq!(vault::sweep(&w.ctx.db, north, SHEETS).await?, 4);
            assert_eq!(vault::sweep(&w.ctx.db, north, SHEETS).await?, 0, "nothing is left");
            read().await?;
            assert_eq!(
                legible(&w.columns().await?, &["Quillfeather", "quill.example", "sealed2:a "]),
                Vec::<String>::new()
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_row_whose_blinded_twin_stands_beside_it_stops_no_sweep() {
    both(|w| {
        Box::pin(async move {
            if w.ctx.db.engine() == Engine::Sqlite {
                return Ok(());
            }
            let north = w.north.id;
            let (ada, bob, eve) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
            for (mark, person) in [
                ("ada-quill".into(), ada),
                (MARK.of("ada-quill"), ada),
                ("bob-quill".into(), bob),
            ] {
                exec(w, north, WAY, vec!["door".into(), mark, person.into()]).await?;
            }
            assert_eq!(vault::sweep(&w.ctx.db, north, WAYS).await?, 2);
            let ways = w.ctx.db.query(north, WHERE_TO, &[]).await?;
            let people: Vec<Uuid> = ways.iter().map(|r| r.uuid(1)).collect::<Result<_>>()?;
            assert_eq!(people, [ada, bob], "the twin in clear is gone, and nobody's way");
            assert_eq!(legible(&w.columns().await?, &["-quill"]), Vec::<String>::new());

            // Two people of one address, one of them from an older server: nobody is deleted, and it is told.
            let old = |id: Uuid, name: &str, mail: &str| -> Vec<Val> {
                vec![id.into(), name.into(), "itches".into(), mail.into()]
            };
            add(w, north, bob, "Bob", None, "one@quill.example").await?;
            exec(w, north, CLEAR, old(ada, "Quillfeather", "one@quill.example")).await?;
            exec(w, north, CLEAR, old(eve, "Quillfeather", "eve@quill.example")).await?;
            let told = vault::sweep(&w.ctx.db, north, SHEETS).await.unwrap_err();
            assert_eq!(told.code, "vault.twins");
            let left = legible(&w.columns().await?, &["Quillfeather", "quill.example", "itches"]);
            assert_eq!(left, ["person.mail: quill.example"]);
            assert_eq!(
                find(w, north, "eve@quill.example").await?.map(|p| p.0),
                Some("Quillfeather".into())
            );
            let progress = vault::progress(&w.ctx.db, north).await?;
            let done: Vec<(&str, bool)> = progress
                .iter()
                .map(|p| (p.sheet.as_str(), p.done_at.is_some()))
                .collect();
            assert_eq!(done, [("person", false), ("way", true)]);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn where_nothing_is_left_no_writer_of_the_clinic_waits_for_the_look() {
    both(|w| {
        Box::pin(async move {
            if w.ctx.db.engine() == Engine::Sqlite {
                return Ok(());
            }
            let north = w.north.id;
            add(w, north, Uuid::from_u128(1), "Ada", None, "ada@quill.example").await?;
            vault::sweep(&w.ctx.db, north, SHEETS).await?;
            // A writer has its turn for as long as the look takes: a look that waits for it never ends.
            let (began, begun) = tokio::sync::oneshot::channel();
            let (end, ended) = tokio::sync::oneshot::channel::<()>();
            let writer = w.ctx.db.write(north, move |_| {
                Box::pin(async move {
                    let _ = began.send(());
                    let _ = ended.await;
                    Ok(())
                })
            });
            let look = async {
                let _ = begun.await;
                let long = std::time::Duration::from_secs(10);
                let looked = tokio::time::timeout(long, vault::sweep(&w.ctx.db, north, SHEETS)).await;
                let _ = end.send(());
                looked
            };
            let (wrote, looked) = tokio::join!(writer, look);
            wrote?;
            assert_eq!(looked.expect("no wait for the writer")?, 0);
            Ok(())
        })
    })
    .await;
}
