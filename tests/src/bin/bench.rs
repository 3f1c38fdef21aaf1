//! `make bench`: our figures beside a peer's from the same run. Slowness is a figure, never a failure; the exit code says
//! only whether everything worked.

use medtech_tests::measure::{fhir, live, media, pages, start, visit};
use medtech_tests::report::{self, Goal, Row};
use medtech_tests::servers::{LiveKit, MediaServer, Medtech};
use medtech_tests::{Context, Result, process};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "bench [PART...]: parts are start, media, visit, fhir, live, pages; all of them without arguments.
MEDTECH_BIN: the server's program (default: beside this one). PEERS_DIR: where peers are installed, or they are in PATH.
BENCH_SECONDS: length of one media run (default 10). With all parts the table goes into docs/performance.md.";
const PARTS: [&str; 6] = ["start", "media", "visit", "fhir", "live", "pages"];
/// Ours and the peer's take turns, so that what else the machine does falls on both.
const ROUNDS: usize = 2;
const SHAPES: [(&str, media::Shape); 2] = [
    (
        "1 publisher, 10 subscribers",
        media::Shape {
            rooms: 1,
            subscribers: 10,
        },
    ),
    (
        "10 rooms of two",
        media::Shape {
            rooms: 10,
            subscribers: 1,
        },
    ),
];

#[tokio::main]
async fn main() -> ExitCode {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        let known = matches!(unknown.as_str(), "--help" | "-h");
        say(HELP);
        return if known { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut bench = Bench {
        parts,
        rows: Vec::new(),
        notes: Vec::new(),
        failures: Vec::new(),
    };
    bench.run().await;
    match bench.finish() {
        Ok(()) if bench.failures.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

struct Bench {
    parts: Vec<String>,
    rows: Vec<Row>,
    notes: Vec<String>,
    failures: Vec<String>,
}

impl Bench {
    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|p| p == part)
    }

    async fn run(&mut self) {
        if self.wants("pages") {
            self.pages();
            if self.parts.len() == 1 {
                return;
            }
        }
        let server = match start::measure(&program()).await {
            Ok((figures, server)) => {
                if self.wants("start") {
                    self.start(&figures);
                }
                Some(server)
            }
            Err(error) => {
                self.failed("start", &error);
                None
            }
        };
        if self.wants("media") {
            self.media(server.as_ref()).await;
        }
        let Some(server) = server else { return };
        if self.wants("fhir") {
            say("FHIR over HTTP");
            match fhir::measure(&server).await {
                Ok(rates) => {
                    let mut rate = |what: &str, rate, goal| {
                        self.row(
                            &format!("FHIR {what}, for each CPU-second"),
                            "/s",
                            Some(rate),
                            None,
                            Goal::AtLeast(goal),
                        )
                    };
                    rate("create (Observation)", rates.create, 4_500.0);
                    rate("read", rates.read, 20_000.0);
                    rate("search by patient and code, 10 found", rates.search, 6_000.0);
                }
                Err(error) => self.failed("fhir", &error),
            }
        }
        if self.wants("visit") {
            say("from admit to media");
            match visit::admit_to_media(&server).await {
                Ok(ms) => self.row(
                    "from admit to the first packet at the patient",
                    "ms",
                    Some(ms),
                    None,
                    Goal::AtMost(300.0),
                ),
                Err(error) => self.failed("visit", &error),
            }
        }
        if self.wants("live") {
            say("live channels");
            match self.live(&server).await {
                Ok(figures) => {
                    let message = Some(figures.ms_per_message);
                    self.row(
                        "CPU for a chat message by REST, stored",
                        "ms",
                        message,
                        None,
                        Goal::None,
                    );
                    self.row(
                        "live deliveries to 200 subscribers, for each CPU-second",
                        "/s",
                        Some(figures.deliveries_per_cpu_second),
                        None,
                        Goal::AtLeast(150_000.0),
                    );
                    self.row(
                        "memory of an idle live connection",
                        "KiB",
                        Some(figures.kib_per_idle_connection),
                        None,
                        Goal::AtMost(2.0),
                    );
                }
                Err(error) => self.failed("live", &error),
            }
        }
        server.stop().await;
    }

    fn pages(&mut self) {
        say("sealed pages beside plain SQLite");
        match pages::measure() {
            Ok(pages::Pages { commit, read }) => {
                for (what, [ours, plain], goal) in [
                    (
                        "CPU of a commit of 12 rows, beside plain SQLite",
                        commit,
                        Goal::RatioAtMost(1.25),
                    ),
                    ("CPU of a cached point read, beside plain SQLite", read, Goal::None),
                ] {
                    self.row(what, "µs", Some(ours), Some(plain), goal);
                }
            }
            Err(error) => self.failed("pages", &error),
        }
    }

    fn start(&mut self, figures: &start::Start) {
        self.row(
            "ready on an existing data directory",
            "s",
            Some(figures.existing_s),
            None,
            Goal::AtMost(1.0),
        );
        self.row(
            "ready the first time, demo clinic created",
            "s",
            Some(figures.first_s),
            None,
            Goal::None,
        );
        self.row(
            "resident memory when idle, demo clinic",
            "MiB",
            Some(figures.idle_mib),
            None,
            Goal::AtMost(60.0),
        );
    }

    async fn media(&mut self, ours: Option<&Medtech>) {
        let livekit = match LiveKit::find() {
            Some(program) => LiveKit::start(&program)
                .await
                .map_err(|e| self.failed("LiveKit", &e))
                .ok(),
            None => {
                self.notes
                    .push("Peer not found: `livekit-server` (set `PEERS_DIR`, or put it into `PATH`).".into());
                None
            }
        };
        for (name, shape) in SHAPES {
            let mut runs: [Vec<media::Run>; 2] = [Vec::new(), Vec::new()];
            for round in 0..ROUNDS {
                let servers = [ours.map(MediaServer::Ours), livekit.as_ref().map(MediaServer::LiveKit)];
                for ((server, who), runs) in servers.into_iter().zip(["ours", "LiveKit"]).zip(&mut runs) {
                    let Some(server) = server else { continue };
                    let label = format!("bench-{}-{round}", shape.rooms);
                    match media::forward(&server, &label, shape, media_seconds()).await {
                        Ok(run) => {
                            say(&format!(
                                "media, {name}, {who}: {:.1} µs a packet, {:.0} packets/s, {:.1} % delivered, {} missing, {} repeated, {:.1} / {:.1} ms added (p50 / p99)",
                                run.us_per_packet,
                                run.packets_per_second,
                                run.delivered * 100.0,
                                run.missing,
                                run.repeated,
                                run.p50_ms,
                                run.p99_ms,
                            ));
                            runs.push(run);
                        }
                        Err(error) => self.failed(&format!("media, {name}, {who}"), &error),
                    }
                }
            }
            let figure = |runs: &[media::Run], of: fn(&media::Run) -> f64| {
                (!runs.is_empty()).then(|| runs.iter().map(of).sum::<f64>() / runs.len() as f64)
            };
            let [ours, peer] = &runs;
            let mut both = |what: &str, unit, goal, of: fn(&media::Run) -> f64| {
                self.row(
                    &format!("{what}, {name}"),
                    unit,
                    figure(ours, of),
                    figure(peer, of),
                    goal,
                );
            };
            both("CPU for each forwarded packet", "µs", Goal::RatioAtMost(0.33), |r| {
                r.us_per_packet
            });
            both("added latency p50", "ms", Goal::None, |r| r.p50_ms);
            both("added latency p99", "ms", Goal::None, |r| r.p99_ms);
            both("delivered", "%", Goal::AtLeast(99.5), |r| r.delivered * 100.0);
        }
        if let Some(livekit) = livekit {
            livekit.stop().await;
        }
    }

    async fn live(&self, server: &Medtech) -> Result<live::Live> {
        let mut host = server.client("clinician").await?;
        let visits = host.get("/api/visits").await?;
        let conversation = visits.pointer("/visits/0/conversation_id").and_then(Value::as_str);
        live::measure(server, conversation.context("the clinician has no open visit")?).await
    }

    fn row(&mut self, what: &str, unit: &'static str, ours: Option<f64>, peer: Option<f64>, goal: Goal) {
        self.rows.push(Row {
            what: what.into(),
            unit,
            ours,
            peer,
            goal,
        });
    }

    fn failed(&mut self, part: &str, error: &medtech_tests::Failure) {
        say(&format!("{part} does not work: {error}"));
        self.failures.push(part.to_owned());
    }

    /// Prints the table; writes it into the page when everything was asked for and worked.
    fn finish(&mut self) -> Result<()> {
        let mut text = format!(
            "{} · {} · load average at the end {:.1} · `make bench`{}\n\n{}",
            jiff::Timestamp::now().strftime("%Y-%m-%d"),
            process::machine(),
            process::load_average(),
            if cfg!(debug_assertions) {
                " (debug build: no figure to compare)"
            } else {
                ""
            },
            report::table(&self.rows),
        );
        for note in &self.notes {
            text.push_str(&format!("\n{note}\n"));
        }
        say(&format!("\n{text}"));
        if !self.failures.is_empty() {
            say(&format!("did not work: {}", self.failures.join(", ")));
        } else if self.parts.is_empty() && !cfg!(debug_assertions) {
            let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
            report::write_page(&page, &text)?;
            say("written into docs/performance.md");
        }
        Ok(())
    }
}

/// Our server: where it was said to be, else beside this program.
fn program() -> PathBuf {
    std::env::var_os("MEDTECH_BIN").map(PathBuf::from).unwrap_or_else(|| {
        let own = std::env::current_exe().unwrap_or_default();
        own.with_file_name("medtech")
    })
}

fn media_seconds() -> Duration {
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10).clamp(1, 120))
}

fn say(text: &str) {
    // A closed terminal is no reason to stop measuring.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
