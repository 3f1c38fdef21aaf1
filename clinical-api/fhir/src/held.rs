//! The store held against the audit trail: every version is what the entry of its writing says it was. Found by that: a version
//! that was edited, dropped, exchanged or brought back behind the server's back, also by whoever holds the keys.

use crate::{
    Fhir,
    definitions::ResourceDef,
    engine::type_of,
    store::{self, Checked, Exec, Left},
};
use medtech_kernel::{
    Result, TenantId,
    audit::{self, Fault, Held, Written},
    clock::Millis,
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What the digest of a version is made for.
pub(crate) const VERSION: &str = "fhir.version";
/// Versions held in memory at once; a larger store is walked in several rounds.
const AT_ONCE: i64 = 250_000;
/// Entries of the trail looked through at once.
const STEP: i64 = 4000;

/// What an entry of the trail says of one version.
struct Claim {
    def: &'static ResourceDef,
    id: String,
    version: i64,
    deleted: bool,
    seq: i64,
    at: Millis,
    patient: Option<String>,
    digest: [u8; 32],
}

impl Claim {
    fn name(&self) -> String {
        format!("{}/{}/_history/{}", self.def.name, self.id, self.version)
    }
}

/// The versions of an entry: `Type/id` with `version N`, or a Bundle with `create Type/id/_history/N, ...`.
fn claims(entry: &Written) -> Vec<Claim> {
    let one = |name: &str, version: &str, deleted: bool, digest| {
        let (ty, id) = name.split_once('/')?;
        Some(Claim {
            def: type_of(ty).ok()?,
            id: id.to_owned(),
            version: version.parse().ok()?,
            deleted,
            seq: entry.seq,
            at: entry.at,
            patient: entry.patient.clone(),
            digest,
        })
    };
    if entry.target != "Bundle" {
        let version = entry.detail.strip_prefix("version ");
        let deleted = entry.action == "delete";
        let digest = entry.digests().next();
        return version
            .zip(digest)
            .and_then(|(v, digest)| one(&entry.target, v, deleted, digest))
            .into_iter()
            .collect();
    }
    entry
        .detail
        .split(", ")
        .filter(|part| part.contains("/_history/"))
        .zip(entry.digests())
        .filter_map(|(part, digest)| {
            let (op, of) = part.split_once(' ')?;
            let (name, version) = of.rsplit_once("/_history/")?;
            one(name, version, op == "delete", digest)
        })
        .collect()
}

/// What was erased, and when: by the entries of the trail, and by the ledger, which comes first.
struct Erased(HashMap<String, Millis>);

impl Erased {
    /// Was this about a patient whose record was erased afterwards?
    fn covers(&self, claim: &Claim) -> bool {
        let at = claim.patient.as_ref().and_then(|p| self.0.get(p));
        // Erasing deletes first, which is written then.
        at.is_some_and(|at| claim.deleted || claim.at <= *at)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    Erased,
    /// It is there as it was written, though its patient was erased.
    Back,
    Wrong(Fault),
}

fn judge(row: &Checked, claim: &Claim, erased: &Erased) -> Verdict {
    let digest = match row.left {
        Left::Digest(digest) => digest,
        Left::Shredded if erased.covers(claim) => return Verdict::Erased,
        Left::Shredded | Left::Broken => return Verdict::Wrong(Fault::Unreadable),
    };
    let same = row.deleted == claim.deleted && row.ty.is_none_or(|ty| ty == claim.def.number);
    if same && digest == claim.digest {
        return if !claim.deleted && erased.covers(claim) {
            Verdict::Back
        } else {
            Verdict::Right
        };
    }
    if same && row.empty && claim.deleted && erased.covers(claim) {
        return Verdict::Erased;
    }
    Verdict::Wrong(Fault::Altered)
}

/// A version that is not there: was every patient erased whom it was about, or some?
struct Missing {
    all: bool,
    some: bool,
    rid: Option<i64>,
    seq: i64,
}

impl Fhir {
    /// Holds every version of a clinic's store against its chain, which must be verified besides: this proves that the store
    /// is what the chain says, not that the chain is right.
    pub async fn held(&self, tenant: TenantId) -> Result<Held> {
        let (ctx, mut held) = (&self.0.ctx, Held::default());
        let (count, last) = store::extent(&ctx.db, tenant).await?;
        let rounds = count / AT_ONCE + 1;
        let step = last / rounds + 1;
        for round in 0..rounds {
            let from = if round == 0 { i64::MIN } else { round * step };
            let until = if round + 1 == rounds {
                i64::MAX
            } else {
                (round + 1) * step
            };
            self.hold(tenant, from..until, &mut held).await?;
        }
        Ok(held)
    }

    /// The rows with numbers in this range.
    async fn hold(&self, tenant: TenantId, rids: std::ops::Range<i64>, held: &mut Held) -> Result<()> {
        let (db, shelf) = (&self.0.ctx.db, self.shelf(tenant));
        // In this order, whatever is written meanwhile: an entry up to `known` has its version there, a version has its
        // entry up to the later end, and what moves into the history is seen in one of the two places, or in both.
        let known = audit::end(db, tenant).await?;
        let mut rows: HashMap<(i64, i64), Checked> = HashMap::new();
        store::checked(db, tenant, rids.clone(), &mut |row| {
            rows.insert((row.rid, row.version), row);
        })
        .await?;
        let gone: HashSet<i64> = rows
            .values()
            .filter(|row| row.deleted && row.empty || row.left == Left::Shredded)
            .map(|row| row.rid)
            .collect();
        let end = audit::end(db, tenant).await?;
        let erased = self.erased(tenant).await?;
        let mut begins = None;
        let mut seen: HashMap<(i64, i64), (Verdict, i64)> = HashMap::new();
        let mut missing: BTreeMap<String, Missing> = BTreeMap::new();
        let mut after = 0;
        while after < end {
            let to = (after + STEP).min(end);
            let entries = audit::written(db, tenant, after, to).await?;
            after = to;
            for claim in entries.iter().flat_map(claims) {
                begins = begins.or(Some(claim.at));
                let rid = store::resolve(&mut Exec::Db(db, tenant), &shelf, claim.def, &claim.id).await?;
                // A client's id that nobody knows any more is looked at once.
                if !rids.contains(&rid.unwrap_or(i64::MIN)) {
                    continue;
                }
                let key = rid.map(|rid| (rid, claim.version));
                let Some((key, row)) = key.and_then(|key| Some((key, rows.get(&key)?))) else {
                    let covered = erased.covers(&claim);
                    let found = missing.entry(claim.name()).or_insert(Missing {
                        all: true,
                        some: false,
                        rid,
                        seq: claim.seq,
                    });
                    found.all &= covered;
                    found.some |= covered;
                    continue;
                };
                let now = judge(row, &claim, &erased);
                let verdict = seen.entry(key).or_insert((now, claim.seq));
                // An entry for each patient tells of it. It is rightly there while one of them was not erased; and what is
                // wrong by one entry is wrong.
                if verdict.0 == Verdict::Back || matches!(now, Verdict::Wrong(_)) && verdict.0 != Verdict::Erased {
                    verdict.0 = now;
                }
            }
        }
        for (name, found) in missing {
            if found.all || found.some && found.rid.is_none_or(|rid| gone.contains(&rid)) {
                held.erased += 1;
            } else if found.seq <= known {
                held.differs(name, Fault::Lost, Some(found.seq));
            }
        }
        for (key, row) in &rows {
            let name = || format!("{}/_history/{}", row.name(&shelf), row.version);
            match seen.get(key) {
                Some((Verdict::Right, _)) => held.right += 1,
                Some((Verdict::Erased, _)) => held.erased += 1,
                Some((Verdict::Back, seq)) => held.differs(name(), Fault::BroughtBack, Some(*seq)),
                Some((Verdict::Wrong(fault), seq)) => held.differs(name(), *fault, Some(*seq)),
                None if begins.is_none_or(|at| row.updated < at) => held.uncovered += 1,
                None => held.differs(name(), Fault::Invented, None),
            }
        }
        Ok(())
    }

    async fn erased(&self, tenant: TenantId) -> Result<Erased> {
        let ctx = &self.0.ctx;
        let listed = ctx.vault.erased(tenant)?.into_iter();
        let patients = listed.filter(|e| e.class == "patient").map(|e| (e.subject, e.at));
        let mut all: HashMap<String, Millis> = patients.collect();
        for (patient, at) in audit::erased(&ctx.db, tenant, "key:patient/").await? {
            let known = all.entry(patient).or_insert(at);
            *known = at.max(*known);
        }
        Ok(Erased(all))
    }
}

#[cfg(test)]
mod tests;
