//! The configuration: cases as text, the starter, the documentation, and noise.

mod cases;
mod content;
mod documentation;
mod noise;
mod starter;

use regent::config::{Config, ConfigErrors, Loaded};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The password that the cases' environment holds; no output may show it.
const MONITOR_PASSWORD: &str = "from-the-environment-5319";
/// The password in the cases' password file; no output may show it.
const FILE_PASSWORD: &str = "from-the-file-8642";

fn env(name: &str) -> Option<String> {
    (name == "REGENT_MONITOR_PASSWORD").then(|| MONITOR_PASSWORD.to_owned())
}

/// A directory with the password files that the cases name.
fn base() -> tempfile::TempDir {
    let base = tempfile::tempdir().expect("a temporary directory");
    let secrets = base.path().join("secrets");
    fs::create_dir(&secrets).expect("a fresh directory takes another");
    for (name, text, mode) in
        [("good", FILE_PASSWORD, 0o600), ("open", FILE_PASSWORD, 0o644), ("empty", "\n", 0o600)]
    {
        let path = secrets.join(name);
        fs::write(&path, format!("{text}\n")).expect("a fresh directory takes files");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the file is ours");
    }
    fs::write(base.path().join("rules-mistaken.yaml"), RULES)
        .expect("a fresh directory takes files");
    base
}

/// A rule file in which every finding has a rule and some rules are mistaken.
const RULES: &str = concat!(
    include_str!("../../failover-rules/default.yaml"),
    "\n  # Never reached.\n",
    "  - findings: [primary_hung, no_candidate]\n    respond: alert\n    per_hour: 3\n",
    "  - { findings: [], respond: nothing }\n",
);

fn parse(text: &str, base: &Path) -> Result<Loaded, ConfigErrors> {
    Config::parse("regent.yaml", text, &env, base)
}
