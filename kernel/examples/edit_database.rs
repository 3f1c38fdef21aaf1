//! For tests: what somebody at the machine can do who holds the root key. Runs SQL on a tenant's sealed file:
//! `edit_database <data dir> <tenant number> <sql>`.

use medtech_kernel::{TenantId, secret::Root};
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
    // The keys as `PageKeys::of` derives them.
    let key = move |epoch| Some(root.derive(&format!("sqlite pages {epoch}"), TenantId::from_number(tenant)));
    let name = format!("tenant-{tenant}.db");
    let conn = store::open(
        &Ring::new(&name, key),
        &dir.join("db").join(&name),
        OpenFlags::SQLITE_OPEN_READ_WRITE,
    )?;
    conn.execute_batch(&sql)?;
    Ok(())
}
