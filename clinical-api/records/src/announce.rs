//! A result that came in: a card in the patient's channel, an alert on the board, word to the clinicians concerned.

use crate::{
    Records,
    fhirish::{items, target, text},
    results::{self, Card},
    store,
};
use medtech_fhir::Access;
use medtech_kernel::{
    Error, Module, Result, TenantId, Tx,
    auth::Role,
    bus::{Bus, Event, once},
    clock::{Millis, parse_rfc3339, rfc3339},
    id,
    policy::{
        self,
        glass::{self, Due},
        label,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Body of `fhir.{Type}.changed`.
#[derive(Debug, Deserialize)]
struct Changed {
    r#type: String,
    id: String,
    op: String,
    /// The codes of its categories, where the event says them.
    categories: Option<Vec<String>>,
}

/// May [`Records::on_result`] have something to tell of it? Every event of another kind may.
pub(crate) fn may_be_news(event: &Event) -> bool {
    if event.kind != "fhir.Observation.changed" {
        return true;
    }
    // What cannot be read is looked at by the handler, whose error is kept.
    event.parse::<Changed>().map_or(true, |changed| {
        let laboratory = |all: Vec<String>| all.iter().any(|code| results::is_laboratory_code(code));
        changed.op != "delete" && changed.categories.is_none_or(laboratory)
    })
}

/// Body of the live `result.card`.
#[derive(Serialize)]
struct CardShown<'a> {
    report: &'a Card,
}

/// Body of the durable `alert.raised`.
#[derive(Serialize)]
struct AlertRaised {
    alert: Alert,
    recipients: Vec<String>,
}

#[derive(Serialize)]
struct Alert {
    id: Uuid,
    board: &'static str,
    severity: &'static str,
    /// Neutral: it may be seen on a lock screen.
    title: &'static str,
    subject_ref: String,
    link: String,
    at: String,
}

/// What is shown and who hears of it.
struct News {
    /// `DiagnosticReport/{id}` or `Observation/{id}`.
    resource: String,
    card: Card,
    patient: String,
    /// Differs whenever there is something new to hear.
    state: String,
    /// The observations of a report, each with its own state.
    parts: Vec<(String, String)>,
    recipients: Vec<String>,
    /// Something of it carries a label that not everyone who follows the patient may see: no card is pushed, the chart
    /// shows it to whom it may.
    sensitive: bool,
}

/// A result issued longer ago than this when it comes in is history being brought along.
const HISTORY: Millis = 2 * 86_400_000;

fn is_history(resource: &Value, at: Millis) -> bool {
    text(resource, "issued")
        .and_then(parse_rfc3339)
        .is_some_and(|issued| issued < at - HISTORY)
}

/// Body of `break_glass.begun`, as far as it matters here.
#[derive(Deserialize)]
struct Begun {
    patient: String,
    often: bool,
}

/// Who hears of emergency access: administrators, as `user.changed` tells them.
const PRIVACY: &str = "clinic:privacy";

/// Body of `user.changed`, as far as it matters here; its key is the subject.
#[derive(Deserialize)]
struct UserChanged {
    roles: Option<Vec<Role>>,
    active: Option<bool>,
}

async fn tell_officers(
    tx: &mut Tx,
    bus: &Bus,
    severity: &'static str,
    title: &'static str,
    patient: &str,
    recipients: Vec<String>,
) -> Result<()> {
    let alert = Alert {
        id: id::uuid_v7(tx.now()),
        board: "main",
        severity,
        title,
        subject_ref: format!("Patient/{patient}"),
        link: "/app/access".to_owned(),
        at: rfc3339(tx.now()),
    };
    let key = format!("alert:{}", alert.id);
    let raised = Event::of(tx, "alert.raised", key, &AlertRaised { alert, recipients })?;
    bus.record(tx, raised).await
}

impl Records {
    /// Administrators are the ones who hear of emergency access.
    pub(crate) async fn on_user(&self, event: Event) -> Result<()> {
        let user: UserChanged = event.parse()?;
        let Some(roles) = user.roles else { return Ok(()) };
        let officer = user.active != Some(false) && roles.contains(&Role::Admin);
        let write = self.ctx.db.write(event.tenant, move |tx| {
            Box::pin(async move {
                match officer {
                    true => policy::relate(tx, &event.key, "officer", PRIVACY, None).await,
                    false => policy::unrelate(tx, &event.key, "officer", PRIVACY).await,
                }
            })
        });
        write.await
    }

    /// Somebody broke the glass: the staff board and the administrators hear of it; who and why stand in the review.
    pub(crate) async fn on_glass(&self, event: Event) -> Result<()> {
        let begun: Begun = event.parse()?;
        let recipients = self.officers(event.tenant).await?;
        let bus = self.ctx.bus.clone();
        let (severity, title) = match begun.often {
            true => ("critical", "Emergency access again and again by one person"),
            false => ("warning", "Emergency access to a record"),
        };
        let write = self.ctx.db.write(event.tenant, move |tx| {
            Box::pin(async move {
                match once(tx, Self::NAME, event.id).await? {
                    true => tell_officers(tx, &bus, severity, title, &begun.patient, recipients).await,
                    false => Ok(()),
                }
            })
        });
        write.await
    }

    /// The time for a review is over: the administrators hear of it once, unless it was done.
    pub(crate) async fn on_glass_due(&self, event: Event) -> Result<()> {
        let Due { id } = event.parse()?;
        let recipients = self.officers(event.tenant).await?;
        let bus = self.ctx.bus.clone();
        let write = self.ctx.db.write(event.tenant, move |tx| {
            Box::pin(async move {
                // Marks it as told in the same transaction: delivered again, it finds nothing to tell.
                let Some(patient) = glass::late(tx, id).await? else {
                    return Ok(());
                };
                let title = "The review of an emergency access is overdue";
                tell_officers(tx, &bus, "warning", title, &patient, recipients).await
            })
        });
        write.await
    }

    /// Who hears of emergency access and reviews it.
    pub(crate) async fn officers(&self, tenant: TenantId) -> Result<Vec<String>> {
        self.ctx.policy.subjects_of(tenant, PRIVACY, "officer").await
    }

    /// A DiagnosticReport or an Observation was written.
    pub(crate) async fn on_result(&self, event: Event) -> Result<()> {
        let changed: Changed = event.parse()?;
        if changed.op == "delete" {
            return Ok(());
        }
        // Deleted since: nothing to show.
        let Some(mut resource) = self.fhir.find(event.tenant, &changed.r#type, &changed.id).await? else {
            return Ok(());
        };
        if !results::is_laboratory(&resource) || !results::has_result(&resource) {
            return Ok(());
        }
        if changed.r#type == "Observation"
            && let Some(report) = self.report_of(event.tenant, &changed.id).await?
        {
            // Its report speaks for it; a corrected observation makes the report speak again.
            if changed.op == "create" || !results::has_result(&report) {
                return Ok(());
            }
            resource = report;
        }
        let old = is_history(&resource, event.at);
        match self.news(event.tenant, &resource).await? {
            // Years of results brought in from elsewhere are no news; a critical one always is.
            Some(news) if news.card.critical || !old => self.tell(event, news).await,
            _ => Ok(()),
        }
    }

    async fn news(&self, tenant: TenantId, resource: &Value) -> Result<Option<News>> {
        let Some(patient) = resource
            .get("subject")
            .and_then(|s| target(s, "Patient"))
            .map(str::to_owned)
        else {
            return Ok(None);
        };
        let observations = self.results_of(tenant, &Access::All, resource).await?;
        let mut requests = Vec::new();
        for request in items(resource, "basedOn").filter_map(|r| target(r, "ServiceRequest")) {
            requests.extend(self.fhir.find(tenant, "ServiceRequest", request).await?);
        }
        let mut recipients = Vec::new();
        for practitioner in results::practitioners(resource, &requests) {
            recipients.extend(
                self.ctx
                    .policy
                    .subjects_of(tenant, &format!("practitioner:{practitioner}"), "self")
                    .await?,
            );
        }
        if recipients.is_empty() {
            recipients = self
                .ctx
                .policy
                .subjects_of(tenant, &format!("patient:{patient}"), "treats")
                .await?;
        }
        recipients.retain(|r| r.starts_with("user:"));
        recipients.sort_unstable();
        recipients.dedup();
        let card = results::card(resource, &observations);
        let kind = text(resource, "resourceType").unwrap_or_default();
        let parts = observations.iter().map(|o| {
            let card = results::card(o, &[]);
            Ok((format!("Observation/{}", card.id), state_of(&card)?))
        });
        Ok(Some(News {
            resource: format!("{kind}/{}", card.id),
            state: state_of(&card)?,
            parts: parts.collect::<Result<_>>()?,
            card,
            patient,
            sensitive: std::iter::once(resource)
                .chain(&observations)
                .any(|r| label::of(r).any(label::is_sensitive)),
            recipients,
        }))
    }

    /// The report that an Observation is a result of.
    pub(crate) async fn report_of(&self, tenant: TenantId, observation: &str) -> Result<Option<Value>> {
        let query = format!("result=Observation/{observation}&_count=1");
        let found = self.fhir.list(tenant, "DiagnosticReport", &query).await?;
        Ok(found.into_iter().next())
    }

    /// The Observations a report refers to, in its order.
    pub(crate) async fn results_of(&self, tenant: TenantId, access: &Access, report: &Value) -> Result<Vec<Value>> {
        let mut out = Vec::new();
        for id in items(report, "result").filter_map(|r| target(r, "Observation")) {
            out.extend(self.fhir.find_for(tenant, access, "Observation", id).await?);
        }
        Ok(out)
    }

    async fn tell(&self, event: Event, news: News) -> Result<()> {
        let bus = self.ctx.bus.clone();
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    if !once(tx, Self::NAME, event.id).await?
                        || !store::announce(tx, &news.resource, &news.state, &news.recipients).await?
                    {
                        return Ok(());
                    }
                    let channel = format!("patient:{}", news.patient);
                    if !news.sensitive {
                        let card = Event::of(tx, "result.card", channel.clone(), &CardShown { report: &news.card })?
                            .on(channel);
                        bus.publish_after(tx, card);
                    }
                    if is_known(tx, &news).await? {
                        return Ok(());
                    }
                    let open = store::visits_of(tx, &news.patient)
                        .await?
                        .into_iter()
                        .find(|v| v.ended_at.is_none());
                    let (severity, title) = match news.card.critical {
                        true => ("critical", "Critical laboratory result"),
                        false => ("info", "New laboratory result"),
                    };
                    let alert = Alert {
                        id: id::uuid_v7(tx.now()),
                        board: "main",
                        severity,
                        title,
                        subject_ref: format!("Patient/{}", news.patient),
                        link: open.map_or_else(|| "/app/board".to_owned(), |v| format!("/app/visit/{}", v.id)),
                        at: rfc3339(tx.now()),
                    };
                    let key = format!("alert:{}", alert.id);
                    let raised = Event::of(
                        tx,
                        "alert.raised",
                        key,
                        &AlertRaised {
                            alert,
                            recipients: news.recipients,
                        },
                    )?;
                    bus.record(tx, raised).await
                })
            })
            .await
    }
}

/// Says a report nothing that everyone concerned was not told already? So it is when a laboratory sends each value by
/// itself, and then the report over them: one alert for one finding.
async fn is_known(tx: &mut Tx, news: &News) -> Result<bool> {
    let mut told = Vec::new();
    for (observation, state) in &news.parts {
        match store::told_of(tx, observation, state).await? {
            Some(subjects) => told.extend(subjects),
            None => return Ok(false),
        }
    }
    Ok(!news.parts.is_empty() && news.recipients.iter().all(|r| told.contains(r)))
}

fn state_of(card: &Card) -> Result<String> {
    let bytes = serde_json::to_vec(card).map_err(|e| Error::internal("records.card", e))?;
    Ok(id::sha256(&bytes).iter().map(|b| format!("{b:02x}")).collect())
}
