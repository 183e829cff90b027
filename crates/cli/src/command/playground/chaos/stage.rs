//! Runs a fault: inject it, hold it, heal it, and wait until every shard is served again.
//!
//! Each fault begins on a fully recovered cluster: all nodes answer, every shard has all its replicas and they have
//! caught up, and a moment has passed since. So each fault is measured separately, and it is known what must survive
//! it.

use super::damage;
use super::disks::{self, DiskFault};
use super::fault::{Fault, Partition};
use super::network::{Condition, Network, advertised};
use super::workload::Workload;
use crate::command::playground::cluster::{Cluster, ClusterError};
use crate::command::playground::process::Ended;
use crate::command::status::verdict::{SYSTEM_SHARD, judge};
use crate::random::Random;
use ringfort_client::Client;
use ringfort_client::v1::StatusResponse;
use serde::Serialize;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The pause between two faults, in addition to the time in which the cluster recovers. A restarted node votes again by
/// then.
const LEAST_CALM: Duration = Duration::from_millis(800);
const LONGEST_CALM: Duration = Duration::from_millis(1300);

/// How long a killed node stays down.
const LEAST_DOWN: Duration = Duration::from_millis(1000);
const LONGEST_DOWN: Duration = Duration::from_millis(2000);

/// How long a node is stopped: half to five times the least election timeout of 400 ms.
const LEAST_PAUSED: Duration = Duration::from_millis(200);
const LONGEST_PAUSED: Duration = Duration::from_millis(2000);

/// How long a network fault lasts.
const LEAST_BAD: Duration = Duration::from_millis(1000);
const LONGEST_BAD: Duration = Duration::from_millis(4000);

/// The delay in one direction of a slow network.
const LONGEST_DELAY: Duration = Duration::from_millis(100);
const MOST_LOSS_PERCENT: usize = 5;

/// How long each sync of a slow disk takes, and for how long the disk is slow.
const LEAST_SYNC: Duration = Duration::from_millis(100);
const LONGEST_SYNC: Duration = Duration::from_millis(900);
const LEAST_SLOW: Duration = Duration::from_secs(2);
const LONGEST_SLOW: Duration = Duration::from_secs(5);

/// How long a disk hangs. It counts as hung only after two election timeouts.
const LEAST_HUNG: Duration = Duration::from_secs(3);
const LONGEST_HUNG: Duration = Duration::from_secs(10);

/// Within this time after a fault has been healed every shard must be served; then, within the same time, the cluster
/// must have recovered fully.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often an awaited condition is checked.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// The pause between two status requests. Each asks all nodes.
const STATUS_PAUSE: Duration = Duration::from_millis(100);
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// The result of one fault.
#[derive(Serialize, Debug)]
pub struct Injected {
    pub fault: Fault,
    pub what: String,
    /// For how long the worst shard was without service.
    pub outage_ms: f64,
    /// The same for each shard whose leader was hit.
    pub failovers_ms: Vec<f64>,
}

impl Injected {
    /// The error if a shard was without service for longer than the kind of fault allows.
    pub fn broken_promise(&self) -> Option<StageError> {
        let promise = self.fault.promise().filter(|promise| self.outage_ms > milliseconds(*promise))?;
        Some(StageError::PromiseBroken { what: self.what.clone(), outage_ms: self.outage_ms, promise })
    }
}

/// Why a run can't continue: a property that it checks does not hold.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("{what}: some shards are still without service {} s after the fault has ended", PATIENCE.as_secs())]
    NoService { what: String },
    #[error("the cluster has not recovered after {} s: {last}", PATIENCE.as_secs())]
    NotWhole { last: String },
    #[error(
        "{what}: a shard was without service for {outage_ms:.0} ms, but at most {} ms are promised",
        promise.as_millis()
    )]
    PromiseBroken { what: String, outage_ms: f64, promise: Duration },
    #[error("can't make the disk of {name} fail: {source}")]
    Disk { name: String, source: io::Error },
    #[error("{0} did not stop when it was asked to")]
    NotStopped(String),
    #[error(transparent)]
    Ended(#[from] Ended),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("can't damage the files of {name}: {source}")]
    Damage { name: String, source: io::Error },
}

pub struct Stage<'a> {
    pub cluster: &'a mut Cluster,
    pub network: Network,
    pub client: Client,
    pub workload: Workload,
    pub random: Random,
}

impl<'a> Stage<'a> {
    /// Opens the network to started nodes that advertise the network's addresses to each other.
    pub fn network(cluster: &Cluster) -> Network {
        let mut network = Network::new(cluster.nodes.len());
        for (number, node) in cluster.nodes.iter().enumerate() {
            network.open(number, node.process.pid(), node.ports());
        }
        network
    }

    /// Additional arguments for a node: other nodes and clients dial it through the network, and its disk takes faults
    /// on demand.
    pub fn arguments(number: usize, directory: &Path) -> Vec<String> {
        let faults = disks::control_file(directory, number);
        vec![format!("--advertise={}", advertised(number)), format!("--disk-faults={}", faults.display())]
    }

    /// Runs one fault, from a recovered cluster until every shard is served again. `on_begin` is told what happens.
    pub async fn inject(&mut self, fault: Fault, on_begin: impl Fn(&str)) -> Result<Injected, StageError> {
        let status = self.wait_until_whole().await?;
        sleep(self.random.between(LEAST_CALM, LONGEST_CALM)).await;
        let plan = self.plan(fault);
        let what = plan.to_string();
        on_begin(&what);
        let led = self.led(&status, &plan.hit(self.cluster.nodes.len()));
        self.workload.begin_fault();
        let damaged = self.perform(&plan).await?;
        let what = damaged.map_or(what.clone(), |damage| format!("{what}: {damage}"));
        let healed = Instant::now();
        while !self.workload.has_served_since(healed) {
            self.check_nodes()?;
            if healed.elapsed() > PATIENCE {
                return Err(StageError::NoService { what });
            }
            sleep(LOOK_PAUSE).await;
        }
        let gaps = self.workload.gaps();
        let outage = gaps.iter().max().copied().unwrap_or_default();
        let failovers_ms = led.into_iter().map(|shard| milliseconds(gaps[shard])).collect();
        Ok(Injected { fault, what, outage_ms: milliseconds(outage), failovers_ms })
    }

    /// Ends all faults of the cluster.
    pub async fn heal(&mut self) -> Result<(), StageError> {
        self.network.heal();
        for number in 0..self.cluster.nodes.len() {
            self.set_disk(number, DiskFault::None)?;
            self.cluster.nodes[number].process.resume();
            if !self.cluster.nodes[number].process.runs() {
                self.kill(number).await;
                self.start(number)?;
            }
        }
        self.wait_until_whole().await.map(drop)
    }

    /// Waits until every shard has all its replicas on nodes that answer, and they have caught up.
    async fn wait_until_whole(&mut self) -> Result<StatusResponse, StageError> {
        let client = self.client.clone().with_timeout(STATUS_TIMEOUT);
        let begun = Instant::now();
        let mut last = "no node has answered yet".to_owned();
        while begun.elapsed() < PATIENCE {
            self.check_nodes()?;
            if let Ok(status) = client.status().await {
                let verdict = judge(&status);
                let is_complete = status.nodes.len() == self.cluster.nodes.len();
                if is_complete && verdict.healthy && verdict.node_failures_tolerated > 0 {
                    return Ok(status);
                }
                last = verdict.sentence;
            }
            sleep(STATUS_PAUSE).await;
        }
        Err(StageError::NotWhole { last })
    }

    fn plan(&mut self, fault: Fault) -> Plan {
        let nodes = self.cluster.nodes.len();
        let random = &mut self.random;
        let one = random.below(nodes);
        let down = random.between(LEAST_DOWN, LONGEST_DOWN);
        let bad = random.between(LEAST_BAD, LONGEST_BAD);
        match fault {
            Fault::Kill => Plan::Kill { victims: vec![one], down },
            Fault::Majority => {
                let mut victims = random.shuffled(nodes);
                victims.truncate(nodes / 2 + 1);
                Plan::Kill { victims, down }
            }
            Fault::All => Plan::Kill { victims: random.shuffled(nodes), down },
            Fault::Pause => Plan::Pause { victim: one, paused: random.between(LEAST_PAUSED, LONGEST_PAUSED) },
            Fault::Partition => Plan::Partition { shape: Partition::draw(nodes, random), bad },
            Fault::Slow => {
                let delay = random.between(Duration::from_millis(1), LONGEST_DELAY);
                let loss_percent = random.below(MOST_LOSS_PERCENT + 1) as u8;
                let victim = random.percent(50).then_some(one);
                Plan::Slow { victim, condition: Condition { is_cut: false, delay, loss_percent }, bad }
            }
            Fault::Restart => Plan::Restart { order: random.shuffled(nodes) },
            Fault::Corrupt => Plan::Corrupt { victim: one, down },
            Fault::SlowDisk => {
                let delay = random.between(LEAST_SYNC, LONGEST_SYNC);
                Plan::Disk { victim: one, fault: DiskFault::Slow(delay), bad: random.between(LEAST_SLOW, LONGEST_SLOW) }
            }
            Fault::HungDisk => {
                Plan::Disk { victim: one, fault: DiskFault::Hung, bad: random.between(LEAST_HUNG, LONGEST_HUNG) }
            }
        }
    }

    /// Injects the planned fault, and undoes it. Returns the damage to files, if any.
    async fn perform(&mut self, plan: &Plan) -> Result<Option<String>, StageError> {
        match plan {
            Plan::Kill { victims, down } => {
                for &victim in victims {
                    self.kill(victim).await;
                }
                sleep(*down).await;
                for &victim in victims {
                    self.start(victim)?;
                }
            }
            Plan::Pause { victim, paused } => {
                self.cluster.nodes[*victim].process.pause();
                sleep(*paused).await;
                self.cluster.nodes[*victim].process.resume();
            }
            Plan::Partition { shape, bad } => {
                let cut = Condition { is_cut: true, ..Condition::default() };
                self.set_where(cut, |from, to| shape.cuts(from, to));
                sleep(*bad).await;
                self.network.heal();
            }
            Plan::Slow { victim, condition, bad } => {
                self.set_where(*condition, |from, to| victim.is_none_or(|victim| from == victim || to == victim));
                sleep(*bad).await;
                self.network.heal();
            }
            Plan::Restart { order } => {
                for &node in order {
                    let has_stopped = self.cluster.nodes[node].process.stop().await;
                    self.network.shut(node);
                    if !has_stopped {
                        return Err(StageError::NotStopped(self.cluster.nodes[node].command.name.clone()));
                    }
                    self.start(node)?;
                    self.wait_until_whole().await?;
                }
            }
            Plan::Corrupt { victim, down } => {
                self.kill(*victim).await;
                let directory = self.cluster.directory_of(*victim);
                let name = || self.cluster.nodes[*victim].command.name.clone();
                let damaged = damage::inflict(&directory, &mut self.random)
                    .map_err(|source| StageError::Damage { name: name(), source })?;
                sleep(*down).await;
                self.start(*victim)?;
                return Ok(Some(damaged.unwrap_or_else(|| "nothing to damage".to_owned())));
            }
            Plan::Disk { victim, fault, bad } => {
                self.set_disk(*victim, *fault)?;
                sleep(*bad).await;
                self.set_disk(*victim, DiskFault::None)?;
            }
        }
        Ok(None)
    }

    async fn kill(&mut self, number: usize) {
        self.cluster.nodes[number].process.kill().await;
        self.network.shut(number);
    }

    fn start(&mut self, number: usize) -> Result<(), ClusterError> {
        self.cluster.restart(number)?;
        let node = &self.cluster.nodes[number];
        self.network.open(number, node.process.pid(), node.ports());
        Ok(())
    }

    fn set_disk(&self, number: usize, fault: DiskFault) -> Result<(), StageError> {
        disks::set(self.cluster.path(), number, fault)
            .map_err(|source| StageError::Disk { name: self.cluster.nodes[number].command.name.clone(), source })
    }

    fn set_where(&self, condition: Condition, is_hit: impl Fn(usize, usize) -> bool) {
        let nodes = self.cluster.nodes.len();
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            if is_hit(from, to) {
                self.network.set(from, to, condition);
            }
        }
    }

    /// Checks that no node has ended by itself.
    fn check_nodes(&mut self) -> Result<(), Ended> {
        self.cluster.ended().map_or(Ok(()), Err)
    }

    /// The shards that these nodes lead.
    fn led(&self, status: &StatusResponse, nodes: &[usize]) -> Vec<usize> {
        let name_of = |id| status.nodes.iter().find(|node| node.id == id).map(|node| node.name.as_str());
        let is_hit = |leader| {
            let hit = |number: &usize| name_of(leader) == Some(self.cluster.nodes[*number].command.name.as_str());
            nodes.iter().any(hit)
        };
        let shards = status.shards.iter().filter(|shard| shard.shard != SYSTEM_SHARD && is_hit(shard.leader));
        shards.map(|shard| shard.shard as usize).collect()
    }
}

/// A fault with all its details drawn.
#[derive(Debug)]
enum Plan {
    Kill { victims: Vec<usize>, down: Duration },
    Pause { victim: usize, paused: Duration },
    Partition { shape: Partition, bad: Duration },
    Slow { victim: Option<usize>, condition: Condition, bad: Duration },
    Restart { order: Vec<usize> },
    Corrupt { victim: usize, down: Duration },
    Disk { victim: usize, fault: DiskFault, bad: Duration },
}

impl Plan {
    /// The nodes that may lose their leaderships.
    fn hit(&self, nodes: usize) -> Vec<usize> {
        match self {
            Plan::Kill { victims, .. } => victims.clone(),
            Plan::Pause { victim, .. } | Plan::Corrupt { victim, .. } | Plan::Disk { victim, .. } => vec![*victim],
            Plan::Partition { shape, .. } => match shape {
                Partition::Group(group) => group.clone(),
                Partition::Mute(node) | Partition::Deaf(node) => vec![*node],
                Partition::Apart => (0..nodes).collect(),
                Partition::Pair(..) | Partition::OneWay(..) => Vec::new(),
            },
            Plan::Slow { .. } | Plan::Restart { .. } => Vec::new(),
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |nodes: &[usize]| {
            let names: Vec<String> = nodes.iter().map(|node| format!("node{}", node + 1)).collect();
            names.join(", ")
        };
        match self {
            Plan::Kill { victims, down } => write!(f, "kill -9 {}, down for {} ms", names(victims), down.as_millis()),
            Plan::Pause { victim, paused } => write!(f, "{} paused for {} ms", names(&[*victim]), paused.as_millis()),
            Plan::Partition { shape, bad } => write!(f, "{shape} for {} ms", bad.as_millis()),
            Plan::Slow { victim, condition, bad } => {
                let whose = victim.map_or("all nodes".to_owned(), |victim| names(&[victim]));
                let (delay, loss) = (condition.delay.as_millis(), condition.loss_percent);
                write!(f, "messages of {whose} {delay} ms late, {loss} % lost, for {} ms", bad.as_millis())
            }
            Plan::Restart { order } => write!(f, "{} restarted in turn", names(order)),
            Plan::Corrupt { victim, .. } => write!(f, "kill -9 {}, then damage", names(&[*victim])),
            Plan::Disk { victim, fault, bad } => {
                write!(f, "{}, for {} ms", fault.of(&names(&[*victim])), bad.as_millis())
            }
        }
    }
}

pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hung_disk_may_cost_service_for_as_long_as_is_promised() {
        let injected = |fault, outage_ms| Injected { fault, what: "w".to_owned(), outage_ms, failovers_ms: Vec::new() };
        assert!(injected(Fault::HungDisk, 3000.0).broken_promise().is_none());
        let broken = injected(Fault::HungDisk, 3100.0).broken_promise().unwrap().to_string();
        assert_eq!(broken, "w: a shard was without service for 3100 ms, but at most 3000 ms are promised");
        assert!(injected(Fault::All, 60_000.0).broken_promise().is_none());
    }
}
