//! `/dev/outbox`: the mails that were kept here because no mail server is configured. Plain HTML, no scripts.

use crate::{
    Notifications,
    store::{self, KeptMail},
};
use axum::{
    Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::header;
use medtech_kernel::{
    Error, Result,
    auth::Principal,
    clock::rfc3339,
    http::TenantCtx,
    policy::{Action, Resource},
};
use std::{fmt::Write, sync::Arc};

pub(crate) fn routes(notifications: Arc<Notifications>) -> Router {
    Router::new().route("/dev/outbox", get(page)).with_state(notifications)
}

/// For administrators; for anyone on an installation that says it is a demonstration. Absent where mails are sent.
async fn page(
    State(n): State<Arc<Notifications>>,
    TenantCtx(tenant): TenantCtx,
    who: Option<Principal>,
) -> Result<Response> {
    if n.mailer.smtp.is_some() {
        return Err(Error::not_found("outbox.none", "Mails are sent by a mail server here."));
    }
    if !n.ctx.config.demo {
        let who = who.ok_or_else(|| Error::unauthorized("auth.token_missing", "Please sign in."))?;
        n.ctx
            .policy
            .require(&who, Action::Read, &Resource::new("outbox", "local"))
            .await?;
    }
    let mails = store::kept_mails(&n.ctx.db, tenant.id).await?;
    let headers = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, Html(render(&tenant.name, &mails))).into_response())
}

fn render(clinic: &str, mails: &[KeptMail]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Local outbox</title>\n<main>\n<h1>Local outbox: {}</h1>\n\
         <p>No mail server is configured, so mails are kept here. Newest first.</p>\n",
        escape(clinic)
    );
    if mails.is_empty() {
        html.push_str("<p>No mails yet.</p>\n");
    }
    for mail in mails {
        // Writing to a String cannot fail.
        let _ = write!(
            html,
            "<article>\n<h2>{}</h2>\n<p>{}<br>From: {}<br>To: {}</p>\n<pre>{}</pre>\n</article>\n<hr>\n",
            escape(&mail.subject),
            rfc3339(mail.at),
            escape(&mail.from),
            escape(&mail.to),
            escape(&mail.body)
        );
    }
    html.push_str("</main>\n</html>\n");
    html
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_a_mail_is_markup() {
        let evil = "<script>alert('1')</script>&\"".to_owned();
        let mail = KeptMail {
            at: 0,
            from: evil.clone(),
            to: evil.clone(),
            subject: evil.clone(),
            body: evil.clone(),
        };
        let html = render(&evil, &[mail]);
        assert!(!html.contains("<script") && html.matches("&lt;script&gt;").count() == 5);
    }
}
