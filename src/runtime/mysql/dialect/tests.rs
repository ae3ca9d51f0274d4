//! The texts as data: version by version.

use super::*;

fn mysql(version: &str, plugins: &[&str]) -> Dialect {
    let plugins: Vec<String> = plugins.iter().map(|plugin| (*plugin).to_owned()).collect();
    Dialect::new(version, &plugins)
}

fn mariadb() -> Dialect {
    Dialect::new("10.11.19-MariaDB-deb12", &["rpl_semi_sync_master".to_owned()])
}

fn endpoint() -> Endpoint {
    Endpoint { host: "db2".to_owned(), port: 3307 }
}

fn change(dialect: &Dialect, new: bool) -> String {
    dialect.change(&Change {
        channel: "",
        source: &endpoint(),
        heartbeat: Duration::from_millis(250),
        position_by_gtid: new,
        login: new.then_some(("repl", r"it's\a")),
    })
}

#[test]
fn versions_are_read() {
    for (text, flavor, version) in [
        ("8.0.21", Flavor::MySql, (8, 0, 21)),
        ("9.7.4-debug", Flavor::MySql, (9, 7, 4)),
        ("8.4.3-3", Flavor::MySql, (8, 4, 3)),
        ("10.11.19-MariaDB-0+deb12u1-log", Flavor::MariaDb, (10, 11, 19)),
    ] {
        let dialect = Dialect::new(text, &[]);
        let found = (dialect.version.major, dialect.version.minor, dialect.version.patch);
        assert_eq!((dialect.flavor, found), (flavor, version), "{text}");
    }
}

#[test]
fn threads_are_named_as_each_version_knows_them() {
    for (version, text) in [
        ("8.0.21", "STOP SLAVE IO_THREAD FOR CHANNEL ''"),
        ("8.0.22", "STOP REPLICA IO_THREAD FOR CHANNEL ''"),
        ("8.4.0", "STOP REPLICA IO_THREAD FOR CHANNEL ''"),
        ("9.7.4", "STOP REPLICA IO_THREAD FOR CHANNEL ''"),
        ("10.5.1-MariaDB", "STOP SLAVE '' IO_THREAD"),
        ("11.8.2-MariaDB", "STOP SLAVE '' IO_THREAD"),
    ] {
        assert_eq!(Dialect::new(version, &[]).stop(Threads::Receiver, ""), text, "{version}");
    }
    assert_eq!(mysql("9.7.4", &[]).start(Threads::Both, "a"), "START REPLICA FOR CHANNEL 'a'");
    assert_eq!(mariadb().start(Threads::Applier, "a"), "START SLAVE 'a' SQL_THREAD");
    assert_eq!(mysql("8.0.21", &[]).forget(""), "RESET SLAVE ALL FOR CHANNEL ''");
    assert_eq!(mysql("8.4.0", &[]).forget(""), "RESET REPLICA ALL FOR CHANNEL ''");
    assert_eq!(mariadb().forget(""), "RESET SLAVE '' ALL");
}

#[test]
fn a_repoint_names_only_what_changes() {
    for (version, text) in [
        (
            "8.0.22",
            "CHANGE MASTER TO MASTER_HOST = 'db2', MASTER_PORT = 3307, \
             MASTER_HEARTBEAT_PERIOD = 0.250 FOR CHANNEL ''",
        ),
        (
            "8.0.23",
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'db2', SOURCE_PORT = 3307, \
             SOURCE_HEARTBEAT_PERIOD = 0.250 FOR CHANNEL ''",
        ),
        (
            "10.6.1-MariaDB",
            "CHANGE MASTER '' TO MASTER_HOST = 'db2', MASTER_PORT = 3307, \
             MASTER_HEARTBEAT_PERIOD = 0.250, MASTER_USE_GTID = slave_pos",
        ),
    ] {
        assert_eq!(change(&Dialect::new(version, &[]), false), text, "{version}");
    }
}

#[test]
fn a_new_channel_logs_in_with_an_escaped_password() {
    let new = change(&mysql("8.4.0", &[]), true);
    assert!(new.contains(r"SOURCE_PASSWORD = 'it''s\\a'"), "{new}");
    assert!(new.contains("SOURCE_AUTO_POSITION = 1"), "{new}");
    assert!(new.contains("GET_SOURCE_PUBLIC_KEY = 1"), "{new}");
    let old = change(&mysql("8.0.20", &[]), true);
    assert!(old.contains("GET_MASTER_PUBLIC_KEY = 1"), "{old}");
    let mariadb = change(&mariadb(), true);
    assert!(mariadb.contains("MASTER_USER = 'repl'"), "{mariadb}");
    assert!(!mariadb.contains("RETRY_COUNT"), "only since 12: {mariadb}");
}

#[test]
fn status_uses_only_names_that_exist() {
    let bare = mysql("9.7.4", &[]).status();
    assert!(!bare.contains("rpl_semi_sync"), "{bare}");
    assert!(bare.contains("@@global.log_replica_updates"), "{bare}");
    let old = mysql("8.0.21", &["rpl_semi_sync_master", "rpl_semi_sync_slave"]).status();
    assert!(old.contains("SHOW SLAVE STATUS"), "{old}");
    assert!(old.contains("@@global.log_slave_updates"), "{old}");
    assert!(old.contains("rpl_semi_sync_master_wait_for_slave_count"), "{old}");
    let mixed = mysql("8.0.24", &[]).status();
    assert!(mixed.contains("SHOW REPLICA STATUS"), "{mixed}");
    assert!(mixed.contains("@@global.log_slave_updates"), "{mixed}");
    let upgraded = mysql("8.4.0", &["rpl_semi_sync_master", "rpl_semi_sync_replica"]).status();
    assert!(upgraded.contains("rpl_semi_sync_master_enabled"), "{upgraded}");
    assert!(upgraded.contains("rpl_semi_sync_replica_enabled"), "{upgraded}");
    let mariadb = mariadb().status();
    assert!(mariadb.contains("SHOW ALL SLAVES STATUS"), "{mariadb}");
    assert!(!mariadb.contains("@@global.super_read_only"), "{mariadb}");
}

#[test]
fn semi_sync_never_falls_back() {
    for (dialect, names) in [
        (
            mysql("9.7.4", &["rpl_semi_sync_source"]),
            [
                "rpl_semi_sync_source_wait_for_replica_count=2",
                "rpl_semi_sync_source_timeout=4294967295",
            ],
        ),
        (
            mysql("8.0.21", &["rpl_semi_sync_master"]),
            [
                "rpl_semi_sync_master_wait_for_slave_count=2",
                "rpl_semi_sync_master_timeout=4294967295",
            ],
        ),
    ] {
        let settings = dialect.waiting_settings(2);
        let texts: Vec<String> =
            settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert!(names.iter().all(|name| texts.iter().any(|text| text == name)), "{texts:?}");
    }
    assert!(mysql("8.0.25", &[]).install_source().is_some_and(|(text, _)| text.contains("master")));
    assert!(mysql("8.0.26", &[]).install_source().is_some_and(|(text, _)| text.contains("source")));
    assert_eq!(mysql("8.4.0", &["rpl_semi_sync_master"]).install_source(), None);
    assert_eq!(mariadb().install_source(), None);
}
