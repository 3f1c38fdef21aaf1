//! `medtech`: one program, every service. Reads the command line and the configuration, then runs one subcommand.

mod app;
mod audit;
mod cli;
mod demo;
mod doctor;
mod erasing;
mod gateway;
mod joints;
mod keys;
mod links;
mod log;
mod ops;
mod sealed;
mod sealing;
mod serve;
#[cfg(test)]
mod tests;
mod tls;

use cli::Command;
use medtech_kernel::{Error, Result, config::Config};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (command, file) = match cli::parse(lexopt::Parser::from_env()) {
        Ok(parsed) => parsed,
        Err(message) => return refuse(&message, 64),
    };
    if let Command::Help(text) = command {
        say(text);
        return ExitCode::SUCCESS;
    }
    let config = match Config::load(file.as_deref(), std::env::vars()) {
        Ok(config) => config,
        Err(e) => return refuse(&e.message, 78),
    };
    if let Err(e) = install_crypto() {
        return refuse(&e.message, 70);
    }
    log::start(&config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return refuse(&e.to_string(), 71),
    };
    match runtime.block_on(run(command, config)) {
        Ok(code) => code,
        Err(e) => {
            let source = e.source.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
            refuse(&format!("{}{source}", e.message), 1)
        }
    }
}

async fn run(command: Command, config: Config) -> Result<ExitCode> {
    if command != Command::Doctor {
        tls::exposure::refuse(&config, command == Command::Serve)?;
    }
    match command {
        Command::Serve => serve::serve(config).await,
        Command::Migrate => {
            app::open(config).await?;
            say("The database is up to date.");
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor => doctor::run(&config).await,
        Command::Demo => {
            demo::ensure(&app::clinic(app::open(config).await?)).await?;
            say("The demo clinic stands.");
            Ok(ExitCode::SUCCESS)
        }
        Command::Token(what) => {
            say(&links::token(config, what).await?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Audit(what) => audit::run(config, what).await,
        Command::Keys(what) => keys::run(config, what).await,
        Command::Help(text) => {
            say(text);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// One crypto provider for TLS and for signed tokens, installed before anything can ask for one.
pub(crate) fn install_crypto() -> Result<()> {
    let twice = || Error::internal("crypto.provider", "another crypto provider was installed first");
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| twice())?;
    medtech_signaling::livekit::install_crypto();
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the answer of a subcommand")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "before or instead of the log")]
fn refuse(text: &str, code: u8) -> ExitCode {
    eprintln!("medtech: {text}");
    ExitCode::from(code)
}
