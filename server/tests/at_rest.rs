//! What lies on the disk after a day at the demo clinic, and after a restored copy.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a failed test panics; another process is polled"
)]

use crate::common::{Server, medtech};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Are the pages of the databases sealed? The scan leaves `db/` out until they are.
const PAGES_ARE_SEALED: bool = true;

const NAME: &str = "Quillfeather";
const NUMBER: &str = "MRN-70417-Q";
const FINDING: &str = "papular-rash-of-the-left-elbow";
const MESSAGE: &str = "the-rash-itches-at-night";
const DOCUMENT: &str = "biopsy-result-dermatofibroma";
const PLANTED: [&str; 5] = [NAME, NUMBER, FINDING, MESSAGE, DOCUMENT];

const DEMO: &[(&str, &str)] = &[("MEDTECH_DEMO", "true")];

fn run(data: &Path, args: &[&str]) -> String {
    let output = medtech(data, DEMO).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn token(data: &Path, role: &str) -> String {
    run(data, &["token", "--user", role])
        .trim()
        .lines()
        .last()
        .unwrap()
        .to_owned()
}

struct Person<'a> {
    server: &'a Server,
    token: String,
}

impl Person<'_> {
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.token);
        let kind = if path.starts_with("/fhir") {
            "application/fhir+json"
        } else {
            "application/json"
        };
        let mut headers = vec![("content-type", kind)];
        if !self.token.is_empty() {
            headers.push(("authorization", &bearer));
        }
        let body = body.map(ToString::to_string).unwrap_or_default();
        let answer = self.server.ask(method, path, &headers, body.as_bytes()).unwrap();
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, Some(body));
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}

/// A patient with a finding; answers both ids.
fn plant(clinician: &Person<'_>) -> (String, String) {
    let id = |v: Value| v["id"].as_str().unwrap().to_owned();
    let patient = id(clinician.done(
        "POST",
        "/fhir/R4/Patient",
        &json!({"resourceType": "Patient", "name": [{"family": NAME}], "identifier": [{"system": "urn:mrn", "value": NUMBER}]}),
    ));
    let observation = id(clinician.done(
        "POST",
        "/fhir/R4/Observation",
        &json!({"resourceType": "Observation", "status": "final", "code": {"text": FINDING},
            "subject": {"reference": format!("Patient/{patient}")}, "effectiveDateTime": "2026-03-02T09:00:00Z"}),
    ));
    (patient, observation)
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Every file below `dir` in which something planted can be read.
fn legible(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    files(dir, &mut all);
    assert!(
        all.iter().any(|p| p.starts_with(dir.join("files"))),
        "files were written"
    );
    let mut found = Vec::new();
    for path in all {
        if !PAGES_ARE_SEALED && path.starts_with(dir.join("db")) {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        for text in PLANTED {
            if bytes
                .windows(text.len())
                .any(|w| w.eq_ignore_ascii_case(text.as_bytes()))
            {
                found.push(format!("{text} in {}", path.display()));
            }
        }
    }
    found
}

#[test]
fn no_clinical_word_can_be_read_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let temp = dir.path().join("temp");
    std::fs::create_dir_all(&temp).unwrap();
    let vars = [DEMO[0], ("TMPDIR", temp.to_str().unwrap())];
    let mut server = Server::start(dir.path(), &vars);
    server.until("/readyz", 200);
    let clinician = Person {
        server: &server,
        token: token(dir.path(), "clinician"),
    };
    let (patient, _) = plant(&clinician);
    let (status, found) = clinician.ask("GET", &format!("/fhir/R4/Patient?family={NAME}"), None);
    assert_eq!(
        (status, found["entry"][0]["resource"]["id"].as_str()),
        (200, Some(&*patient))
    );
    // A wrong request quotes nothing of it either.
    clinician.ask(
        "POST",
        "/fhir/R4/Patient",
        Some(&json!({"resourceType": "Patient", "name": FINDING})),
    );

    // The visit of the demo's first patient: a message and a file.
    let today = clinician.done("GET", "/api/appointments/today", &Value::Null);
    let entries = today
        .as_array()
        .or_else(|| today["appointments"].as_array())
        .expect("a list");
    let link = entries.iter().find_map(|a| a["visit_link"].as_str()).expect("a visit");
    let link = link.rsplit_once('#').map_or(link, |(_, secret)| secret);
    let nobody = Person {
        server: &server,
        token: String::new(),
    };
    let opened = nobody.done(
        "POST",
        "/api/visits/open",
        &json!({"link": link, "device": {"id": "0190c1b0-0000-7000-8000-00000000000d"}}),
    );
    let guest = Person {
        server: &server,
        token: opened["access_token"].as_str().expect("a token").to_owned(),
    };
    let conversation = opened["visit"]["conversation_id"].as_str().expect("a conversation");
    guest.done(
        "POST",
        &format!("/api/messaging/conversations/{conversation}/messages"),
        &json!({"client_id": "0190c1b0-0000-7000-8000-00000000000e", "body": {"text": MESSAGE}}),
    );
    let meta = format!(
        "filename {},conversation {}",
        STANDARD.encode("result.txt"),
        STANDARD.encode(conversation)
    );
    let body = DOCUMENT.repeat(9000);
    let (half, length) = (100_000, body.len().to_string());
    let bearer = format!("Bearer {}", guest.token);
    let common = [("authorization", &*bearer), ("tus-resumable", "1.0.0")];
    let created = [&common[..], &[("upload-length", &*length), ("upload-metadata", &*meta)]].concat();
    let mut paths = Vec::new();
    for whole in [true, false] {
        let answer = server.ask("POST", "/files", &created, b"").unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        let path = answer
            .head
            .lines()
            .find_map(|l| l.to_lowercase().strip_prefix("location: ").map(str::to_owned))
            .unwrap();
        let to = if whole { body.len() } else { half };
        let more = [
            ("content-type", "application/offset+octet-stream"),
            ("upload-offset", "0"),
        ];
        let sent = server
            .ask("PATCH", &path, &[&common[..], &more].concat(), &body.as_bytes()[..to])
            .unwrap();
        assert_eq!(sent.status, 204, "{sent:?}");
        paths.push(path);
    }
    let part = [("authorization", &*bearer), ("range", "bytes=70000-70099")];
    let read = server.ask("GET", &paths[0], &part, b"").unwrap();
    assert_eq!((read.status, &*read.body), (206, &body[70_000..70_100]));

    assert_eq!(legible(dir.path()), Vec::<String>::new(), "while it runs");
    server.stop();
    assert_eq!(legible(dir.path()), Vec::<String>::new(), "after it ended");
}

fn copy(from: &Path, to: &Path) {
    let mut all = Vec::new();
    files(from, &mut all);
    for path in all {
        let place = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(&path, place).unwrap();
    }
}

#[test]
fn keys_rotate_at_the_machine_and_an_erased_patient_stays_erased_in_a_restored_copy() {
    let (dir, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = Server::start(dir.path(), DEMO);
    server.until("/readyz", 200);
    let clinician = Person {
        server: &server,
        token: token(dir.path(), "clinician"),
    };
    let (patient, observation) = plant(&clinician);
    let paths = [
        format!("/fhir/R4/Patient/{patient}"),
        format!("/fhir/R4/Observation/{observation}"),
    ];
    let (erased, seen) = (404, 200);
    let all = |clinician: &Person<'_>, status: u16| {
        for path in &paths {
            assert_eq!(clinician.ask("GET", path, None).0, status, "{path}");
        }
        let (_, found) = clinician.ask("GET", &format!("/fhir/R4/Patient?family={NAME}"), None);
        assert_eq!(
            found["entry"].as_array().map_or(0, Vec::len),
            usize::from(status == seen)
        );
    };

    // A new key from another process, while this one serves.
    assert!(run(dir.path(), &["keys", "status", "--tenant", "demo"]).contains("version 1"));
    assert!(run(dir.path(), &["keys", "rotate", "--tenant", "demo"]).contains("version 2"));
    all(&clinician, seen);
    // And by route, for whoever may.
    assert_eq!(
        clinician
            .ask("POST", "/api/operations/keys/rotate", Some(&Value::Null))
            .0,
        403
    );
    assert_eq!(clinician.ask("GET", "/api/operations/keys", None).0, 403);
    let admin = Person {
        server: &server,
        token: token(dir.path(), "admin"),
    };
    assert_eq!(
        admin.done("POST", "/api/operations/keys/rotate", &Value::Null)["version"],
        3
    );
    let standing = admin.done("GET", "/api/operations/keys", &Value::Null);
    assert!(
        standing["data_keys"]
            .as_object()
            .is_some_and(|keys| keys.len() == 1 && keys.contains_key("3")),
        "{standing}"
    );
    assert_eq!(
        clinician
            .ask("POST", "/api/operations/erasures", Some(&json!({"patient": patient})))
            .0,
        403
    );
    server.stop();

    for part in ["db", "secrets"] {
        copy(&dir.path().join(part), &backup.path().join(part));
    }
    let mut server = Server::start(dir.path(), DEMO);
    server.until("/readyz", 200);
    let admin = Person {
        server: &server,
        token: token(dir.path(), "admin"),
    };
    let clinician = Person {
        server: &server,
        token: token(dir.path(), "clinician"),
    };
    all(&clinician, seen);
    let gone = admin.done("POST", "/api/operations/erasures", &json!({"patient": patient}));
    assert!(gone["resources"].as_u64().is_some_and(|n| n >= 2), "{gone}");
    all(&clinician, erased);
    server.stop();

    // The older copy, with the older keys: what it was asked to forget stays forgotten.
    for part in ["db", "secrets"] {
        std::fs::remove_dir_all(dir.path().join(part)).unwrap();
        copy(&backup.path().join(part), &dir.path().join(part));
    }
    let mut server = Server::start(dir.path(), DEMO);
    server.until("/readyz", 200);
    let clinician = Person {
        server: &server,
        token: token(dir.path(), "clinician"),
    };
    all(&clinician, erased);
    let log = std::fs::read_to_string(&server.log).unwrap();
    assert!(log.contains("erased again what a restore had brought back"));
    server.stop();
}

/// One clinic's file is put back to an earlier time, after it had erased a patient: the others are served, and it is mended by
/// the command that is there for it.
#[test]
fn a_clinics_refused_file_keeps_neither_the_server_from_starting_nor_the_command_that_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let of_clinic = || -> Vec<PathBuf> {
        let mut all = Vec::new();
        files(&db, &mut all);
        all.retain(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("tenant-"))
        });
        all
    };
    let mut server = Server::start(dir.path(), DEMO);
    server.until("/readyz", 200);
    let clinician = Person {
        server: &server,
        token: token(dir.path(), "clinician"),
    };
    let (patient, _) = plant(&clinician);
    server.stop();
    let old: Vec<_> = of_clinic()
        .into_iter()
        .map(|p| (std::fs::read(&p).unwrap(), p))
        .collect();

    let mut server = Server::start(dir.path(), DEMO);
    server.until("/readyz", 200);
    let admin = Person {
        server: &server,
        token: token(dir.path(), "admin"),
    };
    admin.done("POST", "/api/operations/erasures", &json!({"patient": patient}));
    server.stop();

    for path in of_clinic() {
        std::fs::remove_file(path).unwrap();
    }
    for (bytes, path) in &old {
        std::fs::write(path, bytes).unwrap();
    }
    let mut server = Server::start(dir.path(), &[]);
    server.until("/readyz", 200);
    server.until("/metrics", 200);
    server.stop();
    let log = std::fs::read_to_string(dir.path().join("server.log")).unwrap();
    assert!(log.contains("db.page_stale"));

    let mended = medtech(dir.path(), &[])
        .args(["keys", "accept-restored", "--tenant", "demo"])
        .output()
        .unwrap();
    assert!(mended.status.success(), "{}", String::from_utf8_lossy(&mended.stderr));
    // The key that came back with it is destroyed before anybody is served.
    let trail = run(dir.path(), &["audit", "export", "--tenant", "demo"]);
    let target = format!("key:patient/{patient}");
    assert_eq!(
        trail.lines().filter(|line| line.contains(&target)).count(),
        1,
        "{trail}"
    );
    let mut server = Server::start(dir.path(), DEMO);
    server.until("/readyz", 200);
    let clinician = Person {
        server: &server,
        token: token(dir.path(), "clinician"),
    };
    assert_eq!(
        clinician.ask("GET", &format!("/fhir/R4/Patient/{patient}"), None).0,
        404
    );
    server.stop();
}
