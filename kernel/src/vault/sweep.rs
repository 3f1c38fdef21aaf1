//! Seals what was written before its column was sealed: table by table, a small batch a transaction, while everything
//! runs. What is sealed shows it, so a sweep that was cut off is simply begun again; how far it came stands in `sealing`.

use super::{
    Blind, Field,
    column::{BLIND, SEALED},
};
use crate::{
    Db, Error, Result, Row, TenantId, Tx, Val,
    clock::Millis,
    db::{Engine, Sql},
};
use serde::Serialize;

/// Rows of one transaction: while it runs, other writers of the clinic wait.
const BATCH: usize = 100;

const NOTE: &str = "INSERT INTO sealing (tenant, sheet, rows, at, done_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant, sheet) DO UPDATE SET rows = sealing.rows + $3, at = $4, done_at = $5";
const PROGRESS: &str = "SELECT sheet, rows, at, done_at FROM sealing WHERE tenant = $1 ORDER BY sheet";

/// The sealed columns of a table.
#[derive(Debug)]
pub struct Sheet {
    pub table: &'static str,
    /// The columns that tell a row from others: the key with which its store seals, in this order.
    pub key: &'static [&'static str],
    pub cells: &'static [Cell],
}

/// One of them.
#[derive(Debug)]
pub enum Cell {
    Sealed(Field),
    /// Blinded, and where it must be shown again, sealed in a second column that is null in an older row.
    Blind(Blind, Option<Field>),
}

impl Cell {
    fn column(&self) -> &'static str {
        match self {
            Self::Sealed(field) => field.name,
            Self::Blind(blind, _) => blind.name,
        }
    }

    fn mark(&self) -> &'static str {
        match self {
            Self::Sealed(_) => SEALED,
            Self::Blind(..) => BLIND,
        }
    }
}

/// How far the rows of a table are sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    pub sheet: String,
    /// Rows that a sweep has sealed.
    pub rows: i64,
    pub at: Millis,
    /// Since when nothing was left; `None` while there is.
    pub done_at: Option<Millis>,
}

/// What is known of a clinic's sweeps.
pub async fn progress(db: &Db, tenant: TenantId) -> Result<Vec<Progress>> {
    let rows = db.query(tenant, PROGRESS, &[]).await?;
    let one = |r: &Row| {
        Ok(Progress {
            sheet: r.string(0)?,
            rows: r.i64(1)?,
            at: r.i64(2)?,
            done_at: r.opt_i64(3)?,
        })
    };
    rows.iter().map(one).collect()
}

/// Notes that `rows` more were sealed, and whether that was the end.
pub async fn note(tx: &mut Tx, sheet: &str, rows: u64, done: bool) -> Result<()> {
    let now = tx.now();
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let args = [sheet.into(), rows.into(), now.into(), done.then_some(now).into()];
    tx.exec(NOTE, &args).await.map(drop)
}

/// Seals every row of these tables that is not; answers how many were not. Nothing to do on SQLite, whose pages are sealed.
pub async fn sweep(db: &Db, tenant: TenantId, sheets: &'static [Sheet]) -> Result<u64> {
    let mut all = 0;
    if db.engine() == Engine::Sqlite || db.vault().is_err() {
        return Ok(all);
    }
    for sheet in sheets {
        let mut after = Vec::new();
        loop {
            let (rows, last) = db
                .write(tenant, move |tx| Box::pin(async move { batch(tx, sheet, after).await }))
                .await?;
            all += rows;
            match last {
                Some(key) => after = key,
                None => break,
            }
        }
    }
    Ok(all)
}

/// One batch after a row: how many rows, and the last one's key unless that was all.
async fn batch(tx: &mut Tx, sheet: &'static Sheet, after: Vec<Val>) -> Result<(u64, Option<Vec<Val>>)> {
    let width = sheet.key.len();
    let keys = sheet.key.join(", ");
    let columns: Vec<&str> = sheet.cells.iter().map(Cell::column).collect();
    let open: Vec<String> = sheet
        .cells
        .iter()
        .map(|cell| format!("{} NOT LIKE '{}%'", cell.column(), cell.mark()))
        .collect();
    let mut text = format!(
        "SELECT {keys}, {} FROM {} WHERE tenant = $1 AND ({})",
        columns.join(", "),
        sheet.table,
        open.join(" OR ")
    );
    if !after.is_empty() {
        let marks: Vec<String> = (2..after.len() + 2).map(|n| format!("${n}")).collect();
        text.push_str(&format!(" AND ({keys}) > ({})", marks.join(", ")));
    }
    text.push_str(&format!(" ORDER BY {keys} LIMIT {BATCH}"));
    let rows = tx.query(Sql::built(text), &after).await?;
    for row in &rows {
        mend(tx, sheet, row).await?;
    }
    let last = match rows.last() {
        Some(row) if rows.len() == BATCH => Some((0..width).filter_map(|i| row.get(i).cloned()).collect()),
        _ => None,
    };
    let sealed = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    note(tx, sheet.table, sealed, last.is_none()).await?;
    Ok((sealed, last))
}

async fn mend(tx: &mut Tx, sheet: &'static Sheet, row: &Row) -> Result<()> {
    let width = sheet.key.len();
    let named: Vec<Val> = (0..width).filter_map(|i| row.get(i).cloned()).collect();
    let name = named.iter().map(shown).collect::<Result<Vec<_>>>()?.join("/");
    let (mut set, mut args) = (Vec::new(), named);
    for (at, cell) in (width..).zip(sheet.cells) {
        let Some(Val::Text(text)) = row.get(at) else { continue };
        if text.starts_with(cell.mark()) {
            continue;
        }
        let mut put = |column: &str, value: Val| {
            args.push(value);
            set.push(format!("{column} = ${}", args.len() + 1));
        };
        match cell {
            Cell::Sealed(field) => put(field.name, field.seal(&name, text)),
            Cell::Blind(blind, shown) => {
                put(blind.name, blind.of(text));
                if let Some(field) = shown {
                    put(field.name, field.seal(&name, text));
                }
            }
        }
    }
    if set.is_empty() {
        return Ok(());
    }
    let one: Vec<String> = (2..).zip(sheet.key).map(|(n, key)| format!("{key} = ${n}")).collect();
    let text = format!(
        "UPDATE {} SET {} WHERE tenant = $1 AND {}",
        sheet.table,
        set.join(", "),
        one.join(" AND ")
    );
    tx.exec(Sql::built(text), &args).await.map(drop)
}

/// A part of a row's key as its store writes it.
fn shown(value: &Val) -> Result<String> {
    match value {
        Val::Text(text) => Ok(text.to_string()),
        Val::Uuid(id) => Ok(id.to_string()),
        Val::I64(n) => Ok(n.to_string()),
        Val::Blob(bytes) => Ok(bytes.iter().map(|b| format!("{b:02x}")).collect()),
        other => Err(Error::internal("vault.sheet", format!("a key of {:?}", other.ty()))),
    }
}
