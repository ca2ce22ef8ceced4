//! Every clause of the specification is cited by a test, and no citation is of a clause that does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A clause's number: section and place.
type Clause = (u32, u32);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The clauses of docs/spec.md: `**2.1 Lines.** ...`, `### 4.2 Store`, `| 7.3 | ...`.
fn clauses() -> BTreeSet<Clause> {
    let text = fs::read_to_string(root().join("docs/spec.md")).unwrap();
    let starts = ["**", "### ", "| "];
    let numbered = text.lines().filter_map(|line| {
        let rest = starts.iter().find_map(|start| line.strip_prefix(start))?;
        clause(rest).map(|(clause, _)| clause)
    });
    numbered.collect()
}

/// A clause's number at the start of a text, and what follows it.
fn clause(text: &str) -> Option<(Clause, &str)> {
    let (section, rest) = number(text)?;
    let (place, rest) = number(rest.strip_prefix('.')?)?;
    Some(((section, place), rest))
}

fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

/// The clauses after each `spec` of a text: `spec 4.2`, `spec 4.2, 7.5 and 7.6`, `spec 4.1 to 4.6`, `spec 4.6.3`.
fn citations(text: &str) -> BTreeSet<Clause> {
    let mut cited = BTreeSet::new();
    for after in text.split("spec ").skip(1) {
        let mut rest = after;
        let mut range_from = None;
        while let Some((clause @ (section, place), mut tail)) = clause(rest) {
            cited.extend((range_from.unwrap_or(place)..=place).map(|place| (section, place)));
            // A step within a clause, as in 4.6.3.
            if let Some((_, after_step)) = tail.strip_prefix('.').and_then(number) {
                tail = after_step;
            }
            let Some((joint, next)) = [", ", " and ", " to "].iter().find_map(|j| Some((j, tail.strip_prefix(j)?)))
            else {
                break;
            };
            range_from = (*joint == " to ").then_some(clause.1);
            rest = next;
        }
    }
    cited
}

/// All files below `folder` with one of these endings.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut folders = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| endings.iter().any(|ending| end == *ending)) {
                files.push(path);
            }
        }
    }
    files
}

/// The parts of the repository that are tests: everything below tests/, and the test modules of the library.
fn tests() -> String {
    let mut text = String::new();
    for path in files("tests", &["rs", "txt"]) {
        if !path.ends_with(file!()) {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    for path in files("src", &["rs"]) {
        let source = fs::read_to_string(&path).unwrap();
        if path.ends_with("tests.rs") {
            text += &source;
        } else if let Some((_, tests)) = source.split_once("\n#[cfg(test)]\nmod tests {") {
            text += tests;
        }
    }
    text
}

#[test]
fn every_clause_of_the_specification_is_cited_by_a_test() {
    let cited = citations(&tests());
    let uncited: Vec<_> = clauses().difference(&cited).map(|(section, place)| format!("{section}.{place}")).collect();
    assert!(uncited.is_empty(), "no test cites spec {}", uncited.join(", "));
}

#[test]
fn every_citation_is_of_a_clause_that_exists() {
    let clauses = clauses();
    let mut dangling = BTreeMap::new();
    let sources = [files("src", &["rs"]), files("tests", &["rs", "txt"]), files("benches", &["rs"])].concat();
    for path in sources.into_iter().filter(|path| !path.ends_with(file!())) {
        let cited = citations(&fs::read_to_string(&path).unwrap());
        let missing: Vec<_> = cited.difference(&clauses).copied().collect();
        if !missing.is_empty() {
            dangling.insert(path, missing);
        }
    }
    assert!(dangling.is_empty(), "no such clauses: {dangling:?}");
}

#[test]
fn citations_are_read_as_they_are_written() {
    let table: &[(&str, &[Clause])] = &[
        ("nothing (specification 4.2)", &[]),
        ("(spec 4.2)", &[(4, 2)]),
        ("(spec 4.6.3, 7.16)", &[(4, 6), (7, 16)]),
        ("spec 4.2, 7.5 and 7.6: words", &[(4, 2), (7, 5), (7, 6)]),
        ("spec 4.4 to 4.6", &[(4, 4), (4, 5), (4, 6)]),
        ("spec 1.1, with 2 words; spec 8.2.", &[(1, 1), (8, 2)]),
    ];
    for (text, expected) in table {
        assert_eq!(citations(text), expected.iter().copied().collect(), "{text}");
    }
    assert_eq!(clauses().len(), 5 + 7 + 3 + 6 + 4 + 6 + 30 + 4, "all of the specification is seen");
}
