//! Tokens and addresses for people: what `medtech token` and the start of the demo print.

use crate::{app, cli::Token};
use medtech_kernel::{Error, Result, auth::Role, config::Config};

/// Prints to the caller: a token alone.
pub(crate) async fn token(config: Config, what: Token) -> Result<String> {
    let parts = app::build(app::open(config).await?).await?;
    let tenant = parts
        .ctx
        .tenants
        .by_slug(crate::demo::SLUG)
        .ok_or_else(|| Error::not_found("demo.absent", "There is no demo clinic here yet. Run `medtech demo` first."))?;
    match what {
        Token::User(role) => parts.identity.token_for_role(tenant.id, role).await,
        Token::Room { room, identity } => parts.livekit.room_token(tenant.id, &room, &identity),
    }
}

/// The addresses of the demo clinic's people, ready to be opened.
pub(crate) async fn demo_addresses(parts: &app::Parts) -> Result<Vec<(&'static str, String)>> {
    let Some(tenant) = parts.ctx.tenants.by_slug(crate::demo::SLUG) else { return Ok(Vec::new()) };
    let url = parts.ctx.config.public_url();
    let mut addresses = Vec::new();
    for (who, role) in [("clinician", Role::Clinician), ("staff", Role::Staff), ("admin", Role::Admin)] {
        let link = parts.identity.link_for_role(tenant.id, role).await?;
        addresses.push((who, format!("{url}/enter#{link}")));
    }
    let visit = crate::demo::patient_link(&parts.clinic(), &tenant).await?;
    addresses.insert(1, ("patient", format!("{url}{visit}")));
    Ok(addresses)
}
