//! Does the index's cost grow no faster than the work, and does a million files fit?
//!
//! Floors: the standard library's maps, given the same keys. A comparison of names reads memory, so with a million
//! files even the floor's operations wait for it several times over: that is why a floor's growth is shown as well.
//!
//! Parts: `operations`, `choice`, `list`, `memory`, `rebalance`.

mod common;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use common::{Clock, Figures, Names, Rng, Run, Size, Table, digits, measure};
use stevedore::index::{DstoreId, Index, Lists};
use stevedore::protocol::{Address, FileName, Message, Order};

const SEED: u64 = 1;
const REPLICAS: usize = 3;
const FILES: Size<&[usize]> = Size { full: &[1_000, 10_000, 100_000, 1_000_000], tiny: &[100] };
/// How many Dstores the operations are measured with.
const DSTORES: usize = 10;
const ROUNDS: Size<usize> = Size { full: 9, tiny: 1 };
/// Files stored, offered and removed in a round: a tenth of those that are there, but no more than this.
const MOST_OPERATIONS: usize = 10_000;
/// Dstores that join and leave in a round.
const JOINS: Size<usize> = Size { full: 1_000, tiny: 2 };
/// Stores in progress while others join and leave.
const IN_PROGRESS: usize = 100;

/// How many Dstores choosing where to store is measured with, and among how many files.
const CHOICES: Size<&[usize]> = Size { full: &[3, 10, 100, 1_000], tiny: &[3, 4] };
const FILES_AMONG_CHOICES: Size<usize> = Size { full: 10_000, tiny: 100 };

/// How many Dstores take part in the rebalances, one joined or lost.
const MANY_DSTORES: usize = 100;
/// Files that were there before the rebalances and are no more, for each that is: at most.
const PAST: usize = 2;
const REBALANCES: Size<usize> = Size { full: 3, tiny: 1 };

/// Files in the index when its memory is measured, by a child process that is called with this option.
const FILES_IN_MEMORY: Size<usize> = Size { full: 1_000_000, tiny: 1_000 };
const MEMORY_OPTION: &str = "--memory-of";

fn main() {
    let args: Vec<_> = env::args().skip(1).collect();
    if let [option, contents, order, files] = args.as_slice()
        && option == MEMORY_OPTION
    {
        return report_memory(contents, order, files.parse().expect("a number"));
    }
    let run = Run::new();
    if run.wants("operations") {
        operations(&run);
    }
    if run.wants("choice") {
        choices(&run);
    }
    if run.wants("list") {
        lists(&run);
    }
    if run.wants("memory") {
        memory(&run);
    }
    if run.wants("rebalance") {
        rebalances(&run);
    }
}

/// An index with Dstores that listen on ports 1, 2 and so on, in order of joining.
struct Cluster {
    index: Index,
    dstores: Vec<DstoreId>,
}

impl Cluster {
    fn new(dstores: usize) -> Self {
        let mut cluster = Self { index: Index::new(REPLICAS), dstores: Vec::new() };
        for _ in 0..dstores {
            cluster.join();
        }
        cluster
    }

    fn join(&mut self) -> DstoreId {
        let port = u16::try_from(self.dstores.len() + 1).expect("few enough Dstores join");
        let dstore = self.index.join(Address::local(port).expect("not 0"));
        self.dstores.push(dstore);
        dstore
    }

    fn at(&self, address: &Address) -> DstoreId {
        self.dstores[usize::from(address.socket().port()) - 1]
    }

    /// From the request to the last acknowledgement. Returns the holders.
    fn store(&mut self, name: &FileName) -> Vec<Address> {
        let chosen = self.index.begin_store(name, 1_000).expect("the name is new");
        let acks = chosen.iter().filter(|address| self.index.acknowledge_store(name, self.at(address))).count();
        assert_eq!(acks, 1, "the last acknowledgement completes the store");
        chosen
    }

    fn remove(&mut self, name: &FileName) {
        let holders = self.index.begin_remove(name).expect("the file is stored");
        let acks = holders.iter().filter(|dstore| self.index.acknowledge_remove(name, **dstore)).count();
        assert_eq!(acks, 1, "the last acknowledgement completes the remove");
    }
}

/// A request's own copy of a name, as parsing a line makes one.
fn parsed(name: &FileName) -> FileName {
    name.as_str().parse().expect("it is a name")
}

/// Each request of the protocol, among more and more files.
fn operations(run: &Run) {
    let sizes = run.size(FILES);
    let measured: Vec<Figures> = sizes.iter().map(|&files| time_operations(run, files)).collect();
    let heads = ["operation", "files", "ns", "growth", "floor", "BTreeMap", "growth", "HashMap"];
    let title = format!(
        "Operations of the index: R = {REPLICAS}, {DSTORES} Dstores, names of 20 bytes in no order; a floor's column \
         says how many times as long the operation takes"
    );
    let mut table = Table::new(title, &heads);
    for (operation, floor) in [
        ("store and 3 acks", Some(("insert", "BTreeMap insert", "HashMap insert"))),
        ("offer", Some(("get", "BTreeMap get", "HashMap get"))),
        ("remove and 3 acks", Some(("remove", "BTreeMap remove", "HashMap remove"))),
        ("join and leave", None),
        ("join and leave, 100 stores in progress", None),
    ] {
        for (at, (files, figures)) in sizes.iter().zip(&measured).enumerate() {
            let growth = |name| {
                let before = at.checked_sub(1).map(|before| measured[before][name].median());
                before.map_or(String::new(), |before| digits(figures[name].median() / before))
            };
            let over = |floor| figures[operation].over(&figures[floor]).brief();
            table.row([
                operation.to_owned(),
                files.to_string(),
                figures[operation].parts(1e9).to_string(),
                growth(operation),
                floor.map_or(String::new(), |(floor, _, _)| floor.to_owned()),
                floor.map_or(String::new(), |(_, tree, _)| over(tree)),
                floor.map_or(String::new(), |(_, tree, _)| growth(tree)),
                floor.map_or(String::new(), |(_, _, hash)| over(hash)),
            ]);
        }
    }
    table.print();
}

fn time_operations(run: &Run, files: usize) -> Figures {
    let mut rng = Rng(SEED);
    let names: Vec<_> = (0..files).map(|_| rng.name()).collect();
    let mut cluster = Cluster::new(DSTORES);
    names.iter().for_each(|name| drop(cluster.store(name)));
    // With names of their own: else the index, which comes first, would fetch them into the cache for its floors.
    let mut tree: BTreeMap<_, u64> = names.iter().map(|name| (parsed(name), 0)).collect();
    let mut hash: HashMap<_, u64> = names.iter().map(|name| (parsed(name), 0)).collect();

    let count = (files / 10).min(MOST_OPERATIONS);
    let joins = run.size(JOINS);
    let figures = measure(run.size(ROUNDS), |clock| {
        let new: Vec<_> = (0..count).map(|_| rng.name()).collect();
        let old: Vec<_> = (0..count).map(|_| parsed(&names[rng.below(files)])).collect();
        clock.time_each("store and 3 acks", count, || new.iter().for_each(|name| drop(cluster.store(name))));
        let is_new = |name: &&FileName| tree.insert(FileName::clone(name), 0).is_none();
        let in_tree = clock.time_each("BTreeMap insert", count, || new.iter().filter(is_new).count());
        let is_new = |name: &&FileName| hash.insert(FileName::clone(name), 0).is_none();
        let in_hash = clock.time_each("HashMap insert", count, || new.iter().filter(is_new).count());
        assert_eq!([in_tree, in_hash], [count; 2], "no two names are alike");

        let is_there = |name: &&FileName| cluster.index.offer(name, &[], |dstore| dstore).is_ok();
        let offered = clock.time_each("offer", count, || old.iter().filter(is_there).count());
        let is_there = |name: &&FileName| tree.contains_key(*name);
        let in_tree = clock.time_each("BTreeMap get", count, || old.iter().filter(is_there).count());
        let is_there = |name: &&FileName| hash.contains_key(*name);
        let in_hash = clock.time_each("HashMap get", count, || old.iter().filter(is_there).count());
        assert_eq!([offered, in_tree, in_hash], [count; 3], "every file is there");

        clock.time_each("remove and 3 acks", count, || new.iter().for_each(|name| cluster.remove(name)));
        let was_there = |name: &&FileName| tree.remove(*name).is_some();
        let in_tree = clock.time_each("BTreeMap remove", count, || new.iter().filter(was_there).count());
        let was_there = |name: &&FileName| hash.remove(*name).is_some();
        let in_hash = clock.time_each("HashMap remove", count, || new.iter().filter(was_there).count());
        assert_eq!([in_tree, in_hash], [count; 2], "every file was there");

        let address = Address::local(u16::MAX).expect("not 0");
        let come_and_go = |index: &mut Index| {
            for _ in 0..joins {
                let dstore = index.join(address.clone());
                let departure = index.leave(dstore);
                assert!(departure.failed_stores.is_empty(), "no store waits for a Dstore that has just joined");
            }
        };
        clock.time_each("join and leave", joins, || come_and_go(&mut cluster.index));
        let in_progress = &new[..count.min(IN_PROGRESS)];
        in_progress.iter().for_each(|name| drop(cluster.index.begin_store(name, 0).expect("it was removed")));
        clock.time_each("join and leave, 100 stores in progress", joins, || come_and_go(&mut cluster.index));
        in_progress.iter().for_each(|name| assert!(cluster.index.abandon_store(name), "it goes on"));
    });
    assert_eq!(cluster.index.len(), files, "what came has gone");
    figures
}

/// Where to store, among more and more Dstores.
fn choices(run: &Run) {
    let files = run.size(FILES_AMONG_CHOICES);
    let title = format!("Choosing where to store: {files} files, R = {REPLICAS}");
    let mut table = Table::new(title, &["Dstores", "ns a store and 3 acks", "growth"]);
    let mut before = None;
    for &dstores in run.size(CHOICES) {
        let mut rng = Rng(SEED);
        let mut cluster = Cluster::new(dstores);
        (0..files).for_each(|_| drop(cluster.store(&rng.name())));
        let count = files / 10;
        let figures = measure(run.size(ROUNDS), |clock| {
            let new: Vec<_> = (0..count).map(|_| rng.name()).collect();
            clock.time_each("store", count, || new.iter().for_each(|name| drop(cluster.store(name))));
            new.iter().for_each(|name| cluster.remove(name));
        });
        let loads: Vec<_> = cluster.index.members().iter().map(|member| member.files).collect();
        assert_eq!(loads.iter().sum::<usize>(), files * REPLICAS);
        let median = figures["store"].median();
        let growth = before.map_or(String::new(), |before| digits(median / before));
        table.row([dstores.to_string(), figures["store"].parts(1e9).to_string(), growth]);
        before = Some(median);
    }
    table.print();
}

/// For how long a client's LIST keeps all other threads from the index, and how long its answer takes to be formatted.
fn lists(run: &Run) {
    let heads = ["files", "list(), under the lock, ms", "ns a file", "/ BTreeMap keys", "wording ms", "dropping ms"];
    let mut table = Table::new("LIST", &heads);
    for &files in run.size(FILES) {
        let mut rng = Rng(SEED);
        let names: Vec<_> = (0..files).map(|_| rng.name()).collect();
        let mut cluster = Cluster::new(DSTORES);
        names.iter().for_each(|name| drop(cluster.store(name)));
        let tree: BTreeMap<_, u64> = names.iter().map(|name| (parsed(name), 0)).collect();
        let figures = measure(run.size(ROUNDS), |clock| {
            let names = clock.time("list", || cluster.index.list()).expect("enough Dstores");
            let keys = clock.time("keys", || tree.keys().cloned().collect::<Vec<_>>());
            assert_eq!(names, keys);
            drop(keys);
            let message = Message::List { names };
            let text = clock.time("wording", || message.to_string());
            assert_eq!(text.matches(' ').count(), files);
            clock.time("dropping", || drop(black_box(message)));
        });
        table.row([
            files.to_string(),
            figures["list"].parts(1e3).to_string(),
            figures["list"].parts(1e9 / files as f64).brief(),
            figures["list"].over(&figures["keys"]).brief(),
            figures["wording"].parts(1e3).to_string(),
            figures["dropping"].parts(1e3).to_string(),
        ]);
    }
    table.print();
}

/// Memory per file: how much a fresh process grows by.
fn memory(run: &Run) {
    let files = run.size(FILES_IN_MEMORY);
    let title = format!("Memory: how many bytes a file a process grows by, with {files} names of 20 bytes");
    let mut table = Table::new(title, &["contents", "names in order", "in the end", "at the peak"]);
    for contents in ["the names alone", "HashMap", "BTreeMap", "index", "rebalance, beside the index"] {
        for order in ["no", "yes"] {
            let program = env::current_exe().expect("the path of this program");
            let child = Command::new(program).args([MEMORY_OPTION, contents, order, &files.to_string()]).output();
            let child = child.expect("this program starts again");
            assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
            let output = String::from_utf8(child.stdout).expect("numbers");
            let bytes: Vec<f64> = output.split_whitespace().map(|word| word.parse().expect("a number")).collect();
            let [grown, peak] = bytes[..] else { panic!("expected two numbers, got {output:?}") };
            let each = |bytes: f64| digits(bytes / files as f64);
            table.row([contents.to_owned(), order.to_owned(), each(grown), each(peak)]);
        }
    }
    table.print();
}

/// The child's part: prints by how many bytes it has grown in the end, and by how many at most.
fn report_memory(contents: &str, order: &str, files: usize) {
    let mut before = resident_bytes("VmRSS:");
    let mut rng = Rng(SEED);
    let names = (0..files).map(|number| match order {
        "no" => rng.name(),
        _ => format!("file-{number:015}").parse().expect("letters and digits"),
    });
    let kept: Box<dyn Any> = match contents {
        "the names alone" => Box::new(names.collect::<Vec<_>>()),
        "HashMap" => Box::new(names.map(|name| (name, 0)).collect::<HashMap<_, u64>>()),
        "BTreeMap" => {
            let mut map = BTreeMap::new();
            // `collect` would sort them first.
            for name in names {
                map.insert(name, 0_u64);
            }
            Box::new(map)
        }
        "index" => {
            let mut cluster = Cluster::new(DSTORES);
            names.for_each(|name| drop(cluster.store(&name)));
            Box::new(cluster)
        }
        "rebalance, beside the index" => {
            let mut world = World::new(MANY_DSTORES, names.collect(), 0);
            world.lose(0);
            before = resident_bytes("VmRSS:");
            world.rebalance(&mut Clock::default(), "");
            Box::new(world)
        }
        other => panic!("not known: {other}"),
    };
    // A few files more or less do not show: a small process may even shrink.
    let grown = |key| resident_bytes(key).saturating_sub(before);
    println!("{} {}", grown("VmRSS:"), grown("VmHWM:"));
    drop(kept);
}

/// What Linux says about this process under `key`, which it says in kB.
fn resident_bytes(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the key is there");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Rebalances after a Dstore has joined, and after one has been lost.
fn rebalances(run: &Run) {
    let heads = [
        "files",
        "a Dstore has",
        "lists ms",
        "reconcile ms",
        "plan ms",
        "confirm ms",
        "rest ms",
        "total ms",
        "growth",
        "/ lookups",
        "sends",
    ];
    let title = format!(
        "The Controller's part of a rebalance: {MANY_DSTORES} Dstores, R = {REPLICAS}. Reconcile and confirm hold the \
         lock. Lookups: each listed name, in a HashMap. Sends: the fewest possible, checked"
    );
    let mut table = Table::new(title, &heads);
    let mut before: Option<Figures> = None;
    for &files in run.size(FILES) {
        let mut rng = Rng(SEED);
        let names: Vec<_> = (0..files).map(|_| rng.name()).collect();
        let known: HashMap<_, u64> = names.iter().map(|name| (parsed(name), 0)).collect();
        let mut world = World::new(MANY_DSTORES - 1, names, PAST);
        let mut sends = [0; 2];
        let figures = measure(run.size(REBALANCES), |clock| {
            let lists = world.lists();
            let is_known = |name: &&FileName| known.contains_key(*name);
            let found = clock.time("lookups", || lists.values().flatten().filter(is_known).count());
            assert_eq!(found, files * REPLICAS);
            drop(lists);

            world.cluster.join();
            sends[0] = world.rebalance(clock, "joined");
            world.lose(rng.below(MANY_DSTORES));
            sends[1] = world.rebalance(clock, "left");
        });
        assert_eq!(world.rebalance(&mut Clock::default(), ""), 0, "nothing is left to do");
        for (cause, sends) in ["joined", "left"].into_iter().zip(sends) {
            let phase = |name: &str| figures[&format!("{cause}: {name}")].parts(1e3).brief();
            let total = &figures[&format!("{cause}: total")];
            let growth = |before: &Figures| digits(total.median() / before[&format!("{cause}: total")].median());
            table.row([
                files.to_string(),
                cause.to_owned(),
                phase("lists"),
                phase("reconcile"),
                phase("plan"),
                phase("confirm"),
                phase("rest"),
                total.parts(1e3).to_string(),
                before.as_ref().map_or(String::new(), growth),
                total.over(&figures["lookups"]).brief(),
                sends.to_string(),
            ]);
        }
        before = Some(figures);
    }
    table.print();
}

/// An index, and which Dstore really has which file.
struct World {
    cluster: Cluster,
    /// In order of name.
    files: Vec<(FileName, Vec<DstoreId>)>,
}

impl World {
    /// Before each file, up to `most_past` others come and go, so that it follows no pattern which Dstores share files.
    fn new(dstores: usize, names: Vec<FileName>, most_past: usize) -> Self {
        let mut cluster = Cluster::new(dstores);
        let mut rng = Rng(SEED + 1);
        let mut past = Vec::new();
        let mut files = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            // The last quarter makes up for what the removals put out of balance.
            if at < names.len() * 3 / 4 {
                for _ in 0..rng.below(most_past + 1) {
                    past.push(rng.name());
                    cluster.store(&past[past.len() - 1]);
                }
            } else {
                past.drain(..).for_each(|name| cluster.remove(&name));
            }
            let holders = cluster.store(name).iter().map(|address| cluster.at(address)).collect();
            files.push((parsed(name), holders));
        }
        files.sort();
        Self { cluster, files }
    }

    /// Loses the Dstore at this place among the members.
    fn lose(&mut self, at: usize) {
        let lost = self.cluster.index.members()[at].dstore;
        self.cluster.index.leave(lost);
        self.files.iter_mut().for_each(|(_, holders)| holders.retain(|&dstore| dstore != lost));
    }

    /// Every member's list as it arrives: in order, and with names of its own, one after another in memory.
    fn lists(&self) -> BTreeMap<DstoreId, Vec<FileName>> {
        let members = self.cluster.index.members();
        let mut lists: BTreeMap<_, Vec<&FileName>> = members.iter().map(|member| (member.dstore, vec![])).collect();
        for (name, holders) in &self.files {
            for dstore in holders {
                lists.get_mut(dstore).expect("holders are members").push(name);
            }
        }
        lists.into_iter().map(|(dstore, names)| (dstore, names.into_iter().map(parsed).collect())).collect()
    }

    /// The Controller's part of a rebalance, step by step, and its outcome checked; returns how many copies are sent.
    fn rebalance(&mut self, clock: &mut Clock, cause: &str) -> usize {
        let fewest = self.fewest_sends();
        let lists = self.lists();
        let index = &mut self.cluster.index;
        let step = |name: &str| format!("{cause}: {name}");

        let begun = Instant::now();
        let lists = clock.time(&step("lists"), || Lists::new(lists));
        let inventory = clock.time(&step("reconcile"), || index.reconcile(&lists));
        let plan = clock.time(&step("plan"), || inventory.plan(REPLICAS));
        let orders = clock.time(&step("rest"), || {
            drop(lists);
            inventory.orders(&plan)
        });
        let reported = inventory.dstores.iter().map(|(dstore, _)| *dstore).collect();
        clock.time(&step("confirm"), || index.confirm(&inventory, &plan, &reported));
        clock.record(&step("total"), begun.elapsed().as_secs_f64());

        assert_eq!(inventory.files.len(), self.files.len(), "no file is lost");
        assert_eq!(plan.put_off, 0, "all of it in one round");
        let sends = plan.transfers.len();
        assert_eq!(sends, fewest, "no copy is sent that need not be");
        let orders = inventory.dstores.iter().map(|(dstore, _)| *dstore).zip(orders).collect();
        self.carry_out(&orders);
        self.check();
        sends
    }

    /// The fewest sends that any plan needs, where no file has more than R copies: one for each copy that is missing,
    /// one for each that a Dstore has too many and that must go elsewhere, and one for each that a Dstore wants.
    fn fewest_sends(&self) -> usize {
        let loads = self.loads();
        let copies = self.files.len() * REPLICAS;
        let missing = copies - loads.values().sum::<usize>();
        let surplus: usize = loads.values().map(|load| load.saturating_sub(copies.div_ceil(loads.len()))).sum();
        let wanted = loads.values().map(|&load| (copies / loads.len()).saturating_sub(load)).sum();
        (missing + surplus).max(wanted)
    }

    /// What the Dstores do.
    fn carry_out(&mut self, orders: &BTreeMap<DstoreId, Order>) {
        for (from, order) in orders {
            for transfer in &order.sends {
                let to: Vec<_> = transfer.to.iter().map(|address| self.cluster.at(address)).collect();
                let holders = self.holders(&transfer.name);
                assert!(holders.contains(from), "no Dstore can send what it lacks");
                holders.extend(to);
            }
        }
        for (from, order) in orders {
            for name in &order.removes {
                self.holders(name).retain(|dstore| dstore != from);
            }
        }
    }

    fn holders(&mut self, name: &FileName) -> &mut Vec<DstoreId> {
        let at = self.files.binary_search_by(|(other, _)| other.cmp(name)).expect("the file is there");
        &mut self.files[at].1
    }

    /// Every file on R Dstores, every Dstore with its share, and the index aware of it. (spec 4.6)
    fn check(&self) {
        assert!(self.files.iter().all(|(_, holders)| holders.len() == REPLICAS));
        let loads = self.loads();
        let copies = self.files.len() * REPLICAS;
        let share = copies / loads.len()..=copies.div_ceil(loads.len());
        assert!(loads.values().all(|load| share.contains(load)), "{loads:?}");
        let known = self.cluster.index.members().into_iter().map(|member| (member.dstore, member.files));
        assert!(known.eq(loads), "the index says what is true");
    }

    fn loads(&self) -> BTreeMap<DstoreId, usize> {
        let mut loads: BTreeMap<_, _> = self.cluster.index.members().iter().map(|member| (member.dstore, 0)).collect();
        for dstore in self.files.iter().flat_map(|(_, holders)| holders) {
            *loads.get_mut(dstore).expect("holders are members") += 1;
        }
        loads
    }
}
