//! Marks any Controller and Dstore against the spec. See `mark --help` and docs/marking.md.

mod batch;
mod checks;
mod explain;
mod guard;
mod own;
mod queue;
mod replay;
mod report;
mod run;
mod scheme;
mod stage;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use argh::FromArgs;
use stevedore::program::{Failure, positive};

use checks::published::Edition;
use checks::{Check, Role};
use report::terminal::Terminal;
use run::Plan;
use scheme::Scheme;
use stage::submission::Submission;

/// Puts a Controller and a Dstore, in any language, through the whole spec, and says what works, what does not, and why.
/// Without --controller and --dstore it marks our own.
#[derive(FromArgs)]
#[argh(
    note = "A command's places are filled in: {{cport}} {{r}} {{timeout}} {{period}} for a Controller (milliseconds, seconds), \
            {{port}} {{cport}} {{timeout}} {{folder}} for a Dstore. With one of the two commands, that role is marked, together with \
            our own program in the other.",
    example = "mark --controller 'java -cp sub Controller {{cport}} {{r}} {{timeout}} {{period}}' \\\n       \
               --dstore 'java -cp sub Dstore {{port}} {{cport}} {{timeout}} {{folder}}'",
    error_code(1, "a marked check fails"),
    error_code(2, "the command line makes no sense")
)]
struct Arguments {
    /// the Controller's command
    #[argh(option, arg_name = "command")]
    controller: Option<String>,
    /// the Dstore's command
    #[argh(option, arg_name = "command")]
    dstore: Option<String>,
    /// only checks whose id contains this; `*` stands for anything. Several may be given
    #[argh(option, arg_name = "pattern")]
    only: Vec<String>,
    /// the edition of the coursework by which to mark: 2021 to 2025, or any for what all of them ask (default: any)
    #[argh(option, arg_name = "year", default = "Edition::default()")]
    edition: Edition,
    /// say which checks there are, and run none
    #[argh(switch)]
    list: bool,
    /// how many checks to run at a time (default: twice the number of processors)
    #[argh(option, from_str_fn(positive))]
    jobs: Option<usize>,
    /// the marking scheme, instead of the published one
    #[argh(option, arg_name = "file")]
    scheme: Option<String>,
    /// print the published scheme, as a start for one's own
    #[argh(switch)]
    print_scheme: bool,
    /// write the results as JSON
    #[argh(option, arg_name = "file")]
    json: Option<PathBuf>,
    /// write the results as a JUnit file
    #[argh(option, arg_name = "file")]
    junit: Option<PathBuf>,
    /// write the results as one web page, with a sequence diagram of each failure
    #[argh(option, arg_name = "file")]
    html: Option<PathBuf>,
    /// leave the folders in which the programs ran, and say where they are
    #[argh(switch)]
    keep_folders: bool,
    /// the seed of all that is random (default: another one each time; it is printed)
    #[argh(option)]
    seed: Option<u64>,
    /// how many seconds to wait for an answer that is due (default 8)
    #[argh(option, from_str_fn(positive), default = "8")]
    patience: usize,
    /// after how many minutes to stop and report what there is (default 15)
    #[argh(option, arg_name = "minutes", from_str_fn(limit), default = "DEFAULT_LIMIT")]
    minutes: Duration,
    /// what the reports call the submission (default: the folder's name)
    #[argh(option, arg_name = "text")]
    name: Option<String>,
    /// a page that the web page links back to
    #[argh(option, arg_name = "url", hidden_help)]
    index: Option<String>,
    /// a file that the web page links to: what the build has printed
    #[argh(option, arg_name = "url", hidden_help)]
    build_output: Option<String>,
    #[argh(subcommand)]
    command: Option<OtherCommand>,
}

/// How long a submission may take, unless told otherwise.
const DEFAULT_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Minutes, of which there may be half a one.
fn limit(text: &str) -> Result<Duration, String> {
    let minutes = text.parse::<f64>().ok().filter(|&minutes| minutes > 0.0 && minutes < 100_000.0);
    minutes
        .map(|minutes| Duration::from_secs_f64(60.0 * minutes))
        .ok_or_else(|| format!("expected minutes, got {text:?}"))
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum OtherCommand {
    Batch(batch::Arguments),
    Explain(explain::Arguments),
    Replay(replay::Arguments),
}

fn main() -> ExitCode {
    // The hidden roles: `mark` starts itself as these.
    let words: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let reason = match words.split_first().map(|(role, rest)| (role.as_str(), rest)) {
        Some(("launch", rest)) => stage::process::launch(rest),
        Some(("own-controller", rest)) => own::controller(rest),
        Some(("own-dstore", rest)) => own::dstore(rest),
        Some(("clean-up", rest)) => {
            guard::clean_up(rest.first().map(Path::new));
            return ExitCode::FAILURE;
        }
        _ => return stevedore::program::main("mark", run),
    };
    eprintln!("{reason}");
    ExitCode::FAILURE
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Some(OtherCommand::Batch(batch)) => return guard::guarded(false, |folder| batch::run(batch, folder)),
        Some(OtherCommand::Explain(explain)) => return explain::run(explain),
        Some(OtherCommand::Replay(replay)) => return replay::run(replay),
        None => {}
    }
    if arguments.print_scheme {
        print!("{}", scheme::PUBLISHED);
        return Ok(());
    }
    let scheme = Scheme::read(arguments.scheme.as_deref()).map_err(Failure::usage)?;
    let home = env::current_dir().map_err(Failure::new)?;
    let submission = Submission::new(arguments.controller.as_deref(), arguments.dstore.as_deref(), home);
    let submission = submission.map_err(Failure::usage)?.by(arguments.edition);
    let checks = chosen(&submission, &arguments.only);
    if checks.is_empty() {
        return Err(Failure::usage(format!("no check is called like {:?}", arguments.only.join(", "))));
    }
    if arguments.list {
        report::terminal::list(&checks);
        return Ok(());
    }
    guard::guarded(arguments.keep_folders, |folder| mark(&arguments, submission, &scheme, checks, folder))
}

/// Runs the checks, and writes what comes of them.
fn mark(
    arguments: &Arguments,
    submission: Submission,
    scheme: &Scheme,
    checks: Vec<Arc<Check>>,
    folder: &Path,
) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let plan = Arc::new(Plan {
        name: arguments.name.clone().unwrap_or_else(|| named_after(&submission.home)),
        date: report::date(SystemTime::now()),
        submission: Arc::new(submission),
        folder: folder.to_owned(),
        keeps_folders: arguments.keep_folders,
        jobs: arguments.jobs.unwrap_or_else(|| 2 * thread::available_parallelism().map_or(2, usize::from)),
        seed: arguments.seed.unwrap_or(now),
        patience: Duration::from_secs(arguments.patience as u64),
        limit: arguments.minutes,
        only: arguments.only.clone(),
        index: arguments.index.clone(),
        build_output: arguments.build_output.clone(),
    });
    let terminal = Terminal::start(&plan, checks.len());
    let run = run::run(&plan, checks, |outcome| terminal.tell(outcome));
    let marks = scheme.mark(&run.outcomes);
    terminal.conclude(&plan, &run, scheme, &marks);
    if arguments.keep_folders {
        println!("the folders are below {}", folder.display());
    }
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
        Some(path) => report::write(path, &text())
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display()))),
        None => Ok(()),
    };
    // The JSON last: a program that waits for it finds the others, too.
    write(&arguments.junit, &|| report::junit::text(&plan, &run))?;
    write(&arguments.html, &|| report::html::text(&plan, &run, scheme, &marks))?;
    write(&arguments.json, &|| report::json::text(&plan, &run, scheme, &marks))?;
    match run.outcomes.iter().any(|outcome| !outcome.passes() && scheme.counts(outcome)) {
        true => Err(Failure::new("")), // told already
        false => Ok(()),
    }
}

/// A submission without a name is called like its folder.
fn named_after(home: &Path) -> String {
    home.file_name().map_or_else(|| "submission".into(), |name| name.to_string_lossy().into_owned())
}

/// The checks of the roles that are marked, as far as they are wanted.
fn chosen(submission: &Submission, patterns: &[String]) -> Vec<Arc<Check>> {
    let has_role = |check: &Check| match check.role {
        Role::Controller => submission.marks_controller,
        Role::Dstore => submission.marks_dstore,
        Role::System => true,
    };
    let is_wanted = |check: &Check| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, &check.id));
    checks::all(submission.edition)
        .into_iter()
        .filter(|check| has_role(check) && is_wanted(check))
        .map(Arc::new)
        .collect()
}

/// Whether the pattern's pieces, between its stars, are in the text one after another.
fn matches(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    pattern.split('*').all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_pattern_is_found_anywhere_and_its_stars_stand_for_anything() {
        let id = "controller/store/no-late-reply";
        for pattern in ["store", "controller/", "con*late", "store/*reply", "*", ""] {
            assert!(matches(pattern, id), "{pattern}");
        }
        for pattern in ["dstore", "late*store", "no-late-reply-"] {
            assert!(!matches(pattern, id), "{pattern}");
        }
    }
}
