//! Index rows of one transaction, table by table in key order.

use super::Rows;
use medtech_kernel::{
    Result, Tx, Val,
    db::{Insert, Ty},
};

static TOK: Insert = Insert::new(
    "fhir_tok",
    &[("k", Ty::I64), ("code", Ty::I64), ("ord", Ty::I64), ("rid", Ty::I64)],
);
static REF: Insert = Insert::new(
    "fhir_ref",
    &[("tgt", Ty::I64), ("k", Ty::I64), ("ord", Ty::I64), ("rid", Ty::I64)],
);
static PC: Insert = Insert::new(
    "fhir_pc",
    &[
        ("pt", Ty::I64),
        ("k", Ty::I64),
        ("code", Ty::I64),
        ("ord", Ty::I64),
        ("rid", Ty::I64),
    ],
);
static DAT: Insert = Insert::new(
    "fhir_dat",
    &[("k", Ty::I64), ("lo", Ty::I64), ("hi", Ty::I64), ("rid", Ty::I64)],
);
static STR: Insert = Insert::new("fhir_str", &[("k", Ty::I64), ("norm", Ty::Text), ("rid", Ty::I64)]);
static QTY: Insert = Insert::new(
    "fhir_qty",
    &[("k", Ty::I64), ("unit", Ty::I64), ("v", Ty::F64), ("rid", Ty::I64)],
);
static URI: Insert = Insert::new("fhir_uri", &[("k", Ty::I64), ("uri", Ty::Text), ("rid", Ty::I64)]);

const UNTOK: &str = "DELETE FROM fhir_tok WHERE tenant = $1 AND k = $2 AND code = $3 AND ord = $4 AND rid = $5";
const UNREF: &str = "DELETE FROM fhir_ref WHERE tenant = $1 AND tgt = $2 AND k = $3 AND ord = $4 AND rid = $5";
const UNPC: &str =
    "DELETE FROM fhir_pc WHERE tenant = $1 AND pt = $2 AND k = $3 AND code = $4 AND ord = $5 AND rid = $6";
const UNDAT: &str = "DELETE FROM fhir_dat WHERE tenant = $1 AND k = $2 AND lo = $3 AND hi = $4 AND rid = $5";
const UNSTR: &str = "DELETE FROM fhir_str WHERE tenant = $1 AND k = $2 AND norm = $3 AND rid = $4";
const UNQTY: &str = "DELETE FROM fhir_qty WHERE tenant = $1 AND k = $2 AND unit = $3 AND v = $4 AND rid = $5";
const UNURI: &str = "DELETE FROM fhir_uri WHERE tenant = $1 AND k = $2 AND uri = $3 AND rid = $4";

/// Rows to add and rows to take away.
#[derive(Default)]
pub(crate) struct Batch {
    add: Tables,
    remove: Tables,
}

#[derive(Default)]
struct Tables {
    tok: Vec<[i64; 4]>,
    refs: Vec<[i64; 4]>,
    pc: Vec<[i64; 5]>,
    dat: Vec<[i64; 4]>,
    strings: Vec<(i64, String, i64)>,
    qty: Vec<(i64, i64, f64, i64)>,
    uri: Vec<(i64, String, i64)>,
}

impl Batch {
    /// What stands becomes what is wanted. `None` stands for no rows at all.
    pub(crate) fn change(&mut self, rid: i64, old: Option<Rows>, new: Option<Rows>) {
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        // Rows that carry the order are other rows when the order changes.
        let moved = old.ord != new.ord;
        let (gone, come) = difference(old.tok, new.tok, moved);
        self.remove
            .tok
            .extend(gone.into_iter().map(|(k, code)| [k, code, old.ord, rid]));
        self.add
            .tok
            .extend(come.into_iter().map(|(k, code)| [k, code, new.ord, rid]));
        let (gone, come) = difference(old.refs, new.refs, moved);
        self.remove
            .refs
            .extend(gone.into_iter().map(|(to, k)| [to, k, old.ord, rid]));
        self.add
            .refs
            .extend(come.into_iter().map(|(to, k)| [to, k, new.ord, rid]));
        let (gone, come) = difference(old.pc, new.pc, moved);
        self.remove
            .pc
            .extend(gone.into_iter().map(|(pt, k, code)| [pt, k, code, old.ord, rid]));
        self.add
            .pc
            .extend(come.into_iter().map(|(pt, k, code)| [pt, k, code, new.ord, rid]));
        let (gone, come) = difference(old.dat, new.dat, false);
        self.remove
            .dat
            .extend(gone.into_iter().map(|(k, lo, hi)| [k, lo, hi, rid]));
        self.add
            .dat
            .extend(come.into_iter().map(|(k, lo, hi)| [k, lo, hi, rid]));
        let (gone, come) = difference(old.strings, new.strings, false);
        self.remove.strings.extend(gone.into_iter().map(|(k, s)| (k, s, rid)));
        self.add.strings.extend(come.into_iter().map(|(k, s)| (k, s, rid)));
        let (gone, come) = difference(old.qty, new.qty, false);
        self.remove.qty.extend(gone.into_iter().map(|(k, u, v)| (k, u, v, rid)));
        self.add.qty.extend(come.into_iter().map(|(k, u, v)| (k, u, v, rid)));
        let (gone, come) = difference(old.uri, new.uri, false);
        self.remove.uri.extend(gone.into_iter().map(|(k, s)| (k, s, rid)));
        self.add.uri.extend(come.into_iter().map(|(k, s)| (k, s, rid)));
    }

    pub(crate) async fn write(self, tx: &mut Tx) -> Result<()> {
        self.remove.remove(tx).await?;
        self.add.insert(tx).await
    }
}

fn difference<T: PartialEq>(old: Vec<T>, new: Vec<T>, all: bool) -> (Vec<T>, Vec<T>) {
    if all || old.is_empty() {
        return (old, new);
    }
    // A resource has tens of rows: comparing each with each is cheaper than hashing.
    let kept: Vec<bool> = new.iter().map(|n| old.contains(n)).collect();
    let gone = old.into_iter().filter(|o| !new.contains(o)).collect();
    let come = new
        .into_iter()
        .zip(kept)
        .filter(|(_, kept)| !kept)
        .map(|(n, _)| n)
        .collect();
    (gone, come)
}

fn numbers<const N: usize>(mut rows: Vec<[i64; N]>) -> Vec<Val> {
    rows.sort_unstable();
    rows.into_iter().flatten().map(Val::I64).collect()
}

fn texts(mut rows: Vec<(i64, String, i64)>) -> Vec<Val> {
    rows.sort_unstable();
    rows.into_iter()
        .flat_map(|(k, text, rid)| [Val::I64(k), Val::from(text), Val::I64(rid)])
        .collect()
}

impl Tables {
    async fn insert(mut self, tx: &mut Tx) -> Result<()> {
        tx.insert(&TOK, &numbers(self.tok)).await?;
        tx.insert(&REF, &numbers(self.refs)).await?;
        tx.insert(&PC, &numbers(self.pc)).await?;
        tx.insert(&DAT, &numbers(self.dat)).await?;
        tx.insert(&STR, &texts(self.strings)).await?;
        self.qty
            .sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
        let qty: Vec<Val> = self
            .qty
            .into_iter()
            .flat_map(|(k, u, v, rid)| [Val::I64(k), Val::I64(u), Val::F64(v), Val::I64(rid)])
            .collect();
        tx.insert(&QTY, &qty).await?;
        tx.insert(&URI, &texts(self.uri)).await?;
        Ok(())
    }

    async fn remove(self, tx: &mut Tx) -> Result<()> {
        for (sql, rows) in [(UNTOK, self.tok), (UNREF, self.refs), (UNDAT, self.dat)] {
            for row in rows {
                tx.exec(sql, &row.map(Val::I64)).await?;
            }
        }
        for row in self.pc {
            tx.exec(UNPC, &row.map(Val::I64)).await?;
        }
        for (sql, rows) in [(UNSTR, self.strings), (UNURI, self.uri)] {
            for (k, text, rid) in rows {
                tx.exec(sql, &[k.into(), text.into(), rid.into()]).await?;
            }
        }
        for (k, unit, v, rid) in self.qty {
            tx.exec(UNQTY, &[k.into(), unit.into(), v.into(), rid.into()]).await?;
        }
        Ok(())
    }
}
