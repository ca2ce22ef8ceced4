//! Every input of the corpus is checked, without libFuzzer: what a target has found once is not to come back. Then variants
//! of them: a fuzzer that does not see what it reaches, but needs no build of its own.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kit::{Rng, hunt};
use stevedore_fuzz::{abort_on_panic, connection, controller_session, dstore_session, index, message};

/// A target's property.
type Check = fn(&[u8]);

/// Each target, and how many variants a run tries: as many as take about a second.
const TARGETS: [(&str, Check, usize); 5] = [
    ("index", index::check, 400),
    ("message", message::check, 20_000),
    ("connection", connection::check, 1_000),
    ("controller_session", controller_session::check, 100),
    ("dstore_session", dstore_session::check, 100),
];

/// No variant is longer.
const MOST_BYTES: usize = 2048;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

/// One test: sessions tell apart their threads by name, and connections share a listener.
#[test]
fn every_input_of_the_corpus_and_its_variants_hold() {
    // spec 2.1 to 2.7, 3, 4, 7
    abort_on_panic();
    let words = dictionary();
    let seed = hunt::seed();
    for (stream, (target, check, variants)) in TARGETS.into_iter().enumerate() {
        let inputs = fs::read_dir(folder().join("corpus").join(target)).unwrap();
        let mut paths: Vec<_> = inputs.map(|input| input.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{target}");
        let corpus: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
        for (path, input) in paths.iter().zip(&corpus) {
            announce(&path.display().to_string(), input);
            check(input);
        }
        let mut rng = Rng::stream(seed, stream as u64);
        for number in 0..if hunt::is_long() { 50 * variants } else { variants } {
            let input = variant(&mut rng, &corpus, &words);
            announce(&format!("{target}, variant {number} of STEVEDORE_SEED={seed}"), &input);
            check(&input);
        }
    }
    fs::remove_file(last_input()).unwrap();
}

/// Keeps what is about to be checked: a check that fails ends the process, and what a test prints is lost with it.
fn announce(what: &str, input: &[u8]) {
    if fs::write(last_input(), input).is_err() {
        let _ = writeln!(io::stderr(), "cannot keep {what}");
    }
    println!("{what}");
}

/// What was checked last: after a failure, the input to replay.
fn last_input() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-input")
}

/// The words of fuzz/dictionary, which libFuzzer uses too: a line has one, in quotes, with `\x` and two digits for a byte.
fn dictionary() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder().join("dictionary")).unwrap();
    let quoted = text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    let unescaped = |word: &str| {
        let mut pieces = word.split("\\x");
        let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
        for piece in pieces {
            bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
            bytes.extend(piece[2..].bytes());
        }
        bytes
    };
    quoted.map(unescaped).collect()
}

/// An input of the corpus with some changes.
fn variant(rng: &mut Rng, corpus: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut input = rng.pick(corpus).clone();
    for _ in 0..1 + rng.below(5) {
        let from = rng.below(input.len() + 1);
        let to = (from + rng.below(16)).min(input.len());
        match rng.below(6) {
            0 => drop(input.drain(from..to)),
            1 => drop(input.splice(from..to, rng.pick(words).iter().copied())),
            2 => drop(input.splice(from..from, rng.pick(words).iter().copied())),
            3 => input.extend_from_within(from..to),
            4 => {
                let other = rng.pick(corpus);
                input.truncate(from);
                input.extend(&other[rng.below(other.len() + 1)..]);
            }
            _ => input[from..to].iter_mut().for_each(|byte| *byte ^= 1 << rng.below(8)),
        }
    }
    input.truncate(MOST_BYTES);
    input
}

#[test]
fn the_dictionary_is_read_as_libfuzzer_reads_it() {
    let words = dictionary();
    for expected in [&b"STORE_TO "[..], b"\r\n", b"\xc3\xa9", b"\n0> "] {
        assert!(words.iter().any(|word| word == expected), "{}", expected.escape_ascii());
    }
}
