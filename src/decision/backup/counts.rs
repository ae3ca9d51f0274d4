//! What the tables of a backup held at its moment: rows and checksums, by which a restored server is
//! found to hold the same.
//!
//! They stand in the manifest, so that nothing beside it has to be kept in step with it. Where a
//! backup has very many tables, the sums of a schema's tables are added up, and where that is too
//! much as well, those of all: what differs is then found all the same, and only told less closely.

use crate::decision::cluster::Unknown;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// More sums do not stand in one manifest.
pub const MOST_SUMS: usize = 10_000;
/// Of more tables none is counted: all their names are held in memory.
pub const MOST_TABLES: usize = 200_000;
/// More tables that cannot be compared make the whole comparison worth little.
pub const MOST_APART: usize = 1_000;

/// What was counted when a backup was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// What each sum is of.
    pub each: Grain,
    /// The sums.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sums: Vec<Sum>,
    /// Tables whose engine has no snapshot and that held rows: what the backup has of them is of no one
    /// moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loose: Vec<Sum>,
    /// Tables that were not counted, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Why nothing was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What a sum is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grain {
    /// One table.
    #[default]
    Table,
    /// All tables of a schema.
    Schema,
    /// All tables.
    Everything,
}

/// The name of a table, of a schema whose tables are added up, or of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The schema; empty for everything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema: String,
    /// The table; empty for a schema.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub table: String,
}

/// What one table, or several together, held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Of what.
    #[serde(flatten)]
    pub of: Place,
    /// The storage engine, of a single table.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub engine: String,
    /// How many rows.
    pub rows: u64,
    /// As `CHECKSUM TABLE` tells it; of several tables the sum.
    pub checksum: u64,
    /// Whether a column holds single-precision numbers, of which a dump has six digits only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rounded: bool,
}

/// A table that was not counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Which.
    #[serde(flatten)]
    pub of: Place,
    /// Why.
    pub why: String,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// How many sums were compared.
    pub sums: u64,
    /// How many rows stand behind those that were equal.
    pub rows: u64,
    /// What is not as it was; the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// What is not as it was, or may be: where the backup itself cannot tell; the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsure: Vec<Difference>,
    /// How many more differences there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
}

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Where.
    #[serde(flatten)]
    pub of: Place,
    /// What.
    pub what: Different,
    /// What was counted when the backup was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<u64>,
    /// What was counted after the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is: Option<u64>,
}

/// In what respect something is not as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Different {
    /// It is not there.
    Missing,
    /// It should not be there.
    Extra,
    /// It has another number of rows.
    Rows,
    /// It has as many rows, and they are not the same.
    Checksum,
}

/// So many differences are told.
const MOST_TOLD: usize = 100;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Place {
    /// A table's place.
    pub fn table(schema: impl Into<String>, table: impl Into<String>) -> Place {
        Place { schema: schema.into(), table: table.into() }
    }

    fn at(&self, grain: Grain) -> Place {
        match grain {
            Grain::Table => self.clone(),
            Grain::Schema => Place { schema: self.schema.clone(), table: String::new() },
            Grain::Everything => Place::default(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.schema.as_str(), self.table.as_str()) {
            ("", _) => f.write_str("all tables together"),
            (schema, "") => write!(f, "the tables of {schema} together"),
            (schema, table) => write!(f, "{schema}.{table}"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, was, is) = (&self.of, self.was.unwrap_or_default(), self.is.unwrap_or_default());
        match self.what {
            Different::Missing => write!(f, "{of} is missing"),
            Different::Extra => write!(f, "{of} is there and was not"),
            Different::Rows => write!(f, "{of} has {is} rows and had {was}"),
            Different::Checksum => write!(f, "{of} has the checksum {is} and had {was}"),
        }
    }
}

impl Counts {
    /// Nothing was counted.
    pub fn missing(why: impl Into<String>) -> Counts {
        Counts { missing: Some(why.into()), ..Counts::default() }
    }

    /// All that was counted, told as closely as a manifest has room for.
    pub fn of(sums: Vec<Sum>, left_out: Vec<LeftOut>) -> Counts {
        let has_snapshot = |sum: &Sum| sum.engine == "InnoDB";
        let (sums, loose): (Vec<Sum>, Vec<Sum>) =
            sums.into_iter().partition(|sum| has_snapshot(sum) || sum.rows == 0);
        if loose.len() > MOST_APART || left_out.len() > MOST_APART {
            let (loose, left_out) = (loose.len(), left_out.len());
            return Counts::missing(format!(
                "{loose} tables have no snapshot and {left_out} cannot be counted, more than {MOST_APART}"
            ));
        }
        let mut each = Grain::Table;
        let mut folded = sums;
        for coarser in [Grain::Schema, Grain::Everything] {
            if folded.len() <= MOST_SUMS {
                break;
            }
            folded = fold(&folded, coarser);
            each = coarser;
        }
        Counts { each, sums: folded, loose, left_out, ..Counts::default() }
    }

    /// Compares what a restored server holds.
    pub fn compare(&self, found: &[Sum]) -> Compared {
        let apart = |place: &Place| {
            self.loose.iter().any(|sum| &sum.of == place)
                || self.left_out.iter().any(|left| &left.of == place)
        };
        let counted: Vec<Sum> = found.iter().filter(|sum| !apart(&sum.of)).cloned().collect();
        let mut compared = Compared::default();
        compared.all(&self.sums, &fold(&counted, self.each), false);
        let loose: Vec<Sum> = found
            .iter()
            .filter(|sum| self.loose.iter().any(|loose| loose.of == sum.of))
            .cloned()
            .collect();
        compared.all(&self.loose, &loose, true);
        compared
    }
}

/// Adds up what belongs together, in the order of names. Where tables are added up, a checksum that may
/// differ would hide all others, so it is left out.
fn fold(sums: &[Sum], grain: Grain) -> Vec<Sum> {
    if grain == Grain::Table {
        return sums.to_vec();
    }
    let mut folded: BTreeMap<Place, Sum> = BTreeMap::new();
    for sum in sums {
        let of = sum.of.at(grain);
        let whole = folded.entry(of.clone()).or_insert_with(|| Sum { of, ..Sum::default() });
        whole.rows = whole.rows.wrapping_add(sum.rows);
        let checksum = if sum.rounded { 0 } else { sum.checksum };
        whole.checksum = whole.checksum.wrapping_add(checksum);
    }
    folded.into_values().collect()
}

impl Compared {
    /// Whether all that can be told is as it was.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    /// Compares sums of equal grain; those of loose tables may differ.
    fn all(&mut self, was: &[Sum], is: &[Sum], loose: bool) {
        let now: BTreeMap<&Place, &Sum> = is.iter().map(|sum| (&sum.of, sum)).collect();
        let before: BTreeMap<&Place, &Sum> = was.iter().map(|sum| (&sum.of, sum)).collect();
        for (place, sum) in &before {
            self.sums += 1;
            match now.get(place) {
                None => self.add(false, place, Different::Missing, (None, None)),
                Some(found) if found.rows != sum.rows => {
                    self.add(loose, place, Different::Rows, (Some(sum.rows), Some(found.rows)));
                }
                Some(found) if found.checksum != sum.checksum => {
                    let both = (Some(sum.checksum), Some(found.checksum));
                    self.add(loose || sum.rounded, place, Different::Checksum, both);
                }
                Some(found) => self.rows = self.rows.saturating_add(found.rows),
            }
        }
        for place in now.keys().filter(|place| !before.contains_key(*place)) {
            self.add(false, place, Different::Extra, (None, None));
        }
    }

    fn add(
        &mut self,
        unsure: bool,
        place: &Place,
        what: Different,
        (was, is): (Option<u64>, Option<u64>),
    ) {
        let list = if unsure { &mut self.unsure } else { &mut self.differences };
        if list.len() >= MOST_TOLD {
            self.more += 1;
            return;
        }
        list.push(Difference { of: place.clone(), what, was, is });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(table: &str, engine: &str, rows: u64, checksum: u64) -> Sum {
        let of = Place::table("shop", table);
        Sum { of, engine: engine.to_owned(), rows, checksum, rounded: false }
    }

    fn told(compared: &Compared) -> Vec<String> {
        compared.differences.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let counts = Counts::of(
            vec![
                sum("orders", "InnoDB", 3, 30),
                sum("lines", "InnoDB", 5, 50),
                sum("gone", "InnoDB", 1, 10),
                sum("same", "InnoDB", 2, 20),
            ],
            vec![LeftOut { of: Place::table("shop", "late"), why: "no time".to_owned() }],
        );
        let found = [
            sum("orders", "InnoDB", 4, 30),
            sum("lines", "InnoDB", 5, 51),
            sum("same", "InnoDB", 2, 20),
            sum("late", "InnoDB", 9, 90),
            sum("more", "InnoDB", 0, 0),
        ];
        let compared = counts.compare(&found);
        assert_eq!(
            told(&compared),
            [
                "shop.gone is missing",
                "shop.lines has the checksum 51 and had 50",
                "shop.orders has 4 rows and had 3",
                "shop.more is there and was not",
            ]
        );
        assert_eq!((compared.sums, compared.rows), (4, 2));
        assert!(!compared.is_equal());
    }

    #[test]
    fn what_the_backup_cannot_tell_fails_no_proof() {
        let mut rounded = sum("prices", "InnoDB", 2, 20);
        rounded.rounded = true;
        let all = vec![rounded, sum("log", "MyISAM", 7, 70), sum("empty", "MyISAM", 0, 0)];
        let counts = Counts::of(all, Vec::new());
        assert_eq!(counts.loose.len(), 1, "an empty one has no moment to miss");
        let found = [
            sum("prices", "InnoDB", 2, 21),
            sum("log", "MyISAM", 8, 81),
            sum("empty", "MyISAM", 0, 0),
        ];
        let compared = counts.compare(&found);
        assert!(compared.is_equal(), "{compared:?}");
        assert_eq!(compared.unsure.len(), 2);
        let lost = counts.compare(&[sum("prices", "InnoDB", 1, 21)]);
        assert_eq!(
            told(&lost),
            ["shop.empty is missing", "shop.prices has 1 rows and had 2", "shop.log is missing"]
        );
    }

    #[test]
    fn very_many_tables_are_added_up_and_still_compared() {
        let many: Vec<Sum> = (0..=MOST_SUMS as u64)
            .map(|number| sum(&format!("t{number}"), "InnoDB", 1, number))
            .collect();
        let counts = Counts::of(many.clone(), Vec::new());
        assert_eq!((counts.each, counts.sums.len()), (Grain::Schema, 1));
        assert!(counts.compare(&many).is_equal());
        let mut one_row_more = many.clone();
        one_row_more[77].checksum += 1;
        let compared = counts.compare(&one_row_more);
        assert!(told(&compared)[0].starts_with("the tables of shop together has"), "{compared:?}");
        let spread: Vec<Sum> = many
            .into_iter()
            .enumerate()
            .map(|(number, it)| Sum { of: Place::table(format!("s{number}"), "t"), ..it })
            .collect();
        assert_eq!(Counts::of(spread, Vec::new()).each, Grain::Everything);
    }

    #[test]
    fn it_is_written_down_shortly() {
        let counts = Counts::of(vec![sum("orders", "InnoDB", 3, 30)], Vec::new());
        let text = serde_json::to_string(&counts).unwrap();
        let expected = r#"{"each":"table","sums":[{"schema":"shop","table":"orders","engine":"InnoDB","rows":3,"checksum":30}]}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Counts>(&text).unwrap(), counts);
    }
}
