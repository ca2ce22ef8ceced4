//! The small Java Controller and Dstore under crates/mark/fixtures/java, marked: templates, each role alone with ours in the
//! other, and the batch. Where there is no Java nothing is tested. (spec 1.3)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kit::TempFolder;

/// One of each kind is enough here: all of them take a minute.
const SOME: [&str; 8] = [
    "--only",
    "a-whole-life",
    "--only",
    "completes-on-the-last",
    "--only",
    "the-specs-example",
    "--only",
    "a-failure-and-a-join",
];

fn sources() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/java");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "java")).collect()
}

fn has_java() -> bool {
    let has = |program| Command::new(program).arg("-version").output().is_ok_and(|output| output.status.success());
    let has_both = has("java") && has("javac");
    if !has_both {
        eprintln!("skipped: java and javac are not installed");
    }
    has_both
}

fn mark(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mark")).current_dir(folder).args(arguments).args(SOME).output().unwrap()
}

fn assert_full_marks(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_java_programs_are_marked_each_alone_and_together() {
    if !has_java() {
        return;
    }
    let folder = TempFolder::new();
    let compiled = Command::new("javac").arg("-d").arg(folder.path().join("sub")).args(sources()).status().unwrap();
    assert!(compiled.success());
    // Paths are as seen from where mark is started.
    let controller = ["--controller", "java -cp sub Controller {cport} {r} {timeout} {period}"];
    let dstore = ["--dstore", "java -cp sub Dstore {port} {cport} {timeout} {folder}"];
    assert_full_marks(&mark(folder.path(), &controller));
    assert_full_marks(&mark(folder.path(), &dstore));
    assert_full_marks(&mark(folder.path(), &[controller, dstore].concat()));
}

#[test]
fn a_class_is_marked_whatever_is_in_it() {
    if !has_java() {
        return;
    }
    let folder = TempFolder::new();
    let class = folder.path().join("class");
    for name in ["ann", "bob", "cat"] {
        fs::create_dir_all(class.join(name)).unwrap();
    }
    for source in sources() {
        fs::copy(&source, class.join("ann").join(source.file_name().unwrap())).unwrap();
    }
    fs::write(class.join("bob/Controller.java"), "class Controller { int x = ; }").unwrap();
    // It builds, and that is all.
    let main =
        |class| format!("public class {class} {{ public static void main(String[] a) {{ throw new Error(); }} }}");
    for class_name in ["Controller", "Dstore"] {
        fs::write(class.join("cat").join(format!("{class_name}.java")), main(class_name)).unwrap();
    }
    fs::write(class.join("dan.zip"), "this is no zip file").unwrap();
    let output = mark(folder.path(), &["batch", "class", "--build", "javac Controller.java Dstore.java"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let csv = fs::read_to_string(folder.path().join("marks/marks.csv")).unwrap();
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 5, "{csv}");
    let marks: Vec<&str> = rows[1].split(',').collect();
    assert_eq!(marks[1].parse::<f64>().unwrap(), marks[3].parse::<f64>().unwrap(), "full marks: {csv}");
    assert!(rows[2].starts_with("\"bob\",,") && rows[2].contains("does not build"), "{csv}");
    assert!(rows[3].starts_with("\"cat\",0.00,"), "{csv}");
    assert!(rows[4].starts_with("\"dan\",,") && rows[4].contains("cannot be unpacked"), "{csv}");
    let index = fs::read_to_string(folder.path().join("marks/index.html")).unwrap();
    assert!(index.contains("ann.html") && folder.path().join("marks/ann.html").exists());
    assert!(!class.join("ann/Controller.class").exists(), "the submissions stay as they are");
}
