//! Seals what was written before its column was sealed: table by table, a small batch a transaction, while everything
//! runs; what is left is looked for outside of transactions. What is sealed shows it, so a sweep that was cut off is simply begun again; how far it came stands in `sealing`.

use super::{
    Blind, Field,
    column::{BLIND, SEALED, form, has_form},
};
use crate::{
    Db, Error, Result, Row, TenantId, Tx, Val,
    clock::Millis,
    db::{Engine, Sql},
};
use serde::Serialize;

/// Rows of one transaction: while it runs, other writers of the clinic wait.
const BATCH: usize = 100;
/// Rows that are looked at with one question, beside the writers.
const RANGE: usize = 1000;

const NOTE: &str = "INSERT INTO sealing (tenant, sheet, rows, at, done_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant, sheet) DO UPDATE SET rows = sealing.rows + $3, at = $4, done_at = $5";
/// Looked through once more, and nothing was found.
const AGAIN: &str = "UPDATE sealing SET at = $3 WHERE tenant = $1 AND sheet = $2 AND done_at IS NOT NULL";
/// For so long after the first look that found nothing an older server may still write in clear beside this one.
const OVERLAP: Millis = 24 * 3_600_000;
const PROGRESS: &str = "SELECT sheet, rows, at, done_at FROM sealing WHERE tenant = $1 ORDER BY sheet";

/// The sealed columns of a table.
#[derive(Debug)]
pub struct Sheet {
    pub table: &'static str,
    /// The columns that tell a row from others: the key with which its store seals, in this order.
    pub key: &'static [&'static str],
    pub cells: &'static [Cell],
}

impl Sheet {
    /// Whether anything of a row is not sealed (null where it has nothing to be sealed). In the words of PostgreSQL: only
    /// there is anything swept.
    fn is_open(&self) -> String {
        let one = |cell: &Cell| format!("{} !~ '{}'", cell.column(), form(cell.mark()));
        self.cells.iter().map(one).collect::<Vec<_>>().join(" OR ")
    }

    /// Whether it is the row whose key stands from `$2`.
    fn is_this(&self) -> String {
        let one = |(n, column): (usize, &&str)| format!("{column} = ${n}");
        (2..).zip(self.key).map(one).collect::<Vec<_>>().join(" AND ")
    }
}

/// One of them.
#[derive(Debug)]
pub enum Cell {
    Sealed(Field),
    /// Blinded, and where it must be shown again, sealed in a second column that is null in an older row. In a clinic no two
    /// rows have the same, or none of the same key where it is a part of that.
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

async fn of_sheet(db: &Db, tenant: TenantId, sheet: &str) -> Result<Option<Progress>> {
    Ok(progress(db, tenant).await?.into_iter().find(|p| p.sheet == sheet))
}

/// Was nothing in clear found a day after everything had been sealed? Then nobody writes in clear any more, and no start has to
/// read through all of it again.
pub async fn is_settled(db: &Db, tenant: TenantId, sheet: &str) -> Result<bool> {
    let known = of_sheet(db, tenant, sheet).await?;
    Ok(known.is_some_and(|p| p.done_at.is_some_and(|done| p.at - done >= OVERLAP)))
}

/// Notes the end of a look through everything. Writes nothing when that says nothing new.
pub async fn looked_through(db: &Db, tenant: TenantId, sheet: &'static str) -> Result<()> {
    // Whatever was sealed since has taken the mark away.
    let done = of_sheet(db, tenant, sheet).await?.and_then(|p| p.done_at);
    match done {
        Some(done) if db.now() - done < OVERLAP => Ok(()),
        Some(_) => {
            let end = db.write(tenant, move |tx| {
                let args = [sheet.into(), tx.now().into()];
                Box::pin(async move { tx.exec(AGAIN, &args).await.map(drop) })
            });
            end.await
        }
        None => {
            let end = db.write(tenant, move |tx| Box::pin(note(tx, sheet, 0, true)));
            end.await
        }
    }
}

/// Seals every row of these tables that is not; answers how many it sealed. Nothing to do on SQLite, whose pages are sealed.
/// What fails with one table is told after the others.
pub async fn sweep(db: &Db, tenant: TenantId, sheets: &'static [Sheet]) -> Result<u64> {
    let mut all = 0;
    if db.engine() == Engine::Sqlite || db.vault().is_err() {
        return Ok(all);
    }
    let mut failed = None;
    for sheet in sheets {
        match through(db, tenant, sheet).await {
            Ok(rows) => all += rows,
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    failed.map_or(Ok(all), Err)
}

/// Goes through one table: looks beside the work of the day, and is a writer only for the rows it finds.
async fn through(db: &Db, tenant: TenantId, sheet: &'static Sheet) -> Result<u64> {
    let known = progress(db, tenant).await?;
    let was_done = known.iter().any(|p| p.sheet == sheet.table && p.done_at.is_some());
    let (mut all, mut stuck, mut after) = (0, 0_usize, Vec::new());
    loop {
        let (open, last) = look(db, tenant, sheet, after).await?;
        for keys in open.chunks(BATCH) {
            let keys = keys.to_vec();
            let work = db.write(tenant, move |tx| Box::pin(async move { batch(tx, sheet, &keys).await }));
            let (sealed, left) = work.await?;
            all += sealed;
            stuck += left;
        }
        match last {
            Some(key) => after = key,
            None => break,
        }
    }
    if stuck > 0 {
        let told = format!(
            "{stuck} rows of {} stay in clear: another has the same text",
            sheet.table
        );
        return Err(Error::internal("vault.twins", told));
    }
    if !was_done || all > 0 {
        let end = db.write(tenant, move |tx| Box::pin(note(tx, sheet.table, 0, true)));
        end.await?;
    }
    Ok(all)
}

/// The next rows of a table: the keys of those that are not sealed, and the last one's key unless that was all.
async fn look(
    db: &Db,
    tenant: TenantId,
    sheet: &'static Sheet,
    after: Vec<Val>,
) -> Result<(Vec<Vec<Val>>, Option<Vec<Val>>)> {
    let width = sheet.key.len();
    let keys = sheet.key.join(", ");
    let mut text = format!(
        "SELECT {keys}, COALESCE({}, FALSE) FROM {} WHERE tenant = $1",
        sheet.is_open(),
        sheet.table
    );
    if !after.is_empty() {
        let marks: Vec<String> = (2..after.len() + 2).map(|n| format!("${n}")).collect();
        text.push_str(&format!(" AND ({keys}) > ({})", marks.join(", ")));
    }
    text.push_str(&format!(" ORDER BY {keys} LIMIT {RANGE}"));
    let rows = db.query(tenant, Sql::built(text), &after).await?;
    let mut open = Vec::new();
    for row in &rows {
        if row.bool(width)? {
            open.push(named(row, width));
        }
    }
    let last = rows.last().filter(|_| rows.len() == RANGE);
    Ok((open, last.map(|row| named(row, width))))
}

/// Seals the rows with these keys that are still there and still not sealed: how many, and how many cannot be.
async fn batch(tx: &mut Tx, sheet: &'static Sheet, keys: &[Vec<Val>]) -> Result<(u64, usize)> {
    let columns: Vec<&str> = sheet.cells.iter().map(Cell::column).collect();
    let text = format!(
        "SELECT {}, {} FROM {} WHERE tenant = $1 AND {} AND ({})",
        sheet.key.join(", "),
        columns.join(", "),
        sheet.table,
        sheet.is_this(),
        sheet.is_open(),
    );
    let (mut sealed, mut stuck) = (0, 0);
    for key in keys {
        if let Some(row) = tx.query_opt(Sql::built(text.clone()), key).await? {
            match mend(tx, sheet, &row).await? {
                true => sealed += 1,
                false => stuck += 1,
            }
        }
    }
    note(tx, sheet.table, sealed, false).await?;
    Ok((sealed, stuck))
}

/// Seals what is open of a row; `false` where something had to stay as it is.
async fn mend(tx: &mut Tx, sheet: &'static Sheet, row: &Row) -> Result<bool> {
    let width = sheet.key.len();
    let key = named(row, width);
    let name = key.iter().map(shown).collect::<Result<Vec<_>>>()?.join("/");
    let (mut set, mut args, mut whole) = (Vec::new(), key.clone(), true);
    for (at, cell) in (width..).zip(sheet.cells) {
        let Some(Val::Text(text)) = row.get(at) else { continue };
        if has_form(cell.mark(), text) {
            continue;
        }
        let mut put = |column: &str, value: Val| {
            args.push(value);
            set.push(format!("{column} = ${}", args.len() + 1));
        };
        match cell {
            Cell::Sealed(field) => put(field.name, field.seal(&name, text)),
            Cell::Blind(blind, _) if has_twin(tx, sheet, blind, &key, text).await? => {
                if sheet.key.contains(&blind.name) {
                    // The same row once more, from before it was blinded.
                    let text = format!("DELETE FROM {} WHERE tenant = $1 AND {}", sheet.table, sheet.is_this());
                    return tx.exec(Sql::built(text), &key).await.map(|_| true);
                }
                // Another row that says the same: which of them is to go is for people to say.
                whole = false;
            }
            Cell::Blind(blind, shown) => {
                put(blind.name, blind.of(text));
                if let Some(field) = shown {
                    put(field.name, field.seal(&name, text));
                }
            }
        }
    }
    if !set.is_empty() {
        let text = format!(
            "UPDATE {} SET {} WHERE tenant = $1 AND {}",
            sheet.table,
            set.join(", "),
            sheet.is_this()
        );
        tx.exec(Sql::built(text), &args).await?;
    }
    Ok(whole)
}

/// Is there a row that has this text blinded already (and is the same in the rest of its key, if that is part of it)?
async fn has_twin(tx: &mut Tx, sheet: &'static Sheet, blind: &Blind, key: &[Val], text: &str) -> Result<bool> {
    let (mut like, mut args) = (vec![format!("{} = $2", blind.name)], vec![blind.of(text)]);
    if sheet.key.contains(&blind.name) {
        for (column, value) in sheet.key.iter().zip(key).filter(|(column, _)| **column != blind.name) {
            args.push(value.clone());
            like.push(format!("{column} = ${}", args.len() + 1));
        }
    }
    let text = format!(
        "SELECT COUNT(*) FROM {} WHERE tenant = $1 AND {}",
        sheet.table,
        like.join(" AND ")
    );
    Ok(tx.query_one(Sql::built(text), &args).await?.i64(0)? > 0)
}

/// The key of a row that begins with it.
fn named(row: &Row, width: usize) -> Vec<Val> {
    (0..width).filter_map(|i| row.get(i).cloned()).collect()
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
