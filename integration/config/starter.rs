//! `regent init` gives a configuration that is accepted, and never overwrites anything.

use regent::config::{Config, starter};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn the_starter_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("new/regent");
    let written = starter::write(&target).unwrap();
    assert_eq!(written.len(), 3);
    let loaded = Config::load(&target.join("regent.yaml")).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(
        (loaded.config.watchers.len(), loaded.config.clusters[0].spec.servers.len()),
        (3, 3)
    );
    let accounts = &loaded.config.clusters[0].credentials;
    let password = accounts.monitor.password.reveal();
    assert_eq!(password.len(), 35);
    assert_ne!(password, accounts.replication.password.reveal());
    assert!(!format!("{loaded:?}").contains(password));
    for path in &written[..2] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn nothing_is_overwritten() {
    for name in ["regent.yaml", "secrets/monitor.password"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let refusal = starter::write(directory.path()).unwrap_err().to_string();
        assert!(refusal.contains("exists already"), "{refusal}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert!(!directory.path().join("secrets/replication.password").exists());
    }
}
