//! Who treats whom, from resources that were written before it was kept: read through once, a bounded piece at a time, in the
//! background. A stop or a crash loses nothing: each piece stands in the transaction that says how far it is.

use crate::{Fhir, engine::type_of, outcome::Failure, store, store::Exec, ties};
use medtech_kernel::{Error, Result, TenantId, Tx, policy};
use tokio::sync::watch;

const NAME: &str = "treatments";
/// Resources read in one transaction: others wait for no longer.
const PIECE: i64 = 100;
const PLACE: &str = "SELECT place, done_at FROM backfill WHERE tenant = $1 AND name = $2";
const MOVE: &str = "INSERT INTO backfill (tenant, name, place, done_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant, name) DO UPDATE SET place = excluded.place, done_at = excluded.done_at";
const NEXT: &str =
    "SELECT rid FROM fhir_res WHERE tenant = $1 AND ty = $2 AND rid > $3 AND del = 0 ORDER BY rid LIMIT $4";

impl Fhir {
    /// Goes through every clinic that was not gone through, until `stop` turns true.
    pub async fn backfill(self, stop: watch::Receiver<bool>) {
        for tenant in self.0.ctx.tenants.all() {
            loop {
                if *stop.borrow() {
                    return;
                }
                match self.backfill_piece(tenant.id).await {
                    Ok(true) => tokio::task::yield_now().await,
                    Ok(false) => break,
                    Err(e) => {
                        tracing::error!(tenant = %tenant.id, code = e.code, "who treats whom could not be read from older resources; the next start tries again");
                        break;
                    }
                }
            }
        }
    }

    /// One piece of a clinic; `false` when nothing is left.
    pub async fn backfill_piece(&self, tenant: TenantId) -> Result<bool> {
        // A clinic that was gone through is not written to again.
        let known = self.0.ctx.db.query_opt(tenant, PLACE, &[NAME.into()]).await?;
        if known.map(|row| row.opt_i64(1)).transpose()?.flatten().is_some() {
            return Ok(false);
        }
        let this = self.clone();
        self.0
            .ctx
            .db
            .write(tenant, move |tx| Box::pin(async move { Ok(this.piece_in(tx).await?) }))
            .await
    }

    async fn piece_in(&self, tx: &mut Tx) -> Result<bool, Failure> {
        let place = tx.query_opt(PLACE, &[NAME.into()]).await?;
        let place = place.map_or(Ok(String::new()), |row| row.string(0))?;
        let (kind, after) = place.split_once(' ').unwrap_or((ties::KINDS[0], "0"));
        let after: i64 = after.parse().map_err(|e| Error::internal("fhir.backfill_place", e))?;
        let (def, shelf) = (type_of(kind)?, self.shelf(tx.tenant()));
        let rows = tx.query(NEXT, &[def.number.into(), after.into(), PIECE.into()]).await?;
        let mut last = after;
        for row in &rows {
            last = row.i64(0)?;
            let Some(stored) = store::current(&mut Exec::Tx(tx), def, last).await? else {
                continue;
            };
            let id = stored.id(&shelf, def.name);
            // As it would have been read when it was written.
            let all = ties::treatments(def.name, &id, &stored.value()?, stored.updated, &self.0.base);
            if !all.is_empty() {
                policy::treat(tx, &format!("{}/{id}", def.name), &all).await?;
            }
        }
        let whole = i64::try_from(rows.len()).unwrap_or(PIECE) < PIECE;
        let next = match whole {
            false => Some(format!("{kind} {last}")),
            true => ties::KINDS
                .iter()
                .skip_while(|k| **k != kind)
                .nth(1)
                .map(|k| format!("{k} 0")),
        };
        let done = next.is_none().then(|| tx.now());
        tx.exec(MOVE, &[NAME.into(), next.as_deref().unwrap_or("").into(), done.into()])
            .await?;
        Ok(next.is_some())
    }
}
