//! Whatever the bytes, there is an answer, it comes soon, and it holds no secret.

use super::{FILE_PASSWORD, MONITOR_PASSWORD, base, parse};
use proptest::prelude::*;
use regent::clock::Clock;
use std::time::Duration;

const GOOD: &str = include_str!("cases/good.yaml");

fn answer(text: &str, base: &std::path::Path) -> String {
    let result = parse(text, base);
    let shown = match &result {
        Ok(loaded) => format!("{result:?} {:?}", loaded.config.fingerprint()),
        Err(errors) => format!("{errors} {errors:?}"),
    };
    for secret in [MONITOR_PASSWORD, FILE_PASSWORD] {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
    shown
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_text_gets_an_answer(text in "[ -~\n\t\u{80}-\u{200}&*!|>%@`{}:,#-]{0,300}") {
        answer(&text, base().path());
    }

    #[test]
    fn a_damaged_file_gets_an_answer(
        places in prop::collection::vec((0..GOOD.len(), "[ -~\n]{0,3}", 0..12_usize), 1..6)
    ) {
        let mut text = GOOD.as_bytes().to_vec();
        for (place, new, removed) in places {
            let from = place.min(text.len());
            let to = (from + removed).min(text.len());
            text.splice(from..to, new.bytes());
        }
        answer(&String::from_utf8_lossy(&text), base().path());
    }
}

#[test]
fn hostile_shapes_are_refused_soon() {
    let base = base();
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    for text in
        ["[".repeat(4_000), "{a: ".repeat(4_000), "- ".repeat(4_000), bomb, "? ".repeat(900)]
    {
        let clock = Clock::start();
        let before = clock.now().moment;
        assert!(parse(&text, base.path()).is_err());
        let took = clock.now().moment.since(before);
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}
