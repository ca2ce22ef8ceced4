//! A whole run: connect, fill, warm up, measure, clear.

use std::iter;
use std::net::SocketAddr;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use cli::cluster::ClientFile;
use indicatif::{ProgressBar, ProgressStyle};
use stevedore::program::Failure;

use crate::depot::Depot;
use crate::processes::usage;
use crate::record::{Record, Window};
use crate::report::{Process, Report, digits};
use crate::style::Style;
use crate::worker::{Task, Worker};

/// What a run consists of.
pub struct Plan {
    /// What each client does.
    pub task: Task,
    /// How many clients there are.
    pub clients: u32,
    /// How many names they have together.
    pub names: u32,
    /// How they go about it.
    pub style: Style,
    /// Whether they say KEEP_ALIVE. (spec 8.2)
    pub keeps_connections: bool,
    /// How long they wait for a reply.
    pub timeout: Duration,
    /// How long they work before the measurement.
    pub warm_up: Duration,
    /// How long is measured.
    pub duration: Duration,
    /// Whether the files stay in the store.
    pub keeps_files: bool,
    /// Processes to watch.
    pub pids: Vec<u32>,
}

/// What is measured.
pub enum Subject {
    /// Any Controller and Dstores that speak the coursework protocol: where the Controller is.
    Coursework(SocketAddr),
    /// The depot that this file is for.
    Depot(ClientFile),
}

/// Carries out `plan`. `setup` is what the report says about it.
pub fn run(plan: &Plan, subject: &Subject, setup: Vec<(&'static str, String)>) -> Result<Report, Failure> {
    // If a process to watch does not exist, the user learns it before the work, not after.
    plan.pids.iter().try_for_each(|&pid| watch(pid).map(drop))?;
    let mut workers = (0..plan.clients)
        .map(|id| {
            let client = match subject {
                Subject::Coursework(controller) => {
                    plan.style.connect(*controller, plan.timeout, plan.keeps_connections)?
                }
                Subject::Depot(file) => Box::new(Depot::new(file.clone())),
            };
            let names = plan.names / plan.clients + u32::from(id < plan.names % plan.clients);
            Ok((names, Worker::new(&plan.task, client, id, names)))
        })
        .collect::<Result<Vec<_>, Failure>>()?;

    let progress = progress();
    progress.set_message("storing what there is to be at the beginning");
    let filled = each(&mut workers, |(names, worker)| worker.fill(*names as usize * plan.task.mix.fill() / 100), || ());
    let outcome = filled.into_iter().collect::<Result<Vec<_>, String>>();
    let measured = match outcome {
        Ok(_) => measure(plan, &mut workers, &progress),
        Err(reason) => Err(Failure::new(format!("cannot store the files to begin with: {reason}"))),
    };
    progress.set_message("removing the files");
    let left = (!plan.keeps_files).then(|| each(&mut workers, |(_, worker)| worker.clear(), || ()).into_iter().sum());
    progress.finish_and_clear();
    let (record, processes) = measured?;
    Ok(Report { setup, clients: plan.clients, window: record.window(), totals: record.into_totals(), processes, left })
}

fn measure(
    plan: &Plan,
    workers: &mut [(u32, Worker<'_>)],
    progress: &ProgressBar,
) -> Result<(Record, Vec<Process>), Failure> {
    let record = Record::new(Window::new(Instant::now() + plan.warm_up, plan.duration));
    // What the clients themselves cost is part of the picture.
    let watch_all = || iter::once(process::id()).chain(plan.pids.iter().copied()).map(watch).collect::<Result<_, _>>();
    let mut processes: Result<Vec<Process>, _> = Ok(Vec::new());
    each(
        workers,
        |(_, worker)| worker.work(&record),
        || {
            let window = record.window();
            show_until(window.start, &record, "warm-up", progress);
            processes = watch_all();
            show_until(window.end(), &record, "measuring", progress);
            if let Ok(processes) = &mut processes {
                processes.iter_mut().for_each(|process| process.after = usage(process.pid).ok());
            }
        },
    );
    Ok((record, processes?))
}

/// Runs `work` for all workers at the same time, and `meanwhile` on this thread. Returns what each worker returns.
fn each<T: Send, R: Send>(workers: &mut [T], work: impl Fn(&mut T) -> R + Sync, meanwhile: impl FnOnce()) -> Vec<R> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(move || work(worker))).collect();
        meanwhile();
        threads.into_iter().map(|thread| thread.join().expect("no client panics")).collect()
    })
}

fn watch(pid: u32) -> Result<Process, Failure> {
    let before = usage(pid).map_err(|error| Failure::new(format!("process {pid}: {error}")))?;
    Ok(Process { pid, before, after: None })
}

/// A progress line on stderr, if that is a terminal.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}").expect("a valid template");
    let progress = ProgressBar::new_spinner().with_style(style);
    if !progress.is_hidden() {
        progress.enable_steady_tick(Duration::from_millis(100));
    }
    progress
}

/// Shows the progress until `until`.
fn show_until(until: Instant, record: &Record, phase: &str, progress: &ProgressBar) {
    const PERIOD: Duration = Duration::from_millis(500);
    let mut seen = record.operations();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let pause = left.min(PERIOD);
        thread::sleep(pause);
        let operations = record.operations();
        let rate = (operations - seen) as f64 / pause.as_secs_f64();
        seen = operations;
        progress.set_message(format!("{phase}, {:.0} s to go: {} operations/s", left.as_secs_f64(), digits(rate)));
    }
}
