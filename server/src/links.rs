//! Tokens and addresses for people: what `medtech token` and the start of the demo print.

use crate::{
    app::{self, Clinic},
    cli::Token,
    demo,
    joints::TenantKeys,
};
use medtech_kernel::{Error, Result, TenantId, auth::Role, clock::Millis, config::Config};
use medtech_signaling::livekit::{ApiKeys, Permission, TokenRequest, mint};

/// Access tokens printed by hand.
const TOKEN_LIFE_MS: Millis = 12 * 3_600_000;
/// Sign-in addresses printed at the start of the demo.
const LINK_LIFE_MS: Millis = 24 * 3_600_000;
/// A demo's address may be opened again: in another browser, after a restart of the browser.
const LINK_USES: u32 = 1000;

/// A token, alone.
pub(crate) async fn token(config: Config, what: Token) -> Result<String> {
    let clinic = app::clinic(app::open(config).await?);
    let absent = || {
        Error::not_found(
            "demo.absent",
            "There is no demo clinic here yet. Run `medtech demo` first.",
        )
    };
    let tenant = clinic.ctx.tenants.by_slug(demo::SLUG).ok_or_else(absent)?;
    match what {
        Token::User(role) => {
            let user = demo::person(&clinic, &tenant, role).await?.ok_or_else(absent)?;
            clinic
                .identity
                .issue_token(tenant.id, user.id, TOKEN_LIFE_MS, "command line")
                .await
        }
        Token::Room { room, identity } => room_token(&clinic, tenant.id, room, identity),
    }
}

fn room_token(clinic: &Clinic, tenant: TenantId, room: String, identity: String) -> Result<String> {
    let ctx = &clinic.ctx;
    let keys = TenantKeys {
        root: ctx.root.clone(),
        tenants: ctx.tenants.clone(),
    };
    let key = keys
        .of_tenant(tenant)
        .ok_or_else(|| Error::not_found("media.no_key", "The clinic has no media key."))?;
    let request = TokenRequest {
        tenant,
        room,
        name: identity.clone(),
        identity,
        permission: Permission::full(),
        ttl_ms: TOKEN_LIFE_MS,
    };
    mint(&key, &request, ctx.clock.now_ms()).map_err(|e| Error::internal("media.token", e))
}

/// The addresses of the demo clinic's people, ready to be opened.
pub(crate) async fn demo_addresses(clinic: &Clinic) -> Result<Vec<(&'static str, String)>> {
    let Some(tenant) = clinic.ctx.tenants.by_slug(demo::SLUG) else {
        return Ok(Vec::new());
    };
    let url = clinic.ctx.config.public_url();
    let mut addresses = Vec::new();
    for (who, role) in [
        ("clinician", Role::Clinician),
        ("staff", Role::Staff),
        ("admin", Role::Admin),
    ] {
        if let Some(user) = demo::person(clinic, &tenant, role).await? {
            let link = clinic
                .identity
                .issue_link(tenant.id, user.id, LINK_LIFE_MS, LINK_USES)
                .await?;
            addresses.push((who, format!("{url}/enter#{link}")));
        }
    }
    if let Some(page) = demo::patient_page(clinic, &tenant).await? {
        addresses.insert(1.min(addresses.len()), ("patient", format!("{url}{page}")));
    }
    Ok(addresses)
}
