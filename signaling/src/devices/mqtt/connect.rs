//! The first packet: who is this, and may it be here?

use super::{
    super::{Devices, senml},
    registry::Seat,
    session::read,
    wire::{Hello, In, Reason, Refusal, Start, Wire},
};
use bytes::BytesMut;
use medtech_kernel::{
    Error, TenantId,
    auth::{Role, tenant_of},
    error::Kind,
    id,
    policy::{Action, Resource},
};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

/// Seconds a silent client is kept when it asks for no limit, or for a longer one.
const LONGEST_SILENCE: u16 = 3_600;

/// A device whose credential was checked.
pub(super) struct Device {
    pub tenant: TenantId,
    pub id: String,
    pub readings: String,
    pub commands: String,
    pub token: String,
    pub session: Uuid,
    /// The client id given by us, where the device gave none.
    pub assigned: Option<String>,
    /// Told to clients of 5 when it is not what they asked for.
    pub told_keep_alive: Option<u16>,
    /// Silence after which the connection is cut: one and a half times the keep-alive.
    pub silence: Duration,
    /// Readings to publish when the connection ends without a goodbye.
    pub will: Option<Vec<senml::Reading>>,
    pub receive_max: u16,
    pub seat: Seat,
}

/// Reads the CONNECT, decides, answers.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    devices: &Devices,
    io: &mut S,
    buf: &mut BytesMut,
    peer: &str,
) -> Option<(Wire, Device)> {
    let mut wire = loop {
        match Wire::start(buf) {
            Start::Speaks(wire) => break wire,
            Start::Refuse(answer) => {
                tracing::info!(peer, "mqtt: not a CONNECT that is served here");
                let _ = io.write_all(answer).await;
                let _ = io.shutdown().await;
                return None;
            }
            Start::More => {
                read(io, buf).await.ok()?;
            }
        }
    };
    let outcome = loop {
        match wire.read(buf) {
            Ok(Some(In::Hello(hello))) => break admit(devices, *hello).await,
            Ok(Some(_)) => break Err(Refusal(Reason::Protocol, "the first packet must be CONNECT")),
            Ok(None) => {
                read(io, buf).await.ok()?;
            }
            Err(refusal) => break Err(refusal),
        }
    };
    let mut out = BytesMut::new();
    match outcome {
        Ok(device) => {
            wire.welcome(&mut out, device.assigned.as_deref(), device.told_keep_alive);
            if io.write_all(&out).await.is_err() {
                devices.0.registry.leave(device.tenant, &device.id, device.seat.serial);
                return None;
            }
            Some((wire, device))
        }
        Err(refusal) => {
            tracing::info!(peer, reason = refusal.1, "mqtt: connection refused");
            wire.unwelcome(&mut out, refusal);
            let _ = io.write_all(&out).await;
            let _ = io.shutdown().await;
            None
        }
    }
}

const BAD: Refusal = Refusal(
    Reason::BadCredentials,
    "user name is the device's id, password its token",
);

async fn admit(devices: &Devices, hello: Hello) -> Result<Device, Refusal> {
    let ctx = &devices.0.ctx;
    let (Some(name), Some(password)) = (hello.username, hello.password) else {
        return Err(BAD);
    };
    let token = std::str::from_utf8(&password).map_err(|_| BAD)?;
    let tenant = tenant_of(token)
        .filter(|t| ctx.tenants.by_id(*t).is_some())
        .ok_or(BAD)?;
    let principal = ctx.sessions.verify(tenant, token).await.map_err(|e| from_error(&e))?;
    if !principal.has(Role::Device) || principal.subject.strip_prefix("device:") != Some(&*name) {
        return Err(BAD);
    }
    let own = Resource::new("device", name.clone());
    ctx.policy
        .require(&principal, Action::Publish, &own)
        .await
        .map_err(|e| from_error(&e))?;
    let readings = format!("devices/{name}/readings");
    let will = match hello.will {
        None => None,
        Some((topic, _)) if topic != readings => {
            return Err(Refusal(
                Reason::NotAuthorized,
                "a will may go to the device's own readings only",
            ));
        }
        Some((_, payload)) => {
            let parsed = senml::parse(&payload, ctx.clock.now_ms());
            Some(parsed.map_err(|_| Refusal(Reason::Payload, "the will's payload is not a SenML pack"))?)
        }
    };
    let assigned = hello.client.is_empty().then(|| id::new_id(&ctx.clock).to_string());
    let client = assigned.as_deref().unwrap_or(&hello.client);
    let seat = devices.0.registry.enter(tenant, &name, client, principal.session);
    let seat = seat.ok_or(Refusal(Reason::Quota, "this device has too many connections"))?;
    let asked = hello.keep_alive;
    let keep_alive = if asked == 0 || asked > LONGEST_SILENCE {
        LONGEST_SILENCE
    } else {
        asked
    };
    Ok(Device {
        tenant,
        commands: format!("devices/{name}/commands"),
        readings,
        token: token.to_owned(),
        session: principal.session,
        id: name,
        assigned,
        told_keep_alive: (keep_alive != asked).then_some(keep_alive),
        silence: Duration::from_secs(u64::from(keep_alive)) * 3 / 2,
        will,
        receive_max: hello.receive_max,
        seat,
    })
}

/// A credential that is wrong, or a server that cannot tell.
pub(super) fn from_error(error: &Error) -> Refusal {
    match error.kind {
        Kind::Unauthorized | Kind::Forbidden => BAD,
        _ => Refusal(Reason::Busy, "try again later"),
    }
}
