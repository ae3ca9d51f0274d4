//! Walks the tree and collects every mistake instead of stopping at the first.

use super::fields::Shape;
use super::problems::Problem;
use super::tree::{Kind, Node, Position};
use super::values::{Shown, closest, duration, expand, name_fault, uses_environment};
use crate::decision::topology::Endpoint;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// One reading of one file: where values come from and what was found wrong so far.
pub struct Reading<'a> {
    /// The file's name in messages.
    pub file: &'a str,
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// What relative paths in the file start from.
    pub base: &'a Path,
    /// Secrets that are not here are no mistake: whoever reads needs few of them.
    pub secrets_elsewhere: bool,
    /// Mistakes.
    pub errors: Vec<Problem>,
    /// Doubtful choices.
    pub warnings: Vec<Problem>,
    taken: BTreeMap<(&'static str, String), (String, usize)>,
}

/// A value with the path that leads to it.
#[derive(Clone)]
pub struct Field<'n> {
    /// The value.
    pub node: &'n Node,
    /// For example `clusters[0].name`.
    pub path: String,
    /// Its text stays out of messages.
    pub secret: bool,
}

/// A mapping whose keys have been checked.
pub struct Section<'n> {
    /// Where it begins.
    pub at: Position,
    /// The path that leads to it.
    pub path: String,
    shape: Shape,
    fields: BTreeMap<&'n str, &'n Node>,
}

impl<'a> Reading<'a> {
    /// A reading that has found nothing yet.
    pub fn new(
        file: &'a str,
        env: &'a dyn Fn(&str) -> Option<String>,
        base: &'a Path,
    ) -> Reading<'a> {
        let (errors, warnings, taken) = (Vec::new(), Vec::new(), BTreeMap::new());
        Reading { file, env, base, secrets_elsewhere: false, errors, warnings, taken }
    }

    /// Records a mistake.
    pub fn error(&mut self, at: Position, path: &str, what: String) {
        let file = self.file.to_owned();
        self.errors.push(Problem { at, path: path.to_owned(), what, file });
    }

    /// Records a mistake in a field's value.
    pub fn wrong(&mut self, field: &Field<'_>, what: String) {
        self.error(field.node.at, &field.path, what);
    }

    /// Records a doubtful choice.
    pub fn warn(&mut self, at: Position, path: &str, what: String) {
        let file = self.file.to_owned();
        self.warnings.push(Problem { at, path: path.to_owned(), what, file });
    }

    /// Opens a mapping: names keys that it may not have and keys it has twice.
    pub fn section<'n>(&mut self, field: &Field<'n>, shape: Shape) -> Option<Section<'n>> {
        let Kind::Map(entries) = &field.node.kind else {
            let fields = shape.fields.join(", ");
            self.wrong(
                field,
                format!("{} is no mapping; write one with the fields {fields}", field.shown()),
            );
            return None;
        };
        let path = field.path.clone();
        let mut section = Section { at: field.node.at, path, shape, fields: BTreeMap::new() };
        let mut first_at: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, value) in entries {
            let Kind::Text(name) = &key.kind else {
                let what = format!("a key that is {}; write a field's name", key.kind.name());
                self.error(key.at, &section.path, what);
                continue;
            };
            if !shape.fields.contains(&name.as_str()) {
                self.unknown_key(key.at, &section, name);
            } else if let Some(line) = first_at.get(name.as_str()) {
                let what = format!("given twice, first on line {line}; keep one of them");
                self.error(key.at, &section.path_of(name), what);
            } else {
                first_at.insert(name, key.at.line);
                section.fields.insert(name, value);
            }
        }
        Some(section)
    }

    fn unknown_key(&mut self, at: Position, section: &Section<'_>, name: &str) {
        let shape = section.shape;
        let known = shape.fields.join(", ");
        let what = match closest(name, shape.fields) {
            Some(near) => format!("unknown field {name:?}; did you mean {near:?}?"),
            None if shape.secret => {
                format!("unknown field (***); the fields of {} are {known}", shape.name)
            }
            None => {
                let name: String = name.chars().take(64).collect();
                format!("unknown field {name:?}; the fields of {} are {known}", shape.name)
            }
        };
        self.error(at, &section.path, what);
    }

    /// A field that must be there.
    pub fn need<'n>(
        &mut self,
        section: &Section<'n>,
        name: &str,
        example: &str,
    ) -> Option<Field<'n>> {
        if !section.fields.contains_key(name) {
            let at =
                if section.at.line == 0 { Position { line: 1, column: 1 } } else { section.at };
            self.error(at, &section.path, format!("{name} is missing; write {name}: {example}"));
        }
        self.optional(section, name)
    }

    /// A field that may be left out, but not empty.
    pub fn optional<'n>(&mut self, section: &Section<'n>, name: &str) -> Option<Field<'n>> {
        let node = *section.fields.get(name)?;
        let field = Field { node, path: section.path_of(name), secret: section.shape.secret };
        if matches!(node.kind, Kind::Null) {
            self.wrong(&field, "has no value; give it one or remove the line".to_owned());
            return None;
        }
        Some(field)
    }

    /// The items of a list.
    pub fn list<'n>(&mut self, field: &Field<'n>) -> Vec<Field<'n>> {
        let Kind::List(items) = &field.node.kind else {
            self.wrong(field, format!("{} is no list; begin each item with \"- \"", field.shown()));
            return Vec::new();
        };
        let item = |(index, node)| Field {
            node,
            path: format!("{}[{index}]", field.path),
            secret: field.secret,
        };
        items.iter().enumerate().map(item).collect()
    }

    /// A text with its variables filled in.
    pub fn text(&mut self, field: &Field<'_>) -> Option<String> {
        let what = match &field.node.kind {
            Kind::Text(raw) => match expand(raw, self.env) {
                Ok(text) => return Some(text),
                Err(error) => error.to_string(),
            },
            Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) => {
                let kind = field.node.kind.name();
                format!("{} is {kind}, not text; put it into quotes", field.shown())
            }
            _ => format!("{} is not text; write one value", field.shown()),
        };
        self.wrong(field, what);
        None
    }

    /// A name of something.
    pub fn name(&mut self, field: &Field<'_>) -> Option<String> {
        let name = self.text(field)?;
        if let Some(fault) = name_fault(&name) {
            let right = "write 1 to 64 letters, digits, - _ . beginning with a letter or digit";
            self.wrong(field, format!("{} {fault}; {right}", field.shown()));
            return None;
        }
        Some(name)
    }

    /// A host and port.
    pub fn endpoint(&mut self, field: &Field<'_>) -> Option<Endpoint> {
        let endpoint = self.text(field)?.parse().ok();
        if endpoint.is_none() {
            let right = "write host:port, for example 10.1.0.11:3306 or [fd00::1]:3306";
            self.wrong(field, format!("{} is no address; {right}", field.shown()));
        }
        endpoint
    }

    /// A duration within a range.
    pub fn duration(
        &mut self,
        field: &Field<'_>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let number_only = matches!(field.node.kind, Kind::Integer(_) | Kind::Float(_));
        let found = if number_only { None } else { duration(&self.text(field)?) };
        let Some(found) = found else {
            let right = "write a whole number with a unit, for example 200ms, 5s or 1m 30s";
            self.wrong(field, format!("{} is no duration; {right}", field.shown()));
            return None;
        };
        if !range.contains(&found) {
            let (least, most) = (Shown(*range.start()), Shown(*range.end()));
            let what = format!("{} is out of range; write {least} to {most}", field.shown());
            self.wrong(field, what);
            return None;
        }
        Some(found)
    }

    /// A whole number within a range.
    pub fn integer(&mut self, field: &Field<'_>, range: RangeInclusive<u32>) -> Option<u32> {
        let found = match &field.node.kind {
            Kind::Integer(number) => u32::try_from(*number).ok(),
            // Only a variable may bring a number as text.
            Kind::Text(raw) if uses_environment(raw) => self.text(field)?.trim().parse().ok(),
            _ => None,
        };
        let fits = found.filter(|number| range.contains(number));
        if fits.is_none() {
            let (least, most) = (range.start(), range.end());
            let what =
                format!("{} will not do; write a whole number, {least} to {most}", field.shown());
            self.wrong(field, what);
        }
        fits
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, field: &Field<'_>, choices: &[(&str, T)]) -> Option<T> {
        let word = self.text(field)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(*value);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let near = closest(&word, &names)
            .map_or_else(String::new, |near| format!("did you mean {near:?}? "));
        let names = names.join(", ");
        self.wrong(field, format!("{} is not known; {near}write one of {names}", field.shown()));
        None
    }

    /// Takes a name or address; a second taker of the same is a mistake.
    pub fn claim(&mut self, what: &'static str, value: &str, field: &Field<'_>) {
        let key = (what, value.to_lowercase());
        let mine = (field.path.clone(), field.node.at.line);
        if let Some((path, line)) = self.taken.get(&key) {
            let text = format!(
                "{what} {} is taken already by {path} on line {line}; give each its own",
                field.shown()
            );
            self.wrong(field, text);
        } else {
            self.taken.insert(key, mine);
        }
    }
}

impl<'n> Field<'n> {
    /// The same field, kept out of messages.
    pub fn hidden(&self) -> Field<'n> {
        Field { secret: true, ..self.clone() }
    }
    /// The value for a message: as written, never with variables filled in, never when secret.
    pub fn shown(&self) -> String {
        match &self.node.kind {
            Kind::List(_) | Kind::Map(_) | Kind::Tagged | Kind::Null => {
                self.node.kind.name().to_owned()
            }
            _ if self.secret => "***".to_owned(),
            Kind::Bool(value) => value.to_string(),
            Kind::Integer(value) => value.to_string(),
            Kind::Float(value) => value.to_string(),
            Kind::Text(text) if text.chars().count() > 80 => {
                let start: String = text.chars().take(77).collect();
                format!("{:?}", start + "...")
            }
            Kind::Text(text) => format!("{text:?}"),
        }
    }
}

impl Section<'_> {
    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Where a field's value begins, or else the section.
    pub fn at(&self, name: &str) -> Position {
        self.fields.get(name).map_or(self.at, |node| node.at)
    }

    /// The path of a field.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}
