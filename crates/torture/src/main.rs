//! Tortures a Stevedore cluster, and checks what its clients have seen. See `torture --help`.
//!
//! | module | is |
//! |---|---|
//! | [`cluster`], [`role`] | the processes under torture |
//! | [`proxy`], [`faults`] | what is done to them |
//! | [`workload`], [`official`] | the clients |
//! | [`history`], [`checker`] | what they saw, and whether anything explains it |
//! | [`watcher`] | what lies in the folders meanwhile |
//! | [`run`](mod@run) | storms of faults, and what has to be true after each |
//! | [`stop`] | why a run ends early |
//! | [`mutants`] | bugs that all this has to find |
//! | [`depot`] | the same for the depot |

mod checker;
mod cluster;
mod depot;
mod faults;
mod history;
mod mutants;
mod official;
mod proxy;
mod role;
mod run;
mod stop;
mod watcher;
mod workload;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use argh::FromArgs;
use stevedore::program::{self, Failure, milliseconds, positive};

use cluster::Settings;
use run::{Plan, Report};

/// Tortures a Stevedore cluster of real processes: Dstores are killed, stopped and cut off, connections are cut in the middle,
/// while clients store, load, list and remove the same few files. Every answer is recorded, and checked against the spec's
/// index; after every storm all files have to be there, whole, on R Dstores, and nothing else.
#[derive(FromArgs)]
#[argh(
    note = "The seed decides which faults and requests come and when. It does not decide how threads and processes \
            interleave: the same seed is the same storm, not the same history.\n\
            RUST_LOG=info with --keep-folders leaves every message of every process in a log beside the folders.",
    example = "torture --seconds 3600",
    example = "torture --seconds 60 --seed 7 --dstores 4\n  one Dstore more than copies: now and then there are too few",
    example = "torture depot --seconds 60 --seed 7\n  the same for the depot, whose servers come back on their data",
    example = "torture failover --kills 200\n  how long a store of three Controllers is without service when its leader is killed",
    example = "torture failover --planned --kills 50\n  the same when it is asked to hand over, or to end",
    example = "torture mutants\n  breaks Stevedore in several ways, and shows that each is found",
    error_code(1, "it has found something wrong; or it cannot run"),
    error_code(2, "the command line makes no sense")
)]
struct Arguments {
    /// how long faults happen (default 60)
    #[argh(option, default = "60")]
    seconds: u64,
    /// what decides about faults and requests; drawn unless given
    #[argh(option)]
    seed: Option<u64>,
    /// how many clients (default 12)
    #[argh(option, from_str_fn(positive), default = "12")]
    clients: usize,
    /// how many names they share, at most 1000 (default 12)
    #[argh(option, from_str_fn(positive), default = "12")]
    names: usize,
    /// of the depot: how many Controllers (default 1)
    #[argh(option, from_str_fn(positive), default = "1")]
    controllers: usize,
    /// how many Dstores (default 6)
    #[argh(option, from_str_fn(positive), default = "6")]
    dstores: usize,
    /// on how many Dstores each file is kept (default 3)
    #[argh(option, from_str_fn(positive), default = "3")]
    replicas: usize,
    /// timeout of every program in milliseconds (default 500)
    #[argh(option, from_str_fn(milliseconds), default = "Duration::from_millis(500)")]
    timeout_ms: Duration,
    /// milliseconds from one rebalance to the next (default 300)
    #[argh(option, from_str_fn(milliseconds), default = "Duration::from_millis(300)")]
    period_ms: Duration,
    /// whether to damage stored copies as well: overwrite bytes in place, cut files short (default true)
    #[argh(option, default = "true")]
    bit_flips: bool,
    /// let clients send content long after the Controller has given up their store: shows a limit of the protocol, in which
    /// an acknowledgement does not say which store it belongs to
    #[argh(switch)]
    stalled_clients: bool,
    /// where to make a folder for everything, the system's place for temporary files unless given; of mutants it is the
    /// folder itself, and stays
    #[argh(option)]
    folder: Option<PathBuf>,
    /// leave that folder behind, with all logs
    #[argh(switch)]
    keep_folders: bool,
    /// print the totals as one line of JSON, too
    #[argh(switch)]
    json: bool,
    /// of the depot: every delay that only affects availability and space is 0
    #[argh(switch)]
    hasty: bool,
    /// of failover: how often the leader is killed (default 20)
    #[argh(option, from_str_fn(positive), default = "20")]
    kills: usize,
    /// of failover: the leader is not killed, but asked in turn to hand over and to end
    #[argh(switch)]
    planned: bool,
    /// nothing; or "depot"; or "failover"; or "mutants", and which of them, all unless given
    #[argh(positional)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match role::play(&words) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(failure)) => {
            let _ = writeln!(io::stderr(), "{}", failure.message);
            ExitCode::from(failure.code)
        }
        None => program::main("torture", run),
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command.split_first() {
        None => {}
        Some((command, [])) if command == "depot" => return torture_depot(&arguments),
        Some((command, [])) if command == "failover" => return measure_failover(&arguments),
        Some((command, chosen)) if command == "mutants" => {
            let work = match arguments.folder {
                Some(path) => Folder { path, is_kept: true },
                None => Folder::make(None, 0, arguments.keep_folders)?,
            };
            return mutants::hunt(chosen, arguments.seconds, &work.path);
        }
        Some((word, _)) => return Err(Failure::usage(format!("no command is called {word:?} (see torture --help)"))),
    }
    if arguments.dstores < arguments.replicas || arguments.names > 1000 {
        return Err(Failure::usage("there must be at least R Dstores, and at most 1000 names"));
    }
    let seed = arguments.seed.unwrap_or_else(drawn_seed);
    let folder = Folder::make(arguments.folder.as_deref(), seed, arguments.keep_folders)?;
    let plan = Plan {
        seed,
        duration: Duration::from_secs(arguments.seconds),
        clients: arguments.clients,
        names: arguments.names,
        dstores: arguments.dstores,
        flips_bits: arguments.bit_flips,
        stalls_clients: arguments.stalled_clients,
        settings: Settings {
            replicas: arguments.replicas,
            timeout: arguments.timeout_ms,
            period: arguments.period_ms,
            folder: folder.path.clone(),
        },
    };
    eprintln!("torture: seed {seed}, in {}", folder.path.display());
    let is_terminal = io::stderr().is_terminal();
    let report = run::run(&plan, |report| {
        if is_terminal {
            eprint!("\r{}", summary(report));
        }
    })?;
    if is_terminal {
        eprintln!();
    }
    let shown = print(&plan, &report).and_then(|()| if arguments.json { print_json(&plan, &report) } else { Ok(()) });
    shown.map_err(|error| Failure::new(format!("cannot write to stdout: {error}")))?;
    match report.wrong {
        None => Ok(()),
        Some(_) => Err(Failure::new(format!("seed {seed} has found something wrong"))),
    }
}

fn drawn_seed() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    time.as_micros() as u64 % 1_000_000_000
}

fn measure_failover(arguments: &Arguments) -> Result<(), Failure> {
    use depot::failover::Way;
    let folder = Folder::make(arguments.folder.as_deref(), arguments.seed.unwrap_or_default(), arguments.keep_folders)?;
    let (controllers, pace) = (arguments.controllers.max(3), depot::Pace::Usual);
    let plan = depot::Plan { controllers, pace, ..depot_plan(arguments, &folder)? };
    let is_terminal = io::stderr().is_terminal();
    let ways: &[Way] = if arguments.planned { &[Way::HandOver, Way::End] } else { &[Way::Kill] };
    let figures = depot::failover::run(&plan, ways, arguments.kills, |times| {
        if is_terminal {
            eprint!("\r{times} of {}", arguments.kills);
        }
    })?;
    if is_terminal {
        eprintln!();
    }
    print_failover(&plan, ways, &figures).map_err(|error| Failure::new(format!("cannot write to stdout: {error}")))
}

fn print_failover(
    plan: &depot::Plan,
    ways: &[depot::failover::Way],
    figures: &depot::failover::Figures,
) -> io::Result<()> {
    use depot::failover::{Figures, Way};
    let Figures { gaps, puts, failures, last_failure, longest } = figures;
    let mut out = io::stdout().lock();
    writeln!(out, "{} Controllers under {} clients", plan.controllers, plan.clients)?;
    for way in ways {
        let count = gaps.iter().filter(|gap| gap.0 == *way).count();
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|part| figures.quantile(*way, part).as_millis());
        let what = match way {
            Way::Kill => "kills of the leader: service resumed after",
            Way::HandOver => "hand-overs: without service for",
            Way::End => "ends of the leader by SIGTERM: without service for",
        };
        writeln!(out, "{count} {what} {p50} ms (p50), {p99} ms (p99), {most} ms (most)")?;
    }
    writeln!(
        out,
        "{puts} puts acknowledged and there with their bytes, {failures} failed{}; the longest took {} ms",
        if *failures > 0 { format!(" ({last_failure})") } else { String::new() },
        longest.as_millis()
    )
}

fn depot_plan(arguments: &Arguments, folder: &Folder) -> Result<depot::Plan, Failure> {
    let replicas = u8::try_from(arguments.replicas).ok().filter(|replicas| usize::from(*replicas) <= arguments.dstores);
    let replicas = replicas.ok_or_else(|| Failure::usage("there must be at least R Dstores"))?;
    if arguments.names > 100 {
        return Err(Failure::usage("there must be at most 100 names"));
    }
    Ok(depot::Plan {
        controllers: arguments.controllers,
        seed: arguments.seed.unwrap_or_else(drawn_seed),
        duration: Duration::from_secs(arguments.seconds),
        clients: arguments.clients,
        names: arguments.names,
        dstores: arguments.dstores,
        replicas,
        flips_bits: arguments.bit_flips,
        pace: if arguments.hasty { depot::Pace::Hasty } else { depot::Pace::Quick },
        folder: folder.path.clone(),
    })
}

fn torture_depot(arguments: &Arguments) -> Result<(), Failure> {
    let seed = arguments.seed.unwrap_or_else(drawn_seed);
    let folder = Folder::make(arguments.folder.as_deref(), seed, arguments.keep_folders)?;
    let plan = depot::Plan { seed, ..depot_plan(arguments, &folder)? };
    eprintln!("torture: seed {seed}, in {}", folder.path.display());
    let is_terminal = io::stderr().is_terminal();
    let report = depot::run(&plan, |report| {
        if is_terminal {
            eprint!("\r{:>6.0} s  {} storms  {} changes", report.took.as_secs_f64(), report.storms, report.changes);
        }
    })?;
    if is_terminal {
        eprintln!();
    }
    print_depot(&plan, &report).map_err(|error| Failure::new(format!("cannot write to stdout: {error}")))?;
    match report.wrong {
        None => Ok(()),
        Some(_) => Err(Failure::new(format!("seed {seed} has found something wrong"))),
    }
}

fn print_depot(plan: &depot::Plan, report: &depot::Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let depot::Plan { seed, clients, names, controllers, dstores, replicas, .. } = plan;
    writeln!(
        out,
        "seed {seed}: {clients} clients, {names} names, {controllers} Controllers, {dstores} Dstores, R {replicas}"
    )?;
    writeln!(out, "\noperations")?;
    for ((kind, outcome), count) in &report.operations {
        writeln!(out, "  {count:>9}  {kind} {outcome}")?;
    }
    writeln!(out, "faults")?;
    for (kind, count) in &report.faults {
        writeln!(out, "  {count:>9}  {kind}")?;
    }
    writeln!(out, "checked")?;
    writeln!(out, "  {:>9}  changes, in the order of the store", report.changes)?;
    writeln!(out, "  {:>9}  answers that this order explains", report.checked)?;
    writeln!(out, "  {:>9}  files read in full and compared, after {} storms", report.files, report.storms)?;
    writeln!(out, "  {:>9.1?}  the longest time to heal after a storm", report.longest_healing)?;
    writeln!(out, "  {:>9.1?}  in all\n", report.took)?;
    match &report.wrong {
        None => writeln!(out, "nothing lost, nothing altered"),
        Some(what) => writeln!(out, "WRONG: {what}"),
    }
}

fn summary(report: &Report) -> String {
    let operations: u64 = report.operations.values().sum();
    let faults: u64 = report.faults.values().sum();
    format!("{:>6.0} s  {} storms  {operations} operations  {faults} faults", report.took.as_secs_f64(), report.storms)
}

fn print(plan: &Plan, report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Plan { seed, clients, names, dstores, settings, .. } = plan;
    writeln!(out, "seed {seed}: {clients} clients, {names} names, {dstores} Dstores, R {}", settings.replicas)?;
    writeln!(out, "\noperations")?;
    for ((request, outcome), count) in &report.operations {
        writeln!(out, "  {count:>9}  {request} {outcome}")?;
    }
    writeln!(out, "faults")?;
    for (kind, count) in &report.faults {
        writeln!(out, "  {count:>9}  {kind}")?;
    }
    writeln!(out, "checked")?;
    writeln!(out, "  {:>9}  observations of one name's state, in the order of time", report.checked)?;
    writeln!(out, "  {:>9}  copies loaded and compared, after {} storms", report.copies, report.storms)?;
    writeln!(out, "  {:>9}  looks at a file in a folder, to find it whole", report.looks)?;
    writeln!(out, "  {:>9}  rounds of rebalances", report.rebalances)?;
    writeln!(out, "  {:>9.1?}  the longest operation of a client", report.longest)?;
    writeln!(out, "  {:>9.1?}  the longest time to heal after a storm", report.longest_healing)?;
    writeln!(out, "  {:>9.1?}  in all\n", report.took)?;
    match &report.wrong {
        None => writeln!(out, "nothing lost, nothing altered, nothing left over"),
        Some(what) => writeln!(out, "WRONG: {what}"),
    }
}

fn print_json(plan: &Plan, report: &Report) -> io::Result<()> {
    let operations: Vec<_> = report
        .operations
        .iter()
        .map(|((request, outcome), count)| format!("\"{request} {outcome}\":{count}"))
        .collect();
    let faults: Vec<_> = report.faults.iter().map(|(kind, count)| format!("\"{kind}\":{count}")).collect();
    writeln!(
        io::stdout(),
        "{{\"seed\":{},\"seconds\":{:.1},\"storms\":{},\"rebalances\":{},\"checked\":{},\"copies\":{},\"looks\":{},\"longest_ms\":{},\
         \"is_right\":{},\"operations\":{{{}}},\"faults\":{{{}}}}}",
        plan.seed,
        report.took.as_secs_f64(),
        report.storms,
        report.rebalances,
        report.checked,
        report.copies,
        report.looks,
        report.longest.as_millis(),
        report.wrong.is_none(),
        operations.join(","),
        faults.join(","),
    )
}

/// Where everything of a run is; removed at the end.
struct Folder {
    path: PathBuf,
    is_kept: bool,
}

impl Folder {
    fn make(below: Option<&Path>, seed: u64, is_kept: bool) -> Result<Self, Failure> {
        let below = below.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = below.join(format!("stevedore-torture-{}-{seed}", std::process::id()));
        let failed = |error| Failure::new(format!("cannot make the folder {}: {error}", path.display()));
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(Self { path, is_kept })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
