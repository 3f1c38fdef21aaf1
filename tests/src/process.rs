//! A server as a process of its own: what it costs (from `/proc`), what it prints, and its end by process id.

use crate::{Context, Result};
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines kept of what a server says, for the message when it fails.
const KEPT_LINES: usize = 200;

/// The CPU time of every thread of a process, in nanoseconds.
pub struct Cpu(HashMap<OsString, u64>);

impl Cpu {
    /// Seconds used since `before`. What a thread that ended in between used is lost, which is little: the servers keep theirs.
    pub fn since(&self, before: &Self) -> f64 {
        let used = |(thread, now): (&OsString, &u64)| now.saturating_sub(before.0.get(thread).copied().unwrap_or(0));
        self.0.iter().map(used).sum::<u64>() as f64 / 1e9
    }
}

/// A running server; ended when dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `program`; its output is read all the time, so that it never blocks on a full pipe.
    pub fn start<A: AsRef<OsStr>>(program: &Path, args: &[A], env: &[(String, String)]) -> Result<Self> {
        let mut child = command(program, args, env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(format!("starting {}", program.display()))?;
        let log = Arc::new(Mutex::new(Vec::new()));
        if let Some(out) = child.stdout.take() {
            keep(out, log.clone());
        }
        if let Some(out) = child.stderr.take() {
            keep(out, log.clone());
        }
        Ok(Self { child, log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said last.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// CPU time used so far, in seconds: nanoseconds of each thread where the kernel counts them (`schedstat`). The
    /// hundredths of `/proc/PID/stat` are coarser than what is measured here.
    pub fn cpu(&self) -> Result<Cpu> {
        let mut threads = HashMap::new();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).context("reading the server's threads")?;
        for task in tasks.flatten() {
            // A thread may end while it is looked at.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let ns: u64 = text
                .split_ascii_whitespace()
                .next()
                .and_then(|ns| ns.parse().ok())
                .context("the form of schedstat")?;
            threads.insert(task.file_name(), ns);
        }
        if threads.is_empty() {
            return Err("the server has no threads with a count of their time".into());
        }
        Ok(Cpu(threads))
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> Result<f64> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.id())).context("reading the server's memory")?;
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .strip_suffix("kB")?
                    .trim()
                    .parse()
                    .ok()
            })
            .context("VmRSS in /proc/PID/status")
    }

    /// An error with its last words, if it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait().context("looking after the server")? {
            None => Ok(()),
            Some(status) => Err(format!("the server ended with {status}:\n{}", self.log().join("\n")).into()),
        }
    }

    /// Asks it to end, insists after ten seconds.
    pub async fn stop(mut self) {
        let asked = Command::new("kill")
            .args(["-TERM", &self.id().to_string()])
            .status()
            .is_ok_and(|s| s.success());
        let patience = Instant::now() + Duration::from_secs(10);
        while asked && Instant::now() < patience {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // `drop` ends it.
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `program` with exactly this configuration: what is set for another installation of ours does not reach it.
pub fn command<A: AsRef<OsStr>>(program: &Path, args: &[A], env: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    let inherited = std::env::vars_os().map(|(key, _)| key);
    inherited
        .filter(|key| key.as_encoded_bytes().starts_with(b"MEDTECH_"))
        .for_each(|key| {
            command.env_remove(key);
        });
    command.args(args).envs(env.iter().map(|(k, v)| (k, v)));
    command
}

fn keep(out: impl std::io::Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            if log.len() >= KEPT_LINES {
                log.remove(0);
            }
            log.push(line);
        }
    });
}

/// A TCP port on the loopback that is free now.
pub fn free_port() -> Result<u16> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?;
    Ok(probe.local_addr().context("a free port")?.port())
}

/// A UDP port on the loopback that is free now.
pub fn free_udp_port() -> Result<u16> {
    let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?;
    Ok(probe.local_addr().context("a free port")?.port())
}

/// The processor's name, how many it has, and how much memory.
pub fn machine() -> String {
    let read = |path, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
        line.and_then(|l| l.split_once(':').map(|(_, v)| v.trim().to_owned()))
            .unwrap_or_else(|| "unknown".into())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = read("/proc/meminfo", "MemTotal")
        .trim_end_matches(" kB")
        .parse::<f64>()
        .unwrap_or(0.0)
        / 1_048_576.0;
    format!("{cores} × {}, {memory:.0} GiB", read("/proc/cpuinfo", "model name"))
}

/// The load of the last minute: what else the machine was doing.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|v| v.parse().ok()).unwrap_or(f64::NAN)
}
