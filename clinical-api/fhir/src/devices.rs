//! Whom a device measures, as its resource says: what it sends goes into that patient's record, in the transaction of the write. One
//! that is retired, removed or was never right feeds nobody, and its credential ends.

use crate::{
    definitions::ResourceDef,
    search,
    store::{By, Op, Written},
};
use medtech_kernel::{
    Error, Result, Tx,
    audit::{self, Entry},
    auth::Sessions,
    bus::Bus,
    policy,
};
use serde_json::Value;

/// Follows what was written of devices.
pub(crate) async fn follow(
    tx: &mut Tx,
    sessions: &Sessions,
    bus: &Bus,
    base: &str,
    by: &By,
    written: &[Written],
) -> Result<()> {
    for w in written.iter().filter(|w| w.def.name == "Device" && w.changed) {
        let body: Option<Value> = match w.op {
            Op::Delete => None,
            _ => Some(serde_json::from_str(&w.stored).map_err(|e| Error::internal("fhir.body_not_json", e))?),
        };
        let subject = format!("device:{}", w.id);
        let body = body.filter(in_service);
        let patient = body.as_ref().and_then(|b| measures(w.def, &w.id, b, base));
        let object = patient.map(|id| format!("patient:{id}"));
        let lost = policy::relate_only(tx, &subject, "feeds", object.as_deref()).await?;
        if !lost.is_empty() {
            policy::announce(bus, tx, Some(&subject))?;
        }
        if body.is_none() && sessions.revoke_subject(tx, &subject).await? > 0 {
            let entry = Entry {
                actor: &by.subject,
                action: "delete",
                target: &subject,
                outcome: "success",
                detail: "device credential",
            };
            let patients = lost.iter().filter_map(|o| o.strip_prefix("patient:"));
            audit::record(tx, vec![audit::Record::new(entry).about(patients)]).await?;
        }
    }
    Ok(())
}

/// R4 `device-status`: without one, or with `unknown`, nothing says that it is not used.
fn in_service(body: &Value) -> bool {
    !matches!(
        body.get("status").and_then(Value::as_str),
        Some("inactive" | "entered-in-error")
    )
}

/// The patient of this clinic whom it is given to: the one whose record its writer was asked about.
fn measures(def: &'static ResourceDef, id: &str, body: &Value, base: &str) -> Option<String> {
    search::owners(def, id, &def.plan().run(body, base)).into_iter().next()
}
