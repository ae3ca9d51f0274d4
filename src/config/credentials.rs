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

fn account(reading: &mut Reading<'_>, parent: &Section<'_>, name: &str) -> Option<Account> {
    let example = "{ user: NAME, password_file: FILE }";
    let field = reading.need(parent, name, example)?;
    let section = reading.section(&field, ACCOUNT)?;
    let user = reading.need(&section, "user", "regent").and_then(|field| user(reading, &field));
    let password = match (section.has("password"), section.has("password_file")) {
        (true, true) => {
            let what = "has both password and password_file; keep one of them".to_owned();
            reading.error(section.at("password_file"), &section.path, what);
            None
        }
        (true, false) => {
            reading.optional(&section, "password").and_then(|field| password(reading, &field))
        }
        (false, true) => {
            reading.optional(&section, "password_file").and_then(|field| from_file(reading, &field))
        }
        (false, false) => {
            let what = "password is missing; write password: ${VARIABLE} or password_file: FILE";
            reading.error(section.at, &section.path, what.to_owned());
            None
        }
    };
    Some(Account { user: user?, password: password? })
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

fn password(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<Secret> {
    let text = Secret::new(reading.text(field)?);
    if let Kind::Text(raw) = &field.node.kind
        && !uses_environment(raw)
    {
        let what = "*** stands in the file in plain text; write ${VARIABLE} or use password_file";
        reading.warn(field.node.at, &field.path, what.to_owned());
    }
    checked(reading, field, text)
}

fn checked(reading: &mut Reading<'_>, field: &Field<'_>, text: Secret) -> Option<Secret> {
    let fault = match text.reveal() {
        "" => "is empty; an account without a password is not accepted",
        text if text.len() > MOST_PASSWORD => "is longer than 1024 bytes; use a shorter one",
        text if text.contains('\0') => "holds a zero byte; use another one",
        _ => return Some(text),
    };
    reading.wrong(field, format!("the password {fault}"));
    None
}

fn from_file(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<Secret> {
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
    checked(reading, field, text)
}
