//! The YAML text as a tree in which every value and key knows its line and column.
//!
//! The YAML parser tells positions only in its errors. Each scalar is therefore read twice over in
//! one go: its visitor keeps the value and then fails, and the parser stamps that failure with the
//! place of the scalar. Lists and mappings take the place of their first child.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::fmt;

/// A place in the file, both counted from one; zero while unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

/// A value and where it begins. It has no `Debug` that shows values: they may be secret.
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// A number with a fraction.
    Float(f64),
    /// Any other scalar, and every quoted one.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file, duplicates kept.
    Map(Vec<(Node, Node)>),
    /// Anything with a `!tag`.
    Tagged,
}

/// Why a text is no YAML, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where reading ended.
    pub at: Position,
    /// What was wrong; never holds a value.
    pub what: String,
}

/// More values than a configuration of tens of thousands of servers holds.
const MOST_NODES: usize = 250_000;

/// `${NAME}` may stand unquoted between the braces of a flow mapping, where YAML gives braces a
/// meaning of their own. These two stand for its braces while the parser is at work.
const OPEN: char = '\u{E000}';
const CLOSE: char = '\u{E001}';

/// Reads one YAML document.
pub fn read(text: &str) -> Result<Node, SyntaxError> {
    if let Some(error) = reserved_character(text) {
        return Err(error);
    }
    let veiled = veil_variables(text);
    let mut left = MOST_NODES;
    let document = serde_yaml::Deserializer::from_str(&veiled);
    Builder { left: &mut left }.deserialize(document).map_err(|error| {
        let at = error.location().map_or(Position { line: 1, column: 1 }, |place| Position {
            line: place.line(),
            column: place.column(),
        });
        let what = if left == 0 {
            format!("more than {MOST_NODES} values; a configuration never needs so many")
        } else {
            reason(&error.to_string(), text, at)
        };
        SyntaxError { at, what }
    })
}

impl Kind {
    /// The kind in words, for messages; never the value.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Integer(_) | Kind::Float(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Tagged => "a value with a !tag",
        }
    }
}

fn reserved_character(text: &str) -> Option<SyntaxError> {
    for (number, line) in text.lines().enumerate() {
        if let Some(index) = line.chars().position(|c| c == OPEN || c == CLOSE) {
            return Some(SyntaxError {
                at: Position { line: number + 1, column: index + 1 },
                what: "a character from Unicode's private area, which no name or address holds; \
                       remove it, or keep it in a password_file"
                    .to_owned(),
            });
        }
    }
    None
}

/// The parser's message without the place, which is told separately.
fn reason(message: &str, text: &str, at: Position) -> String {
    let bare = message.split(" at line ").next().unwrap_or(message);
    let bare = bare.split(" at position ").next().unwrap_or(bare);
    let line = text.lines().nth(at.line.saturating_sub(1)).unwrap_or("");
    if bare.contains("more than one document") {
        return "holds a second document; keep one, without a `---` before the other".to_owned();
    }
    let hint = if bare.contains("limit exceeded") {
        "; lists and mappings are nested too deeply, or an alias repeats itself"
    } else if line.contains("${") {
        "; put a value with a malformed ${NAME} into quotes"
    } else if line.contains('\t') {
        "; indent with spaces, not tabs"
    } else {
        "; check quotes, brackets and the indentation of this and the line before"
    };
    format!("not valid YAML: {bare}{hint}")
}

fn veil_variables(text: &str) -> String {
    let mut veiled = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let name = &rest[start + 2..];
        let length = name.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        veiled.push_str(&rest[..start + 1]);
        if length > 0 && name[length..].starts_with('}') {
            veiled.push(OPEN);
            veiled.push_str(&name[..length]);
            veiled.push(CLOSE);
            rest = &name[length + 1..];
        } else {
            veiled.push('{');
            rest = name;
        }
    }
    veiled.push_str(rest);
    veiled
}

fn unveil(text: &str) -> String {
    text.replace(OPEN, "{").replace(CLOSE, "}")
}

/// The place at the end of a parser's message; its first character has none there.
fn place_in(message: &str) -> Position {
    let start = Position { line: 1, column: 1 };
    let Some((_, place)) = message.rsplit_once(" at line ") else {
        return start;
    };
    let Some((line, column)) = place.split_once(" column ") else {
        return start;
    };
    match (line.parse(), column.parse()) {
        (Ok(line), Ok(column)) => Position { line, column },
        _ => start,
    }
}

struct Builder<'a> {
    left: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Builder<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Node, D::Error> {
        if *self.left == 0 {
            return Err(D::Error::custom("too many values"));
        }
        *self.left -= 1;
        let mut kept = None;
        let result = source.deserialize_any(Keeper { kept: &mut kept, left: self.left });
        match (kept, result) {
            // Lists and mappings do not fail by themselves: the parser found something behind them.
            (Some(Kind::List(_) | Kind::Map(_) | Kind::Tagged), Err(error)) => Err(error),
            (Some(kind), Err(stamped)) => Ok(Node { at: place_in(&stamped.to_string()), kind }),
            (Some(kind), Ok(at)) => Ok(Node { at, kind }),
            (None, Err(error)) => Err(error),
            (None, Ok(at)) => Ok(Node { at, kind: Kind::Null }),
        }
    }
}

/// Keeps a value outside the parser's result, so that a failure can carry its place.
struct Keeper<'a> {
    kept: &'a mut Option<Kind>,
    left: &'a mut usize,
}

impl Keeper<'_> {
    fn scalar<E: Error>(self, kind: Kind) -> Result<Position, E> {
        *self.kept = Some(kind);
        Err(E::custom("place wanted"))
    }
}

impl<'de> Visitor<'de> for Keeper<'_> {
    type Value = Position;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Position, E> {
        self.scalar(Kind::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Position, E> {
        self.scalar(Kind::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Position, E> {
        self.scalar(Kind::Integer(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Position, E> {
        self.scalar(Kind::Integer(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Position, E> {
        self.scalar(Kind::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Position, E> {
        self.scalar(Kind::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Position, E> {
        self.scalar(Kind::Text(unveil(value)))
    }

    fn visit_unit<E: Error>(self) -> Result<Position, E> {
        self.scalar(Kind::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Position, E> {
        self.scalar(Kind::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Position, A::Error> {
        let mut items: Vec<Node> = Vec::new();
        while let Some(item) = source.next_element_seed(Builder { left: &mut *self.left })? {
            items.push(item);
        }
        let at = items.first().map_or_else(Position::default, |item| item.at);
        *self.kept = Some(Kind::List(items));
        Ok(at)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Position, A::Error> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        while let Some(key) = source.next_key_seed(Builder { left: &mut *self.left })? {
            let mut value = source.next_value_seed(Builder { left: &mut *self.left })?;
            // Empty collections have no child to take a place from.
            if value.at == Position::default() {
                value.at = key.at;
            }
            entries.push((key, value));
        }
        let at = entries.first().map_or_else(Position::default, |(key, _)| key.at);
        *self.kept = Some(Kind::Map(entries));
        Ok(at)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, source: A) -> Result<Position, A::Error> {
        let (_, content) = source.variant::<String>()?;
        let node = content.newtype_variant_seed(Builder { left: &mut *self.left })?;
        *self.kept = Some(Kind::Tagged);
        Ok(node.at)
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Node, Position, read};

    fn text_at(node: &Node) -> (&str, usize, usize) {
        match &node.kind {
            Kind::Text(text) => (text, node.at.line, node.at.column),
            other => panic!("{} instead of text", other.name()),
        }
    }

    #[test]
    fn every_scalar_knows_its_place() {
        let tree = read("# x\na: one\nb:\n  - { c: two, d: \"é${V}\", e: ${V} }\n").ok().unwrap();
        let Kind::Map(top) = tree.kind else { panic!("no mapping") };
        assert_eq!(tree.at, Position { line: 2, column: 1 });
        assert_eq!(text_at(&top[0].1), ("one", 2, 4));
        let Kind::List(items) = &top[1].1.kind else { panic!("no list") };
        let Kind::Map(inner) = &items[0].kind else { panic!("no mapping") };
        assert_eq!(text_at(&inner[0].1), ("two", 4, 10));
        assert_eq!(text_at(&inner[1].1), ("é${V}", 4, 18));
        assert_eq!(text_at(&inner[2].0), ("e", 4, 27));
        assert_eq!(text_at(&inner[2].1), ("${V}", 4, 30));
    }

    #[test]
    fn tags_duplicates_and_empty_collections_are_kept() {
        let tree = read("a: !x {b: 1}\na: []\nc: !y z\nd: *q\n");
        assert_eq!(tree.err().unwrap().at, Position { line: 4, column: 4 });
        let tree = read("a: !x {b: 1}\na: []\nc: !y z\nd: 1\n").ok().unwrap();
        let Kind::Map(top) = tree.kind else { panic!("no mapping") };
        assert_eq!(top.len(), 4);
        assert!(matches!(top[0].1.kind, Kind::Tagged));
        assert_eq!(top[1].1.at, Position { line: 2, column: 1 });
        assert!(matches!(top[2].1.kind, Kind::Tagged));
        assert!(matches!(top[3].1.kind, Kind::Integer(1)));
    }
}
