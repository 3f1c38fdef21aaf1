//! REST of notifications and alerts, mounted at `/api/notifications`.

use crate::{
    Notifications,
    model::{Alert, Notification},
    store::Attempt,
};
use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    routing::{get, post},
};
use http::StatusCode;
use medtech_kernel::{Error, Result, auth::Principal};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) fn routes(notifications: Arc<Notifications>) -> Router {
    Router::new()
        .route("/", get(list))
        .route("/{id}/read", post(read))
        .route("/alerts", get(alerts))
        .route("/alerts/{id}/acknowledge", post(acknowledge))
        .route("/deliveries", get(deliveries))
        .with_state(notifications)
}

#[derive(Serialize)]
struct List {
    notifications: Vec<Notification>,
}

async fn list(State(n): State<Arc<Notifications>>, who: Principal) -> Result<Json<List>> {
    Ok(Json(List {
        notifications: n.list(&who).await?,
    }))
}

async fn read(State(n): State<Arc<Notifications>>, who: Principal, Path(id): Path<String>) -> Result<StatusCode> {
    let id =
        Uuid::try_parse(&id).map_err(|_| Error::not_found("notification.unknown", "There is no such notification."))?;
    n.mark_read(&who, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Board {
    board: String,
}

#[derive(Serialize)]
struct Alerts {
    alerts: Vec<Alert>,
}

async fn alerts(
    State(n): State<Arc<Notifications>>,
    who: Principal,
    board: std::result::Result<Query<Board>, QueryRejection>,
) -> Result<Json<Alerts>> {
    let Query(Board { board }) = board.map_err(|_| Error::bad("alert.board", "Name the board: ?board=main."))?;
    Ok(Json(Alerts {
        alerts: n.board(&who, &board).await?,
    }))
}

async fn acknowledge(
    State(n): State<Arc<Notifications>>,
    who: Principal,
    Path(id): Path<String>,
) -> Result<Json<Alert>> {
    n.acknowledge(&who, &id).await.map(Json)
}

#[derive(Serialize)]
struct Deliveries {
    attempts: Vec<Attempt>,
}

async fn deliveries(State(n): State<Arc<Notifications>>, who: Principal) -> Result<Json<Deliveries>> {
    Ok(Json(Deliveries {
        attempts: n.deliveries(&who).await?,
    }))
}
