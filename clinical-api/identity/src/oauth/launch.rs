//! EHR launch: somebody opens an application from a chart, and the application is told for whom.

use super::{OAuth, REQUEST, client::GrantType, consent::person, issuer::Site, store, store::Launch};
use axum::{Json, extract::State};
use http::StatusCode;
use medtech_kernel::{
    Error, Result,
    auth::Principal,
    http::Body,
    id,
    policy::{Action, Resource},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use url::Url;

#[derive(Deserialize)]
pub(crate) struct Asked {
    client_id: String,
    patient: String,
    encounter: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Launched {
    /// To be opened in a window of its own.
    url: String,
}

pub(crate) async fn launch(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Principal,
    Body(asked): Body<Asked>,
) -> Result<(StatusCode, Json<Launched>)> {
    person(&who)?;
    for id in std::iter::once(&asked.patient).chain(&asked.encounter) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
            return Err(Error::unprocessable(
                "oauth.launch",
                "This is not the identifier of a record.",
            ));
        }
    }
    let resource = Resource::new("patient", asked.patient.clone());
    oauth.ctx.policy.require(&who, Action::Read, &resource).await?;
    let client = store::client(&oauth.ctx.db, site.id(), &asked.client_id).await?;
    let client = client.filter(|c| c.active && c.may(GrantType::AuthorizationCode));
    let address = client.as_ref().and_then(|c| c.metadata.initiate_login_uri.clone());
    let (Some(client), Some(address)) = (client, address) else {
        return Err(Error::not_found(
            "oauth.client_unknown",
            "There is no such application to open.",
        ));
    };
    let mut url = Url::parse(&address).map_err(|e| Error::internal("oauth.launch", e))?;
    let secret = id::token();
    url.query_pairs_mut()
        .append_pair("iss", &site.fhir())
        .append_pair("launch", &secret);
    let (hash, expires_at) = (id::sha256(secret.as_bytes()), oauth.ctx.clock.now_ms() + REQUEST);
    let launch = Launch {
        subject: who.subject,
        patient: asked.patient,
        encounter: asked.encounter,
    };
    oauth
        .ctx
        .db
        .write(site.id(), move |tx| {
            Box::pin(async move {
                store::add_launch(tx, hash, &client.id, &launch, expires_at).await?;
                let target = format!("oauth_client:{}", client.id);
                crate::audited(tx, &launch.subject, "execute", &target, "success", "application opened").await
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(Launched { url: url.into() })))
}
