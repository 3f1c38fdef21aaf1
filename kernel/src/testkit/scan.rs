//! Reads every column of every table as whoever owns the database, and looks for words in it.

use super::World;
use crate::{
    Db, Result, TenantId,
    db::{Location, PageKeys, Sql},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

const TABLES: &str = "SELECT table_name::text FROM information_schema.tables
    WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND $1::bigint IS NOT NULL ORDER BY 1";
const COLUMNS: &str = "SELECT column_name::text, data_type::text FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name = $2 AND $1::bigint IS NOT NULL ORDER BY ordinal_position";

/// A column's name and all that stands in it, bytes in hexadecimal.
#[derive(Debug)]
pub struct Written {
    pub table: String,
    pub column: String,
    pub values: Vec<String>,
}

impl World {
    /// The store as whoever has the owner's password reads it: over every tenant, without any key. `None` on SQLite.
    pub async fn owner(&self) -> Result<Option<Db>> {
        let Some(url) = self.owner_url.clone() else {
            return Ok(None);
        };
        let location = Location::Postgres { url, owner_url: None };
        Db::open(location, PageKeys::none(), self.ctx.clock.clone(), Vec::new())
            .await
            .map(Some)
    }

    /// Every column of every table of every tenant; nothing on SQLite.
    pub async fn columns(&self) -> Result<Vec<Written>> {
        let Some(db) = self.owner().await? else {
            return Ok(Vec::new());
        };
        let any = TenantId::SYSTEM;
        let mut all = Vec::new();
        for row in db.query(any, TABLES, &[]).await? {
            let table = row.string(0)?;
            for row in db.query(any, COLUMNS, &[(&table).into()]).await? {
                let column = row.string(0)?;
                let shown = match row.text(1)? {
                    "bytea" => format!("encode(\"{column}\", 'hex')"),
                    _ => format!("\"{column}\"::text"),
                };
                let text = format!(
                    "SELECT {shown} FROM \"{table}\" WHERE \"{column}\" IS NOT NULL AND $1::bigint IS NOT NULL"
                );
                let values = db.query(any, Sql::built(text), &[]).await?;
                all.push(Written {
                    table: table.clone(),
                    values: values.iter().map(|r| r.string(0)).collect::<Result<_>>()?,
                    column,
                });
            }
        }
        Ok(all)
    }
}

/// Where any of these words can be read, as it is or in a common dress: `table.column: word`.
#[must_use]
pub fn legible(written: &[Written], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for word in words {
        let dresses = dresses(word);
        for w in written {
            let seen = |v: &String| {
                let lower = v.to_lowercase();
                dresses
                    .iter()
                    .any(|(d, exact)| if *exact { v.contains(d) } else { lower.contains(d) })
            };
            if w.values.iter().any(seen) {
                found.push(format!("{}.{}: {word}", w.table, w.column));
            }
        }
    }
    found
}

/// The forms of a word, and whether their letters' case counts.
fn dresses(word: &str) -> Vec<(String, bool)> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut all = vec![(word.to_lowercase(), false)];
    for w in [word.to_owned(), word.to_lowercase()] {
        all.push((hex(w.as_bytes()), false));
        for wide in [u16::to_le_bytes, u16::to_be_bytes] {
            all.push((hex(&w.encode_utf16().flat_map(wide).collect::<Vec<_>>()), false));
        }
        // Wherever the word begins within three bytes; what its neighbours decide is left out.
        for lead in 0..3 {
            let padded = [&b"\0\0"[..lead], w.as_bytes()].concat();
            let text = STANDARD.encode(&padded);
            let (skip, whole) = ([0, 2, 3][lead], padded.len() * 8 / 6);
            all.push((text.chars().take(whole).skip(skip).collect(), true));
            let in_bytes: String = text.chars().take(whole).skip(skip).collect();
            all.push((hex(in_bytes.as_bytes()), false));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_in_every_dress() {
        let one = |value: &str| {
            let written = Written {
                table: "t".into(),
                column: "c".into(),
                values: vec![value.into()],
            };
            legible(&[written], &["Quillfeather"])
        };
        let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02X}")).collect::<String>();
        let wide: Vec<u8> = "xQuillfeather".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for before in ["", "a", "ab", "abc"] {
            let text = format!("{before}Quillfeather and more");
            for dressed in [
                text.clone(),
                text.to_uppercase(),
                STANDARD.encode(&text),
                hex(text.as_bytes()),
                hex(STANDARD.encode(&text).as_bytes()),
                hex(&wide),
            ] {
                assert_eq!(one(&dressed), ["t.c: Quillfeather"], "{dressed}");
            }
        }
        assert!(one("Quillfeat her").is_empty());
    }
}
