//! A class's work: each submission in a process of its own, several at a time, and a table of all of them.
//!
//! Nothing that a submission or its build does ends the batch: its row says what has happened instead of marks. After each
//! submission the table and a note of what is done are written; a batch that was interrupted goes on from the note.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use argh::FromArgs;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use stevedore::program::{Failure, positive};

use crate::checks::Category;
use crate::checks::published::Edition;
use crate::report::junit::escape;
use crate::report::{self, html, minutes};
use crate::scheme::Scheme;
use crate::stage::process;

/// Marks every submission of a class: each sub-folder of DIR, and each zip file in it. The submissions are copied first
/// and stay as they are. Writes marks.csv, index.html, and a report for each submission. After an interruption the same
/// command goes on where it stopped.
#[derive(FromArgs)]
#[argh(subcommand, name = "batch", example = "mark batch class --build 'javac Controller.java Dstore.java'")]
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
    /// how many submissions to mark at a time (default: one for every four processors). They share the checks that run at a
    /// time, which are twice the number of processors
    #[argh(option, from_str_fn(positive))]
    jobs: Option<usize>,
    /// how many seconds to wait for an answer that is due (default 8)
    #[argh(option, from_str_fn(positive), default = "8")]
    patience: usize,
    /// the edition of the coursework by which to mark: 2021 to 2025, or any for what all of them ask (default: any)
    #[argh(option, arg_name = "year", default = "Edition::default()")]
    edition: Edition,
    /// the seed of all that is random, the same for all submissions (default 1)
    #[argh(option, default = "1")]
    seed: u64,
    /// after how many minutes to stop with a submission, and report what there is (default 15)
    #[argh(option, arg_name = "minutes", from_str_fn(crate::limit), default = "crate::DEFAULT_LIMIT")]
    minutes: Duration,
}

/// How a Controller in Java is started.
pub const JAVA_CONTROLLER: &str = "java Controller {cport} {r} {timeout} {period}";
/// How a Dstore in Java is started.
pub const JAVA_DSTORE: &str = "java Dstore {port} {cport} {timeout} {folder}";

/// How long a build may take.
const BUILD_TIME: Duration = Duration::from_secs(300);

/// A marking that has not stopped so long after its limit is killed.
const GRACE: Duration = Duration::from_secs(60);

/// What a zip file may hold, unpacked.
const ZIP_BYTES: u64 = 512 << 20;
const ZIP_FILES: usize = 20_000;

/// Names of the batch's own reports, which no submission's may be.
const OWN_REPORTS: [&str; 2] = ["index", "progress"];

/// One submission's line in the table.
#[derive(Clone)]
struct Row {
    name: String,
    /// Its marks, or why there are none.
    outcome: Result<Report, String>,
}

/// What is needed of the JSON report.
#[derive(Clone, Deserialize)]
struct Report {
    marks: f64,
    out_of: f64,
    not_judged: f64,
    seconds: f64,
    categories: Vec<CategoryMarks>,
    checks: Vec<CheckResult>,
}

#[derive(Clone, Deserialize)]
struct CategoryMarks {
    category: String,
    marks: f64,
}

#[derive(Clone, Deserialize)]
struct CheckResult {
    category: String,
    result: String,
}

/// What is done of a batch, and with what settings it was begun. Gone when the batch is complete.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
struct Progress {
    settings: String,
    /// By name: why a submission has no marks, or nothing if its JSON report tells them.
    done: BTreeMap<String, Option<String>>,
}

/// A batch on its way.
struct Batch<'a> {
    arguments: &'a Arguments,
    submissions: Vec<(String, PathBuf)>,
    /// Where the submissions are copied to.
    work: &'a Path,
    reports: PathBuf,
    /// How many checks of one submission run at a time.
    checks_at_a_time: usize,
    next: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    progress: Progress,
    /// By the submission's place.
    rows: BTreeMap<usize, Row>,
}

/// Marks all of them, in `work`. Fails only if it cannot begin, or cannot write what it has found.
pub fn run(arguments: &Arguments, work: &Path) -> Result<(), Failure> {
    let scheme = arguments.scheme.as_ref().map(|path| path.to_string_lossy().into_owned());
    Scheme::read(scheme.as_deref()).map_err(Failure::usage)?;
    let submissions = submissions(&arguments.folder)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", arguments.folder.display())))?;
    if submissions.is_empty() {
        return Err(Failure::usage(format!("{} holds no folder and no zip file", arguments.folder.display())));
    }
    fs::create_dir_all(&arguments.reports).map_err(Failure::new)?;
    let reports = fs::canonicalize(&arguments.reports).map_err(Failure::new)?;
    let processors = thread::available_parallelism().map_or(2, usize::from);
    let jobs = arguments.jobs.unwrap_or(processors.div_ceil(4));
    let batch = Batch {
        arguments,
        submissions,
        work,
        reports,
        checks_at_a_time: (2 * processors).div_ceil(jobs),
        next: AtomicUsize::new(0),
        state: Mutex::default(),
    };
    batch.take_up()?;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(|| batch.work())).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    let _ = fs::remove_file(batch.progress_file());
    println!("see {}", batch.reports.join("index.html").display());
    Ok(())
}

impl Batch<'_> {
    /// Goes on with what an interrupted batch of the same settings has left.
    fn take_up(&self) -> Result<(), Failure> {
        let left = fs::read_to_string(self.progress_file()).ok().and_then(|text| serde_json::from_str(&text).ok());
        let mut state = self.state.lock();
        state.progress = left.filter(|left: &Progress| left.settings == self.settings()).unwrap_or_default();
        state.progress.settings = self.settings();
        for (number, (name, _)) in self.submissions.iter().enumerate() {
            let outcome = match state.progress.done.get(name) {
                None => continue,
                Some(Some(reason)) => Err(reason.clone()),
                // A report that has gone since is made again.
                Some(None) => match self.read_report(name) {
                    Ok(report) => Ok(report),
                    Err(_) => continue,
                },
            };
            state.rows.insert(number, Row { name: name.clone(), outcome });
        }
        if !state.rows.is_empty() {
            println!("{} of {} were marked before the interruption", state.rows.len(), self.submissions.len());
        }
        self.write(&state)
    }

    /// What must be the same for a batch to go on: the command line, but for how many are marked at a time.
    fn settings(&self) -> String {
        let Arguments { folder, build, controller, dstore, scheme, only, edition, patience, seed, minutes, .. } =
            self.arguments;
        format!(
            "{folder:?} {edition} {build:?} {controller:?} {dstore:?} {scheme:?} {only:?} {patience} {seed} {minutes:?}"
        )
    }

    /// Marks one after another until none is left.
    fn work(&self) -> Result<(), Failure> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((name, submission)) = self.submissions.get(number) else { return Ok(()) };
            if self.state.lock().rows.contains_key(&number) {
                continue;
            }
            let work = self.work.join(number.to_string());
            let outcome = self.mark(submission, name, &work);
            let _ = fs::remove_dir_all(&work);
            let said = match &outcome {
                Ok(report) => report.in_words(),
                Err(reason) => reason.clone(),
            };
            let mut state = self.state.lock();
            state.progress.done.insert(name.clone(), outcome.as_ref().err().cloned());
            state.rows.insert(number, Row { name: name.clone(), outcome });
            println!("{:>3}/{} {name}: {said}", state.rows.len(), self.submissions.len());
            // After each, so that what has been found is never lost.
            self.write(&state)?;
        }
    }

    /// Marks one submission; an error is why it has no marks.
    fn mark(&self, submission: &Path, name: &str, work: &Path) -> Result<Report, String> {
        let arguments = self.arguments;
        for ending in ["json", "html", "txt", "build.txt"] {
            let _ = fs::remove_file(self.report(name, ending)); // of an earlier batch
        }
        let home = work.join("submission");
        let unpacked = if submission.is_dir() { copy(submission, &home) } else { unzip(submission, &home) };
        unpacked.map_err(|error| format!("cannot be unpacked: {error}"))?;
        let home = only_folder(&home);
        let mut mark = Command::new(process::MARK_ITSELF);
        mark.arg0("mark").current_dir(&home).stdin(Stdio::null());
        // Its own folder goes with the submission's, whatever ends it.
        mark.env("TMPDIR", work);
        if let Some(command) = &arguments.build {
            build(command, &home, &self.report(name, "build.txt"))?;
            mark.arg("--build-output").arg(format!("{}.build.txt", in_a_link(name)));
        }
        mark.args(["--controller", &arguments.controller, "--dstore", &arguments.dstore]);
        mark.args(["--name", name, "--index", "index.html", "--edition", &arguments.edition.to_string()]);
        mark.arg("--json").arg(self.report(name, "json")).arg("--html").arg(self.report(name, "html"));
        for (option, number) in [
            ("--seed", arguments.seed),
            ("--jobs", self.checks_at_a_time as u64),
            ("--patience", arguments.patience as u64),
        ] {
            mark.arg(option).arg(number.to_string());
        }
        mark.arg("--minutes").arg((arguments.minutes.as_secs_f64() / 60.0).to_string());
        mark.args(arguments.only.iter().flat_map(|pattern| ["--only", pattern]));
        if let Some(scheme) = &arguments.scheme {
            mark.arg("--scheme").arg(fs::canonicalize(scheme).map_err(|error| error.to_string())?);
        }
        let said = File::create(self.report(name, "txt")).map_err(|error| error.to_string())?;
        let complaints = said.try_clone().map_err(|error| error.to_string())?;
        let mut child = mark.stdout(said).stderr(complaints).spawn().map_err(|error| error.to_string())?;
        if !ends_within(&mut child, arguments.minutes + GRACE) {
            // What it has started is cleaned up by its other half.
            let _ = (child.kill(), child.wait());
            return Err(format!("took more than {}", minutes(arguments.minutes)));
        }
        self.read_report(name)
    }

    fn read_report(&self, name: &str) -> Result<Report, String> {
        let text = fs::read_to_string(self.report(name, "json"))
            .map_err(|_| format!("marking failed; see {}", self.report(name, "txt").display()))?;
        serde_json::from_str(&text).map_err(|error| format!("marking failed: {error}"))
    }

    fn report(&self, name: &str, ending: &str) -> PathBuf {
        self.reports.join(format!("{name}.{ending}"))
    }

    fn progress_file(&self) -> PathBuf {
        self.reports.join("progress.json")
    }

    /// The tables of what there is, and the note of it.
    fn write(&self, state: &State) -> Result<(), Failure> {
        let write = |path: PathBuf, text: &str| {
            report::write(&path, text)
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
        };
        let rows: Vec<&Row> = state.rows.values().collect();
        let has_build_output = |name: &str| self.report(name, "build.txt").exists();
        write(self.reports.join("marks.csv"), &csv(&rows))?;
        write(self.reports.join("index.html"), &index(&rows, self.submissions.len(), &has_build_output))?;
        let progress = serde_json::to_string(&state.progress).expect("strings and maps of them");
        write(self.progress_file(), &progress)
    }
}

/// The sub-folders and zip files, each with a name that no other has.
fn submissions(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let is_zip = |path: &Path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.is_dir() || is_zip(path));
    paths.sort();
    let mut taken: BTreeSet<String> = OWN_REPORTS.map(str::to_owned).into();
    let named = |path: PathBuf| {
        let whole = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem =
            if is_zip(&path) { path.file_stem().unwrap_or_default().to_string_lossy().into_owned() } else { whole };
        let numbered = (2..).map(|number| format!("{stem}-{number}"));
        let name = [stem.clone()].into_iter().chain(numbered).find(|name| taken.insert(name.clone()));
        (name.unwrap_or(stem), path)
    };
    Ok(paths.into_iter().map(named).collect())
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

/// Runs the build with a submission's limits: it is a stranger's, too. All that it prints goes to `output`.
fn build(command: &str, home: &Path, output: &Path) -> Result<(), String> {
    let run = format!("build.{}.{}", std::process::id(), home.display());
    let said = File::create(output).map_err(|error| error.to_string())?;
    let complaints = said.try_clone().map_err(|error| error.to_string())?;
    let words = ["sh", "-c", command].map(str::to_owned);
    let mut building = process::launcher(&words, home, &run);
    let mut building = building.stdout(said).stderr(complaints).spawn().map_err(|error| error.to_string())?;
    let has_ended = ends_within(&mut building, BUILD_TIME);
    process::signal_group(building.id(), Signal::KILL);
    let status = building.wait().map_err(|error| error.to_string())?;
    process::sweep(&run, &[building.id()]);
    match status.code() {
        _ if !has_ended => Err(format!("does not build within {} s", BUILD_TIME.as_secs())),
        Some(0) => Ok(()),
        _ => Err(format!("does not build ({status}): {}", first_lines(output))),
    }
}

/// The first two lines of a file that say something.
fn first_lines(path: &Path) -> String {
    let mut text = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(4_000).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    text.lines().filter(|line| !line.trim().is_empty()).take(2).collect::<Vec<_>>().join(" | ")
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
    // A Mac adds this folder to every archive; it is no part of the work.
    let paths: Vec<&PathBuf> = paths.iter().filter(|path| !path.ends_with("__MACOSX")).collect();
    match paths[..] {
        [only] if only.is_dir() => only_folder(only),
        _ => folder.to_owned(),
    }
}

fn marked() -> impl Iterator<Item = Category> {
    Category::ALL.into_iter().filter(|category| category.is_marked())
}

fn csv(rows: &[&Row]) -> String {
    let categories: Vec<&str> = marked().map(Category::key).collect();
    let mut text =
        format!("submission,marks,not_judged,out_of,{},failed_checks,not_run,seconds,remark\n", categories.join(","));
    for row in rows {
        let cells = match &row.outcome {
            Ok(report) => {
                let marks = categories.iter().map(|key| number(report.of(key))).collect::<Vec<_>>().join(",");
                let (failed, not_run, seconds) = (report.failed(), report.not_run(), report.seconds);
                let (got, open, out_of) = (report.marks, report.not_judged, report.out_of);
                format!("{got:.2},{open:.2},{out_of},{marks},{failed},{not_run},{seconds:.0},")
            }
            Err(reason) => format!(",,,{},,,,{}", ",".repeat(categories.len() - 1), quoted(reason)),
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

    /// How many checks fail that are marked.
    fn failed(&self) -> usize {
        let is_marked = |key: &str| marked().any(|category| category.key() == key);
        self.checks.iter().filter(|check| check.result == "failed" && is_marked(&check.category)).count()
    }

    fn not_run(&self) -> usize {
        self.checks.iter().filter(|check| check.result == "not run").count()
    }

    fn in_words(&self) -> String {
        let not_run = match self.not_run() {
            0 => String::new(),
            number => format!(", {number} checks not run"),
        };
        let open = if self.not_judged > 0.05 { format!(", {:.1} not judged", self.not_judged) } else { String::new() };
        let took = minutes(Duration::from_secs_f64(self.seconds.clamp(0.0, 1e6)));
        format!("{:.1} of {}{open}, in {took}{not_run}", self.marks, self.out_of)
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

/// The page with the marks of all submissions.
fn index(rows: &[&Row], submissions: usize, has_build_output: &impl Fn(&str) -> bool) -> String {
    let marks: Vec<f64> = rows.iter().filter_map(|row| row.outcome.as_ref().ok()).map(|report| report.marks).collect();
    let mean = marks.iter().sum::<f64>() / marks.len().max(1) as f64;
    let is_partial = rows.len() < submissions;
    let mut page = html::head("all submissions");
    let _ = write!(
        page,
        "<header><div class=\"total\"><b>{mean:.1}</b><span>marks on average</span></div><div class=\"what\">\
         <h1>All submissions</h1><p>{} of {submissions} have marks{}. The table is also in <a href=\"marks.csv\">marks.csv</a>.</p>\
         </div></header>\n<main>\n<table class=\"marks index\">\n<tr><th>Submission</th><th class=\"number\">Marks</th>",
        marks.len(),
        if is_partial { "; the batch is not complete" } else { "" },
    );
    marked().for_each(|category| _ = write!(page, "<th class=\"number wide\">{}</th>", category.title()));
    page += "<th class=\"number\">Failed checks</th><th class=\"number wide\">Time</th></tr>\n";
    for row in rows {
        page += &index_row(row, has_build_output(&row.name));
    }
    page + "</table>\n</main>\n</body>\n</html>\n"
}

fn index_row(row: &Row, has_build_output: bool) -> String {
    let (name, link) = (escape(&row.name), in_a_link(&row.name));
    let report = match &row.outcome {
        Ok(report) => report,
        Err(reason) => {
            let output = match has_build_output {
                true => format!("<br><a href=\"{link}.build.txt\">all that the build printed</a>"),
                false => String::new(),
            };
            let reason = escape(reason);
            return format!(
                "<tr class=\"none\"><td>{name}</td><td colspan=\"20\">No marks: {reason}{output}</td></tr>\n"
            );
        }
    };
    let open = match report.not_judged > 0.05 {
        true => format!("<br><span class=\"about\">{:.1} not judged</span>", report.not_judged),
        false => String::new(),
    };
    let mut cells = format!(
        "<td><a href=\"{link}.html\">{name}</a></td><td class=\"number\"><b>{:.1}</b>{open}</td>",
        report.marks
    );
    marked().for_each(|category| {
        let marks = report.of(category.key()).map_or(String::new(), |marks| format!("{marks:.1}"));
        let _ = write!(cells, "<td class=\"number wide\">{marks}</td>");
    });
    let failed = match report.not_run() {
        0 => report.failed().to_string(),
        not_run => format!("{}, {not_run} not run", report.failed()),
    };
    let took = minutes(Duration::from_secs_f64(report.seconds.clamp(0.0, 1e6)));
    format!("<tr>{cells}<td class=\"number\">{failed}</td><td class=\"number wide\">{took}</td></tr>\n")
}

/// A file's name as a link's target: what is not plain is percent-encoded.
fn in_a_link(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes().fold(String::new(), |mut link, byte| {
        if plain(byte) {
            link.push(char::from(byte))
        } else {
            _ = write!(link, "%{byte:02X}")
        }
        link
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_never_a_formula_or_two_cells() {
        assert_eq!(quoted("a,\"b\"\nc"), "\"a,\"\"b\"\" c\"");
        assert_eq!(quoted("=1+1"), "\"'=1+1\"");
        let rows = [Row { name: "x".into(), outcome: Err("no".into()) }];
        let csv = csv(&rows.iter().collect::<Vec<_>>());
        let columns = |line: &str| line.matches(',').count();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(columns(lines[0]), columns(lines[1]), "{csv}");
    }
}
