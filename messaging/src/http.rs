//! REST of conversations, mounted at `/api/messaging`.

use crate::{
    Messaging,
    model::{Conversation, Cursors, Draft, Message, Receipt},
    service::Sent,
};
use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    routing::{get, post},
};
use http::StatusCode;
use medtech_kernel::{Error, Result, auth::Principal, http::Body};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// Bytes of a request: the longest text with every character escaped, and room for the rest.
const MAX_REQUEST: usize = 128 * 1024;

pub(crate) fn routes(messaging: Arc<Messaging>) -> Router {
    Router::new()
        .route("/conversations/{id}", get(conversation))
        .route("/conversations/{id}/messages", get(list).post(send))
        .route("/conversations/{id}/receipts", post(receipt))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(messaging)
}

type At = std::result::Result<Path<Uuid>, PathRejection>;

fn id(at: At) -> Result<Uuid> {
    at.map(|Path(id)| id)
        .map_err(|_| Error::bad("conversation.id", "The conversation's id is a UUID."))
}

async fn conversation(State(m): State<Arc<Messaging>>, who: Principal, at: At) -> Result<Json<Conversation>> {
    m.conversation(&who, id(at)?).await.map(Json)
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: i64,
    limit: Option<i64>,
}

#[derive(Serialize)]
struct Messages {
    messages: Vec<Message>,
}

async fn list(
    State(m): State<Arc<Messaging>>,
    who: Principal,
    at: At,
    page: std::result::Result<Query<Page>, QueryRejection>,
) -> Result<Json<Messages>> {
    let Ok(Query(page)) = page else {
        return Err(Error::bad("message.page", "after and limit are whole numbers."));
    };
    Ok(Json(Messages {
        messages: m.list(&who, id(at)?, page.after, page.limit).await?,
    }))
}

async fn send(
    State(m): State<Arc<Messaging>>,
    who: Principal,
    at: At,
    Body(draft): Body<Draft>,
) -> Result<(StatusCode, Json<Sent>)> {
    let sent = m.send(&who, id(at)?, draft).await?;
    Ok((
        if sent.duplicate {
            StatusCode::OK
        } else {
            StatusCode::CREATED
        },
        Json(sent),
    ))
}

async fn receipt(
    State(m): State<Arc<Messaging>>,
    who: Principal,
    at: At,
    Body(receipt): Body<Receipt>,
) -> Result<Json<Cursors>> {
    m.receipt(&who, id(at)?, receipt).await.map(Json)
}
