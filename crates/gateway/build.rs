//! Compiles the .proto files: what tonic needs, and for each façade what it says of itself when it is asked (reflection).

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

/// Each façade, and its files.
const FACADES: [(&str, &[&str]); 2] =
    [("fluffy", &["fluffy.proto", "heartbeat.proto"]), ("tracker", &["tracker.proto", "stevedore_tracker.proto"])];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for (facade, files) in FACADES {
        let descriptors = protox::compile(files, ["proto"])?;
        fs::write(out.join(format!("{facade}.descriptors")), descriptors.encode_to_vec())?;
        tonic_prost_build::configure().bytes(".").use_arc_self(true).compile_fds(descriptors)?;
    }
    Ok(())
}
