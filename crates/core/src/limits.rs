//! Every bound of the system, with what happens when it is reached and how it relates to the others.

use std::time::Duration;

/// The minimum number of ticks without a leader's message after which a voter may campaign or vote (E in the Raft
/// paper). Each cluster chooses the length of a tick when it is created ([`Timing`](crate::timing::Timing)).
pub const ELECTION_TICKS: usize = 8;

/// Election timeouts are below this many ticks.
pub const MAX_ELECTION_TICKS: usize = 2 * ELECTION_TICKS;

/// A leader that has not been heard for this many ticks gets no more writes from this node: they wait until it is heard
/// again or has a successor. Well above the delay of a busy leader's heartbeats.
pub const SILENT_TICKS: usize = ELECTION_TICKS / 2;

/// A lease is this many ticks shorter than the shortest election timeout: one because a tick count of n may span
/// only n - 1 intervals of time, one for the tick that a stalled node makes up for.
pub const LEASE_MARGIN_TICKS: usize = 2;

/// How far two nodes' monotonic clocks may run apart. A lease is shorter than the promise behind it by this share.
pub const DRIFT_PERMILLE: u32 = 10;

/// Heartbeat rounds per tick that a lease distinguishes. Each turn of the worker that starts a ReadIndex round sends
/// heartbeats: a lease round for each would evict those whose echoes are still in flight.
pub const ROUNDS_A_TICK: usize = 4;

/// By default, a node ends when its disk has not answered for this long: longer than a cloud volume takes to fail over,
/// and far shorter than [`REPLACE_AFTER`], after which other nodes take its place.
pub const DISK_TIMEOUT: Duration = Duration::from_secs(60);

/// By default, a node that was away, or whose disk hung, leads again after it has been healthy for this long: clients
/// without keep-alive take about as long to notice that their connections to it are dead.
pub const LEAD_AFTER: Duration = Duration::from_secs(30);

/// A stale read is answered from a state that was the latest at most this long ago.
pub const STALENESS_BOUND: Duration = Duration::from_secs(5);

/// Log bytes that a node may have on their way to its disk, including those that have arrived and that no worker has
/// handled. Beyond that, it refuses writes as `Overloaded`, and drops entries from other leaders, which Raft sends
/// again.
pub const MAX_UNSYNCED_BYTES: u64 = 64 << 20;

/// The largest key. A longer one is refused with `InvalidArgument` before anything else happens.
pub const MAX_KEY_BYTES: usize = 64 << 10;

/// The largest value. A larger one is refused with `InvalidArgument`.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Commands of one turn share a Raft entry up to this size; a single larger command has an entry of its own.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

/// The maximum that a command adds to its key and value in an entry.
pub const COMMAND_OVERHEAD_BYTES: usize = 64;

/// The largest possible entry: one command with the largest key and value.
pub const LARGEST_ENTRY_BYTES: usize = MAX_KEY_BYTES + MAX_VALUE_BYTES + 2 * COMMAND_OVERHEAD_BYTES;

/// Entries are sent in append messages of about this size (one entry at least).
pub const MAX_APPEND_BYTES: u64 = 1 << 20;

/// Append messages in flight to one follower; the next ones wait for an answer.
pub const MAX_INFLIGHT_APPENDS: usize = 256;

/// Proposed and not yet committed bytes of one shard; beyond that, proposals are refused with `Overloaded`.
pub const MAX_UNCOMMITTED_BYTES: u64 = 16 << 20;

/// Committed bytes that one `Ready` hands out for applying; the rest follows in the next one.
pub const MAX_COMMITTED_BYTES_PER_READY: u64 = 4 << 20;

/// Apply holds a shard's write lock for at most this many commands ...
pub const APPLY_SLICE_COMMANDS: usize = 256;

/// ... or until these have touched this many bytes, then lets readers in.
pub const APPLY_SLICE_BYTES: usize = 1 << 20;

/// The largest message between nodes that is accepted; a larger one is a protocol error.
pub const MAX_PEER_MESSAGE_BYTES: usize = 16 << 20;

/// A snapshot is sent and stored in chunks of about this size (one entry at least).
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

/// Entries that a node keeps in memory, over all shards and divided among its workers. Beyond that, the shard that
/// holds the most releases its oldest ones, and followers that lack them get a snapshot. Entries that are not applied
/// or not durable yet stay. If the entries after the last snapshots exceed this, over all shards, a shard takes a
/// snapshot.
pub const ENTRY_BUDGET_BYTES: usize = 64 << 20;

/// For lagging followers, a shard keeps entries that its snapshot covers, up to a worker's budget divided by this.
pub const RETAINED_SHARE: usize = 4;

/// Snapshots that a node sends at the same time; the next ones wait. The workers divide this number, but each may begin
/// at least one transfer, which then waits for its turn in the shell. The number is small because the entries after
/// each snapshot are kept in memory for the receiver.
pub const MAX_SNAPSHOTS_SENT: usize = 4;

/// How many of these may go to one node, so that a receiver whose disk hangs does not block the others. Here too, each
/// worker may begin at least one; transfers beyond this number fail at once, and Raft asks again.
pub const MAX_SNAPSHOTS_SENT_TO_ONE: usize = 2;

/// Snapshots that may arrive at a node at the same time. Further senders are refused, and Raft asks again. While a
/// snapshot arrives, its map is built beside the one that it replaces, so a node may hold this many additional maps.
pub const MAX_SNAPSHOTS_RECEIVED: usize = 4;

/// How many bytes snapshots may write for each byte of entries that the log writes ...
pub const SNAPSHOT_BYTES_PER_LOG_BYTE: usize = 4;

/// ... and how many per second in addition. So the size of a snapshot determines how long the next one waits, and the
/// log of a busy node grows to a quarter of its keys and values.
pub const SNAPSHOT_BYTES_PER_SECOND: u64 = 8 << 20;

/// After a snapshot that could not be written, a worker begins none for this long ...
pub const SNAPSHOT_RETRY: Duration = Duration::from_secs(1);

/// ... which doubles with each further failure, this often.
pub const SNAPSHOT_RETRY_DOUBLINGS: u32 = 4;

/// What snapshots may write in a burst after a quiet period.
pub const SNAPSHOT_BURST_BYTES: usize = SNAPSHOT_BYTES_PER_LOG_BYTE * ENTRY_BUDGET_BYTES;

/// A replica that has received no entries for this long takes a snapshot, so that an idle node holds little more than
/// its keys and values ...
pub const QUIET_AFTER: Duration = Duration::from_secs(10);

/// ... unless its entries are no larger than this: then logging them again, if requested, is cheaper.
pub const SMALL_LOG_BYTES: usize = 64 << 10;

/// Bytes in a node's log segments; beyond that, the shards that pin the oldest one take snapshots or are logged again.
pub const LOG_BUDGET_BYTES: u64 = 256 << 20;

/// Spare segments and snapshots, which are written beside the log, are synced after this many bytes. The log's own
/// syncs wait behind each of these syncs, and a disk that does not answer for long counts as hung.
pub const SYNCED_PART_BYTES: u64 = 1 << 20;

/// The number of bytes that a disk must write in a millisecond to not count as hung (10 MB/s).
pub const SLOW_DISK_BYTES_A_MS: u64 = 10_000;

/// When the complete states in a worker's batch for the log have this many bytes of entries, the states of other shards
/// wait for the next batch. The log may ask many shards for their states at once, and new writes must not wait for all
/// of them.
pub const MAX_RESTATED_BYTES: u64 = 1 << 20;

/// The size of a log segment unless set otherwise.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Replicas of a shard, if there are enough nodes.
pub const REPLICATION: usize = 3;

/// Replicas of the system shard in clusters of at least as many nodes.
pub const LARGE_SYSTEM: usize = 5;

/// Shards that receive a new replica at the same time, in the whole cluster, unless set otherwise; the next ones wait
/// for their turn.
pub const CONCURRENT_MOVES: usize = 8;

/// A shard of at most this many bytes does not count towards that number, ...
pub const SMALL_MOVE_BYTES: u64 = 1 << 20;

/// ... while at most this many bytes of such shards are being copied.
pub const SMALL_MOVES_BYTES: u64 = 64 << 20;

/// The minimum number of bytes that a move counts as: even moving an empty shard costs messages and replicas.
pub const LEAST_COPIED_BYTES: u64 = 64 << 10;

/// A node that has been silent for this long, unless set otherwise, is declared dead, and its replicas are placed on
/// other nodes.
pub const REPLACE_AFTER: Duration = Duration::from_secs(300);

/// The number of most recently departed nodes that the topology records; a node that departed earlier and comes back is
/// told no reason.
pub const MAX_DEPARTED: usize = 1000;

/// What a node scrubs in a second, unless set otherwise, to find damaged memory: half a percent of a core, and four
/// minutes for a gigabyte.
pub const SCRUB_BYTES_PER_SECOND: u64 = 4 << 20;

/// A scan returns at most this many entries in one answer.
pub const MAX_SCAN_ENTRIES: usize = 10_000;

/// A scan's answer holds at most this many bytes of keys and values, but at least one entry.
pub const MAX_SCAN_BYTES: usize = 2 << 20;

/// The largest key and value together of an eventual write. A larger one is refused with `InvalidArgument`.
pub const MAX_EVENTUAL_ENTRY_BYTES: usize = 64 << 10;

/// The memory of the eventual keyspace, including the overhead of its entries. Beyond that, a node refuses puts as
/// `Full`; it accepts deletes of keys that it has, and updates from other nodes. The whole keyspace is written as one
/// record when the log is compacted.
pub const MAX_EVENTUAL_BYTES: usize = 16 << 20;

/// Eventual writes that wait for the disk; beyond that, writes are refused as `Overloaded`, and updates from other
/// nodes are dropped, which send them again.
pub const MAX_EVENTUAL_PENDING_BYTES: usize = 4 << 20;

/// The largest gossip message that is accepted; a larger one is refused as a whole.
pub const MAX_GOSSIP_MESSAGE_BYTES: usize = 4 << 20;

/// A gossip message is filled up to this size, and exceeds it by at most one entry; the rest follows in the next
/// exchange. The digest, about 40 bytes a node, is added to that.
pub const GOSSIP_DELTA_BYTES: usize = 256 << 10;

/// A node gossips the state hashes of its replicas in this many groups, one each round.
pub const POINT_PARTS: u8 = 8;

/// The maximum of state hashes in a group. A node with more replicas than [`POINT_PARTS`] times this leaves out the
/// last ones.
pub const MAX_POINTS: usize = 1900;

const _: () = assert!(MAX_EVENTUAL_ENTRY_BYTES <= MAX_KEY_BYTES);
const _: () = assert!(2 * GOSSIP_DELTA_BYTES + 2 * MAX_EVENTUAL_ENTRY_BYTES < MAX_GOSSIP_MESSAGE_BYTES);
const _: () = assert!(MAX_GOSSIP_MESSAGE_BYTES < MAX_PEER_MESSAGE_BYTES);
const _: () = assert!(GOSSIP_DELTA_BYTES + MAX_EVENTUAL_ENTRY_BYTES < MAX_EVENTUAL_PENDING_BYTES);
const _: () = assert!(LEASE_MARGIN_TICKS < ELECTION_TICKS);
const _: () = assert!(1 < SILENT_TICKS && SILENT_TICKS < ELECTION_TICKS);
const _: () = assert!(MAX_ENTRY_BYTES <= LARGEST_ENTRY_BYTES);
const _: () = assert!(LARGEST_ENTRY_BYTES as u64 + MAX_APPEND_BYTES < MAX_PEER_MESSAGE_BYTES as u64);
const _: () = assert!((MAX_UNCOMMITTED_BYTES as usize) > LARGEST_ENTRY_BYTES);
const _: () = assert!(APPLY_SLICE_BYTES <= LARGEST_ENTRY_BYTES);
const _: () = assert!(LOG_BUDGET_BYTES >= 2 * SEGMENT_BYTES);
const _: () = assert!(SEGMENT_BYTES.is_multiple_of(SYNCED_PART_BYTES));
const _: () = assert!(LEAST_COPIED_BYTES <= SMALL_MOVE_BYTES && SMALL_MOVE_BYTES <= SMALL_MOVES_BYTES);
const _: () = assert!(MAX_SNAPSHOTS_SENT_TO_ONE <= MAX_SNAPSHOTS_SENT);
const _: () = assert!(MAX_SNAPSHOTS_SENT <= RETAINED_SHARE, "the entries kept for all transfers fit into the budget");
const _: () = assert!(DISK_TIMEOUT.as_nanos() < REPLACE_AFTER.as_nanos());
const _: () = assert!(MAX_UNSYNCED_BYTES >= MAX_UNCOMMITTED_BYTES);
