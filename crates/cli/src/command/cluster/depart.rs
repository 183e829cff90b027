//! `ringfort cluster drain`, `leave` and `replace`: move everything that a node holds to other nodes.

use super::Report;
use super::watch::{self, Left};
use crate::client_options::{ClientOptions, Output};
use crate::command::{print_json, print_line};
use crate::failure::{Answer, Failure};
use clap::{ArgAction, Args};
use ringfort_client::v1::{LeaveRequest, StatusResponse};
use std::cell::Cell;

/// Move all replicas and leadership away from a node, which stays a member
///
/// Use it before maintenance that takes long. Waits until the node holds no replicas; after an interruption, run the
/// same command again to keep waiting.
#[derive(Args, Debug)]
pub struct Drain {
    /// The node's name.
    node: String,

    /// Let the node hold replicas again. This also cancels `cluster leave`.
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    undo: bool,

    #[command(flatten)]
    wait: Wait,

    #[command(flatten)]
    client: ClientOptions,
}

/// Make a node leave: it is drained, then removed, and its process ends
///
/// The cluster refuses if replicas or a quorum would be lost, and says what to do first. The same command removes a
/// node that is down for good. Waits until the node is gone; after an interruption, run the same command again to keep
/// waiting.
#[derive(Args, Debug)]
pub struct Leave {
    /// The node's name.
    node: String,

    /// Continue even if fewer nodes remain than each shard has replicas. The shards will have fewer replicas.
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    fewer_replicas: bool,

    #[command(flatten)]
    wait: Wait,

    #[command(flatten)]
    client: ClientOptions,
}

/// Make a node leave, and let another one take its place in every shard
///
/// The new node must be a member already. Only the replicas of the old node move.
#[derive(Args, Debug)]
pub struct Replace {
    /// The name of the node that leaves.
    node: String,

    /// The name of the node that takes its place.
    #[arg(long = "with", value_name = "NODE")]
    successor: String,

    #[command(flatten)]
    wait: Wait,

    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Args, Debug)]
struct Wait {
    /// Do not wait for the resulting moves.
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    no_wait: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("a node can't replace itself: give the node that leaves, and the one that takes its place with --with")]
struct SameNode;

/// The state that a command gives a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Empty,
    Gone,
}

impl Drain {
    pub fn run(self) -> Result<Answer, Failure> {
        let Drain { node, undo, wait, client: options } = self;
        options.run(async |client| {
            let epoch = client.drain(node.clone(), undo).await?.epoch;
            if undo {
                return tell(&options, &node, epoch, true, "may hold replicas again");
            }
            follow(&client, &options, &node, epoch, &wait, End::Empty).await
        })
    }
}

impl Leave {
    pub fn run(self) -> Result<Answer, Failure> {
        let Leave { node, fewer_replicas, wait, client } = self;
        leave(&client, &wait, LeaveRequest { node, successor: String::new(), fewer_replicas })
    }
}

impl Replace {
    pub fn run(self) -> Result<Answer, Failure> {
        let Replace { node, successor, wait, client } = self;
        if node == successor {
            return Err(SameNode.into());
        }
        leave(&client, &wait, LeaveRequest { node, successor, fewer_replicas: false })
    }
}

fn leave(options: &ClientOptions, wait: &Wait, request: LeaveRequest) -> Result<Answer, Failure> {
    let node = request.node.clone();
    options.run(async |client| {
        let epoch = client.leave(request).await?.epoch;
        follow(&client, options, &node, epoch, wait, End::Gone).await
    })
}

/// Waits until the node has reached the state, and reports it.
async fn follow(
    client: &ringfort_client::Client,
    options: &ClientOptions,
    node: &str,
    epoch: u64,
    wait: &Wait,
    end: End,
) -> Result<Answer, Failure> {
    let doing = match end {
        End::Empty => "draining",
        End::Gone => "leaving",
    };
    if wait.no_wait {
        return tell(options, node, epoch, false, &format!("is {doing}; `ringfort status` shows the progress"));
    }
    // Once the node is no longer a member, the status does not say whether it runs.
    let answered = Cell::new(None);
    let left = async |client: &ringfort_client::Client| {
        let status = client.status().await?;
        let found = status.nodes.iter().find(|known| known.name == node);
        answered.set(found.map(|found| found.alive).or(answered.get()));
        Ok(left(&status, node, end))
    };
    if watch::wait(client, &format!("{node} is {doing}"), "replicas", left).await? {
        return tell(options, node, epoch, true, done(end, answered.get()));
    }
    eprintln!(
        "{node} continues {doing} without this command: `ringfort status` shows the progress, the same command waits \
         again, and `ringfort cluster drain {node} --undo` cancels it"
    );
    Ok(Answer::No)
}

/// The final message about the node. It depends on whether the node answered when it was last checked.
fn done(end: End, answered: Option<bool>) -> &'static str {
    match (end, answered) {
        (End::Empty, _) => "holds no replicas any more, and stays a member",
        (End::Gone, None) => "has left the cluster",
        (End::Gone, Some(true)) => "has left the cluster; its process ends by itself",
        (End::Gone, Some(false)) => {
            "has left the cluster, but did not answer: if its process still runs, stop it, and do not start it again \
             with its old --raft-dir"
        }
    }
}

fn left(status: &StatusResponse, node: &str, end: End) -> Left {
    let Some(found) = status.nodes.iter().find(|known| known.name == node) else { return Left::Nothing };
    let holds = |shard: &&ringfort_client::v1::ShardStatus| shard.members.iter().any(|member| member.node == found.id);
    // The node learns that it may delete its replicas a little later than the shards do.
    let own = if found.alive { found.replicas as usize } else { 0 };
    match status.shards.iter().filter(holds).count().max(own) {
        0 if end == End::Empty => Left::Nothing,
        held => Left::Pieces(
            held,
            status.paused.then(|| "moves are paused: `ringfort cluster resume` ends the pause".to_owned()),
        ),
    }
}

fn tell(options: &ClientOptions, node: &str, epoch: u64, complete: bool, words: &str) -> Result<Answer, Failure> {
    match options.output {
        Output::Json => print_json(&Report { node: Some(node), epoch, complete })?,
        Output::Table => print_line(&format!("{node} {words}"))?,
    }
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_client::v1::{NodeStatus, ReplicaStatus, ShardStatus};

    #[test]
    fn a_node_is_done_when_it_holds_nothing_or_is_no_member() {
        let shard =
            |node| ShardStatus { members: vec![ReplicaStatus { node, ..Default::default() }], ..Default::default() };
        let node = NodeStatus { id: 4, name: "node4".to_owned(), ..Default::default() };
        let mut status = StatusResponse { nodes: vec![node], shards: vec![shard(4), shard(2)], ..Default::default() };
        assert!(matches!(left(&status, "node4", End::Empty), Left::Pieces(1, None)));
        status.shards.remove(0);
        (status.nodes[0].alive, status.nodes[0].replicas) = (true, 2);
        assert!(matches!(left(&status, "node4", End::Empty), Left::Pieces(2, None)));
        status.nodes[0].replicas = 0;
        status.paused = true;
        assert!(matches!(left(&status, "node4", End::Empty), Left::Nothing));
        assert!(matches!(left(&status, "node4", End::Gone), Left::Pieces(0, Some(_))));
        status.nodes.clear();
        assert!(matches!(left(&status, "node4", End::Gone), Left::Nothing));
    }
}
