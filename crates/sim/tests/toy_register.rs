//! Tests the harness and the checker on a store so small that it is obviously right, and then obviously wrong.
//!
//! A primary keeps all registers and copies each put to a replica, over a network with the seed's faults. The correct
//! version passes with every seed. With either bug switched on, many seeds fail.

use ringfort_check::{Found, Kind, Value};
use ringfort_core::time::Moment;
use ringfort_core::types::NodeId;
use ringfort_sim::agenda::Agenda;
use ringfort_sim::focus::Focus;
use ringfort_sim::history::{ClientId, History, Key, OperationId};
use ringfort_sim::invariant::Invariant;
use ringfort_sim::linearizability;
use ringfort_sim::network::{Endpoint, Network};
use ringfort_sim::options::{Episodes, Options};
use ringfort_sim::random::Random;
use ringfort_sim::seeds::{Outcome, run_seeds};
use ringfort_sim::trace::Trace;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PRIMARY: Endpoint = Endpoint::Node(NodeId(1));
const REPLICA: Endpoint = Endpoint::Node(NodeId(2));

const ONLY_A_REGISTER: &str = "this store is asked for puts and gets only";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Gets are answered by the replica, which may not have the last put yet.
    ReadsAtReplica,
    /// A put that the network delivers twice is applied twice: readers see 1, 2, 1.
    AppliesDuplicates,
}

#[derive(Clone, Debug)]
enum Message {
    Request(OperationId, Key, Kind),
    Answer(OperationId, Option<Value>),
    Copy(Key, Value),
}

enum Wake {
    Invoke(ClientId),
    TimeOut(ClientId, OperationId),
    PartitionStarts,
    PartitionEnds,
}

struct Toy {
    bug: Bug,
    options: Options,
    now: Moment,
    workload: Random,
    faults: Random,
    agenda: Agenda<Wake>,
    network: Network<Message>,
    primary: BTreeMap<Key, Value>,
    replica: BTreeMap<Key, Value>,
    applied: BTreeSet<OperationId>,
    waiting: BTreeMap<ClientId, OperationId>,
    history: History,
    trace: Trace,
    completed: u64,
}

impl Toy {
    fn new(options: Options, bug: Bug) -> Toy {
        let random = Random::new(options.seed);
        Toy {
            bug,
            now: Moment(0),
            workload: random.fork("workload"),
            faults: random.fork("faults"),
            agenda: Agenda::default(),
            network: Network::new(random.fork("network"), options.link.clone()),
            primary: BTreeMap::new(),
            replica: BTreeMap::new(),
            applied: BTreeSet::new(),
            waiting: BTreeMap::new(),
            history: History::default(),
            trace: Trace::default(),
            completed: 0,
            options,
        }
    }

    fn run(mut self) -> Outcome {
        for client in 0..self.options.clients {
            self.agenda.put(self.now, Wake::Invoke(ClientId(client as u32)));
        }
        self.plan_partition();
        let end = Moment(0) + self.options.duration;
        while let Some(next) = [self.agenda.next_at(), self.network.next_at()].into_iter().flatten().min()
            && next < end
        {
            self.now = next;
            while let Some(delivery) = self.network.deliver(next) {
                self.trace.record(next, (delivery.from, delivery.to, format!("{:?}", delivery.message)));
                self.receive(delivery.from, delivery.to, delivery.message);
            }
            while let Some((_, wake)) = self.agenda.take_due(next) {
                self.wake(wake);
            }
        }
        Outcome {
            simulated: self.options.duration,
            operations: self.completed,
            events: BTreeMap::new(),
            fingerprint: self.trace.fingerprint(),
            failure: linearizability::check(&self.history)
                .err()
                .map(|violation| Invariant::Linearizability.broken(violation.to_string())),
        }
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Invoke(client) => self.invoke(client),
            Wake::TimeOut(client, id) if self.waiting.get(&client) == Some(&id) => self.go_on(client),
            Wake::TimeOut(..) => {}
            Wake::PartitionStarts => {
                let mut clients: Vec<_> =
                    (0..self.options.clients).map(|n| Endpoint::Client(ClientId(n as u32))).collect();
                self.faults.shuffle(&mut clients);
                let (with_primary, with_replica) = clients.split_at(clients.len() / 2);
                self.network.partition(&[&[&[PRIMARY], with_primary].concat(), &[&[REPLICA], with_replica].concat()]);
            }
            Wake::PartitionEnds => {
                self.network.heal();
                self.plan_partition();
            }
        }
    }

    fn plan_partition(&mut self) {
        if let Some(Episodes { gap, length }) = &self.options.faults.partitions {
            let start = self.now + self.faults.duration(gap);
            self.agenda.put(start, Wake::PartitionStarts);
            self.agenda.put(start + self.faults.duration(length), Wake::PartitionEnds);
        }
    }

    fn invoke(&mut self, client: ClientId) {
        let key = Key(self.workload.below(self.options.keys as u64) as u32);
        let put = self.workload.chance(self.options.put_permille);
        let value = Value { writer: client.0, number: self.history.count() as u32 };
        let kind = if put { Kind::put(value) } else { Kind::Get { found: None } };
        let id = self.history.invoke(client, key, kind.clone(), self.now);
        self.waiting.insert(client, id);
        self.agenda.put(self.now + self.options.request_timeout, Wake::TimeOut(client, id));
        let server = if !put && self.bug == Bug::ReadsAtReplica { REPLICA } else { PRIMARY };
        self.network.send(self.now, Endpoint::Client(client), server, Message::Request(id, key, kind));
    }

    fn go_on(&mut self, client: ClientId) {
        self.waiting.remove(&client);
        let pause = self.workload.duration(&self.options.think_time);
        self.agenda.put(self.now + pause, Wake::Invoke(client));
    }

    fn receive(&mut self, from: Endpoint, to: Endpoint, message: Message) {
        match message {
            Message::Request(id, key, Kind::Get { .. }) => {
                let map = if to == PRIMARY { &self.primary } else { &self.replica };
                self.network.send(self.now, to, from, Message::Answer(id, map.get(&key).copied()));
            }
            Message::Request(id, key, Kind::Put { value, .. }) => {
                if self.applied.insert(id) || self.bug == Bug::AppliesDuplicates {
                    self.primary.insert(key, value);
                    self.network.send(self.now, PRIMARY, REPLICA, Message::Copy(key, value));
                }
                self.network.send(self.now, to, from, Message::Answer(id, None));
            }
            Message::Request(..) => panic!("{ONLY_A_REGISTER}"),
            Message::Copy(key, value) => {
                self.replica.insert(key, value);
            }
            Message::Answer(id, read) => {
                let Endpoint::Client(client) = to else { panic!("only clients are answered") };
                if self.waiting.get(&client) != Some(&id) {
                    return;
                }
                let answer = match self.history.operation(id).kind {
                    Kind::Put { value, .. } => Kind::put(value),
                    Kind::Get { .. } => {
                        Kind::Get { found: read.map(|value| Found { content: value.into(), version: None }) }
                    }
                    _ => panic!("{ONLY_A_REGISTER}"),
                };
                self.history.answered(id, answer, self.now);
                self.completed += 1;
                self.go_on(client);
            }
        }
    }
}

fn run(seed_options: Options, bug: Bug) -> Outcome {
    Toy::new(Options { duration: Duration::from_secs(5), ..seed_options }, bug).run()
}

/// The failed seeds out of 60, and what was printed.
fn failed_of_60(bug: Bug) -> (usize, String) {
    let mut out = Vec::new();
    let summary =
        run_seeds(0..60, Some(Focus::None), 30, &|options| run(options, bug), &|| Duration::ZERO, &mut out).unwrap();
    (summary.failed.len(), String::from_utf8(out).unwrap())
}

#[test]
fn right_store_passes_every_seed() {
    let (failed, printed) = failed_of_60(Bug::None);
    assert_eq!(failed, 0, "{printed}");
}

#[test]
fn stale_reads_are_caught() {
    let (failed, printed) = failed_of_60(Bug::ReadsAtReplica);
    println!("{printed}");
    assert!(failed > 20, "{failed}");
}

#[test]
fn puts_applied_twice_are_caught() {
    let (failed, printed) = failed_of_60(Bug::AppliesDuplicates);
    println!("{printed}");
    assert!(failed > 5, "{failed}");
}

#[test]
fn a_seed_runs_the_same_twice() {
    for seed in 0..10 {
        let outcome = run(Options::sample(seed), Bug::None);
        assert_eq!(outcome, run(Options::sample(seed), Bug::None));
        assert_ne!(outcome.fingerprint, run(Options::sample(seed + 1), Bug::None).fingerprint);
    }
}
