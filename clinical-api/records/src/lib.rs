//! Records: the clinical record beside the live hub. It follows visits, messages and device readings into FHIR
//! resources, shows the chart, and announces results as they come.

mod announce;
mod chart;
mod consume;
mod encounter;
mod fhirish;
mod http;
mod message;
mod results;
mod store;
mod vitals;

use axum::Router;
use encounter::Step;
use medtech_fhir::{Access, Fhir};
use medtech_kernel::{
    ChannelRule, Ctx, Error, Migration, Module, Result, TenantId, Tx, bus::Event, error::Kind, policy::Action,
};
use serde_json::Value;
use std::sync::Arc;

pub use vitals::describe;

/// The module. Clones share everything.
#[derive(Clone)]
pub struct Records {
    ctx: Ctx,
    fhir: Fhir,
}

impl Records {
    #[must_use]
    pub fn new(ctx: Ctx, fhir: Fhir) -> Self {
        Self { ctx, fhir }
    }

    async fn read(&self, tenant: TenantId, kind: &str, id: &str) -> Result<Option<Value>> {
        let found = self.fhir.read(tenant, &Access::All, kind, id).await;
        found
            .map_err(Error::from)
            .and_then(|r| r.value())
            .map(Some)
            .or_else(absent)
    }

    async fn read_in(&self, tx: &mut Tx, kind: &str, id: &str) -> Result<Option<Value>> {
        let found = self.fhir.read_in(tx, &Access::All, kind, id).await;
        found
            .map_err(Error::from)
            .and_then(|r| r.value())
            .map(Some)
            .or_else(absent)
    }

    async fn search(&self, tenant: TenantId, kind: &str, query: &str) -> Result<Vec<Value>> {
        let found = self
            .fhir
            .search(tenant, &Access::All, kind, query)
            .await
            .map_err(Error::from)?;
        found.resources.iter().map(medtech_fhir::Resource::value).collect()
    }

    /// Creates the resource, or updates it where it carries an id. Answers its id.
    async fn put(&self, tx: &mut Tx, actor: &str, resource: Value) -> Result<String> {
        let written = match resource.get("id").and_then(Value::as_str).map(str::to_owned) {
            Some(id) => self.fhir.update_in(tx, actor, &id, resource, None).await,
            None => self.fhir.create_in(tx, actor, resource).await,
        };
        Ok(written.map_err(Error::from)?.id)
    }
}

fn absent(e: Error) -> Result<Option<Value>> {
    if matches!(e.kind, Kind::NotFound | Kind::Gone) {
        Ok(None)
    } else {
        Err(e)
    }
}

impl Module for Records {
    const NAME: &'static str = "records";

    fn migrations() -> &'static [Migration] {
        store::MIGRATIONS
    }

    fn routes(self: Arc<Self>) -> Router {
        http::routes(self)
    }

    /// `patient:{id}`: readings and results as they come.
    fn channels() -> &'static [ChannelRule] {
        &[ChannelRule {
            kind: "patient",
            subscribe: Action::Subscribe,
            history: 200,
            ttl_ms: 3_600_000,
            presence: false,
        }]
    }

    fn consumes() -> &'static [&'static str] {
        &[
            "visit.requested",
            "visit.arrived",
            "visit.admitted",
            "visit.held",
            "visit.ended",
            "message.created",
            "device.readings",
            "fhir.DiagnosticReport.changed",
            "fhir.Observation.changed",
        ]
    }

    async fn on_event(&self, event: Event) -> Result<()> {
        let kind = event.kind.clone();
        match (&*kind, Step::of(&kind)) {
            (_, Some(step)) => self.on_visit(event, step).await,
            ("message.created", _) => self.on_message(event).await,
            ("device.readings", _) => self.on_readings(event).await,
            ("fhir.DiagnosticReport.changed" | "fhir.Observation.changed", _) => self.on_result(event).await,
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
