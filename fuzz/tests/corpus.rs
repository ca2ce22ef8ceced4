//! Every input of the corpus is checked, without libFuzzer: what a target has found once is not to come back.

use std::fs;
use std::path::Path;

use stevedore_fuzz::{abort_on_panic, connection, controller_session, dstore_session, index, message};

/// A target's property.
type Check = fn(&[u8]);

/// One test: sessions tell apart their threads by name, and connections share a listener.
#[test]
fn every_input_of_the_corpus_holds() {
    // spec 2.1 to 2.7, 3, 4, 7
    abort_on_panic();
    let targets: [(&str, Check); _] = [
        ("index", index::check),
        ("message", message::check),
        ("connection", connection::check),
        ("controller_session", controller_session::check),
        ("dstore_session", dstore_session::check),
    ];
    for (target, check) in targets {
        let inputs = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)).unwrap();
        let mut paths: Vec<_> = inputs.map(|input| input.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{target}");
        for path in paths {
            println!("{}", path.display());
            check(&fs::read(path).unwrap());
        }
    }
}
