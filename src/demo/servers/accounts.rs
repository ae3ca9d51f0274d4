//! The accounts that Regent, its replicas and an application need, and their privileges.

use super::DatabaseFlavor;

/// A user name with its password; demonstration accounts only, so the password is no secret.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// The name.
    pub user: &'static str,
    /// The password.
    pub password: &'static str,
}

/// What Regent's watchers connect as.
pub const MONITOR: Account = Account { user: "regent", password: "regent-demo" };
/// What replicas connect to their source as.
pub const REPLICATION: Account = Account { user: "repl", password: "repl-demo" };
/// What backups are made as.
pub const BACKUP: Account = Account { user: "backup", password: "backup-demo" };
/// An application's account, without any administrative privilege.
pub const SHOP: Account = Account { user: "shop", password: "shop-demo" };
/// The account of whoever runs the test: everything, from anywhere.
pub const ROOT: Account = Account { user: "root", password: "root-demo" };

/// The `GRANT` statements that Regent's own account needs on a server of this flavour.
///
/// `account` is written as SQL wants it, for instance `'regent'@'10.%'`.
pub fn monitor_grants(flavor: DatabaseFlavor, account: &str) -> Vec<String> {
    let privileges: &[&str] = match flavor {
        DatabaseFlavor::Mysql => &[
            // Reading: replication state, sessions, binary logs.
            "PROCESS, REPLICATION CLIENT, REPLICATION SLAVE ON *.*",
            "SELECT ON performance_schema.*",
            "SELECT ON mysql.*",
            // Acting: read-only flags, semi-sync, replication, sessions to end, cloning.
            "SYSTEM_VARIABLES_ADMIN, SESSION_VARIABLES_ADMIN, REPLICATION_SLAVE_ADMIN ON *.*",
            // The primary is to come back from a restart closed.
            "PERSIST_RO_VARIABLES_ADMIN ON *.*",
            "CONNECTION_ADMIN, SERVICE_CONNECTION_ADMIN, SYSTEM_USER, BINLOG_ADMIN, BACKUP_ADMIN, \
             CLONE_ADMIN, RELOAD, SHUTDOWN ON *.*",
            "INSERT, DELETE ON mysql.plugin",
            // Names of columns, for exports that people can read; no rows.
            "REFERENCES ON *.*",
            // Its own schema, for the canary row.
            "ALL ON regent.*",
        ],
        DatabaseFlavor::Mariadb => &[
            "PROCESS, BINLOG MONITOR, SLAVE MONITOR, REPLICATION SLAVE ON *.*",
            "SELECT ON mysql.*",
            "READ_ONLY ADMIN, REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN ON *.*",
            // Some global settings still ask for SUPER.
            "CONNECTION ADMIN, BINLOG ADMIN, BINLOG REPLAY, RELOAD, SHUTDOWN, SUPER ON *.*",
            // Dumping one server and loading another, to replace data that diverged.
            "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES ON *.*",
            "CREATE VIEW, SHOW VIEW, TRIGGER, EVENT, CREATE ROUTINE, ALTER ROUTINE ON *.*",
            "EXECUTE, LOCK TABLES, SET USER ON *.*",
            "ALL ON regent.*",
        ],
    };
    privileges.iter().map(|granted| grant(granted, account)).collect()
}

/// The `GRANT` statements for the account that replicas use.
pub fn replication_grants(account: &str) -> Vec<String> {
    vec![grant("REPLICATION SLAVE ON *.*", account)]
}

/// The `GRANT` statements for the account that backups are made as: it reads everything and changes nothing.
pub fn backup_grants(flavor: DatabaseFlavor, account: &str) -> Vec<String> {
    let privileges: &[&str] = match flavor {
        DatabaseFlavor::Mysql => &[
            "SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS, REPLICATION CLIENT ON *.*",
            "SHOW_ROUTINE ON *.*",
            // For CLONE.
            "BACKUP_ADMIN ON *.*",
        ],
        DatabaseFlavor::Mariadb => &[
            "SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, RELOAD, PROCESS, BINLOG MONITOR ON *.*",
        ],
    };
    privileges.iter().map(|granted| grant(granted, account)).collect()
}

/// Everything to run once on an empty server, one statement each.
pub(super) fn statements(flavor: DatabaseFlavor) -> Vec<String> {
    let create = match flavor {
        DatabaseFlavor::Mysql => "CREATE USER IF NOT EXISTS",
        DatabaseFlavor::Mariadb => "CREATE OR REPLACE USER",
    };
    let named = |account: Account| format!("'{}'@'%'", account.user);
    let mut all: Vec<String> = [MONITOR, REPLICATION, BACKUP, SHOP, ROOT]
        .iter()
        .map(|account| format!("{create} {} IDENTIFIED BY '{}'", named(*account), account.password))
        .collect();
    all.extend(monitor_grants(flavor, &named(MONITOR)));
    all.extend(replication_grants(&named(REPLICATION)));
    all.extend(backup_grants(flavor, &named(BACKUP)));
    if flavor == DatabaseFlavor::Mariadb {
        // These come with the system tables, have no password, and would win over `root` from anywhere.
        all.push("DROP USER IF EXISTS 'root'@'127.0.0.1', 'root'@'::1'".to_owned());
    }
    all.push(grant("SELECT, INSERT, UPDATE, DELETE ON shop.*", &named(SHOP)));
    all.push(format!("{} WITH GRANT OPTION", grant("ALL ON *.*", &named(ROOT))));
    all
}

fn grant(what: &str, account: &str) -> String {
    format!("GRANT {what} TO {account}")
}

#[cfg(test)]
mod tests {
    use super::{DatabaseFlavor, backup_grants, monitor_grants, replication_grants};

    #[test]
    fn the_documented_grants_are_those_that_are_used() {
        let page = include_str!("../../../docs/accounts.md");
        let mut all = replication_grants("'repl'@'%'");
        for flavor in [DatabaseFlavor::Mysql, DatabaseFlavor::Mariadb] {
            all.extend(monitor_grants(flavor, "'regent'@'%'"));
            all.extend(backup_grants(flavor, "'backup'@'%'"));
        }
        for grant in all {
            assert!(page.contains(&format!("{grant};")), "docs/accounts.md lacks: {grant};");
        }
    }
}
