//! What may not stand open: plain ports and peers beyond this machine, and the demo clinic where others can reach it.
//! Refused at the start with a word on how to mend it, or accepted by a key that says so, and then told again and again.

use medtech_kernel::{
    Error, Result,
    config::{Config, is_this_machine},
    db,
};
use std::net::SocketAddr;

/// Something that others could read, change or use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) mend: String,
    /// A key of the configuration says that it is wanted so.
    pub(crate) accepted: bool,
}

impl Finding {
    fn new(what: impl Into<String>, mend: impl Into<String>, accepted: bool) -> Self {
        let (what, mend) = (what.into(), mend.into());
        Self { what, mend, accepted }
    }
}

/// Stops what would stand open, and warns of what is accepted. `serving`: ports will be opened, too.
pub(crate) fn refuse(config: &Config, serving: bool) -> Result<()> {
    let mut found = outgoing(config)?;
    if serving {
        found.extend(listening(config));
    }
    let (accepted, refused): (Vec<_>, Vec<_>) = found.into_iter().partition(|f| f.accepted);
    for finding in accepted {
        tracing::warn!("{} ({})", finding.what, finding.mend);
    }
    if refused.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = refused
        .iter()
        .map(|f| format!("{}. To mend it: {}", f.what, f.mend))
        .collect();
    Err(Error::bad("config.exposed", all.join("\n")))
}

fn is_exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// The ports.
pub(crate) fn listening(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let (http, mqtt) = (&config.http, &config.mqtt);
    let everyone = http.trusted_proxies.iter().find(|net| net.prefix_len() == 0);
    if let Some(net) = everyone {
        found.push(Finding::new(
            format!("http.trusted_proxies = {net} believes everyone"),
            "name the networks of the proxies alone",
            false,
        ));
    }
    let proxied = !http.trusted_proxies.is_empty();
    if is_exposed(http.bind) && (http.allow_plain || !config.tls.is_on() && !proxied) {
        found.push(Finding::new(
            format!("http.bind = {} serves other machines without TLS", http.bind),
            "set tls.cert and tls.key (HTTPS then is at http.tls_bind), or http.trusted_proxies to the networks of the \
             proxies that end TLS, or http.bind to 127.0.0.1; http.allow_plain = true accepts it",
            http.allow_plain,
        ));
    }
    if is_exposed(mqtt.bind) {
        found.push(Finding::new(
            format!("mqtt.bind = {} takes devices of other machines without TLS", mqtt.bind),
            "set tls.cert and tls.key (devices then connect to mqtt.tls_bind) and mqtt.bind to 127.0.0.1; \
             mqtt.allow_plain = true accepts it",
            mqtt.allow_plain,
        ));
    }
    let tls = config.tls.is_on();
    let open: Vec<SocketAddr> = [
        (http.bind, true),
        (mqtt.bind, true),
        (http.tls_bind, tls),
        (mqtt.tls_bind, tls),
    ]
    .into_iter()
    .filter(|(address, used)| *used && is_exposed(*address))
    .map(|(address, _)| address)
    .collect();
    let named = config.public_url.as_deref().and_then(|url| url::Url::parse(url).ok());
    let public = named
        .as_ref()
        .and_then(|url| url.host_str())
        .filter(|host| !is_this_machine(host));
    match (config.demo, open.first(), public) {
        (true, Some(address), _) => found.push(Finding::new(
            format!("demo = true gives everyone who reaches {address} the accounts of a clinic"),
            "set demo to false, or http.bind, mqtt.bind, http.tls_bind and mqtt.tls_bind to 127.0.0.1",
            false,
        )),
        (true, None, Some(host)) => found.push(Finding::new(
            format!("demo = true gives everyone who reaches {host} the accounts of a clinic"),
            "set demo to false, or leave public_url away",
            false,
        )),
        (false, Some(address), _) if config.public_url.is_none() => found.push(Finding::new(
            format!("{address} is open to other machines, and public_url does not say by which name they come"),
            "set public_url, for instance to https://clinic.example; without it, what is meant for development is allowed",
            false,
        )),
        _ => {}
    }
    found
}

/// The peers that the configuration names.
pub(crate) fn outgoing(config: &Config) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let database = &config.database;
    for (key, url) in [
        ("database.url", &database.url),
        ("database.owner_url", &database.owner_url),
    ] {
        let Some(url) = url else { continue };
        if !db::is_guarded(&database.with_root(url))? {
            found.push(Finding::new(
                format!("{key} leads to another machine without TLS that checks its certificate"),
                "add sslmode=verify-full to its query, and name the authority's file in database.root_cert unless it is a \
                 public one; database.allow_plain = true accepts it",
                database.allow_plain,
            ));
        }
    }
    if medtech_notifications::is_mail_plain(&config.mail)? {
        found.push(Finding::new(
            "mail.smtp leads to another machine without demanding TLS",
            "use smtp:// without `tls=` (STARTTLS is then demanded) or smtps://, and name the authority's file in \
             mail.root_cert unless the system knows it; mail.allow_plain = true accepts it",
            config.mail.allow_plain,
        ));
    }
    if medtech_signaling::devices::is_broker_plain(&config.mqtt)? {
        found.push(Finding::new(
            "mqtt.broker leads to another machine without TLS",
            "use mqtts://, and name the authority's file in mqtt.broker_root_cert unless the system knows it; \
             mqtt.allow_plain = true accepts it",
            config.mqtt.allow_plain,
        ));
    }
    if let Some(scanner) = &config.files.scanner
        && let Some(host) = scanner.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':'))
        && !is_this_machine(host.0)
    {
        found.push(Finding::new(
            "files.scanner leads to another machine, and its protocol knows no TLS",
            "run clamd on this machine, or reach it through a tunnel; files.allow_plain = true accepts it",
            config.files.allow_plain,
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Config {
        let pairs = pairs.iter().map(|(k, v)| (format!("MEDTECH_{k}"), (*v).to_owned()));
        Config::load(None, pairs).expect("a configuration")
    }

    /// How many findings refuse, and how many only warn.
    fn counts(pairs: &[(&str, &str)]) -> (usize, usize) {
        let config = config(pairs);
        let mut all = listening(&config);
        all.extend(outgoing(&config).expect("addresses that can be read"));
        assert_eq!(
            refuse(&config, true).is_err(),
            all.iter().any(|f| !f.accepted),
            "{all:?}"
        );
        let accepted = all.iter().filter(|f| f.accepted).count();
        (all.len() - accepted, accepted)
    }

    const NAMED: (&str, &str) = ("PUBLIC_URL", "https://clinic.example");

    #[test]
    fn a_port_without_tls_stays_on_this_machine_unless_somebody_says_otherwise() {
        assert_eq!(counts(&[]), (0, 0));
        assert_eq!(counts(&[("DEMO", "true")]), (0, 0));
        let open = ("HTTP_BIND", "0.0.0.0:8080");
        assert_eq!(counts(&[open, NAMED]), (1, 0));
        assert_eq!(counts(&[("HTTP_BIND", "[::]:8080"), NAMED]), (1, 0));
        assert_eq!(counts(&[open, NAMED, ("HTTP_ALLOW_PLAIN", "true")]), (0, 1));
        assert_eq!(counts(&[open, NAMED, ("HTTP_TRUSTED_PROXIES", "10.0.0.0/8")]), (0, 0));
        assert_eq!(counts(&[open, NAMED, ("TLS_CERT", "a"), ("TLS_KEY", "b")]), (0, 0));
        for everyone in ["0.0.0.0/0", "::/0", "10.0.0.0/8,::/0"] {
            assert_eq!(
                counts(&[open, NAMED, ("HTTP_TRUSTED_PROXIES", everyone)]),
                (1, 0),
                "{everyone}"
            );
        }
        let devices = ("MQTT_BIND", "192.0.2.1:1883");
        assert_eq!(counts(&[devices, NAMED]), (1, 0));
        assert_eq!(counts(&[devices, NAMED, ("TLS_DIRECTORY", "d")]), (1, 0));
        assert_eq!(counts(&[devices, NAMED, ("MQTT_ALLOW_PLAIN", "true")]), (0, 1));
        // One key accepts one thing.
        assert_eq!(counts(&[open, devices, NAMED, ("MQTT_ALLOW_PLAIN", "true")]), (1, 1));
    }

    #[test]
    fn what_is_for_development_is_refused_where_others_come() {
        let demo = ("DEMO", "true");
        assert_eq!(counts(&[demo, NAMED]), (1, 0));
        assert_eq!(counts(&[demo, ("PUBLIC_URL", "http://demo.localhost:8080")]), (0, 0));
        assert_eq!(
            counts(&[demo, ("HTTP_BIND", "0.0.0.0:8080"), ("HTTP_ALLOW_PLAIN", "true")]),
            (1, 1)
        );
        assert_eq!(
            counts(&[demo, ("TLS_DIRECTORY", "d")]),
            (1, 0),
            "the ports with TLS are for everyone"
        );
        let near = [("HTTP_TLS_BIND", "127.0.0.1:8443"), ("MQTT_TLS_BIND", "127.0.0.1:8883")];
        assert_eq!(counts(&[demo, ("TLS_DIRECTORY", "d"), near[0], near[1]]), (0, 0));
        // Without a name, OAuth and sign-in would take this for somebody's own machine.
        assert_eq!(counts(&[("TLS_DIRECTORY", "d")]), (1, 0));
        assert_eq!(counts(&[("TLS_DIRECTORY", "d"), NAMED]), (0, 0));
    }

    #[test]
    fn peers_on_other_machines_are_reached_by_checked_tls_alone() {
        for (key, plain, guarded, near, accept) in [
            (
                "DATABASE_URL",
                "postgres://u@db.example/m",
                "postgres://u@db.example/m?sslmode=verify-full",
                "postgres://u@localhost/m",
                "DATABASE_ALLOW_PLAIN",
            ),
            (
                "DATABASE_OWNER_URL",
                "postgres://u@db.example/m?sslmode=require",
                "postgres://u@db.example/m?sslmode=verify-full",
                "postgres://u@127.0.0.1/m",
                "DATABASE_ALLOW_PLAIN",
            ),
            (
                "MAIL_SMTP",
                "smtp://mail.example?tls=opportunistic",
                "smtp://mail.example",
                "smtp://localhost",
                "MAIL_ALLOW_PLAIN",
            ),
            (
                "MQTT_BROKER",
                "mqtt://u:p@broker.example:1883",
                "mqtts://u:p@broker.example",
                "mqtt://127.0.0.1",
                "MQTT_ALLOW_PLAIN",
            ),
            (
                "FILES_SCANNER",
                "tcp://scan.example:3310",
                "unix:/run/clamav/clamd.ctl",
                "tcp://127.0.0.1:3310",
                "FILES_ALLOW_PLAIN",
            ),
        ] {
            assert_eq!(counts(&[(key, plain)]), (1, 0), "{plain}");
            assert_eq!(counts(&[(key, plain), (accept, "true")]), (0, 1), "{plain}");
            assert_eq!(counts(&[(key, guarded)]), (0, 0), "{guarded}");
            assert_eq!(counts(&[(key, near)]), (0, 0), "{near}");
        }
        assert_eq!(counts(&[("MAIL_SMTP", "smtps://mail.example")]), (0, 0));
        // Subcommands that open no port hold to it as well.
        assert!(refuse(&config(&[("DATABASE_URL", "postgres://u@db.example/m")]), false).is_err());
        assert!(refuse(&config(&[("HTTP_BIND", "0.0.0.0:1")]), false).is_ok());
    }

    #[test]
    fn a_refusal_says_how_to_mend_it_and_quotes_no_password() {
        let e = refuse(
            &config(&[
                ("DATABASE_URL", "postgres://u:geheim@db.example/m"),
                ("MQTT_BROKER", "mqtt://u:geheim@broker.example"),
                ("HTTP_BIND", "0.0.0.0:8080"),
            ]),
            true,
        );
        let text = e.err().map(|e| e.message.into_owned()).unwrap_or_default();
        for word in [
            "tls.cert",
            "sslmode=verify-full",
            "mqtts://",
            "allow_plain",
            "public_url",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("geheim"));
    }

    /// Keys that name an address of ours or of a peer stand on the page of connections, and all keys on theirs.
    #[test]
    fn every_connection_is_on_its_page() {
        let source = include_str!("../../../kernel/src/config.rs");
        let connections = include_str!("../../../docs/security/connections.md");
        let configuration = include_str!("../../../docs/configuration.md");
        let (mut section, mut keys, mut peers) = (String::new(), 0, 0);
        for line in source.lines() {
            if let Some(name) = line.strip_prefix("pub struct ").and_then(|l| l.strip_suffix(" {")) {
                section = name.to_ascii_lowercase();
            }
            let field = line.strip_prefix("    pub ").and_then(|l| l.split_once(": "));
            let Some((field, kind)) = field.filter(|(field, _)| !field.contains('(')) else {
                continue;
            };
            let is_section = kind.trim_end_matches(',').to_ascii_lowercase() == field;
            if is_section {
                continue;
            }
            let key = if section == "config" {
                field.to_owned()
            } else {
                format!("{section}.{field}")
            };
            keys += 1;
            assert!(
                configuration.contains(&format!("`{key}`")),
                "{key} is not in docs/configuration.md"
            );
            let reaches = ["bind", "tls_bind", "udp_port", "url", "owner_url", "smtp", "broker"].contains(&field)
                || field.ends_with("root_cert")
                || field == "allow_plain";
            if reaches {
                peers += 1;
                let told = connections.contains(&format!("`{key}`")) || connections.contains(&format!("`{key} = "));
                assert!(told, "{key} is not in docs/security/connections.md");
            }
        }
        assert!(keys > 30 && peers > 15, "{keys} keys, {peers} of them connections");
    }
}
