//! For tests: what somebody at the machine can do who holds the root key. Runs SQL on a tenant's sealed file:
//! `edit_database <data dir> <tenant number> <sql>`.

use medtech_kernel::{
    Clock, Db, TenantId,
    db::{Location, PageKeys},
    secret::Root,
    vault::{Ledger, Vault},
};
use medtech_pages::{Ring, store};
use rusqlite::OpenFlags;
use std::{error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "edit_database <data dir> <tenant number> <sql>";
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or(usage)?);
    let tenant: i64 = args.next().ok_or(usage)?.parse()?;
    let sql = args.next().ok_or(usage)?;
    let root = Root::open(&dir.join("secrets").join("root.key")).map_err(|e| format!("{e:?}"))?;
    let tenant = TenantId::from_number(tenant);
    let vault = Vault::new(root, Ledger::at(dir.join("erasures.jsonl")));
    let load = async {
        let location = Location::Sqlite(dir.join("db"));
        let migrations = vec![medtech_kernel::MIGRATIONS];
        let db = Db::open(location, PageKeys::of_vault(&vault), Clock::system(), migrations).await?;
        vault.load(&db).await
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(load)
        .map_err(|e| format!("{e:?}"))?;
    let key = move |epoch| vault.page_key(tenant, epoch).ok();
    let name = format!("tenant-{tenant}.db");
    let conn = store::open(
        &Ring::new(&name, key),
        &dir.join("db").join(&name),
        OpenFlags::SQLITE_OPEN_READ_WRITE,
    )?;
    conn.execute_batch(&sql)?;
    Ok(())
}
