//! Each `cases/NAME.yaml` gives exactly the messages in `cases/NAME.expected`.
//!
//! To write the expected messages anew, set `REGENT_WRITE_EXPECTED`, and read the difference.

use super::{FILE_PASSWORD, MONITOR_PASSWORD, base, parse};
use std::fmt::Write;
use std::fs;
use std::path::Path;

fn outcome(text: &str, base: &Path) -> String {
    let result = parse(text, base);
    let debug = format!("{result:?}");
    let lines: Vec<String> = match &result {
        Ok(loaded) => std::iter::once("accepted".to_owned())
            .chain(loaded.warnings.iter().map(|warning| format!("warning: {warning}")))
            .collect(),
        Err(errors) => vec![errors.to_string()],
    };
    let shown = lines.join("\n") + "\n";
    for secret in [MONITOR_PASSWORD, FILE_PASSWORD, "hunter2", "24680135"] {
        assert!(!shown.contains(secret), "{secret} is shown:\n{shown}");
        assert!(!debug.contains(secret), "{secret} is in the debug output:\n{debug}");
    }
    shown
}

#[test]
fn every_case_gives_its_messages() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/config/cases");
    let base = base();
    let mut names: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    names.sort();
    assert!(names.len() >= 15, "only {} cases were found", names.len());
    let mut differences = String::new();
    for path in names {
        let shown = outcome(&fs::read_to_string(&path).unwrap(), base.path());
        let beside = path.with_extension("expected");
        if std::env::var_os("REGENT_WRITE_EXPECTED").is_some() {
            fs::write(&beside, &shown).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if shown != expected {
            let name = path.display();
            writeln!(differences, "{name}\nexpected:\n{expected}\nseen:\n{shown}").unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
}
