//! The write path inside a transaction: versions, interning, index rows, history, log, audit, events.

use super::{Cover, Exec, Shelf, Stored, current, intern::State, sealed};
use crate::{
    codec,
    definitions::ResourceDef,
    extract::{Extracted, Reference},
    index::{Batch, Rows},
    outcome::Failure,
    search::{self, Access},
    ties,
};
use medtech_kernel::{
    Error, Tx, Val,
    bus::{Bus, Event},
    clock::Millis,
    db::{Insert, Ty},
    policy::{self, Treatment, consent},
    scope::Letter,
};
use serde::Serialize;
use std::borrow::Cow;

/// Who writes, and what they may see and change.
#[derive(Clone, Debug)]
pub(crate) struct By {
    pub(crate) subject: String,
    pub(crate) access: Access,
}

/// A module, which answers for what it writes in the clinic's name.
impl From<&str> for By {
    fn from(subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            access: Access::All,
        }
    }
}

/// What a change does, as numbered in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Create = 1,
    Update = 2,
    Delete = 3,
}

impl Op {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    pub(crate) fn parse(number: i64) -> Self {
        match number {
            1 => Self::Create,
            3 => Self::Delete,
            _ => Self::Update,
        }
    }
}

/// Which row is meant.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A new resource under a number reserved for it.
    New(i64),
    /// A logical id as the request gave it; made here by the client if it is not ours.
    Id(String),
}

/// A new body, ready to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) stored: String,
    pub(crate) packed: Vec<u8>,
    pub(crate) found: Extracted,
}

/// One change, prepared.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) def: &'static ResourceDef,
    pub(crate) target: Target,
    /// `None` deletes.
    pub(crate) body: Option<Body>,
    /// The version that must be current.
    pub(crate) if_match: Option<i64>,
    /// The change must make the resource, not replace it (`If-None-Match: *`).
    pub(crate) must_be_new: bool,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) def: &'static ResourceDef,
    pub(crate) id: String,
    pub(crate) version: i64,
    pub(crate) updated: i64,
    pub(crate) op: Op,
    /// False where there was nothing to do (deleting what is not there).
    pub(crate) changed: bool,
    pub(crate) stored: String,
    /// Patients whose records it changes, before and after.
    pub(crate) patients: Vec<String>,
}

static RES: Insert = Insert::new(
    "fhir_res",
    &[
        ("rid", Ty::I64),
        ("ty", Ty::I64),
        ("ver", Ty::I64),
        ("upd", Ty::I64),
        ("del", Ty::I64),
        ("ord", Ty::I64),
        ("dict", Ty::I64),
        ("body", Ty::Blob),
    ],
)
.or_skip();
static HIST: Insert = Insert::new(
    "fhir_hist",
    &[
        ("rid", Ty::I64),
        ("ver", Ty::I64),
        ("upd", Ty::I64),
        ("op", Ty::I64),
        ("dict", Ty::I64),
        ("body", Ty::Blob),
    ],
);
static LOG: Insert = Insert::new(
    "fhir_log",
    &[
        ("ty", Ty::I64),
        ("rid", Ty::I64),
        ("ver", Ty::I64),
        ("op", Ty::I64),
        ("at", Ty::I64),
    ],
);
const REPLACE: &str = "UPDATE fhir_res SET ver = $3, upd = $4, del = $5, ord = $6, dict = $7, body = $8
    WHERE tenant = $1 AND rid = $2 AND ver = $9";

/// Body of the durable event `fhir.{Type}.changed`.
#[derive(Serialize)]
struct Changed<'a> {
    r#type: &'a str,
    id: &'a str,
    version: i64,
    op: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient: Option<&'a str>,
    /// The codes of its `category`, by which a consumer tells at once whether it is concerned.
    categories: &'a [String],
}

/// Applies changes in order, all or none. Index rows go to the tables together, in key order.
pub(crate) async fn apply(
    tx: &mut Tx,
    shelf: &std::sync::Arc<Shelf>,
    bus: &Bus,
    base: &str,
    by: &By,
    changes: Vec<Change>,
) -> Result<Vec<Written>, Failure> {
    let now = tx.now();
    let mut gate = Gate::new(by, base, shelf, &changes);
    let mut state = State::default();
    let mut batch = Batch::default();
    let (mut res, mut hist, mut log) = (Vec::new(), Vec::new(), Vec::new());
    let mut made = 0_u64;
    let mut made_of = Vec::new();
    let mut written = Vec::with_capacity(changes.len());
    for mut change in changes {
        let (rid, id, ours) = state.row(tx, shelf, &change).await?;
        let old = match change.target {
            Target::New(_) => None,
            Target::Id(_) => current(&mut Exec::Tx(tx), change.def, rid).await?,
        };
        let version = old.as_ref().map_or(0, |o| o.version) + 1;
        let there = old.as_ref().filter(|o| !o.deleted);
        // What its writer may not see is, for them, not there.
        let seen = match there {
            Some(o) => gate.sees(tx, shelf, change.def, o).await?,
            None => true,
        };
        let alive = there.filter(|_| seen);
        if let Some(wanted) = change.if_match
            && alive.map(|o| o.version) != Some(wanted)
        {
            return Err(Failure::Stale { named: true });
        }
        if change.must_be_new && alive.is_some() {
            return Err(Failure::Stale { named: true });
        }
        if (old.is_none() || !seen) && ours && matches!(change.target, Target::Id(_)) && change.body.is_some() {
            return Err(Failure::one(
                medtech_kernel::error::Kind::BadRequest,
                "value",
                format!("{id} has the form of an id of this server, but names nothing; choose another"),
            ));
        }
        if change.body.is_none() && alive.is_none() {
            let version = old.as_ref().filter(|_| seen).map_or(0, |o| o.version);
            written.push(Written {
                def: change.def,
                id,
                version,
                updated: now,
                op: Op::Delete,
                changed: false,
                stored: String::new(),
                patients: Vec::new(),
            });
            continue;
        }
        if !seen {
            return Err(refused());
        }
        let mut concerned = Vec::new();
        let op = match (&change.body, &old) {
            (None, _) => Op::Delete,
            (Some(_), None) => Op::Create,
            (Some(_), Some(_)) => Op::Update,
        };
        let old_rows = match alive {
            None => None,
            Some(o) => {
                let mut found = change.def.plan().run(&o.value()?, base);
                gate.may(op, change.def, &id, &found)?;
                gate.fits(tx, shelf, op, change.def, rid).await?;
                // Rows of an older release go as they came.
                if let Some(veil) = &shelf.veil {
                    veil.over(o.cover, change.def, &mut found)?;
                }
                concerned.extend(patients(change.def, &found).map(str::to_owned));
                state.intern(tx, shelf, &found).await?;
                Some(Rows::build(change.def, rid, o.updated, &found, &state.names))
            }
        };
        if let Some(body) = &mut change.body {
            gate.settle(change.def, &id, alive, body, ours)?;
        }
        let new_rows = match &change.body {
            None => None,
            Some(body) => {
                gate.may(op, change.def, &id, &body.found)?;
                concerned.extend(patients(change.def, &body.found).map(str::to_owned));
                state.intern(tx, shelf, &body.found).await?;
                let found = match &shelf.veil {
                    Some(veil) => {
                        let mut found = body.found.clone();
                        veil.over(Cover::ALL, change.def, &mut found)?;
                        Cow::Owned(found)
                    }
                    None => Cow::Borrowed(&body.found),
                };
                Some(Rows::build(change.def, rid, now, &found, &state.names))
            }
        };
        if change.def.name == "Patient" {
            concerned = vec![id.clone()];
        }
        concerned.sort_unstable();
        concerned.dedup();
        let found = change.body.as_ref().map(|b| &b.found);
        let patient = patient_of(change.def, &id, found);
        let categories = found.map_or(Vec::new(), |found| categories(change.def, found));
        let ord = new_rows
            .as_ref()
            .or(old_rows.as_ref())
            .map_or(crate::index::UNDATED, |r| r.ord);
        let (stored, [dict, packed]) = match change.body {
            Some(body) => {
                let mut about: Vec<String> = match change.def.name {
                    "Patient" => vec![id.clone()],
                    _ => patients(change.def, &body.found).map(str::to_owned).collect(),
                };
                about.sort_unstable();
                about.dedup();
                let sealed = sealed::seal(tx, &about, rid, version, &body.packed).await?;
                (body.stored, sealed)
            }
            None if ours => (String::new(), [codec::CURRENT.into(), Val::Null(Ty::Blob)]),
            None => {
                // A client's id must stay readable in the history.
                let rest = codec::stored(change.def.name, &serde_json::Value::Null, Some(&id));
                let packed = codec::compress(&rest)?;
                (rest, [codec::CURRENT.into(), packed.into()])
            }
        };
        let deleted = i64::from(op == Op::Delete);
        batch.change(rid, old_rows, new_rows);
        match old {
            None => {
                made += 1;
                res.extend([
                    rid.into(),
                    change.def.number.into(),
                    version.into(),
                    now.into(),
                    deleted.into(),
                    ord.into(),
                    dict,
                    packed,
                ]);
            }
            Some(old) => {
                keep(tx, &mut hist, &old, rid).await?;
                let args = [
                    rid.into(),
                    version.into(),
                    now.into(),
                    deleted.into(),
                    ord.into(),
                    dict,
                    packed,
                    old.version.into(),
                ];
                if tx.exec(REPLACE, &args).await? != 1 {
                    return Err(Failure::Stale {
                        named: change.if_match.is_some(),
                    });
                }
            }
        }
        log.extend([change.def.number, rid, version, op as i64, now].map(Val::I64));
        gate.after(tx, bus, op, change.def, &id, &stored).await?;
        record(
            tx,
            bus,
            &by.subject,
            &Changed {
                r#type: change.def.name,
                id: &id,
                version,
                op: op.name(),
                patient: patient.as_deref(),
                categories: &categories,
            },
        )
        .await?;
        if op != Op::Delete {
            made_of.push((op, change.def, rid));
        }
        written.push(Written {
            def: change.def,
            id,
            version,
            updated: now,
            op,
            changed: true,
            stored,
            patients: concerned,
        });
    }
    if tx.insert(&RES, &res).await? != made {
        return Err(Failure::Stale { named: false });
    }
    tx.insert(&HIST, &hist).await?;
    tx.insert(&LOG, &log).await?;
    batch.write(tx).await?;
    // Nor may a change lead out of what the scopes leave: asked of the rows, as a search would.
    for (op, def, rid) in made_of {
        gate.fits(tx, shelf, op, def, rid).await?;
    }
    state.publish(tx, shelf);
    Ok(written)
}

/// A clinician who registers a patient treats them for this long without another reason: time to book or to see them.
const REGISTERED: Millis = 7 * 86_400_000;

fn refused() -> Failure {
    Error::forbidden("fhir.denied", "You may not change this record here.").into()
}

fn letter(op: Op) -> Letter {
    match op {
        Op::Create => Letter::Create,
        Op::Update => Letter::Update,
        Op::Delete => Letter::Delete,
    }
}

/// What the writer may change.
struct Gate<'a> {
    by: &'a By,
    base: &'a str,
    /// Patients made by the same request: nobody else has anything of theirs yet.
    made: Vec<String>,
}

impl<'a> Gate<'a> {
    fn new(by: &'a By, base: &'a str, shelf: &Shelf, changes: &[Change]) -> Self {
        let made = changes.iter().filter_map(|c| match &c.target {
            Target::New(rid) if c.def.name == "Patient" => Some(shelf.ids.id(*rid)),
            _ => None,
        });
        Self {
            by,
            base,
            made: made.collect(),
        }
    }

    fn is_open(&self) -> bool {
        self.by.access == Access::All || policy::seeded("write reach")
    }

    async fn sees(&self, tx: &mut Tx, shelf: &Shelf, def: &'static ResourceDef, old: &Stored) -> Result<bool, Failure> {
        let view = self.by.access.view(def.name, Letter::Read);
        if self.is_open() || view.is_everything() {
            return Ok(true);
        }
        search::sees(
            &mut Exec::Tx(tx),
            shelf,
            self.base,
            def,
            &self.by.access,
            &view,
            old,
            None,
        )
        .await
    }

    /// 403 unless the resource, as its rows now stand, is one that the scopes leave to this change.
    async fn fits(
        &self,
        tx: &mut Tx,
        shelf: &Shelf,
        op: Op,
        def: &'static ResourceDef,
        rid: i64,
    ) -> Result<(), Failure> {
        let (access, exec) = (&self.by.access, &mut Exec::Tx(tx));
        let open = self.is_open() || policy::seeded("scopes");
        if open || search::fits_scopes(exec, shelf, self.base, def, access, letter(op), rid).await? {
            return Ok(());
        }
        Err(Error::forbidden("auth.scope", "The application was not given access to this.").into())
    }

    /// 403 unless everyone whose resource it is, is someone whose record they may write.
    fn may(&mut self, op: Op, def: &'static ResourceDef, id: &str, found: &Extracted) -> Result<(), Failure> {
        if self.is_open() {
            return Ok(());
        }
        let letter = letter(op);
        if op == Op::Create && def.name == "Patient" {
            self.made.push(id.to_owned());
        }
        let all = search::owners(def, id, found);
        let others: Vec<String> = all.iter().filter(|p| !self.made.contains(p)).cloned().collect();
        let view = self.by.access.view(def.name, letter);
        let given = !view.is_nothing() || view.why == "policy.relationship";
        let fits = if !all.is_empty() && others.is_empty() {
            given
        } else {
            view.takes(&others)
        };
        if fits { Ok(()) } else { Err(refused()) }
    }

    /// Element by element: refused where one may not be changed, completed by what its writer cannot see.
    fn settle(
        &self,
        def: &'static ResourceDef,
        id: &str,
        old: Option<&Stored>,
        body: &mut Body,
        ours: bool,
    ) -> Result<(), Failure> {
        let Access::Sight(sight) = &self.by.access else {
            return Ok(());
        };
        if self.is_open() {
            return Ok(());
        }
        let letter = if old.is_some() { Letter::Update } else { Letter::Create };
        let mut owners = search::owners(def, id, &body.found);
        owners.retain(|p| !self.made.contains(p));
        let limit = sight.writes(def.name, letter, &owners);
        let before = old.map(Stored::value).transpose()?;
        let hidden = match &before {
            // Whose it was decides what was hidden.
            Some(before) => {
                let owners = search::owners(def, id, &def.places().run(before, self.base));
                self.by.access.view(def.name, Letter::Read).hidden(&owners)
            }
            None => &[],
        };
        if limit.is_none() && hidden.is_empty() {
            return Ok(());
        }
        let sent: serde_json::Value =
            serde_json::from_str(&body.stored).map_err(|e| Error::internal("fhir.body_not_json", e))?;
        if let Some(whole) = super::fields::settle(def.name, before.as_ref(), &sent, hidden, limit.as_ref())? {
            let stored = codec::stored(def.name, &whole, Some(id).filter(|_| !ours));
            *body = Body {
                packed: codec::compress(&stored)?,
                found: def.plan().run(&whole, self.base),
                stored,
            };
        }
        Ok(())
    }

    /// What follows for access from what was written.
    async fn after(
        &self,
        tx: &mut Tx,
        bus: &Bus,
        op: Op,
        def: &'static ResourceDef,
        id: &str,
        stored: &str,
    ) -> Result<(), Failure> {
        if def.name == "Consent" {
            let consent = if op == Op::Delete {
                None
            } else {
                serde_json::from_str(stored).ok()
            };
            consent::replace(tx, id, consent.as_ref()).await?;
            policy::announce(bus, tx, None)?;
        }
        if ties::says(def.name) {
            let body = if op == Op::Delete {
                None
            } else {
                serde_json::from_str(stored).ok()
            };
            let all = body.map_or(Vec::new(), |b| ties::treatments(def.name, id, &b, tx.now(), self.base));
            if (op != Op::Create || !all.is_empty()) && policy::treat(tx, &format!("{}/{id}", def.name), &all).await? {
                policy::announce(bus, tx, None)?;
            }
        }
        if let (Access::Sight(sight), Op::Create, "Patient") = (&self.by.access, op, def.name)
            && sight.treats_whom_they_register()
        {
            let treatment = Treatment {
                who: self.by.subject.clone(),
                patient: id.to_owned(),
                from: tx.now(),
                until: tx.now() + REGISTERED,
            };
            policy::treat(tx, &format!("Patient/{id}#registered"), &[treatment]).await?;
        }
        Ok(())
    }
}

/// Moves the version that is replaced to the history, its bytes as they are.
async fn keep(tx: &mut Tx, hist: &mut Vec<Val>, old: &Stored, rid: i64) -> Result<(), Failure> {
    const PACKED: &str = "SELECT dict, body FROM fhir_res WHERE tenant = $1 AND rid = $2";
    let row = tx.query_one(PACKED, &[rid.into()]).await?;
    let op = if old.deleted {
        Op::Delete
    } else if old.version == 1 {
        Op::Create
    } else {
        Op::Update
    };
    let body = row.opt_blob(1)?.map(<[u8]>::to_vec);
    hist.extend([
        rid.into(),
        old.version.into(),
        old.updated.into(),
        (op as i64).into(),
        row.i64(0)?.into(),
        Val::from(body),
    ]);
    Ok(())
}

fn patient_of(def: &ResourceDef, id: &str, found: Option<&Extracted>) -> Option<String> {
    if def.name == "Patient" {
        return Some(id.to_owned());
    }
    patients(def, found?).next().map(str::to_owned)
}

fn categories(def: &ResourceDef, found: &Extracted) -> Vec<String> {
    let Some(k) = def.param("category").map(|p| p.k) else {
        return Vec::new();
    };
    let codes = found.codes.iter().filter(|(at, ..)| *at == k);
    codes.map(|(_, code, _)| code.clone()).collect()
}

/// The patients whose compartments a resource is in, by its references.
pub(crate) fn patients<'a>(def: &ResourceDef, found: &'a Extracted) -> impl Iterator<Item = &'a str> {
    let inside: Vec<i64> = def
        .compartment
        .iter()
        .filter_map(|c| def.param(c))
        .map(|p| p.k)
        .collect();
    found.references.iter().filter_map(move |(k, to)| match to {
        Reference::Local("Patient", id) if inside.contains(k) => Some(id.as_str()),
        _ => None,
    })
}

/// Whose records a stored resource belongs to: what the audit of a read names.
pub(crate) fn about(def: &'static ResourceDef, id: &str, stored: &str, base: &str) -> Vec<String> {
    if def.name == "Patient" {
        return vec![id.to_owned()];
    }
    if def.compartment.is_empty() {
        return Vec::new();
    }
    search::Owned::of(def, stored, base).about(def, id)
}

async fn record(tx: &mut Tx, bus: &Bus, actor: &str, body: &Changed<'_>) -> Result<(), Failure> {
    let kind = format!("fhir.{}.changed", body.r#type);
    if bus.is_consumed(&kind) {
        let key = format!("{}/{}", body.r#type, body.id);
        let event = Event::of(tx, kind, key, body)?.by(actor);
        bus.record(tx, event).await?;
    }
    Ok(())
}
