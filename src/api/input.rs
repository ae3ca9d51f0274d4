//! What a request brings along, checked field by field: every error names the field and the value.

use super::answer::Answer;
use crate::decision::rules::spans;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest name anything can have.
const MAX_NAME: usize = 128;
/// The longest sentence somebody may leave.
const MAX_TEXT: usize = 300;

/// A request's query, each field at most once.
#[derive(Debug)]
pub struct Query {
    fields: BTreeMap<String, String>,
}

impl Query {
    /// Takes the pairs of a query; `known` are the fields this route understands.
    pub fn read(pairs: Vec<(String, String)>, known: &[&str]) -> Result<Query, Answer> {
        let mut fields = BTreeMap::new();
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                return Err(Answer::bad_input(unknown(&name, known)));
            }
            if fields.contains_key(&name) {
                return Err(Answer::bad_input(format!("{name} is given twice; give it once")));
            }
            fields.insert(name, value);
        }
        Ok(Query { fields })
    }

    /// A name, if given.
    pub fn name(&self, field: &str) -> Result<Option<&str>, Answer> {
        self.fields.get(field).map(|value| checked_name(field, value)).transpose()
    }

    /// Whether, if given.
    pub fn whether(&self, field: &str) -> Result<Option<bool>, Answer> {
        let wrong = |text: &str| {
            Answer::bad_input(format!("{field} is {:?}; give true or false", cut(text)))
        };
        let given = self.fields.get(field);
        given.map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }

    /// A number up to `most`, if given.
    pub fn number(&self, field: &str, most: u64) -> Result<Option<u64>, Answer> {
        let Some(text) = self.fields.get(field) else {
            return Ok(None);
        };
        match text.parse::<u64>() {
            Ok(number) if number <= most => Ok(Some(number)),
            _ => Err(Answer::bad_input(format!(
                "{field} is {:?}; give a whole number from 0 to {most}",
                cut(text)
            ))),
        }
    }
}

/// The JSON object in a request's body.
#[derive(Debug)]
pub struct Fields {
    object: Map<String, Value>,
}

impl Fields {
    /// Reads the body; an empty one counts as `{}`.
    pub fn read(body: &[u8], known: &[&str]) -> Result<Fields, Answer> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Fields { object: Map::new() });
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| Answer::bad_input(format!("the body is not JSON: {error}")))?;
        let Value::Object(object) = value else {
            let text = "the body is not a JSON object; send one such as {\"to\": \"db2\"}";
            return Err(Answer::bad_input(text));
        };
        match object.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Answer::bad_input(unknown(key, known))),
            None => Ok(Fields { object }),
        }
    }

    /// A name, if given and not null.
    pub fn name(&self, field: &str) -> Result<Option<&str>, Answer> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => checked_name(field, text).map(Some),
            Some(other) => Err(wrong(field, other, "a name in quotes")),
        }
    }

    /// A name that must be given.
    pub fn required_name(&self, field: &str) -> Result<&str, Answer> {
        let missing = || Answer::bad_input(format!("{field} is missing; give a server's name"));
        self.name(field)?.ok_or_else(missing)
    }

    /// A span of time that must be given, such as `30m`.
    pub fn required_span(&self, field: &str) -> Result<Duration, Answer> {
        let right = "a span such as 30s, 30m or 2h";
        match self.object.get(field) {
            None | Some(Value::Null) => {
                Err(Answer::bad_input(format!("{field} is missing; give {right}")))
            }
            Some(value) => {
                let span = value.as_str().and_then(spans::parse);
                span.ok_or_else(|| wrong(field, value, right))
            }
        }
    }

    /// A text that must be given, of one line.
    pub fn required_text(&self, field: &str) -> Result<&str, Answer> {
        let right = format!("1 to {MAX_TEXT} visible characters");
        match self.object.get(field) {
            None | Some(Value::Null) => {
                Err(Answer::bad_input(format!("{field} is missing; give {right}")))
            }
            Some(Value::String(text))
                if !text.trim().is_empty()
                    && text.len() <= MAX_TEXT
                    && !text.chars().any(char::is_control) =>
            {
                Ok(text)
            }
            Some(other) => Err(wrong(field, other, &right)),
        }
    }

    /// True or false; false when absent.
    pub fn flag(&self, field: &str) -> Result<bool, Answer> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(field, other, "true or false")),
        }
    }
}

/// A name from a path, a query or a body.
pub fn checked_name<'a>(field: &str, text: &'a str) -> Result<&'a str, Answer> {
    let visible = !text.is_empty() && !text.chars().any(char::is_control);
    if visible && text.len() <= MAX_NAME {
        return Ok(text);
    }
    Err(Answer::bad_input(format!(
        "{field} is {:?}; give a name of 1 to {MAX_NAME} visible characters",
        cut(text)
    )))
}

fn unknown(field: &str, known: &[&str]) -> String {
    let field = cut(field);
    if known.is_empty() {
        return format!("{field:?} is not known here; this route takes no fields");
    }
    format!("{field:?} is not known here; this route takes {}", known.join(", "))
}

fn wrong(field: &str, value: &Value, right: &str) -> Answer {
    Answer::bad_input(format!("{field} is {}; give {right}", cut(&value.to_string())))
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answer: Answer) -> String {
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    #[test]
    fn every_mistake_names_the_field_and_the_value() {
        let fields = Fields::read(br#"{"to": 7, "dry_run": "yes"}"#, &["to", "dry_run"]).unwrap();
        assert!(said(fields.name("to").unwrap_err()).contains("to is 7; give a name in quotes"));
        assert!(said(fields.flag("dry_run").unwrap_err()).contains(r#"dry_run is \"yes\""#));
        assert!(said(fields.required_name("primary").unwrap_err()).contains("primary is missing"));
        let error = Fields::read(br#"{"too": "db2"}"#, &["to"]).unwrap_err();
        assert!(said(error).contains(r#"\"too\" is not known here; this route takes to"#));
        for body in ["[1]", "{", "\u{0}"] {
            assert!(Fields::read(body.as_bytes(), &[]).is_err(), "{body:?} was taken");
        }
        let query = Query::read(vec![("limit".into(), "-1".into())], &["limit"]).unwrap();
        let error = said(query.number("limit", 1000).unwrap_err());
        assert!(
            error.contains(r#"limit is \"-1\"; give a whole number from 0 to 1000"#),
            "{error}"
        );
        let pair = ("a".to_owned(), "1".to_owned());
        assert!(Query::read(vec![pair.clone(), pair], &["a"]).is_err());
    }
}
