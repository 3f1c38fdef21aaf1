//! The pages on keys and on data say what the code does: every derived key, every table and every sealed column is on them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test panics")]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs/security").join(name)).unwrap()
}

/// Every file of the parts with this ending, tests left out.
fn sources(ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = [
        "kernel",
        "signaling",
        "messaging",
        "notifications",
        "clinical-api",
        "server",
    ]
    .map(|part| root().join(part))
    .to_vec();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["tests", "examples", "benches", "target", "pages"].contains(&name.as_str()) {
                    open.push(path);
                }
            } else if name.ends_with(ending) && name != "tests.rs" {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                found.push((path, code));
            }
        }
    }
    assert!(found.len() > 5, "{ending}: {}", found.len());
    found
}

/// The string literals that follow `opening` directly.
fn literals<'a>(code: &'a str, opening: &str) -> Vec<&'a str> {
    code.split(opening)
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect()
}

#[test]
fn every_key_that_the_code_derives_or_wraps_is_on_the_page() {
    let page = page("keys.md");
    let mut labels = 0;
    for (path, code) in sources(".rs") {
        let mut found = Vec::new();
        for opening in [".derive(\"", ".derive(&format!(\"", "let label = format!(\""] {
            found.extend(literals(&code, opening));
        }
        for name in ["PURPOSE", "LABEL", "VERIFIER", "PEPPER"] {
            let opening = format!("const {name}: &str = \"");
            if code.contains("derive(VERIFIER")
                || code.contains("derive(PEPPER")
                || code.contains("seal::")
                || code.contains("seal::open")
            {
                found.extend(code.split(&opening).skip(1).map(|rest| rest.split('"').next().unwrap()));
            }
        }
        for label in found {
            labels += 1;
            assert!(
                page.contains(&format!("`{label}`")),
                "{}: no `{label}` on keys.md",
                path.display()
            );
        }
    }
    // The keys of clinics and of data have their names from types.
    for name in medtech_kernel::vault::key_names() {
        labels += 1;
        assert!(page.contains(&format!("`{name}`")), "no `{name}` on keys.md");
    }
    assert!(labels >= 20, "only {labels} keys were found in the code");
    // Somebody who names a key by something else than a literal would slip by.
    for (path, code) in sources(".rs") {
        for rest in code.split(".derive(").skip(1) {
            let known = ["\"", "&format!(\"", "VERIFIER", "PEPPER", "label"];
            assert!(
                known.iter().any(|k| rest.starts_with(k)),
                "{}: {:.40}",
                path.display(),
                rest
            );
        }
    }
}

/// The rows of data.md that name a table, as columns.
fn rows<'a>(page: &'a str, table: &str) -> Vec<Vec<&'a str>> {
    let name = format!("`{table}`");
    page.lines()
        .map(|line| line.split('|').collect::<Vec<_>>())
        .filter(|cells| cells.len() == 7 && cells[1].contains(&name))
        .collect()
}

#[test]
fn every_table_has_its_place_and_every_sealed_column_is_named() {
    let page = page("data.md");
    let mut tables = 0;
    for (path, sql) in sources(".sql") {
        for rest in sql.split("CREATE TABLE ").skip(1) {
            let table = rest.split([' ', '(']).next().unwrap();
            let found = rows(&page, table);
            assert_eq!(found.len(), 1, "{}: `{table}` in data.md", path.display());
            let levels = found[0][2].trim();
            assert!(
                !levels.is_empty() && levels.split(", ").all(|l| "SCPOTI".contains(l) && l.len() == 1),
                "{table}: {levels}"
            );
            tables += 1;
        }
    }
    assert!(tables > 60, "{tables}");
    let mut columns = 0;
    for (path, code) in sources(".rs") {
        for (kind, at) in [("Field::new(\"", 3), ("Blind::new(\"", 4)] {
            for rest in code.split(kind).skip(1) {
                let (table, rest) = rest.split_once("\", \"").unwrap();
                let column = rest.split('"').next().unwrap();
                let found = rows(&page, table);
                let named = format!("`{column}`");
                assert!(
                    found.len() == 1 && found[0][at].contains(&named),
                    "{}: {table}.{column} in data.md",
                    path.display()
                );
                columns += 1;
            }
        }
    }
    assert!(columns >= 25, "{columns}");
}
