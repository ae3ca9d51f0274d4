//! A server's accounts as statements that make them anew, whatever version the new server has.
//!
//! Tables of accounts differ from version to version, and loading them would replace the account that
//! loads. Statements do neither: an account that is there already stays as it is.

use super::BackupError;
use crate::decision::topology::{Flavor, ServerName};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

/// More text is no list of accounts.
pub(super) const MOST_BYTES: usize = 16 << 20;

/// What every new server brings itself; the rest is up to its administrators.
const MYSQL: &str = "SELECT User, Host, 'N' FROM mysql.user u \
    WHERE User NOT LIKE 'mysql.%' AND NOT (User = 'root' AND Host = 'localhost') \
    ORDER BY EXISTS (SELECT 1 FROM mysql.default_roles d WHERE d.USER = u.User AND d.HOST = u.Host), \
        User, Host";
const MARIADB: &str = "SELECT User, Host, is_role FROM mysql.user \
    WHERE User <> 'mariadb.sys' \
        AND NOT (User = 'root' AND Host IN ('localhost', '127.0.0.1', '::1')) \
    ORDER BY is_role DESC, User, Host";

/// The server knows no such account: one that names a host, where hosts' names are not resolved.
const UNKNOWN_ACCOUNT: [u16; 2] = [1133, 1141];

/// All accounts of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accounts {
    /// What makes them, roles first, without semicolons.
    pub statements: Vec<String>,
    /// Those that the server could not tell.
    pub left_out: Vec<String>,
}

impl Accounts {
    /// All statements, one after the other.
    pub(super) fn script(&self) -> String {
        self.statements.iter().map(|statement| format!("{statement}{END}")).collect()
    }

    /// The statements of a script.
    pub(super) fn statements_of(script: &str) -> Vec<&str> {
        script.split(END).map(str::trim).filter(|statement| !statement.is_empty()).collect()
    }
}

const END: &str = ";\n";

/// Asks a server for its accounts.
pub(super) async fn accounts(
    conn: &mut Conn,
    flavor: Flavor,
    server: &ServerName,
) -> Result<Accounts, BackupError> {
    let refused = |error: Error| BackupError::server(server, format!("its accounts: {error}"));
    let question = match flavor {
        Flavor::MySql => {
            // Hashes hold bytes that are no text.
            let hex = "SET SESSION print_identified_with_as_hex = ON";
            conn.query_drop(hex).await.map_err(refused)?;
            MYSQL
        }
        Flavor::MariaDb => MARIADB,
    };
    let named: Vec<(String, String, String)> = conn.query(question).await.map_err(refused)?;
    let (mut found, mut grants, mut bytes) = (Accounts::default(), Vec::new(), 0);
    for (user, host, is_role) in named {
        let is_role = is_role == "Y";
        let name = match is_role {
            true => named_as(&user),
            false => format!("{}@{}", named_as(&user), named_as(&host)),
        };
        match account(conn, &name, is_role).await {
            Ok((create, granted)) => {
                bytes += create.len() + granted.iter().map(String::len).sum::<usize>();
                found.statements.push(create);
                grants.extend(granted);
            }
            Err(Error::Server(error)) if UNKNOWN_ACCOUNT.contains(&error.code) => {
                found.left_out.push(name);
            }
            Err(error) => return Err(refused(error)),
        }
        if bytes > MOST_BYTES / 2 {
            let what = format!("its accounts take more than {} bytes", MOST_BYTES / 2);
            return Err(BackupError::server(server, what));
        }
    }
    found.statements.extend(grants);
    Ok(found)
}

/// What makes one account, and what grants it its privileges.
async fn account(
    conn: &mut Conn,
    name: &str,
    is_role: bool,
) -> Result<(String, Vec<String>), Error> {
    let create = if is_role {
        format!("CREATE ROLE IF NOT EXISTS {name}")
    } else {
        let shown: Option<String> = conn.query_first(format!("SHOW CREATE USER {name}")).await?;
        let shown = shown.unwrap_or_default();
        let rest = shown.strip_prefix("CREATE USER ").unwrap_or(&shown);
        format!("CREATE USER IF NOT EXISTS {rest}")
    };
    let grants: Vec<String> = conn.query(format!("SHOW GRANTS FOR {name}")).await?;
    Ok((create, grants))
}

fn named_as(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::Accounts;

    #[test]
    fn a_script_falls_into_its_statements() {
        let statements = vec!["CREATE ROLE `a`".to_owned(), "GRANT x TO `a;`@`%`".to_owned()];
        let script = Accounts { statements: statements.clone(), left_out: Vec::new() }.script();
        assert_eq!(Accounts::statements_of(&script), statements);
        assert!(Accounts::statements_of("").is_empty());
    }
}
