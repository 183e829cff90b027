//! Everything that a seed determines before its run begins.
//!
//! Sampling is swarm testing (Groce et al., "Swarm testing", 2012): each class of faults is on in about half of the
//! runs and off in the others, because faults hide one another. In a run without crashes, leaders stay long enough to
//! hit bugs of long terms; a run without partitions hits bugs of a busy cluster.
//!
//! Each option draws from a stream of its own name, so that an option added later leaves the others of an old seed as
//! they were.

use crate::focus::Focus;
use crate::network::Link;
use crate::random::Random;
use ringfort_core::control::PROVEN_AFTER;
use ringfort_core::timing::Timing;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadMode {
    Lease,
    Quorum,
}

/// When the nodes' ticks fall, relative to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TickPhases {
    /// All nodes tick at the same moment, which makes most elections collide.
    Aligned,
    /// Each node has a phase of its own.
    Spread,
}

/// A fault that comes and goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Episodes {
    /// From the end of one to the start of the next.
    pub gap: RangeInclusive<Duration>,
    pub length: RangeInclusive<Duration>,
}

/// The faults of a run; `None` and `false` mean that a class is off. Faults of single messages are in
/// [`Options::link`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults {
    /// The endpoints fall into two groups that do not hear each other.
    pub partitions: Option<Episodes>,
    /// Some links lose one of their directions.
    pub one_way_cuts: Option<Episodes>,
    /// Two groups do not hear each other while one node hears both. In the end that node restarts or stalls, and no
    /// longer hears one of them: only its promises to that group keep it from helping the other.
    pub bridges: Option<Episodes>,
    /// Two groups stop hearing each other and hear each other again, many times.
    pub flapping: Option<Episodes>,
    /// A node loses everything that it has not synced, and is down for a while.
    pub crashes: Option<Episodes>,
    /// The same, between two writes to its disk.
    pub crashes_midway: Option<Episodes>,
    /// All nodes crash together.
    pub power_losses: Option<Episodes>,
    /// All nodes of a zone crash together.
    pub zone_losses: Option<Episodes>,
    /// A node loses its disk, and joins again as a replacement under its old name. Only while nothing else is missing.
    pub wipes: Option<Episodes>,
    /// A node loses all files but its identity, and asks to join again. Only while nothing else is missing, or if the
    /// same node lost its files last time.
    pub lost_directories: Option<Episodes>,
    /// One node is lost for good. Only while nothing else is missing, and with four nodes or more.
    pub death: bool,
    /// A node stalls, then catches up.
    pub stalls: Option<Episodes>,
    /// A node's workers stall repeatedly, while its readers and its other threads continue.
    pub worker_stalls: Option<Episodes>,
    /// A node's syncs take [`Options::slow_sync`].
    pub slow_disks: Option<Episodes>,
    /// A node's disk hangs until it answers again or the node is killed.
    pub hung_disks: Option<Episodes>,
    /// A node's memory is full: it refuses puts.
    pub full_memory: Option<Episodes>,
    /// A node's disk has no space for a while.
    pub full_disks: Option<Episodes>,
    /// A node's disk fails to sync, once. The node ends, and starts again after the length of the episode.
    pub sync_errors: Option<Episodes>,
    /// A node stops gracefully, and starts again.
    pub stops: Option<Episodes>,
    /// A node hands over all its leaderships, and keeps running.
    pub handovers: Option<Episodes>,
    /// After all other faults one node, of three or more, finds its log and snapshots damaged: bits that have flipped,
    /// sectors that were never written or went to another place, segments that are missing.
    pub corruption: bool,
    /// At the end a bit flips in the memory of one replica, if there are three nodes or more.
    pub memory: bool,
    /// Monotonic clocks run at different rates, which change, within the declared bound.
    pub clock_drift: bool,
    /// A node's wall clock jumps to up to 10 s from true time.
    pub wall_steps: Option<Episodes>,
}

impl Faults {
    /// All classes off.
    pub fn none() -> Faults {
        Faults {
            partitions: None,
            one_way_cuts: None,
            bridges: None,
            flapping: None,
            crashes: None,
            crashes_midway: None,
            power_losses: None,
            zone_losses: None,
            wipes: None,
            lost_directories: None,
            death: false,
            stalls: None,
            worker_stalls: None,
            slow_disks: None,
            hung_disks: None,
            full_memory: None,
            full_disks: None,
            sync_errors: None,
            stops: None,
            handovers: None,
            corruption: false,
            memory: false,
            clock_drift: false,
            wall_steps: None,
        }
    }
}

/// For how many simulated seconds faults happen in a run.
const SUFFERING_SECONDS: RangeInclusive<u64> = 30..=45;

/// A run's options. Printed before anything else: see the `Display` implementation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub seed: u64,
    /// The focus to which the options were narrowed.
    pub focus: Focus,
    /// Nodes at the start, 1 to 5.
    pub nodes: usize,
    /// Nodes that join during the run.
    pub joins: usize,
    /// The number of zones, to which nodes are assigned in turn; one means none.
    pub zones: usize,
    /// The number of operator commands during the run: nodes that leave or are drained, pauses.
    pub operations: usize,
    /// Shards that receive a new replica at the same time.
    pub moves: usize,
    /// A node that is silent for this long is replaced, if there are enough others.
    pub replace_after: Duration,
    /// See [`ControlConfig::proven_after`](ringfort_core::control::ControlConfig::proven_after).
    pub proven_after: Duration,
    /// The timing that the cluster is created with.
    pub timing: Timing,
    /// A power of two, 1 to 8.
    pub shards: usize,
    /// Workers of each node.
    pub workers: usize,
    pub clients: usize,
    pub keys: usize,
    /// Of 1,000 operations, this many are writes; the others are gets.
    pub put_permille: u32,
    /// Of 1,000 writes, this many are deletes; the others are puts, appends or increments.
    pub delete_permille: u32,
    /// Whether every other key is a counter, which is incremented, and neither put nor appended to.
    pub counters: bool,
    /// Whether half of the writes that would be puts are appends.
    pub appends: bool,
    /// The time from an answer to a client's next operation.
    pub think_time: RangeInclusive<Duration>,
    /// After how long a client gives up on an operation, whose outcome is then unknown.
    pub request_timeout: Duration,
    pub read_mode: ReadMode,
    pub tick_phases: TickPhases,
    pub segment_bytes: u64,
    /// How long a disk takes to sync.
    pub sync: RangeInclusive<Duration>,
    /// How long it takes while it is slow.
    pub slow_sync: RangeInclusive<Duration>,
    /// The bandwidth at which a node sends snapshots.
    pub bytes_per_second: u64,
    pub link: Link,
    pub faults: Faults,
    /// Simulated time under faults, without the time that the harness adds for recovery.
    pub duration: Duration,
}

impl Options {
    pub fn sample(seed: u64) -> Options {
        let root = Random::new(seed).fork("options");
        let between = |name: &str, range| root.fork(name).between(range);
        Options {
            seed,
            focus: Focus::None,
            nodes: *root.fork("nodes").pick_weighted(&[(1, 1), (1, 2), (6, 3), (1, 4), (3, 5)]),
            joins: *root.fork("joins").pick_weighted(&[(5, 0), (3, 1), (2, 2)]),
            zones: *root.fork("zones").pick(&[1, 3]),
            operations: *root.fork("operations").pick_weighted(&[(4, 0), (2, 1), (2, 3), (2, 8)]),
            moves: *root.fork("moves").pick(&[1, 2, 8]),
            replace_after: milliseconds(between("replace after", 2_000..=10_000)),
            proven_after: PROVEN_AFTER,
            timing: sample_timing(&root),
            shards: 1 << between("shards", 0..=3),
            workers: between("workers", 1..=3) as usize,
            clients: between("clients", 1..=10) as usize,
            keys: *root.fork("keys").pick(&[1, 2, 5, 20, 100]),
            put_permille: *root.fork("puts").pick(&[100, 300, 500, 900]),
            delete_permille: *root.fork("deletes").pick(&[0, 100, 300]),
            counters: *root.fork("counters").pick_weighted(&[(2, false), (1, true)]),
            appends: *root.fork("appends").pick_weighted(&[(2, false), (1, true)]),
            think_time: Duration::ZERO..=milliseconds(*root.fork("think time").pick(&[1, 5, 20, 100])),
            request_timeout: milliseconds(between("request timeout", 100..=3_000)),
            read_mode: *root.fork("read mode").pick(&[ReadMode::Lease, ReadMode::Quorum]),
            tick_phases: *root.fork("tick phases").pick(&[TickPhases::Aligned, TickPhases::Spread]),
            segment_bytes: 1 << between("segment bytes", 16..=20),
            sync: {
                let least = between("sync", 50..=2_000);
                Duration::from_micros(least)..=Duration::from_micros(4 * least)
            },
            slow_sync: milliseconds(20)..=milliseconds(1_000),
            bytes_per_second: *root.fork("bandwidth").pick(&[30_000, 300_000, 10_000_000]),
            link: sample_link(&root),
            faults: sample_faults(&root),
            duration: Duration::from_secs(between("duration", SUFFERING_SECONDS)),
        }
    }

    /// Adds gray failures, each class in half of the runs.
    pub fn with_gray_failures(mut self) -> Options {
        let root = Random::new(self.seed).fork("options");
        self.faults.worker_stalls = sample_episodes(&root, "worker stalls", 2_000);
        self.faults.hung_disks = sample_episodes(&root, "hung disks", 7_000);
        self.faults.full_memory = sample_episodes(&root, "full memory", 2_000);
        self
    }
}

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The usual election timeout in most runs.
fn sample_timing(root: &Random) -> Timing {
    let mut random = root.fork("election timeout");
    match random.below(4) {
        0 => Timing::new(milliseconds(random.between(100..=2_000))).expect("it is in range"),
        _ => Timing::DEFAULT,
    }
}

/// The stream of an option, and whether its class is on.
fn class(root: &Random, name: &str) -> (Random, bool) {
    let mut random = root.fork(name);
    let on = random.chance(500);
    (random, on)
}

fn sample_link(root: &Random) -> Link {
    let permille = |name, range| match class(root, name) {
        (mut random, true) => random.between(range) as u32,
        (_, false) => 0,
    };
    let least = root.fork("delay").between(50..=5_000);
    let spread = root.fork("delay spread").between(1..=10);
    Link {
        delay: Duration::from_micros(least)..=Duration::from_micros(least * spread),
        drop_permille: permille("drop", 1..=300),
        duplicate_permille: permille("duplicate", 1..=500),
        reorder_permille: permille("reorder", 1..=300),
        straggle_permille: permille("straggle", 1..=20),
        straggle: milliseconds(100)..=milliseconds(5_000),
    }
}

fn sample_episodes(root: &Random, name: &str, most_length: u64) -> Option<Episodes> {
    let (mut random, on) = class(root, name);
    let gap = random.between(500..=5_000);
    let length = random.between(10..=most_length);
    on.then(|| Episodes {
        gap: milliseconds(gap)..=milliseconds(3 * gap),
        length: milliseconds(length)..=milliseconds(3 * length),
    })
}

fn sample_faults(root: &Random) -> Faults {
    let episodes = |name, most_length| sample_episodes(root, name, most_length);
    Faults {
        partitions: episodes("partitions", 2_000),
        one_way_cuts: episodes("one-way cuts", 2_000),
        bridges: episodes("bridges", 2_000),
        flapping: episodes("flapping", 2_000),
        crashes: episodes("crashes", 2_000),
        crashes_midway: episodes("crashes midway", 2_000),
        power_losses: episodes("power losses", 500),
        zone_losses: episodes("zone losses", 2_000),
        wipes: episodes("wipes", 1_000),
        lost_directories: None,
        death: class(root, "death").1,
        stalls: episodes("stalls", 1_000),
        worker_stalls: None,
        slow_disks: episodes("slow disks", 2_000),
        hung_disks: None,
        full_memory: None,
        full_disks: episodes("full disks", 2_000),
        sync_errors: episodes("sync errors", 1_000),
        stops: episodes("stops", 1_000),
        handovers: episodes("hand-overs", 1_000),
        corruption: class(root, "corruption").1,
        memory: class(root, "memory").1,
        clock_drift: class(root, "clock drift").1,
        wall_steps: episodes("wall steps", 3_000),
    }
}

impl fmt::Display for Episodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {:?}, {:?} apart", self.length, self.gap)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { link, faults, .. } = self;
        let mut line = |name: &str, value: fmt::Arguments<'_>| writeln!(f, "{name:<16} {value}");
        line("seed", format_args!("{}", self.seed))?;
        line("focus", format_args!("{}", self.focus))?;
        line("duration", format_args!("{:?} simulated", self.duration))?;
        line("nodes", format_args!("{}, and {} joining", self.nodes, self.joins))?;
        line("zones", format_args!("{}", self.zones))?;
        line("operations", format_args!("{}", self.operations))?;
        line("moves", format_args!("{} at once", self.moves))?;
        line("replace after", format_args!("{:?}", self.replace_after))?;
        line("election timeout", format_args!("{}", self.timing))?;
        line("shards", format_args!("{}", self.shards))?;
        line("workers", format_args!("{} a node", self.workers))?;
        line("clients", format_args!("{}, thinking {:?}", self.clients, self.think_time))?;
        line("operations", format_args!("{} writes in 1000, on {} keys", self.put_permille, self.keys))?;
        line("deletes", format_args!("{} in 1000 writes", self.delete_permille))?;
        line("counters", format_args!("{}", if self.counters { "every other key" } else { "none" }))?;
        line("appends", format_args!("{}", if self.appends { "half of the puts" } else { "none" }))?;
        line("request timeout", format_args!("{:?}", self.request_timeout))?;
        line("read mode", format_args!("{:?}", self.read_mode))?;
        line("tick phases", format_args!("{:?}", self.tick_phases))?;
        line("segments", format_args!("{} bytes", self.segment_bytes))?;
        line("sync", format_args!("{:?}", self.sync))?;
        line("bandwidth", format_args!("{} bytes a second for a snapshot", self.bytes_per_second))?;
        line("message delay", format_args!("{:?}", link.delay))?;
        let rates = [
            ("drop", link.drop_permille),
            ("duplicate", link.duplicate_permille),
            ("reorder", link.reorder_permille),
            ("straggle", link.straggle_permille),
        ];
        for (name, permille) in rates {
            line(name, format_args!("{permille} in 1000"))?;
        }
        let episodes = [
            ("partitions", &faults.partitions),
            ("one-way cuts", &faults.one_way_cuts),
            ("bridges", &faults.bridges),
            ("flapping", &faults.flapping),
            ("crashes", &faults.crashes),
            ("crashes midway", &faults.crashes_midway),
            ("power losses", &faults.power_losses),
            ("zone losses", &faults.zone_losses),
            ("wipes", &faults.wipes),
            ("lost directories", &faults.lost_directories),
            ("stalls", &faults.stalls),
            ("worker stalls", &faults.worker_stalls),
            ("slow disks", &faults.slow_disks),
            ("hung disks", &faults.hung_disks),
            ("full memory", &faults.full_memory),
            ("full disks", &faults.full_disks),
            ("sync errors", &faults.sync_errors),
            ("stops", &faults.stops),
            ("hand-overs", &faults.handovers),
            ("wall steps", &faults.wall_steps),
        ];
        for (name, episodes) in episodes {
            match episodes {
                Some(episodes) => line(name, format_args!("{episodes}"))?,
                None => line(name, format_args!("off"))?,
            }
        }
        let on = |on| if on { "on" } else { "off" };
        line("death", format_args!("{}", on(faults.death)))?;
        line("corruption", format_args!("{}", on(faults.corruption)))?;
        line("memory", format_args!("{}", on(faults.memory)))?;
        line("clock drift", format_args!("{}", on(faults.clock_drift)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_has_one_set_of_options() {
        assert_eq!(Options::sample(5), Options::sample(5));
        assert_ne!(Options::sample(5), Options { seed: 5, ..Options::sample(6) });
    }

    #[test]
    fn every_class_of_faults_is_on_in_half_of_the_runs() {
        let mut on = [0u32; 24];
        for seed in 0..1000 {
            let Options { link, faults, .. } = Options::sample(seed);
            let classes = [
                link.drop_permille > 0,
                link.duplicate_permille > 0,
                link.reorder_permille > 0,
                link.straggle_permille > 0,
                faults.partitions.is_some(),
                faults.one_way_cuts.is_some(),
                faults.bridges.is_some(),
                faults.flapping.is_some(),
                faults.crashes_midway.is_some(),
                faults.full_disks.is_some(),
                faults.sync_errors.is_some(),
                faults.stops.is_some(),
                faults.handovers.is_some(),
                faults.crashes.is_some(),
                faults.power_losses.is_some(),
                faults.zone_losses.is_some(),
                faults.wipes.is_some(),
                faults.death,
                faults.stalls.is_some(),
                faults.slow_disks.is_some(),
                faults.corruption,
                faults.memory,
                faults.clock_drift,
                faults.wall_steps.is_some(),
            ];
            for (count, class) in on.iter_mut().zip(classes) {
                *count += u32::from(class);
            }
        }
        assert!(on.iter().all(|count| (425..575).contains(count)), "{on:?}");
    }

    #[test]
    fn options_reach_their_limits() {
        let samples: Vec<Options> = (0..1000).map(Options::sample).collect();
        let all = |option: fn(&Options) -> usize| samples.iter().map(option).collect::<BTreeSet<_>>();
        assert_eq!(all(|options| options.nodes), BTreeSet::from([1, 2, 3, 4, 5]));
        assert_eq!(all(|options| options.shards), BTreeSet::from([1, 2, 4, 8]));
        assert_eq!(all(|options| options.joins), BTreeSet::from([0, 1, 2]));
        assert_eq!(all(|options| options.workers), BTreeSet::from([1, 2, 3]));
        let timings = all(|options| options.timing.election_timeout_ms() as usize);
        assert!(timings.iter().all(|ms| (100..=2_000).contains(ms)) && timings.len() > 150, "{timings:?}");
        assert_eq!(all(|options| options.duration.as_secs() as usize), (30..=45).collect());
    }

    #[test]
    fn options_are_printed_one_a_line_seed_first() {
        let printed = Options::sample(17).to_string();
        assert!(printed.starts_with("seed             17\nfocus            none\nduration "), "{printed}");
        assert!(printed.lines().all(|line| line.len() > 17 && line.as_bytes()[16] == b' '), "{printed}");
    }
}
