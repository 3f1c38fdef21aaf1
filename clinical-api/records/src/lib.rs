//! Records: the clinical record beside the live hub. It follows visits, messages and device readings into FHIR
//! resources, shows the chart, and announces results as they come.

mod announce;
mod chart;
mod consume;
mod encounter;
mod fhirish;
mod glass;
mod http;
mod message;
mod results;
mod store;
mod vitals;

use axum::Router;
use encounter::Step;
use medtech_fhir::Fhir;
use medtech_kernel::{ChannelRule, Ctx, Migration, Module, Result, bus::Event, policy::Action};
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
            "break_glass.begun",
            "break_glass.due",
            "user.changed",
        ]
    }

    /// Most observations are vital signs, many a minute: what is not from a laboratory is told without looking it up.
    fn wants(event: &Event) -> bool {
        announce::may_be_news(event)
    }

    async fn on_event(&self, event: Event) -> Result<()> {
        let kind = event.kind.clone();
        match (&*kind, Step::of(&kind)) {
            (_, Some(step)) => self.on_visit(event, step).await,
            ("message.created", _) => self.on_message(event).await,
            ("device.readings", _) => self.on_readings(event).await,
            ("user.changed", _) => self.on_user(event).await,
            ("break_glass.begun", _) => self.on_glass(event).await,
            ("break_glass.due", _) => self.on_glass_due(event).await,
            ("fhir.DiagnosticReport.changed" | "fhir.Observation.changed", _) => self.on_result(event).await,
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
