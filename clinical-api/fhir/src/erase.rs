//! Erasing a patient: the records go, then the key, so that no backup can bring them back.

use crate::{
    Fhir,
    definitions::Definitions,
    outcome::Failure,
    store::{Change, Exec, Target, about, current, resolve, stored_all},
};
use medtech_kernel::{BoxFuture, Error, Result, TenantId, Tx, vault::Scope};

/// Resources looked at in one transaction.
const BATCH: i64 = 100;

const RECORD: &str = "SELECT r.rid, r.ver, r.upd, r.del, r.ord, r.dict, r.body, r.ty FROM fhir_res r
    WHERE r.tenant = $1 AND r.del = 0 AND r.rid > $3
    AND r.rid IN (SELECT p.rid FROM fhir_pc p WHERE p.tenant = $1 AND p.pt = $2 AND p.code = 0) ORDER BY r.rid LIMIT $4";
const NO_HISTORY: &str = "DELETE FROM fhir_hist WHERE tenant = $1 AND rid = $2";
const NO_BODY: &str = "UPDATE fhir_res SET body = NULL WHERE tenant = $1 AND rid = $2";
/// By row number these tables are read whole: this is for what a restore brought back, whose bodies can no longer say
/// which rows they have here.
const WIPE: [&str; 9] = [
    "DELETE FROM fhir_tok WHERE tenant = $1 AND rid = $2",
    "DELETE FROM fhir_ref WHERE tenant = $1 AND rid = $2",
    "DELETE FROM fhir_dat WHERE tenant = $1 AND rid = $2",
    "DELETE FROM fhir_str WHERE tenant = $1 AND rid = $2",
    "DELETE FROM fhir_qty WHERE tenant = $1 AND rid = $2",
    "DELETE FROM fhir_uri WHERE tenant = $1 AND rid = $2",
    "DELETE FROM fhir_pc WHERE tenant = $1 AND rid = $2",
    "UPDATE fhir_res SET del = 1, body = NULL WHERE tenant = $1 AND rid = $2",
    NO_HISTORY,
];

/// What is kept of a patient elsewhere than in the record: what was said and sent in their visits. Those who keep it know no
/// patients: whoever joins the parts does.
pub trait Elsewhere: Send + Sync {
    /// Takes it away for good and destroys its keys. Called again after a crash and on a restored store, where what is gone
    /// already is no error. Answers whether there was anything.
    fn erase<'a>(&'a self, tenant: TenantId, patient: &'a str, actor: &'a str) -> BoxFuture<'a, Result<bool>>;
}

/// Where nothing else is kept.
impl Elsewhere for () {
    fn erase<'a>(&'a self, _: TenantId, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async { Ok(false) })
    }
}

impl Fhir {
    /// Takes away the record of a patient, earlier versions included, and destroys the key it was sealed under. What is in
    /// the records of others, too, stays. What is kept elsewhere goes with it. Answers how many resources went. The ledger comes first: after a crash the next
    /// start goes on.
    pub async fn erase_patient(
        &self,
        tenant: TenantId,
        patient: &str,
        actor: &str,
        elsewhere: &dyn Elsewhere,
    ) -> Result<u64> {
        let ctx = &self.0.ctx;
        let scope = Scope::patient(patient);
        let unknown = || Error::from(Failure::not_found("Patient", patient));
        let rid = self.row_of(tenant, patient).await?.ok_or_else(unknown)?;
        // Held to the end: whoever looks after the ledger must not destroy the key under the work.
        let _under_way = ctx.vault.announce(&ctx.db, tenant, scope).await?;
        elsewhere.erase(tenant, patient, actor).await?;
        let gone = self.take_away(tenant, rid, actor).await?;
        ctx.vault.shred(&ctx.db, tenant, scope, actor).await?;
        Ok(gone)
    }

    /// After a start on a restored store: the keys of erased patients are destroyed again by then, and what is left of
    /// their records goes with them.
    pub async fn erase_again(&self, tenant: TenantId, elsewhere: &dyn Elsewhere) -> Result<u64> {
        let mut gone = 0;
        for erased in self.0.ctx.vault.erased(tenant)? {
            if erased.class != "patient" {
                continue;
            }
            gone += u64::from(elsewhere.erase(tenant, &erased.subject, "system").await?);
            if let Some(rid) = self.row_of(tenant, &erased.subject).await? {
                gone += self.take_away(tenant, rid, "system").await?;
            }
        }
        Ok(gone)
    }

    async fn row_of(&self, tenant: TenantId, patient: &str) -> Result<Option<i64>> {
        let def = crate::engine::type_of("Patient").map_err(Error::from)?;
        let mut exec = Exec::Db(&self.0.ctx.db, tenant);
        let Some(rid) = resolve(&mut exec, &self.shelf(tenant), def, patient).await? else {
            return Ok(None);
        };
        Ok(current(&mut exec, def, rid).await?.map(|_| rid))
    }

    async fn take_away(&self, tenant: TenantId, patient: i64, actor: &str) -> Result<u64> {
        let (mut all, mut after) = (0, i64::MIN);
        loop {
            let (fhir, actor) = (self.clone(), actor.to_owned());
            let (gone, last) = self
                .0
                .ctx
                .db
                .write(tenant, move |tx| {
                    Box::pin(async move { Ok(fhir.take_some(tx, patient, after, &actor).await?) })
                })
                .await?;
            all += gone;
            match last {
                Some(last) => after = last,
                None => return Ok(all),
            }
        }
    }

    /// Answers how many went and the last row looked at.
    async fn take_some(
        &self,
        tx: &mut Tx,
        patient: i64,
        after: i64,
        actor: &str,
    ) -> Result<(u64, Option<i64>), Failure> {
        let shelf = self.shelf(tx.tenant());
        let rows = tx.query(RECORD, &[patient.into(), after.into(), BATCH.into()]).await?;
        let found = stored_all(&mut Exec::Tx(tx), &rows).await?;
        let mut gone = 0;
        for (row, stored) in rows.iter().zip(&found) {
            let number = row.i64(7)?;
            let Some(def) = Definitions::get().resources().iter().find(|d| d.number == number) else {
                continue;
            };
            if stored.deleted {
                for sql in WIPE {
                    tx.exec(sql, &[stored.rid.into()]).await?;
                }
                gone += 1;
                continue;
            }
            let id = stored.id(&shelf, def.name);
            if about(def, &id, &stored.body, &self.0.base).len() > 1 {
                continue;
            }
            let change = Change {
                def,
                target: Target::Id(id),
                body: None,
                if_match: None,
                must_be_new: false,
            };
            self.apply_in(tx, actor, "delete", vec![change]).await?;
            for sql in [NO_HISTORY, NO_BODY] {
                tx.exec(sql, &[stored.rid.into()]).await?;
            }
            gone += 1;
        }
        Ok((gone, found.last().map(|s| s.rid)))
    }
}
