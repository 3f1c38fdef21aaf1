//! Does the way to the database keep what goes over it from others?

use crate::{Error, Result, config::is_this_machine};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Within this machine, or by TLS with the server's certificate and name checked. Read with the driver's own parser, so
/// that what is judged is what is done.
pub fn is_guarded(url: &str) -> Result<bool> {
    let options: PgConnectOptions = url.parse().map_err(|_| {
        // The driver's words may quote the password.
        Error::bad(
            "config.database",
            "database.url: expected postgres://user:password@host:port/name?sslmode=verify-full",
        )
    })?;
    let local = options.get_socket().is_some() || is_this_machine(options.get_host());
    Ok(local || matches!(options.get_ssl_mode(), PgSslMode::VerifyFull))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_checked_certificate_leads_to_another_machine() {
        let guarded = |url: &str| is_guarded(url).ok();
        for near in [
            "postgres://u:p@localhost/db",
            "postgres://u@127.0.0.1:5433/db",
            "postgres://u@[::1]/db",
            "postgres:///db?host=/run/postgresql",
        ] {
            assert_eq!(guarded(near), Some(true), "{near}");
        }
        for far in [
            "postgres://u@db.example/db",
            "postgres://u@192.0.2.1/db",
            "postgres://u@localhost/db?host=db.example",
            "postgres://u@127.0.0.1/db?hostaddr=192.0.2.1",
        ] {
            assert_eq!(guarded(far), Some(false), "{far}");
            let and = if far.contains('?') { '&' } else { '?' };
            for weak in ["disable", "allow", "prefer", "require", "verify-ca"] {
                assert_eq!(
                    guarded(&format!("{far}{and}sslmode={weak}")),
                    Some(false),
                    "{far} {weak}"
                );
            }
            assert_eq!(guarded(&format!("{far}{and}sslmode=verify-full")), Some(true), "{far}");
        }
        assert_eq!(guarded("nonsense"), None);
    }
}
