//! What people are told about situations and rules is true.

use regent::decision::diagnosis::ALL_KINDS;
use regent::decision::rules::{RuleSet, SHIPPED};
use regent::decision::sketch::explain_text;
use std::path::Path;

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The fenced blocks of a page in that language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let rest = page.split(fence.as_str()).skip(1);
    rest.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_example_of_the_situations_page_is_readable() {
    let page = page("docs/situations.md");
    let examples = blocks(&page, "yaml");
    assert!(examples.len() >= 5, "only {} examples", examples.len());
    for example in &examples {
        let view = explain_text(example).unwrap_or_else(|error| panic!("{error} in\n{example}"));
        let told = format!("Response: `{}`", view.response);
        assert!(page.contains(&told), "the page does not say {told} for\n{example}");
    }
}

#[test]
fn every_field_of_a_sketch_is_on_the_situations_page() {
    let page = page("docs/situations.md");
    let Err(error) = explain_text("nosuch: 1\nservers: []\n") else { panic!("it was taken") };
    let Err(of_server) = explain_text("servers: [{ nosuch: 1 }]\n") else { panic!("taken") };
    let mut fields = 0;
    for text in [error.to_string(), of_server.to_string()] {
        let (_, list) = text.split_once("expected one of").expect("the parser lists all fields");
        for field in list.split(',').map(|word| word.trim().trim_matches('`')) {
            assert!(page.contains(&format!("`{field}`")), "{field} is not described");
            fields += 1;
        }
    }
    assert!(fields > 25, "only {fields} fields were listed");
}

#[test]
fn every_finding_is_in_the_table_of_the_rules_page() {
    let page = page("failover-rules/README.md");
    let mut last = 0;
    for kind in ALL_KINDS {
        let row = page.find(&format!("\n| `{kind}` |"));
        let row = row.unwrap_or_else(|| panic!("{kind} has no row"));
        assert!(row > last, "{kind} stands out of order");
        last = row;
    }
    let rows = page.lines().filter(|line| line.starts_with("| `") && line.contains("` | ")).count();
    assert!(rows >= ALL_KINDS.len());
}

#[test]
fn what_the_table_allows_is_what_the_program_allows() {
    use regent::decision::rules::Respond;
    let page = page("failover-rules/README.md");
    for kind in ALL_KINDS {
        let start = format!("| `{kind}` |");
        let row = page.lines().find(|line| line.starts_with(&start)).unwrap();
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let allowed = cells[cells.len() - 2];
        for respond in [Respond::FailOver, Respond::Repair, Respond::Rejoin] {
            let says = allowed.contains(&format!("`{respond}`"));
            assert_eq!(says, kind.senseless(respond).is_none(), "{kind}: {respond}");
        }
    }
}

#[test]
fn the_rules_page_shows_rules_that_work() {
    let page = page("failover-rules/README.md");
    let examples = blocks(&page, "yaml");
    assert!(!examples.is_empty());
    for example in &examples {
        explain_text(example).unwrap_or_else(|error| panic!("{error} in\n{example}"));
    }
    for (name, _) in SHIPPED {
        assert!(RuleSet::shipped(name).is_some());
        assert!(page.contains(&format!("`{name}`")), "{name} is not described");
    }
}
