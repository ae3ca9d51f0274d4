//! The shape of the code, held as data: who may import whom, what is pure, how long files are.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules and what each may import; `ARCHITECTURE.md` shows the same table.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("decision", &["clock"]),
    ("watcher", &["decision", "clock"]),
    ("config", &["decision", "clock"]),
    ("wire", &["decision"]),
    ("runtime", &["watcher", "decision", "config", "clock", "wire"]),
    ("proxy", &["decision", "config", "clock", "wire"]),
    ("api", &["runtime", "decision", "config", "clock"]),
    ("cli", &["api", "config", "runtime", "decision", "clock"]),
    ("demo", &["config", "decision", "api", "clock"]),
    ("node", &["api", "clock", "config", "decision", "proxy", "runtime", "watcher", "wire"]),
    ("main", &["cli", "node", "config", "demo", "decision"]),
];

/// Of these modules only that part may be used from there.
const ONLY: &[(&str, &str, &[&str])] = &[
    ("cli", "api", &["client", "types"]),
    ("cli", "runtime", &["backup"]),
    ("cli", "decision", &["backup", "topology"]),
    ("api", "runtime", &["handle", "Handle", "metrics"]),
    ("main", "decision", &["sketch"]),
];

/// What has no place in `decision/` and `watcher/`.
const IMPURE: &[&str] = &[
    "async ",
    ".await;",
    ".await?",
    ".await.",
    "tokio",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "Instant",
    "SystemTime",
    "clock::Clock",
    "TimeZone::get",
    "TimeZone::system",
    "Zoned::now",
    "Timestamp::now",
    "rand::",
    "HashMap",
    "HashSet",
    "println!",
];

const MOST_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn files(folder: &Path, end: &str, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, end, into);
        } else if path.extension().is_some_and(|found| found == end) {
            into.push(path);
        }
    }
    into.sort();
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root().join("src"), "rs", &mut found);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root().join("src")).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    };
    found.into_iter().map(read).collect()
}

fn module(file: &str) -> &str {
    let top = file.split('/').next().unwrap_or(file);
    top.strip_suffix(".rs").unwrap_or(top)
}

/// Every `crate::module::part` a line names, grouped imports included.
fn imports(line: &str) -> Vec<(&str, &str)> {
    let code = line.trim_start();
    if code.starts_with("//") {
        return Vec::new();
    }
    let word = |text: &'static str| text;
    let mut found = Vec::new();
    for start in [word("crate::"), word("regent::")] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &code[at + start.len()..];
            let end = |c: char| !(c.is_alphanumeric() || c == '_');
            if let Some(group) = rest.strip_prefix('{') {
                let names = group.split(['}', ',']).map(str::trim);
                found
                    .extend(names.map(|name| (name.split(end).next().unwrap_or_default(), "self")));
                continue;
            }
            let name = rest.split(end).next().unwrap_or_default();
            let part = rest[name.len()..].strip_prefix("::").unwrap_or_default();
            found.push((name, part.split(end).next().unwrap_or_default()));
        }
    }
    found
}

#[test]
fn modules_import_only_what_they_may() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let from = module(&file);
        if from == "lib" {
            continue;
        }
        let row = MAY_IMPORT.iter().find(|(name, _)| *name == from);
        let (_, allowed) = row.unwrap_or_else(|| panic!("src/{file} is in no row of the table"));
        for (number, line) in text.lines().enumerate() {
            for (to, part) in imports(line) {
                let known = MAY_IMPORT.iter().any(|(name, _)| *name == to);
                let limit = ONLY.iter().find(|(a, b, _)| (*a, *b) == (from, to));
                let within = limit.is_none_or(|(_, _, parts)| parts.contains(&part));
                if known && to != from && !(allowed.contains(&to) && within) {
                    wrong.push(format!(
                        "src/{file}:{}: {from} may not import {to}::{part}",
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_map_shows_the_same_table() {
    let map = fs::read_to_string(root().join("src/ARCHITECTURE.md")).unwrap();
    for (name, allowed) in MAY_IMPORT {
        let parts: Vec<_> = allowed.iter().map(|to| format!("`{to}`")).collect();
        let list = if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") };
        let row = format!("| `{name}` | {list} |");
        assert!(map.contains(&row), "src/ARCHITECTURE.md lacks the row\n{row}");
    }
}

#[test]
fn deciding_code_touches_nothing() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        if !["decision", "watcher"].contains(&module(&file)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            let impure = IMPURE.iter().find(|what| code.contains(**what));
            if let Some(what) = impure.filter(|_| !code.starts_with("//")) {
                wrong.push(format!("src/{file}:{}: {what}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_small() {
    let long = |(file, text): &(String, String)| {
        let lines = text.lines().count();
        (lines > MOST_LINES).then(|| format!("src/{file} has {lines} lines"))
    };
    let long: Vec<_> = sources().iter().filter_map(long).collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn every_source_file_is_part_of_the_crate() {
    let all = sources();
    let declared: BTreeSet<String> = all
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| {
            let line = line.trim_start().trim_start_matches("pub(super) ");
            let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
        })
        .collect();
    for (file, _) in &all {
        let path = Path::new(file);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let name = match stem {
            "mod" => path.parent().unwrap().file_name().unwrap().to_str().unwrap(),
            "main" | "lib" => continue,
            other => other,
        };
        let by_path =
            all.iter().any(|(_, text)| text.contains(&format!("#[path = \"{stem}.rs\"]")));
        assert!(declared.contains(name) || by_path, "src/{file} is declared nowhere");
    }
}

#[test]
fn names_of_files_say_what_they_hold() {
    let avoided = ["manager", "handler", "helper", "util", "utils", "common", "context", "impl"];
    for (file, text) in sources() {
        for part in file.trim_end_matches(".rs").split(['/', '_']) {
            assert!(!avoided.contains(&part), "src/{file}: {part} says nothing");
        }
        let outside = ["/wo", "rk/"].concat();
        assert!(!text.contains(&outside), "src/{file} names a path of one machine");
    }
}

#[test]
fn every_finding_and_every_rule_has_a_case() {
    let mut found = Vec::new();
    files(&root().join("integration/decisions/cases"), "case", &mut found);
    let decided: String = found
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .filter_map(|text| text.split_once("---\n").map(|(_, decided)| decided.to_owned()))
        .collect();
    for kind in regent::decision::diagnosis::ALL_KINDS {
        assert!(decided.contains(&format!("finding {kind}")), "no case finds {kind}");
    }
    for (name, _) in regent::decision::rules::SHIPPED {
        let set = regent::decision::rules::RuleSet::shipped(name).unwrap();
        for (place, rule) in set.rules.iter().enumerate() {
            if rule.respond != regent::decision::rules::Respond::Nothing {
                let said = format!("rule {} of {name}: {}", place + 1, rule.respond);
                assert!(decided.contains(&said), "no case is decided by {said}");
            }
        }
    }
}

#[test]
fn every_page_is_linked_from_the_first_one() {
    let Ok(readme) = fs::read_to_string(root().join("README.md")) else { return };
    let mut pages = Vec::new();
    files(&root().join("docs"), "md", &mut pages);
    for page in pages {
        let name = format!("docs/{}", page.file_name().unwrap().to_str().unwrap());
        assert!(readme.contains(&name), "README.md does not link {name}");
    }
}
