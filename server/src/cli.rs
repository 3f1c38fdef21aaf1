//! The command line.

use lexopt::{Arg, Parser, ValueExt};
use medtech_kernel::{auth::Role, vault::Class};
use std::path::PathBuf;

/// A subcommand with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Serve,
    Migrate,
    Doctor,
    Demo,
    Token(Token),
    Audit(Audit),
    Keys(Keys),
    Help(&'static str),
}

/// What `token` prints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// An access token of the demo clinic's user with this role.
    User(Role),
    /// A media token for a room.
    Room { room: String, identity: String },
}

/// What is done with the audit trail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Audit {
    /// Of one clinic, by its short name, or of all; with `records`, the stores are held against it.
    Verify { tenant: Option<String>, records: bool },
    Export {
        tenant: String,
        from: Option<String>,
        to: Option<String>,
    },
}

/// What is done with keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    Status {
        tenant: Option<String>,
    },
    Rotate {
        tenant: String,
    },
    Rewrap {
        tenant: String,
    },
    Shred {
        tenant: String,
        class: Class,
        subject: String,
    },
    /// A clinic's database file, or the system's, was put back from a backup on purpose.
    AcceptRestored {
        tenant: Option<String>,
    },
    /// Files that hold the passphrase of now and the next one.
    Protect {
        current: Option<String>,
        next: Option<String>,
    },
}

const HELP: &str = "medtech: the real-time hub of care

Usage: medtech [--config FILE] COMMAND

Commands:
  serve      run every service in this process
  migrate    bring the database up to date and stop
  doctor     check disk, ports, clock, UDP and versions; says how to mend each
  demo       create the demo clinic; harmless when it exists
  token      print a token, alone on the last line:
               --user admin|clinician|patient   an access token of the demo clinic's user
               --room R --identity I            a media token for room R
  audit      the audit trail:
               verify [--tenant S] [--records]  find any edit, deletion, exchange or cut; exit code 1 if there is one;
                                                --records: also of records, messages and files, held against the trail
               export --tenant S [--from T --to T]
                                                FHIR R4 AuditEvents, one a line
  keys       the keys that data is sealed with:
               status [--tenant S]              versions, and how many data keys each wraps
               rotate --tenant S                a new version, also while the server runs
               rewrap --tenant S                wrap with the newest what an older version still wraps
               shred --tenant S --patient ID | --file ID | --conversation ID
                                                destroy a key for good: what it sealed is erased, in every backup
               accept-restored [--tenant S]     the clinic's database file (without --tenant: the system's) was restored from a
                                                backup on purpose; the server must be stopped
               protect [--passphrase-file F] [--new-passphrase-file F]
                                                give the root key into the care of what vault.root names
  help       this text

Every configuration key can be given as MEDTECH_*, for instance MEDTECH_DATA_DIR; docs/configuration.md lists them.";

/// Parses the command line; the error is a sentence for the user.
pub(crate) fn parse(mut args: Parser) -> Result<(Command, Option<PathBuf>), String> {
    let (mut name, mut file, mut user, mut room, mut identity) = (None, None, None, None, None);
    let (mut verb, mut tenant, mut from, mut to) = (None, None, None, None);
    let (mut subject, mut current, mut next) = (None, None, None);
    let mut records = false;
    let text = |args: &mut Parser| args.value().and_then(|v| v.string()).map_err(|e| e.to_string());
    while let Some(arg) = args.next().map_err(|e| e.to_string())? {
        match arg {
            Arg::Long("config") => file = Some(PathBuf::from(text(&mut args)?)),
            Arg::Long("user") => user = Some(text(&mut args)?),
            Arg::Long("room") => room = Some(text(&mut args)?),
            Arg::Long("identity") => identity = Some(text(&mut args)?),
            Arg::Long("tenant") => tenant = Some(text(&mut args)?),
            Arg::Long(class @ ("patient" | "file" | "conversation")) if subject.is_none() => {
                let class = Class::parse(class).ok_or("no such class")?;
                subject = Some((class, text(&mut args)?));
            }
            Arg::Long("passphrase-file") => current = Some(text(&mut args)?),
            Arg::Long("new-passphrase-file") => next = Some(text(&mut args)?),
            Arg::Long("from") => from = Some(text(&mut args)?),
            Arg::Long("to") => to = Some(text(&mut args)?),
            Arg::Long("records") => records = true,
            Arg::Long("help") | Arg::Short('h') => name = Some("help".to_owned()),
            Arg::Value(v) if name.is_none() => name = Some(v.string().map_err(|e| e.to_string())?),
            Arg::Value(v) if matches!(name.as_deref(), Some("audit" | "keys")) && verb.is_none() => {
                verb = Some(v.string().map_err(|e| e.to_string())?);
            }
            other => return Err(format!("{}; see `medtech help`", other.unexpected())),
        }
    }
    let is_token = name.as_deref() == Some("token");
    if !is_token && (user.is_some() || room.is_some() || identity.is_some()) {
        return Err("--user, --room and --identity belong to `medtech token`".into());
    }
    if name.as_deref() != Some("audit") && (from.is_some() || to.is_some()) {
        return Err("--from and --to belong to `medtech audit`".into());
    }
    if records && (name.as_deref(), verb.as_deref()) != (Some("audit"), Some("verify")) {
        return Err("--records belongs to `medtech audit verify`".into());
    }
    let is_keys = name.as_deref() == Some("keys");
    if !is_keys && (subject.is_some() || current.is_some() || next.is_some()) {
        return Err("these options belong to `medtech keys`; see `medtech help`".into());
    }
    if !is_keys && name.as_deref() != Some("audit") && tenant.is_some() {
        return Err("--tenant belongs to `medtech audit` and `medtech keys`".into());
    }
    let command = match name.as_deref() {
        Some("serve") => Command::Serve,
        Some("migrate") => Command::Migrate,
        Some("doctor") => Command::Doctor,
        Some("demo") => Command::Demo,
        Some("token") => Command::Token(token(user, room, identity)?),
        Some("audit") => Command::Audit(audit(verb.as_deref(), tenant, records, from, to)?),
        Some("keys") => Command::Keys(keys(verb.as_deref(), tenant, subject, current, next)?),
        Some("help") | None => Command::Help(HELP),
        Some(other) => return Err(format!("there is no command `{other}`; see `medtech help`")),
    };
    Ok((command, file))
}

fn token(user: Option<String>, room: Option<String>, identity: Option<String>) -> Result<Token, String> {
    match (user.as_deref(), room, identity) {
        (Some("admin"), None, None) => Ok(Token::User(Role::Admin)),
        (Some("clinician"), None, None) => Ok(Token::User(Role::Clinician)),
        (Some("patient"), None, None) => Ok(Token::User(Role::Patient)),
        (Some(other), None, None) => Err(format!("--user is admin, clinician or patient, not `{other}`")),
        (None, Some(room), Some(identity)) if !room.is_empty() && !identity.is_empty() => {
            Ok(Token::Room { room, identity })
        }
        _ => Err("`medtech token` wants --user ROLE, or --room R with --identity I".into()),
    }
}

fn audit(
    verb: Option<&str>,
    tenant: Option<String>,
    records: bool,
    from: Option<String>,
    to: Option<String>,
) -> Result<Audit, String> {
    match (verb, tenant, from, to) {
        (Some("verify"), tenant, None, None) => Ok(Audit::Verify { tenant, records }),
        (Some("export"), Some(tenant), from, to) => Ok(Audit::Export { tenant, from, to }),
        (Some("export"), None, ..) => Err("`medtech audit export` wants --tenant".into()),
        (Some("verify"), ..) => Err("--from and --to belong to `medtech audit export`".into()),
        _ => Err("`medtech audit` wants `verify` or `export`; see `medtech help`".into()),
    }
}

fn keys(
    verb: Option<&str>,
    tenant: Option<String>,
    subject: Option<(Class, String)>,
    current: Option<String>,
    next: Option<String>,
) -> Result<Keys, String> {
    if verb != Some("protect") && (current.is_some() || next.is_some()) {
        return Err("--passphrase-file and --new-passphrase-file belong to `medtech keys protect`".into());
    }
    match (verb, tenant, subject) {
        (Some("status"), tenant, None) => Ok(Keys::Status { tenant }),
        (Some("rotate"), Some(tenant), None) => Ok(Keys::Rotate { tenant }),
        (Some("rewrap"), Some(tenant), None) => Ok(Keys::Rewrap { tenant }),
        (Some("shred"), Some(tenant), Some((class, subject))) => Ok(Keys::Shred { tenant, class, subject }),
        (Some("accept-restored"), tenant, None) => Ok(Keys::AcceptRestored { tenant }),
        (Some("protect"), None, None) => Ok(Keys::Protect { current, next }),
        (Some("rotate" | "rewrap"), None, _) => Err("it wants --tenant".into()),
        (Some("shred"), ..) => {
            Err("`medtech keys shred` wants --tenant, and one of --patient, --file, --conversation".into())
        }
        _ => Err("`medtech keys` wants `status`, `rotate`, `rewrap`, `shred`, `accept-restored` or `protect`; see `medtech help`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Result<Command, String> {
        parse(Parser::from_args(args)).map(|(c, _)| c)
    }

    #[test]
    fn commands_and_their_mistakes() {
        assert_eq!(of(&["serve"]), Ok(Command::Serve));
        assert_eq!(
            of(&["token", "--user", "patient"]),
            Ok(Command::Token(Token::User(Role::Patient)))
        );
        let room = Token::Room {
            room: "r".into(),
            identity: "i".into(),
        };
        assert_eq!(of(&["token", "--room=r", "--identity", "i"]), Ok(Command::Token(room)));
        for (words, records) in [
            (&["audit", "verify"][..], false),
            (&["audit", "verify", "--records"], true),
        ] {
            let all = Audit::Verify { tenant: None, records };
            assert_eq!(of(words), Ok(Command::Audit(all)));
        }
        let march = Audit::Export {
            tenant: "demo".into(),
            from: Some("2026-03-01".into()),
            to: None,
        };
        assert_eq!(
            of(&["audit", "export", "--tenant", "demo", "--from", "2026-03-01"]),
            Ok(Command::Audit(march))
        );
        let shred = Keys::Shred {
            tenant: "demo".into(),
            class: Class::Patient,
            subject: "p1".into(),
        };
        assert_eq!(
            of(&["keys", "shred", "--tenant", "demo", "--patient", "p1"]),
            Ok(Command::Keys(shred))
        );
        let accept = Keys::AcceptRestored {
            tenant: Some("demo".into()),
        };
        assert_eq!(
            of(&["keys", "accept-restored", "--tenant", "demo"]),
            Ok(Command::Keys(accept))
        );
        for wrong in [
            &["keys"][..],
            &["keys", "accept-restored", "--patient", "p1"],
            &["keys", "rotate"],
            &["keys", "shred", "--tenant", "demo"],
            &["keys", "shred", "--tenant", "demo", "--patient", "a", "--file", "b"],
            &["keys", "status", "--passphrase-file", "f"],
            &["serve", "--patient", "p1"],
            &["audit"],
            &["audit", "burn"],
            &["audit", "export", "--tenant", "demo", "--records"],
            &["serve", "--records"],
            &["audit", "export"],
            &["audit", "verify", "--from", "2026-03-01"],
            &["audit", "verify", "again"],
            &["serve", "--tenant", "demo"],
            &["token"],
            &["token", "--user", "king"],
            &["token", "--room", "r"],
            &["dance"],
            &["serve", "--user", "admin"],
            &["serve", "--loud"],
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
