//! The documentation names every field, and its examples are accepted.

use super::{base, parse};
use regent::config::fields;

const PAGE: &str = include_str!("../../docs/configuration.md");

#[test]
fn every_field_is_documented() {
    for shape in fields::ALL {
        let heading = format!("## {}", shape.name);
        let section = PAGE.split(&heading).nth(1).unwrap_or_else(|| panic!("{heading} is missing"));
        let section = section.split("\n## ").next().unwrap_or(section);
        for field in shape.fields {
            assert!(section.contains(&format!("| `{field}` |")), "{heading} lacks {field}");
        }
    }
}

#[test]
fn every_example_is_accepted() {
    let base = base();
    let mut found = 0;
    for example in PAGE.split("```yaml\n").skip(1) {
        let text = example.split("```").next().unwrap();
        found += 1;
        // Examples name files of their reader's machine; here others take their place.
        let text =
            text.replace("/run/secrets/repl", "secrets/good").replace("security/", "secrets/");
        if let Err(errors) = parse(&text, base.path()) {
            panic!("example {found}:\n{errors}");
        }
    }
    assert!(found >= 3, "only {found} examples");
}
