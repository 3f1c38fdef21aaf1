//! Reading through the door, or inside a transaction: one face.

use medtech_kernel::{Db, Result, Row, TenantId, Tx, Val, db::Sql};

pub(crate) enum Exec<'a> {
    Db(&'a Db, TenantId),
    Tx(&'a mut Tx),
}

impl Exec<'_> {
    pub(crate) async fn query(&mut self, sql: impl Into<Sql> + Send, args: &[Val]) -> Result<Vec<Row>> {
        match self {
            Self::Db(db, tenant) => db.query(*tenant, sql, args).await,
            Self::Tx(tx) => tx.query(sql, args).await,
        }
    }

    pub(crate) async fn query_opt(&mut self, sql: impl Into<Sql> + Send, args: &[Val]) -> Result<Option<Row>> {
        Ok(self.query(sql, args).await?.into_iter().next())
    }
}
