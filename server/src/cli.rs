//! The command line.

use lexopt::{Arg, Parser, ValueExt};
use medtech_kernel::auth::Role;
use std::path::PathBuf;

/// A subcommand with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Serve,
    Migrate,
    Doctor,
    Demo,
    Token(Token),
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
  help       this text

Every configuration key can be given as MEDTECH_*, for instance MEDTECH_DATA_DIR; docs/configuration.md lists them.";

/// Parses the command line; the error is a sentence for the user.
pub(crate) fn parse(mut args: Parser) -> Result<(Command, Option<PathBuf>), String> {
    let (mut name, mut file, mut user, mut room, mut identity) = (None, None, None, None, None);
    let text = |args: &mut Parser| args.value().and_then(|v| v.string()).map_err(|e| e.to_string());
    while let Some(arg) = args.next().map_err(|e| e.to_string())? {
        match arg {
            Arg::Long("config") => file = Some(PathBuf::from(text(&mut args)?)),
            Arg::Long("user") => user = Some(text(&mut args)?),
            Arg::Long("room") => room = Some(text(&mut args)?),
            Arg::Long("identity") => identity = Some(text(&mut args)?),
            Arg::Long("help") | Arg::Short('h') => name = Some("help".to_owned()),
            Arg::Value(v) if name.is_none() => name = Some(v.string().map_err(|e| e.to_string())?),
            other => return Err(format!("{}; see `medtech help`", other.unexpected())),
        }
    }
    let is_token = name.as_deref() == Some("token");
    if !is_token && (user.is_some() || room.is_some() || identity.is_some()) {
        return Err("--user, --room and --identity belong to `medtech token`".into());
    }
    let command = match name.as_deref() {
        Some("serve") => Command::Serve,
        Some("migrate") => Command::Migrate,
        Some("doctor") => Command::Doctor,
        Some("demo") => Command::Demo,
        Some("token") => Command::Token(token(user, room, identity)?),
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
        for wrong in [
            &["token"][..],
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
