//! A class's work: one submission after another, each in a process of its own, and a table of all of them.
//!
//! Nothing that a submission or its build does ends the batch: its row says what has happened instead of marks.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use argh::FromArgs;
use serde::Deserialize;
use stevedore::program::{Failure, positive};

use crate::checks::Category;
use crate::report::html;
use crate::report::junit::escape;
use crate::scheme::Scheme;
use crate::stage::process::{self, Process};

/// Marks every submission of a class: each sub-folder of DIR, and each zip file in it. The submissions are copied first
/// and stay as they are. Writes marks.csv, index.html, and a report for each submission.
#[derive(FromArgs)]
#[argh(subcommand, name = "batch", example = "mark batch class --build 'javac *.java'")]
pub struct Arguments {
    /// the folder that holds the submissions
    #[argh(positional, arg_name = "DIR")]
    folder: PathBuf,
    /// a shell command that builds a submission, run in its folder
    #[argh(option, arg_name = "command")]
    build: Option<String>,
    /// the Controller's command (default: `java Controller ...`)
    #[argh(option, arg_name = "command", default = "JAVA_CONTROLLER.into()")]
    controller: String,
    /// the Dstore's command (default: `java Dstore ...`)
    #[argh(option, arg_name = "command", default = "JAVA_DSTORE.into()")]
    dstore: String,
    /// where the reports go (default: marks)
    #[argh(option, arg_name = "folder", default = "PathBuf::from(\"marks\")")]
    reports: PathBuf,
    /// the marking scheme, instead of the published one
    #[argh(option, arg_name = "file")]
    scheme: Option<PathBuf>,
    /// only checks whose id contains this
    #[argh(option, arg_name = "pattern")]
    only: Vec<String>,
    /// how many checks to run at a time
    #[argh(option, from_str_fn(positive))]
    jobs: Option<usize>,
    /// for everything random, the same for all (default 1)
    #[argh(option, default = "1")]
    seed: u64,
    /// how many minutes a submission may take (default 30)
    #[argh(option, from_str_fn(positive), default = "30")]
    minutes: usize,
}

const JAVA_CONTROLLER: &str = "java Controller {cport} {r} {timeout} {period}";
const JAVA_DSTORE: &str = "java Dstore {port} {cport} {timeout} {folder}";

/// How long a build may take.
const BUILD_TIME: Duration = Duration::from_secs(300);

/// What a zip file may hold, unpacked.
const ZIP_BYTES: u64 = 512 << 20;
const ZIP_FILES: usize = 20_000;

/// One submission's line in the table.
struct Row {
    name: String,
    /// Its marks, or why there are none.
    outcome: Result<Report, String>,
}

/// What is needed of the JSON report.
#[derive(Deserialize)]
struct Report {
    marks: f64,
    out_of: f64,
    categories: Vec<CategoryMarks>,
    checks: Vec<CheckResult>,
}

#[derive(Deserialize)]
struct CategoryMarks {
    category: String,
    marks: f64,
}

#[derive(Deserialize)]
struct CheckResult {
    passed: bool,
}

/// Marks all of them. Fails only if it cannot begin, or cannot write what it has found.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let scheme = arguments.scheme.as_ref().map(|path| path.to_string_lossy().into_owned());
    Scheme::read(scheme.as_deref()).map_err(Failure::usage)?;
    let submissions = submissions(&arguments.folder)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", arguments.folder.display())))?;
    if submissions.is_empty() {
        return Err(Failure::usage(format!("{} holds no folder and no zip file", arguments.folder.display())));
    }
    fs::create_dir_all(&arguments.reports).map_err(Failure::new)?;
    let reports = fs::canonicalize(&arguments.reports).map_err(Failure::new)?;
    process::adopt_orphans();
    let mut rows = Vec::new();
    for (number, submission) in submissions.iter().enumerate() {
        let name = submission.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let work = env::temp_dir().join(format!("mark-batch-{}", std::process::id())).join(number.to_string());
        let outcome = mark(arguments, submission, &name, &work, &reports);
        let _ = fs::remove_dir_all(&work);
        let said = match &outcome {
            Ok(report) => format!("{:.1} of {}", report.marks, report.out_of),
            Err(reason) => reason.clone(),
        };
        println!("{:>3}/{} {name}: {said}", number + 1, submissions.len());
        rows.push(Row { name, outcome });
        // After each, so that what has been found is never lost.
        write(&reports, &rows)?;
    }
    let _ = fs::remove_dir(env::temp_dir().join(format!("mark-batch-{}", std::process::id())));
    println!("see {}", reports.join("index.html").display());
    Ok(())
}

/// The sub-folders and zip files, by name.
fn submissions(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let is_zip = |path: &Path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.is_dir() || is_zip(path));
    paths.sort();
    Ok(paths)
}

/// Marks one submission; an error is why it has no marks.
fn mark(arguments: &Arguments, submission: &Path, name: &str, work: &Path, reports: &Path) -> Result<Report, String> {
    let unpacked = if submission.is_dir() { copy(submission, work) } else { unzip(submission, work) };
    unpacked.map_err(|error| format!("cannot be unpacked: {error}"))?;
    let home = only_folder(work);
    if let Some(command) = &arguments.build {
        build(command, &home)?;
    }
    let (json, page, log) =
        (report(reports, name, "json"), report(reports, name, "html"), report(reports, name, "txt"));
    let _ = fs::remove_file(&json);
    let mut mark = Command::new(process::MARK_ITSELF);
    mark.current_dir(&home).args(["--controller", &arguments.controller, "--dstore", &arguments.dstore]);
    mark.arg("--json").arg(&json).arg("--html").arg(&page).arg("--seed").arg(arguments.seed.to_string());
    mark.args(arguments.only.iter().flat_map(|pattern| ["--only", pattern]));
    if let Some(jobs) = arguments.jobs {
        mark.arg("--jobs").arg(jobs.to_string());
    }
    if let Some(scheme) = &arguments.scheme {
        mark.arg("--scheme").arg(fs::canonicalize(scheme).map_err(|error| error.to_string())?);
    }
    let said = File::create(&log).map_err(|error| error.to_string())?;
    let complaints = said.try_clone().map_err(|error| error.to_string())?;
    let mut child =
        mark.stdin(Stdio::null()).stdout(said).stderr(complaints).spawn().map_err(|error| error.to_string())?;
    let limit = Duration::from_secs(60 * arguments.minutes as u64);
    if !ends_within(&mut child, limit) {
        // Its programs end with it: that is how they are launched.
        let _ = (child.kill(), child.wait());
        process::sweep_orphans();
        let _ = fs::remove_dir_all(env::temp_dir().join(format!("mark-{}", child.id())));
        return Err(format!("took more than {} minutes", arguments.minutes));
    }
    let text = fs::read_to_string(&json).map_err(|_| format!("marking failed; see {}", log.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("marking failed: {error}"))
}

fn report(reports: &Path, name: &str, ending: &str) -> PathBuf {
    reports.join(format!("{name}.{ending}"))
}

fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Runs the build with a submission's limits: it is a stranger's, too.
fn build(command: &str, home: &Path) -> Result<(), String> {
    let words = ["sh", "-c", command].map(str::to_owned);
    let run = format!("build.{}", std::process::id());
    let mut building = Process::start(&words, home, &run).map_err(|failure| failure.came)?;
    let deadline = Instant::now() + BUILD_TIME;
    let end = loop {
        match building.end() {
            Some(end) => break Some(end),
            None if Instant::now() > deadline => break None,
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let sessions = [building.id()];
    building.kill();
    process::sweep(&run, &sessions);
    let printed = building.printed();
    let first = printed.lines().filter(|line| !line.trim().is_empty()).take(2).collect::<Vec<_>>().join(" | ");
    match end.as_deref() {
        Some("exit status: 0") => Ok(()),
        Some(end) => Err(format!("does not build ({end}): {first}")),
        None => Err(format!("does not build within {} s", BUILD_TIME.as_secs())),
    }
}

/// Files and folders; links are left out, as they may lead anywhere.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A zip file's files, as far as they stay within `to`, and within limits.
fn unzip(from: &Path, to: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(from)?)?;
    if archive.len() > ZIP_FILES {
        return Err(io::Error::other(format!("more than {ZIP_FILES} files")));
    }
    fs::create_dir_all(to)?;
    let mut left = ZIP_BYTES;
    for number in 0..archive.len() {
        let entry = archive.by_index(number)?;
        let Some(path) = entry.enclosed_name() else { continue }; // it would lead out of the folder
        let target = to.join(path);
        if entry.is_dir() {
            fs::create_dir_all(target)?;
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        // What an entry says of its size may be a lie.
        left -= io::copy(&mut entry.take(left), &mut File::create(target)?)?;
        if left == 0 {
            return Err(io::Error::other(format!("more than {} MB", ZIP_BYTES >> 20)));
        }
    }
    Ok(())
}

/// Where the work is: many zip files hold one folder that holds everything.
fn only_folder(folder: &Path) -> PathBuf {
    let Ok(entries) = fs::read_dir(folder) else { return folder.to_owned() };
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    // What a Mac adds is nobody's work.
    let paths: Vec<&PathBuf> = paths.iter().filter(|path| !path.ends_with("__MACOSX")).collect();
    match paths[..] {
        [only] if only.is_dir() => only_folder(only),
        _ => folder.to_owned(),
    }
}

fn write(reports: &Path, rows: &[Row]) -> Result<(), Failure> {
    let write = |name: &str, text: String| {
        fs::write(reports.join(name), text).map_err(|error| Failure::new(format!("cannot write {name}: {error}")))
    };
    write("marks.csv", csv(rows))?;
    write("index.html", index(rows))
}

fn marked() -> impl Iterator<Item = Category> {
    Category::ALL.into_iter().filter(|category| category.is_marked())
}

fn csv(rows: &[Row]) -> String {
    let categories: Vec<&str> = marked().map(Category::key).collect();
    let mut text = format!("submission,marks,out_of,{},failed_checks,remark\n", categories.join(","));
    for row in rows {
        let cells = match &row.outcome {
            Ok(report) => {
                let marks = categories.iter().map(|key| number(report.of(key))).collect::<Vec<_>>().join(",");
                format!("{:.2},{},{marks},{},", report.marks, report.out_of, report.failed())
            }
            Err(reason) => format!(",,{},,{}", ",".repeat(categories.len() - 1), quoted(reason)),
        };
        let _ = writeln!(text, "{},{cells}", quoted(&row.name));
    }
    text
}

impl Report {
    /// The marks in a category, if any of its checks was run.
    fn of(&self, key: &str) -> Option<f64> {
        self.categories.iter().find(|category| category.category == key).map(|category| category.marks)
    }

    fn failed(&self) -> usize {
        self.checks.iter().filter(|check| !check.passed).count()
    }
}

fn number(marks: Option<f64>) -> String {
    marks.map_or(String::new(), |marks| format!("{marks:.2}"))
}

/// A CSV cell; a spreadsheet must not take a submission's words for a formula.
fn quoted(text: &str) -> String {
    let text = text.replace('\n', " ");
    let guard = if text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

fn index(rows: &[Row]) -> String {
    let mut page = html::head("batch");
    let marks: Vec<f64> = rows.iter().filter_map(|row| row.outcome.as_ref().ok()).map(|report| report.marks).collect();
    let mean = marks.iter().sum::<f64>() / marks.len().max(1) as f64;
    let _ = write!(
        page,
        "<header><div class=\"total\"><b>{}</b><span>submissions</span></div><div><h1>All submissions</h1>\
         <dl><dt>Marked</dt><dd>{}</dd><dt>Mean</dt><dd>{mean:.1}</dd></dl></div></header>\n<main>\n<table class=\"marks\">\n<tr><th>submission</th><th class=\"number\">marks</th>",
        rows.len(),
        marks.len(),
    );
    marked().for_each(|category| _ = write!(page, "<th class=\"number\">{}</th>", category.title()));
    page += "<th class=\"number\">failed checks</th></tr>\n";
    for row in rows {
        let name = escape(&row.name);
        match &row.outcome {
            Ok(report) => {
                let _ = write!(
                    page,
                    "<tr><td><a href=\"{name}.html\">{name}</a></td><td class=\"number\"><b>{:.1}</b></td>",
                    report.marks
                );
                marked().for_each(|category| {
                    let marks = report.of(category.key()).map_or(String::new(), |marks| format!("{marks:.1}"));
                    let _ = write!(page, "<td class=\"number\">{marks}</td>");
                });
                let _ = writeln!(page, "<td class=\"number\">{}</td></tr>", report.failed());
            }
            Err(reason) => {
                let span = 1 + marked().count() + 1;
                let _ = writeln!(
                    page,
                    "<tr class=\"bad\"><td>{name}</td><td colspan=\"{span}\">{}</td></tr>",
                    escape(reason)
                );
            }
        }
    }
    page + "</table>\n</main>\n</body>\n</html>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_never_a_formula_or_two_cells() {
        assert_eq!(quoted("a,\"b\"\nc"), "\"a,\"\"b\"\" c\"");
        assert_eq!(quoted("=1+1"), "\"'=1+1\"");
        let rows = [Row { name: "x".into(), outcome: Err("no".into()) }];
        let csv = csv(&rows);
        let columns = |line: &str| line.matches(',').count();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(columns(lines[0]), columns(lines[1]), "{csv}");
    }
}
