//! The same acts for the live channels' `rpc`: each takes and answers the JSON that REST does.

use crate::{
    Messaging,
    model::{Draft, Receipt},
};
use medtech_kernel::{Error, Result, auth::Principal};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};
use std::sync::Arc;
use uuid::Uuid;

#[derive(Deserialize)]
struct Of {
    conversation_id: Uuid,
}

/// `message.send` {conversation_id, client_id, body} -> {message, duplicate}
pub async fn message_send(messaging: Arc<Messaging>, who: Principal, params: Box<RawValue>) -> Result<Box<RawValue>> {
    let (of, draft): (Of, Draft) = (parse(&params)?, parse(&params)?);
    answer(&messaging.send(&who, of.conversation_id, draft).await?)
}

/// `message.receipt` {conversation_id, delivered_upto?, read_upto?} -> {delivered_upto, read_upto}
pub async fn message_receipt(
    messaging: Arc<Messaging>,
    who: Principal,
    params: Box<RawValue>,
) -> Result<Box<RawValue>> {
    let (of, receipt): (Of, Receipt) = (parse(&params)?, parse(&params)?);
    answer(&messaging.receipt(&who, of.conversation_id, receipt).await?)
}

/// `typing` {conversation_id} -> {}
pub async fn typing(messaging: Arc<Messaging>, who: Principal, params: Box<RawValue>) -> Result<Box<RawValue>> {
    let of: Of = parse(&params)?;
    messaging.typing(&who, of.conversation_id).await?;
    answer(&serde_json::json!({}))
}

fn parse<T: DeserializeOwned>(params: &RawValue) -> Result<T> {
    serde_json::from_str(params.get()).map_err(|_| Error::bad("rpc.params", "The parameters are not as expected."))
}

fn answer(value: &impl Serialize) -> Result<Box<RawValue>> {
    to_raw_value(value).map_err(|e| Error::internal("rpc.answer", e))
}
