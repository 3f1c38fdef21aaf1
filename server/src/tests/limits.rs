//! docs/security/limits.md says what the code does: every bound that the page quotes is the one in the file it names.

use std::path::Path;

/// (file, constant, value) of each row that names one.
fn quoted(page: &str) -> Vec<(&str, &str, &str)> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    rows.filter_map(|row| {
        let place = row.trim_end_matches(" |").rsplit(" | ").next()?;
        let mut parts = place.contains("` = `").then(|| place.split('`').skip(1).step_by(2))?;
        Some((parts.next()?, parts.next()?, parts.next()?))
    })
    .collect()
}

/// The value of a constant as its file writes it.
fn written<'a>(source: &'a str, name: &str) -> Option<&'a str> {
    source.lines().find_map(|line| {
        let rest = line
            .trim_start()
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ");
        let rest = rest
            .trim_start_matches("pub ")
            .strip_prefix("const ")?
            .strip_prefix(name)?;
        let (_, value) = rest.strip_prefix(": ")?.split_once(" = ")?;
        value.strip_suffix(';')
    })
}

#[test]
fn the_page_of_limits_says_what_the_code_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/security/limits.md")).expect("the page");
    let quoted = quoted(&page);
    assert!(quoted.len() >= 60, "{} bounds are quoted", quoted.len());
    for (file, name, value) in quoted {
        let source = std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(written(&source, name), Some(value), "{file} {name}");
    }
    let limits = medtech_kernel::config::Limits::default();
    let rate = |second: u32, burst: u32| format!("{second} requests a second, {} at once", thousands(burst));
    assert!(page.contains(&rate(limits.session_per_second, limits.session_burst)));
    assert!(page.contains(&rate(limits.network_per_second, limits.network_burst)));
    let hub = medtech_signaling::channels::Options::default();
    let connections = thousands(u32::try_from(hub.max_connections).expect("a small number"));
    let (channels, rate, burst) = (hub.channels_per_client, hub.commands_per_second, hub.burst);
    let live = format!("{connections}; of a connection {channels} channels, {rate} commands a second, {burst} at once");
    assert!(page.contains(&live), "{live}");
    let files = medtech_messaging::files::Limits::default();
    let gib = |bytes: u64| format!("{} GiB", bytes >> 30);
    let own = format!(
        "{}; by a link {}; unfinished uploads {}",
        gib(files.max_owned),
        gib(files.max_owned_by_guest),
        files.max_pending
    );
    assert!(page.contains(&own), "{own}");
    let of_files = std::fs::read_to_string(root.join("docs/security/files.md")).expect("the page of files");
    let hours = files.keep_pending / 3_600_000;
    for bound in [
        format!("| one file | {} ", gib(files.max_file)),
        format!(
            "{}; of someone who came by a link {}",
            gib(files.max_owned),
            gib(files.max_owned_by_guest)
        ),
        format!("| {}, each kept {hours} hours |", files.max_pending),
    ] {
        assert!(of_files.contains(&bound), "{bound}");
    }
}

fn thousands(n: u32) -> String {
    match n / 1000 {
        0 => n.to_string(),
        above => format!("{above},{:03}", n % 1000),
    }
}

/// The codes that docs/security/logs.md tells operators to count exist.
#[test]
fn the_page_of_logs_names_codes_that_are_given() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/security/logs.md")).expect("the page");
    let table = page.split("| code |").nth(1).expect("the table of codes");
    let rows = table.lines().skip(2).take_while(|l| l.starts_with("| "));
    let codes: Vec<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap_or("").split('`').skip(1).step_by(2))
        .collect();
    assert!(codes.len() >= 10, "{codes:?}");
    let mut sources = String::new();
    let mut folders: Vec<_> = [
        "kernel/src",
        "server/src/gateway",
        "clinical-api/identity/src",
        "signaling/src",
        "messaging/src",
    ]
    .map(|f| root.join(f))
    .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|e| e == "rs") => {
                    sources.push_str(&std::fs::read_to_string(path).expect("a file"));
                }
                _ => {}
            }
        }
    }
    for code in codes {
        assert!(sources.contains(&format!("\"{code}\"")), "{code} is given nowhere");
    }
}

/// A number that runs over its end must not go on as another number in what is shipped: the tests would not show it, since
/// they are built with the check.
#[test]
fn release_builds_stop_at_a_number_out_of_range() {
    let manifest =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).expect("the manifest");
    let section = |name: &str| {
        let (_, rest) = manifest.split_once(&format!("\n[{name}]\n")).unwrap_or_default();
        rest.split("\n[").next().unwrap_or_default().to_owned()
    };
    assert!(section("profile.release").contains("overflow-checks = true"));
    // None of our own crates is taken out again.
    for own in manifest.split("[profile.release.package.").skip(1) {
        let (name, rest) = own.split_once(']').expect("a section");
        let off = rest
            .split("\n[")
            .next()
            .unwrap_or_default()
            .contains("overflow-checks = false");
        assert!(!off || name == "\"*\"", "{name}");
    }
}

/// SECURITY.md promises a time for each severity.
#[test]
fn the_promise_of_times_names_every_severity() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md")).expect("the page");
    let (_, table) = page
        .split_once("| severity (CVSS) | within |")
        .expect("the table of times");
    let rows: Vec<&str> = table.lines().skip(2).take_while(|l| l.starts_with("| ")).collect();
    let mut last = 0;
    for severity in ["critical", "high", "medium", "low"] {
        let row = rows
            .iter()
            .find(|r| r.starts_with(&format!("| {severity}")))
            .expect(severity);
        let within = row.split('|').nth(2).unwrap_or_default();
        let days = within
            .split_whitespace()
            .filter_map(|w| w.parse::<u32>().ok())
            .max()
            .expect("a number of days");
        assert!(days >= last && days <= 90, "{row}");
        last = days;
    }
}

#[test]
fn a_bill_of_materials_is_made_in_ci() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("a file");
    assert!(read(".ci/run").contains("tests/scripts/sbom.sh"));
    let script = read("tests/scripts/sbom.sh");
    for word in [
        "cargo cyclonedx",
        "server/Cargo.toml",
        "npm sbom",
        "web-client/package-lock.json",
        "checksum",
    ] {
        assert!(script.contains(word), "{word}");
    }
}
