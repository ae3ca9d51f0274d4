//! Reads accounts. Nothing in this file may put a value into a message.

use super::fields::{ACCOUNT, CREDENTIALS};
use super::reader::{Field, Reading, Section};
use super::secret::Secret;
use super::tree::Kind;
use super::values::uses_environment;
use super::{Account, Credentials};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

/// No database takes a longer one.
const MOST_PASSWORD: usize = 1024;

/// Reads the accounts of one cluster.
pub fn credentials(reading: &mut Reading<'_>, cluster: &Section<'_>) -> Option<Credentials> {
    let example = "a mapping with the accounts monitor and replication";
    let field = reading.need(cluster, "credentials", example)?;
    let section = reading.section(&field.hidden(), CREDENTIALS)?;
    let monitor = account(reading, &section, "monitor");
    let replication = account(reading, &section, "replication");
    Some(Credentials { monitor: monitor?, replication: replication? })
}

/// Reads the account of that name.
pub(super) fn account(
    reading: &mut Reading<'_>,
    parent: &Section<'_>,
    name: &str,
) -> Option<Account> {
    let example = "{ user: NAME, password_file: FILE }";
    let field = reading.need(parent, name, example)?;
    let section = reading.section(&field, ACCOUNT)?;
    let user = reading.need(&section, "user", "regent").and_then(|field| user(reading, &field));
    let password = secret(reading, &section, ["password", "password_file"]);
    Some(Account { user: user?, password: password? })
}

/// Reads a secret that stands in the first of these fields, or in a file that the second names.
pub(super) fn secret(
    reading: &mut Reading<'_>,
    section: &Section<'_>,
    names: [&'static str; 2],
) -> Option<Secret> {
    let known = reading.errors.len();
    match stated(reading, section, names) {
        None if reading.secrets_elsewhere => {
            reading.errors.truncate(known);
            Some(Secret::new(String::new()))
        }
        found => found,
    }
}

fn stated(
    reading: &mut Reading<'_>,
    section: &Section<'_>,
    [here, file]: [&'static str; 2],
) -> Option<Secret> {
    match (section.has(here), section.has(file)) {
        (true, true) => {
            let what = format!("has both {here} and {file}; keep one of them");
            reading.error(section.at(file), &section.path, what);
            None
        }
        (true, false) => {
            let field = reading.optional(section, here)?;
            password(reading, &field.hidden(), [here, file])
        }
        (false, true) => {
            let field = reading.optional(section, file)?;
            from_file(reading, &field, here)
        }
        (false, false) => {
            let what = format!("{here} is missing; write {here}: ${{VARIABLE}} or {file}: FILE");
            reading.error(section.at, &section.path, what);
            None
        }
    }
}

fn user(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<String> {
    let user = reading.text(field)?;
    let length = user.chars().count();
    if !(1..=32).contains(&length) || user.chars().any(char::is_control) {
        let what = "*** cannot be an account's name; write 1 to 32 characters".to_owned();
        reading.wrong(field, what);
        return None;
    }
    Some(user)
}

fn password(
    reading: &mut Reading<'_>,
    field: &Field<'_>,
    [here, file]: [&'static str; 2],
) -> Option<Secret> {
    let text = Secret::new(reading.text(field)?);
    if let Kind::Text(raw) = &field.node.kind
        && !uses_environment(raw)
    {
        let what =
            format!("*** stands in the file in plain text; write ${{VARIABLE}} or use {file}");
        reading.warn(field.node.at, &field.path, what);
    }
    checked(reading, field, here, text)
}

fn checked(
    reading: &mut Reading<'_>,
    field: &Field<'_>,
    name: &str,
    text: Secret,
) -> Option<Secret> {
    let fault = match text.reveal() {
        "" => "is empty; an account without one is not accepted",
        text if text.len() > MOST_PASSWORD => "is longer than 1024 bytes; use a shorter one",
        text if text.contains('\0') => "holds a zero byte; use another one",
        _ => return Some(text),
    };
    reading.wrong(field, format!("the {name} {fault}"));
    None
}

fn from_file(reading: &mut Reading<'_>, field: &Field<'_>, name: &str) -> Option<Secret> {
    let path = reading.base.join(reading.text(field)?);
    let shown = Field { secret: false, ..field.clone() }.shown();
    // Opening a pipe or device could wait for ever, so the kind of file is looked at first.
    let opened = std::fs::metadata(&path).and_then(|meta| {
        if !meta.is_file() {
            return Err(std::io::Error::other("it is not a regular file"));
        }
        let mut text = Secret::new(String::new());
        let limit = MOST_PASSWORD as u64 + 2;
        File::open(&path)?.take(limit).read_to_string(text.edit())?;
        Ok((meta.permissions().mode(), text))
    });
    let (mode, mut text) = match opened {
        Ok(found) => found,
        Err(error) => {
            let what = format!("cannot read {shown}: {error}; name a readable file");
            reading.wrong(field, what);
            return None;
        }
    };
    if mode & 0o007 != 0 {
        let what = format!(
            "{shown} can be opened by every user of this machine (mode {:03o}); run chmod 600",
            mode & 0o777
        );
        reading.warn(field.node.at, &field.path, what);
    }
    let kept = text.reveal().trim_end_matches(['\n', '\r']).len();
    text.edit().truncate(kept);
    checked(reading, field, name, text)
}
