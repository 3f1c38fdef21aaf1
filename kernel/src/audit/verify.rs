//! The walk over a chain that finds what was tampered with: an edited, deleted, exchanged or invented entry by the hashes, a
//! cut tail by the checkpoints of the table and of the file outside of the database.

use super::{
    Linked, More, as_hash,
    checkpoint::{Checkpoint, Log, in_table},
    concerned, list_digest,
};
use crate::{Ctx, Db, Result, TenantId, clock::Millis};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// Rows read at once: a few milliseconds of a thread.
const PAGE: i64 = 2000;
const CHAIN: &str = "SELECT seq, at, actor, action, target, outcome, detail, patient, hash,
    session, network, issued, digest, concerned FROM audit WHERE tenant = $1 AND seq > $2 AND seq <= $3 ORDER BY seq";
const NEXT: &str = "SELECT seq FROM audit WHERE tenant = $1 AND seq > $2 ORDER BY seq LIMIT 1";
const ONE: &str = "SELECT hash FROM audit WHERE tenant = $1 AND seq = $2";
/// More places than a person will look at.
const MOST: usize = 100;

/// Something that is not as it was written. `seq` names the entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// The entry does not follow from the one before: it, or that one's hash, was edited, exchanged or invented.
    Altered { seq: i64 },
    /// Entries `seq` to `until` are gone.
    Missing { seq: i64, until: i64 },
    /// The chain ends before an entry that a checkpoint has seen; `seq` is the first that is gone for certain.
    Truncated { seq: i64, signed: i64 },
    /// The entry is not the one that a checkpoint has seen: the chain was written anew.
    Rewritten { seq: i64 },
    /// The checkpoint does not carry this installation's signature.
    Forged { seq: i64 },
    /// The checkpoint stands in the file, and was deleted from the table.
    CheckpointGoneFromTable { seq: i64 },
    /// The checkpoint stands in the table, and was deleted from the file; or the whole file is gone.
    CheckpointGoneFromFile { seq: i64 },
    /// The list of the patients whom the entry is about was edited, or put to an entry that has none.
    PatientsAltered { seq: i64 },
    /// Line `line` of the file is no checkpoint.
    Unreadable { line: usize },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered { seq } => write!(f, "entry {seq} was altered, exchanged or invented"),
            Self::Missing { seq, until } if seq == until => write!(f, "entry {seq} was deleted"),
            Self::Missing { seq, until } => write!(f, "entries {seq} to {until} were deleted"),
            Self::Truncated { seq, signed } => {
                write!(f, "the end was cut off: entries {seq} to at least {signed} are gone")
            }
            Self::Rewritten { seq } => write!(f, "entry {seq} is not the one that was signed: the chain was rewritten"),
            Self::Forged { seq } => write!(f, "the checkpoint at entry {seq} is not signed with our key"),
            Self::CheckpointGoneFromTable { seq } => {
                write!(f, "the checkpoint at entry {seq} was deleted from the table")
            }
            Self::CheckpointGoneFromFile { seq } => {
                write!(f, "the checkpoint at entry {seq} is not in the file of checkpoints")
            }
            Self::PatientsAltered { seq } => write!(f, "the list of the patients of entry {seq} was altered"),
            Self::Unreadable { line } => write!(f, "line {line} of the file of checkpoints is damaged"),
        }
    }
}

/// The outcome of an examination.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub intact: bool,
    /// Entries walked.
    pub entries: i64,
    /// At most 100; there may be more.
    pub findings: Vec<Finding>,
    /// Signed checkpoints found, in the table or in the file.
    pub checkpoints: usize,
    /// The last entry that a checkpoint vouches for: a cut behind it cannot be seen.
    pub vouched: i64,
    /// When that checkpoint was signed, Unix milliseconds.
    pub vouched_at: Option<Millis>,
    /// True where the file begins later than the table: it was lost, or put aside, and begun anew.
    pub file_begins_late: bool,
    /// Checkpoints of the table behind the end of this server's file: of another server, and taken over at the next look.
    pub beyond_file: usize,
}

/// Walks a tenant's chain and holds it against every checkpoint.
pub async fn examine(ctx: &Ctx, tenant: TenantId) -> Result<Report> {
    // Both before the entries, and the table before the file, in the opposite order of writing: what comes in meanwhile is
    // then never taken for missing.
    let table = in_table(ctx, tenant).await?;
    let file = Log::of(ctx, tenant).read()?;
    let mut signed: BTreeMap<i64, Vec<&Checkpoint>> = BTreeMap::new();
    let mut findings = Vec::new();
    for c in table.iter().chain(&file.checkpoints) {
        if c.is_ours(&ctx.root, tenant) {
            signed.entry(c.seq).or_default().push(c);
        } else {
            findings.push(Finding::Forged { seq: c.seq });
        }
    }
    findings.extend(file.damaged.iter().map(|line| Finding::Unreadable { line: *line }));
    differences(&table, &file.checkpoints, file.exists, &mut findings);

    let mut hashes: HashMap<i64, [u8; 32]> = HashMap::with_capacity(signed.len());
    let mut walk = Walk::default();
    walk.run(&ctx.db, tenant, |seq, hash| {
        if signed.contains_key(&seq) {
            hashes.insert(seq, *hash);
        }
    })
    .await?;
    findings.append(&mut walk.findings);
    if let Some((last, _)) = signed.last_key_value().filter(|(seq, _)| **seq > walk.seq) {
        findings.push(Finding::Truncated {
            seq: walk.seq + 1,
            signed: *last,
        });
    }
    for (seq, all) in &signed {
        if let Some(hash) = hashes.get(seq)
            && all.iter().any(|c| c.hash != *hash)
        {
            findings.push(Finding::Rewritten { seq: *seq });
        }
    }
    findings.dedup();
    findings.truncate(MOST);
    let newest = signed.last_key_value().and_then(|(_, all)| all.first());
    Ok(Report {
        intact: findings.is_empty(),
        entries: walk.count,
        checkpoints: signed.len(),
        vouched: newest.map_or(0, |c| c.seq),
        vouched_at: newest.map(|c| c.at),
        file_begins_late: match (table.first(), file.checkpoints.first()) {
            (Some(t), Some(f)) => f.seq > t.seq,
            _ => false,
        },
        beyond_file: table.iter().filter(|c| is_beyond(c, &file.checkpoints)).count(),
        findings,
    })
}

/// Behind the end of this server's file: it was signed elsewhere. Where there is no line nothing is.
fn is_beyond(c: &Checkpoint, file: &[Checkpoint]) -> bool {
    file.iter().map(|f| f.seq).max().is_some_and(|end| c.seq > end)
}

/// Table and file must hold the same, but for what a stop between their two writings explains, for what is older than a file
/// that was begun anew, and for what another server has signed since this one looked.
fn differences(table: &[Checkpoint], file: &[Checkpoint], exists: bool, findings: &mut Vec<Finding>) {
    let newest = table.last().map_or(0, |c| c.seq);
    for (i, c) in file.iter().enumerate() {
        let unsettled = i + 1 == file.len() && c.seq > newest;
        if !unsettled && !table.iter().any(|t| t.seq == c.seq) {
            findings.push(Finding::CheckpointGoneFromTable { seq: c.seq });
        }
    }
    let begins = file.first().map_or(0, |c| c.seq);
    for c in table {
        let wanted = !exists || (c.seq >= begins && !is_beyond(c, file));
        if wanted && !file.iter().any(|f| f.seq == c.seq) {
            findings.push(Finding::CheckpointGoneFromFile { seq: c.seq });
        }
    }
}

/// Walks a tenant's chain alone, without checkpoints. `Ok(Err(seq))` names the first entry that does not follow from the one
/// before.
pub async fn verify(db: &Db, tenant: TenantId) -> Result<std::result::Result<i64, i64>> {
    let mut walk = Walk::default();
    walk.run(db, tenant, |_, _| {}).await?;
    Ok(match walk.findings.first() {
        None => Ok(walk.seq),
        Some(Finding::Missing { until, .. }) => Err(until + 1),
        Some(Finding::Altered { seq }) => Err(*seq),
        Some(_) => Err(walk.seq),
    })
}

/// A walk in progress.
#[derive(Default)]
pub(super) struct Walk {
    /// The last entry seen, and its hash as stored.
    pub(super) seq: i64,
    pub(super) hash: [u8; 32],
    pub(super) count: i64,
    pub(super) findings: Vec<Finding>,
}

impl Walk {
    pub(super) fn from(seq: i64, hash: [u8; 32]) -> Self {
        Self {
            seq,
            hash,
            ..Self::default()
        }
    }

    /// Does the entry at which the walk stands have the hash it stands on?
    pub(super) async fn confirms(&self, db: &Db, tenant: TenantId) -> Result<bool> {
        let row = db.query_opt(tenant, ONE, &[self.seq.into()]).await?;
        Ok(row.is_some_and(|r| r.blob(0).is_ok_and(|h| h == self.hash)))
    }

    /// Goes on to the end, in pages; `seen` is told every entry.
    pub(super) async fn run(
        &mut self,
        db: &Db,
        tenant: TenantId,
        mut seen: impl FnMut(i64, &[u8; 32]) + Send,
    ) -> Result<()> {
        let mut bytes = Vec::with_capacity(512);
        // From the very beginning, also what somebody put before the first entry.
        let mut at = if self.seq == 0 { i64::MIN } else { self.seq };
        loop {
            // Bounded on both sides: PostgreSQL, before it has statistics, sorts all that is left for each page otherwise.
            let until = at.saturating_add(PAGE);
            let rows = db.query(tenant, CHAIN, &[at.into(), until.into()]).await?;
            if rows.is_empty() {
                match db.query_opt(tenant, NEXT, &[at.into()]).await? {
                    Some(next) => at = next.i64(0)?.saturating_sub(1),
                    None => return Ok(()),
                }
                continue;
            }
            let mut lists = concerned(db, tenant, at.saturating_add(1)..=until).await?;
            at = until;
            for r in &rows {
                let list = lists.remove(&r.i64(0)?).map(|p| list_digest(&p));
                let linked = Linked {
                    seq: r.i64(0)?,
                    at: r.i64(1)?,
                    fields: [r.text(2)?, r.text(3)?, r.text(4)?, r.text(5)?, r.text(6)?],
                    patient: r.opt_text(7)?,
                    more: More {
                        session: r.opt_uuid(9)?,
                        network: r.opt_text(10)?,
                        issued: r.opt_text(11)?,
                        digest: r.opt_blob(12)?,
                        concerned: r.opt_blob(13)?,
                    },
                };
                if linked.more.concerned != list.as_ref().map(<[u8; 32]>::as_slice) && self.findings.len() < MOST {
                    self.findings.push(Finding::PatientsAltered { seq: linked.seq });
                }
                self.step(&linked, as_hash(r.blob(8)?), &mut bytes);
                seen(self.seq, &self.hash);
            }
            if let Some(seq) = lists.into_keys().next().filter(|_| self.findings.len() < MOST) {
                self.findings.push(Finding::PatientsAltered { seq });
            }
            // On SQLite nothing above waits: let others have the thread.
            tokio::task::yield_now().await;
        }
    }

    /// After a break the walk goes on from what is stored, so that each place is named once.
    fn step(&mut self, entry: &Linked<'_>, stored: [u8; 32], bytes: &mut Vec<u8>) {
        let fits = entry.hash(&self.hash, bytes) == stored;
        if self.findings.len() < MOST {
            let next = self.seq.saturating_add(1);
            if entry.seq > next {
                let (seq, until) = (next, entry.seq - 1);
                self.findings.push(Finding::Missing { seq, until });
            } else if !fits || entry.seq < next {
                self.findings.push(Finding::Altered { seq: entry.seq });
            }
        }
        self.seq = entry.seq;
        self.hash = stored;
        self.count += 1;
    }
}
