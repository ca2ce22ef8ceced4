//! docs/marking-checks.md: what each marked check rests on. Tested to be as the checks are; `UPDATE=1` writes it anew.

use std::fmt::Write;

use super::published::Edition;
use super::{Category, Check, all};

const INTRODUCTION: &str = "# What each marked check rests on

A check costs marks only for what a published edition of the coursework asks, in a situation that its official client can bring about.
This table has, for each sentence of the coursework, the checks that rest on it. The sentences are restated, not quoted. `since` is the first
edition that asks for it; `mark --edition 2023` marks by that of 2023, and without `--edition` only what all editions ask is marked.
A check is robustness by an edition that does not ask for it. What a check plays is said by `mark explain CHECK`.

What could be read again for this table: the whole text of one edition between 2022 and 2023 (it asks for Java 17), and the introductions
of those of 2021, 2023 and 2024. That of 2025 could not be read, nor the rest of 2021. What the others say is taken from
[spec.md](spec.md), sections 1 to 6, which restates all of them, and from what they are known to differ in. Three consequences of the text
that was read are worth knowing:

- Files are never empty, and always smaller than 100 kB. Empty and larger files are robustness.
- The first rebalance need not come before the first period has passed. Nothing marked depends on a rebalance at a join: what a rebalance
  brings about is judged with a period of two seconds.
- A removal of which a holder has gone may time out: the text says so. REMOVE_COMPLETE without that holder is robustness.
";

/// The whole page.
pub fn text() -> String {
    let checks = all(Edition::Year(2025));
    let mut page = INTRODUCTION.to_owned();
    for category in Category::ALL.into_iter().filter(|category| category.is_marked()) {
        let _ = write!(page, "\n## {}\n\n| the coursework asks | since | checks |\n|---|---|---|\n", category.title());
        let in_category: Vec<&Check> = checks.iter().filter(|check| check.category == category).collect();
        let mut sentences = Vec::new();
        for published in in_category.iter().filter_map(|check| check.published) {
            if !sentences.contains(&published) {
                sentences.push(published);
            }
        }
        for published in sentences {
            let checks = in_category.iter().filter(|check| check.published == Some(published));
            let ids: Vec<String> = checks.map(|check| format!("`{}`", check.id)).collect();
            let _ = writeln!(page, "| {} | {} | {} |", published.sentence, published.since, ids.join(", "));
        }
    }
    page
}

#[test]
fn the_documentation_has_each_marked_check_and_its_sentence() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/marking-checks.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, text()).unwrap();
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    assert!(
        page == text(),
        "docs/marking-checks.md is not what the checks are: UPDATE=1 cargo test -p mark --bin mark"
    );
}
