//! Whether a node creates a cluster.
//!
//! The worst outcome of a start is a second cluster of the same nodes: both clusters take writes, and one lacks all
//! data of the other. A node that lost its directory looks like a new node, even to itself. So a node that may create a
//! cluster, and was told of other nodes, asks *all* of them first:
//!
//! 1. If one belongs to a cluster, the node joins.
//! 2. If one does not answer, it may belong to a cluster. The node waits for it, and logs which one it waits for.
//! 3. If all have answered that they belong to none, the node creates the cluster, unless another node may create it
//!    too and has a lower name. Then that node creates it, and this one waits to join.
//!
//! Nodes that all name each other form one cluster, even if all of them may create it: of any two, the node with the
//! higher name first hears that the other may create the cluster, or has done so. A node that was told of no other node
//! creates its cluster at once: this is how an operator says that there is no other cluster.

use crate::boot::Owner;
use crate::types::{ClusterId, Identity};

/// Another node's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Member(ClusterId),
    /// It belongs to no cluster, and waits.
    Waiting {
        owner: Owner,
        may_begin: bool,
    },
    /// It did not answer.
    Silent,
}

/// What follows from the answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Begin,
    Join,
    /// Wait for those whose answers are missing, as indexes into the answers.
    WaitFor(Vec<usize>),
    /// Wait for the node with this name to create the cluster.
    YieldTo(String),
}

/// Decides for the node `own`, which may create a cluster, from the answers of all nodes that it was told of. Its own
/// answer may be among them, if one of the addresses turns out to be its own.
pub fn decide(own: &Owner, answers: &[Answer]) -> Decision {
    if answers.iter().any(|answer| matches!(answer, Answer::Member(_))) {
        return Decision::Join;
    }
    let silent = answers.iter().enumerate().filter(|(_, answer)| **answer == Answer::Silent);
    let silent: Vec<usize> = silent.map(|(index, _)| index).collect();
    if !silent.is_empty() {
        return Decision::WaitFor(silent);
    }
    let rank = |owner: &Owner| -> (String, Identity) { (owner.name.clone(), owner.identity) };
    let rivals = answers.iter().filter_map(|answer| match answer {
        Answer::Waiting { owner, may_begin: true } => Some(rank(owner)),
        _ => None,
    });
    match rivals.min() {
        Some(first) if first < rank(own) => Decision::YieldTo(first.0),
        _ => Decision::Begin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { identity: Identity(u128::from(name.as_bytes()[0])), name: name.to_owned() }
    }

    fn waiting(name: &str, may_begin: bool) -> Answer {
        Answer::Waiting { owner: owner(name), may_begin }
    }

    #[test]
    fn a_node_that_was_told_of_nobody_begins() {
        assert_eq!(decide(&owner("b"), &[]), Decision::Begin);
        assert_eq!(decide(&owner("b"), &[waiting("b", true)]), Decision::Begin, "it asked itself");
    }

    #[test]
    fn nobody_begins_while_one_is_silent() {
        let answers = [waiting("a", false), Answer::Silent, waiting("d", false), Answer::Silent];
        assert_eq!(decide(&owner("b"), &answers), Decision::WaitFor(vec![1, 3]));
        assert_eq!(decide(&owner("b"), &[Answer::Silent, Answer::Member(ClusterId(7))]), Decision::Join);
    }

    #[test]
    fn of_all_that_may_begin_one_does() {
        let names = ["a", "b", "c"];
        let begins = |own: &&&str| {
            let answers: Vec<Answer> =
                names.iter().filter(|name| *name != *own).map(|name| waiting(name, true)).collect();
            decide(&owner(own), &answers) == Decision::Begin
        };
        assert_eq!(names.iter().filter(begins).collect::<Vec<_>>(), [&"a"]);
        assert_eq!(decide(&owner("c"), &[waiting("a", false), waiting("b", true)]), Decision::YieldTo("b".to_owned()));
        assert_eq!(decide(&owner("b"), &[waiting("a", false), waiting("c", true)]), Decision::Begin);
    }

    #[test]
    fn nodes_that_were_given_one_name_by_mistake_do_not_both_begin() {
        let twin = Owner { identity: Identity(1), name: "b".to_owned() };
        let other = Answer::Waiting { owner: twin.clone(), may_begin: true };
        assert_eq!(decide(&owner("b"), &[other]), Decision::YieldTo("b".to_owned()));
        assert_eq!(decide(&twin, &[waiting("b", true)]), Decision::Begin);
    }

    /// Some nodes, each of which was told of all others; some of them may begin a cluster. They start, stop and ask each other
    /// while answers are lost, late and doubled. Returns how many clusters come of it, where each decides by `decide`.
    fn clusters_begun(seed: u64, decide: impl Fn(&Owner, &[Answer]) -> Decision) -> usize {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = move |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % n
        };
        let nodes = 2 + below(3);
        let owners: Vec<Owner> = ["c", "a", "d", "b"][..nodes].iter().map(|name| owner(name)).collect();
        let mut may_begin: Vec<bool> = (0..nodes).map(|_| below(2) == 0).collect();
        may_begin[0] = true;
        let mut is_up = vec![false; nodes];
        let mut member: Vec<Option<ClusterId>> = vec![None; nodes];
        let mut answers = vec![vec![Answer::Silent; nodes]; nodes];
        let mut under_way: Vec<(usize, usize, Answer)> = Vec::new();
        let mut begun = 0;
        for _ in 0..1_000 {
            let (node, other) = (below(nodes), below(nodes));
            match below(8) {
                // A process starts, or ends: what it has heard is forgotten, what it belongs to is not.
                0 => {
                    is_up[node] = !is_up[node];
                    answers[node].fill(Answer::Silent);
                }
                1..=3 if is_up[node] && is_up[other] => {
                    let waiting = || Answer::Waiting { owner: owners[other].clone(), may_begin: may_begin[other] };
                    under_way.push((node, other, member[other].map_or_else(waiting, Answer::Member)));
                }
                4..=6 if !under_way.is_empty() => {
                    let index = below(under_way.len());
                    let (to, from, answer) = match below(4) {
                        0 => under_way[index].clone(),
                        _ => under_way.swap_remove(index),
                    };
                    if is_up[to] && below(10) > 0 {
                        answers[to][from] = answer;
                    }
                }
                7 if is_up[node] && member[node].is_none() => {
                    let others: Vec<Answer> =
                        (0..nodes).filter(|other| *other != node).map(|other| answers[node][other].clone()).collect();
                    let known = others.iter().find_map(|answer| match answer {
                        Answer::Member(cluster) => Some(*cluster),
                        _ => None,
                    });
                    match decide(&owners[node], &others) {
                        Decision::Begin if may_begin[node] => {
                            begun += 1;
                            member[node] = Some(ClusterId(begun as u64));
                        }
                        Decision::Join => member[node] = known,
                        _ => {}
                    }
                    answers[node].fill(Answer::Silent);
                }
                _ => {}
            }
        }
        begun
    }

    #[test]
    fn nodes_that_were_told_of_each_other_begin_one_cluster_at_the_most() {
        let begun: Vec<usize> = (0..1_000).map(|seed| clusters_begun(seed, decide)).collect();
        assert_eq!(begun.iter().max(), Some(&1));
        assert!(begun.iter().filter(|begun| **begun == 1).count() > 500, "most come to begin one");

        // Without any of the three conditions two are begun.
        let two_are_begun_without = |is_dropped: fn(&Answer) -> bool| {
            let decide = |own: &Owner, answers: &[Answer]| {
                let left: Vec<Answer> = answers.iter().filter(|answer| !is_dropped(answer)).cloned().collect();
                decide(own, &left)
            };
            (0..1_000).any(|seed| clusters_begun(seed, decide) > 1)
        };
        assert!(two_are_begun_without(|answer| matches!(answer, Answer::Member(_))));
        assert!(two_are_begun_without(|answer| matches!(answer, Answer::Silent)));
        assert!(two_are_begun_without(|answer| matches!(answer, Answer::Waiting { may_begin: true, .. })));
    }
}
