//! Restores that break off in the middle and are gone on with: the command, the server and the target die.

use crate::archiver::{Archiver, SOON, until_archived};
use crate::stage::{Ended, Mariadb, Mysql, Stage, asked, ended, sums};
use regent::demo::servers::{DatabaseFlavor, Server};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

both! {
    whatever_dies_it_goes_on
    only_the_same_is_gone_on_with
    a_moment_is_reached_by_going_on
}

/// Lines as the dump programs write them, where they mean nothing.
const LINES: &str = "--\n-- Table structure for table `audit`\n--\n";

/// The client program stops in the middle of what it is fed, until `go` is there.
fn halting(stage: &Stage) -> String {
    let name = if stage.flavor == Mysql { "mysql" } else { "mariadb" };
    let real = stage.dump().with_file_name(name).display().to_string();
    let wrapper = stage.file("client-halting");
    let [halted, go] = ["halted", "go"].map(|name| stage.file(name).display().to_string());
    let script = format!(
        "#!/bin/bash\n{{ head -c 9000000; touch {halted}; while [ ! -e {go} ]; do sleep 0.05; done; cat; }} \
         | exec {real} \"$@\"\n"
    );
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = stage.file("regent.yaml");
    let usual = std::fs::read_to_string(&config).unwrap();
    let halting =
        usual.replace(&format!("{name}: {real}"), &format!("{name}: {}", wrapper.display()));
    assert_ne!(usual, halting);
    std::fs::write(&config, halting).unwrap();
    usual
}

fn order<'a>(into: &'a str, backup: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut order = vec!["restore", "shop", backup, "--into", into, "--user", "root"];
    order.extend(["--password-file", "root"]);
    order.extend(more);
    order
}

/// Waits until the program has stopped.
async fn halted(stage: &Stage) {
    let halted = stage.file("halted");
    for _ in 0..600 {
        if std::fs::remove_file(&halted).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nothing was fed");
}

fn go(stage: &Stage) {
    std::fs::write(stage.file("go"), "").unwrap();
}

/// Starts a command and waits until the program has stopped.
async fn begin(stage: &Stage, mut command: Command) -> Child {
    let _ = std::fs::remove_file(stage.file("go"));
    command.current_dir(stage.place.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    halted(stage).await;
    child
}

/// Lets the program go on, and waits until the command failed; the command line that it named.
async fn failed(stage: &Stage, child: Child) -> String {
    go(stage);
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let said = ended(&waited.await.unwrap());
    said.refused(1, "now holds a part of backup");
    let named = said.stderr.split("to go on with it: regent ").nth(1).expect(&said.stderr);
    named.trim().to_owned()
}

/// What somebody runs who copies what was named.
fn named(stage: &Stage, line: &str) -> Command {
    let program = assert_cmd::cargo::cargo_bin!("regent");
    let mut command = Command::new("bash");
    command.env_remove("REGENT_API").env_remove("RUST_LOG").current_dir(stage.place.path());
    command.arg("-c").arg(format!("exec {} {line}", program.display()));
    command
}

/// Kills a restore with nothing to tell what it did.
async fn kill(stage: &Stage, mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
    go(stage);
}

async fn bodies(server: &Server) -> Vec<String> {
    let routines = "SELECT CONCAT(ROUTINE_NAME, ': ', SQL_MODE, ROUTINE_DEFINITION) \
        FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'shop' ORDER BY 1";
    let triggers = "SELECT CONCAT(TRIGGER_NAME, ': ', ACTION_STATEMENT) \
        FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'shop' ORDER BY 1";
    let mut all = asked(server, routines).await;
    all.extend(asked(server, triggers).await);
    all.extend(asked(server, "SELECT note FROM shop.lines_ WHERE client = 3").await);
    all
}

/// Rows and bodies with lines that are none of the dump program's.
async fn mislead(stage: &Stage) {
    use mysql_async::prelude::Queryable;
    let mut conn = stage.primary.connect().await.unwrap();
    let body = format!(
        "BEGIN /* it's ;;\n{LINES}*/ SELECT 'x;;\n{LINES}', `client` FROM shop.lines_; END"
    );
    for statement in [
        format!("UPDATE shop.lines_ SET note = '\n{LINES}it''s \\\\' WHERE client = 3"),
        format!("CREATE PROCEDURE shop.misleading() {body}"),
        format!(
            "CREATE TRIGGER shop.astray BEFORE DELETE ON shop.audit FOR EACH ROW \
             BEGIN\n{LINES} SET @a = '\n{LINES}'; END"
        ),
        "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'".to_owned(),
        format!(
            "CREATE FUNCTION shop.plain() RETURNS INT DETERMINISTIC RETURN LENGTH('\\') + 1 /*\n{LINES}*/"
        ),
    ] {
        conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

async fn whatever_dies_it_goes_on(flavor: DatabaseFlavor) {
    let Some(mut stage) = Stage::set(flavor).await else { return };
    stage.configure("", &stage.dump());
    mislead(&stage).await;
    stage.fill_more(1).await;
    let manifest = stage.regent(&["now", "shop", "--json"]).await.json();
    stage.primary.execute("INSERT INTO shop.last VALUES (91)").await.unwrap();
    let usual = halting(&stage);
    let into = stage.empty.address().to_string();

    // The command dies.
    let follow = order(&into, "latest", &["--follow"]);
    let child = begin(&stage, stage.command(&follow)).await;
    kill(&stage, child).await;
    let again = stage.in_place(&order(&into, "latest", &["--follow"])).await;
    again.refused(1, "go on with it by --resume");
    let resume = order(&into, "latest", &["--follow", "--resume"]);
    let dry = stage.in_place(&order(&into, "latest", &["--follow", "--resume", "--dry-run"])).await;
    assert!(dry.stdout.contains("go on loading SQL into"), "{}{}", dry.stdout, dry.stderr);
    // What was loaded whole is not loaded again: this stays until it is removed below.
    let own = "SET SESSION sql_log_bin = 0";
    let mut session = stage.empty.connect().await.unwrap();
    use mysql_async::prelude::Queryable;
    session.query_drop(own).await.unwrap();
    session.query_drop("INSERT INTO shop.last VALUES (4417)").await.unwrap();

    // The server dies, in the middle of the same table.
    let child = begin(&stage, stage.command(&resume)).await;
    stage.empty.kill9();
    let line = failed(&stage, child).await;
    stage.empty.restart().await.unwrap();

    // The target dies.
    let object = manifest["object"].as_str().unwrap();
    let object = stage.bucket.file(&format!("regent/{object}"));
    let child = begin(&stage, named(&stage, &line)).await;
    std::fs::rename(&object, object.with_extension("away")).unwrap();
    let line = failed(&stage, child).await;
    std::fs::rename(object.with_extension("away"), &object).unwrap();

    std::fs::write(stage.file("regent.yaml"), usual).unwrap();
    let mut command = named(&stage, &line);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = ended(&output);
    assert_eq!(said.code, 0, "{line}\n{}", said.stderr);
    let mut session = stage.empty.connect().await.unwrap();
    session.query_drop(own).await.unwrap();
    if flavor == Mysql {
        session.query_drop("SET GLOBAL super_read_only = OFF").await.unwrap();
    }
    session.query_drop("DELETE FROM shop.last WHERE id = 4417").await.unwrap();
    let kept: Option<u64> = session.query_first("SELECT ROW_COUNT()").await.unwrap();
    assert_eq!(kept, Some(1), "a table that was loaded whole was loaded again");
    stage.empty.wait_for("SELECT COUNT(*) FROM shop.last WHERE id = 91", 1).await.unwrap();
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
    assert_eq!(bodies(&stage.empty).await, bodies(&stage.primary).await);
    let position = match flavor {
        Mysql => "SELECT @@global.gtid_executed",
        Mariadb => "SELECT @@global.gtid_current_pos",
    };
    assert_eq!(asked(&stage.empty, position).await, asked(&stage.primary, position).await);
    let gone = asked(&stage.empty, "SHOW TABLES FROM regent LIKE 'restoring'").await;
    assert!(gone.is_empty(), "the note of a restore goes with its end");
    // Once more changes nothing.
    let once_more = stage.in_place(&resume).await;
    assert_eq!(once_more.code, 0, "{}", once_more.stderr);
}

async fn only_the_same_is_gone_on_with(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure("", &stage.dump());
    let first = stage.regent(&["now", "shop", "--json"]).await.json();
    let first = first["id"].as_str().unwrap().to_owned();
    let usual = halting(&stage);
    let into = stage.empty.address().to_string();
    let child = begin(&stage, stage.command(&order(&into, "latest", &[]))).await;
    kill(&stage, child).await;
    std::fs::write(stage.file("regent.yaml"), usual).unwrap();
    let second = stage.regent(&["now", "shop", "--json"]).await.json();
    let second = second["id"].as_str().unwrap().to_owned();

    let restore = async |backup: &str, more: &[&str]| -> Ended {
        stage.in_place(&order(&into, backup, more)).await
    };
    let other = restore(&second, &["--resume"]).await;
    other.refused(1, &format!("holds a part of backup {first}, and not of {second}"));
    let newest = restore("latest", &["--resume", "--dry-run", "--json"]).await.json();
    assert_eq!(newest["id"], first.as_str(), "the newest is not the one that is there");
    // The bytes before are others.
    let sum = "UPDATE regent.restoring SET summed = REPEAT('0', 64)";
    let kept = asked(&stage.empty, "SELECT summed FROM regent.restoring").await.remove(0);
    let locally = async |statement: &str| {
        use mysql_async::prelude::Queryable;
        let mut session = stage.empty.connect().await.unwrap();
        session.query_drop("SET SESSION sql_log_bin = 0").await.unwrap();
        session.query_drop(statement).await.unwrap();
    };
    locally(sum).await;
    restore(&first, &["--resume"]).await.refused(1, "are not those that were carried out");
    let super_off = if flavor == Mysql { "SET GLOBAL super_read_only = OFF" } else { "DO 0" };
    locally(super_off).await;
    locally(&format!("UPDATE regent.restoring SET summed = '{kept}'")).await;
    // Somebody else used the server.
    locally("SET GLOBAL read_only = OFF").await;
    stage.empty.execute("CREATE SCHEMA foreign_to_it").await.unwrap();
    restore(&first, &["--resume"]).await.refused(1, "has executed transactions since");
    let anew = restore(&first, &["--resume", "--overwrite", &into]).await;
    assert_eq!(anew.code, 0, "{}", anew.stderr);
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
    let foreign = asked(&stage.empty, "SHOW DATABASES LIKE 'foreign_to_it'").await;
    assert!(foreign.is_empty(), "all was thrown away");
}

async fn a_moment_is_reached_by_going_on(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure(SOON, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let archiver = Archiver::start(&stage);
    stage.primary.execute("INSERT INTO shop.last VALUES (7)").await.unwrap();
    until_archived(&stage, &stage.primary).await;
    archiver.stop().await;
    let usual = halting(&stage);
    let into = stage.empty.address().to_string();
    let child =
        begin(&stage, stage.command(&order(&into, "latest", &["--to-time", "latest"]))).await;
    kill(&stage, child).await;
    std::fs::write(stage.file("regent.yaml"), usual).unwrap();
    let again = stage.in_place(&order(&into, "latest", &["--to-time", "latest", "--resume"])).await;
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
}
