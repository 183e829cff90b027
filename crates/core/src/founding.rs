//! Whether a node creates a cluster.
//!
//! The worst outcome of a start is a second cluster of the same nodes: both clusters take writes, and one lacks all
//! data of the other. A node that lost its directory looks like a new node, even to itself. So a node that may create a
//! cluster, and was told of other nodes, asks *all* of them first, at every address that their names resolve to:
//!
//! 1. If one belongs to a cluster, the node joins.
//! 2. If one does not answer, it may belong to a cluster. The node waits for it, and logs which one it waits for.
//! 3. If all have answered that they belong to none, the node creates the cluster, unless another node may create it
//!    too and has a lower name. Then that node creates it, and this one waits to join.
//!
//! Nodes that all name each other form one cluster, even if all of them may create it: of any two, the node with the
//! higher name first hears that the other may create the cluster, or has done so. A node that was told of no other node
//! creates its cluster at once: this is how an operator states that there is no other cluster.
//!
//! All this holds only if each name stands for one other node. A name that several nodes share (a headless service, a
//! load balancer) may lack some of them now, so that the node would not ask those. The node therefore also waits if a
//! name resolves to several nodes, to this node itself, or to a node that another name resolves to.

use crate::boot::Owner;
use crate::types::{ClusterId, Identity};
use std::net::IpAddr;

/// What one address answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Member(ClusterId),
    /// It belongs to no cluster and waits.
    Waiting {
        owner: Owner,
        may_begin: bool,
    },
    /// It did not answer.
    Silent,
}

/// Whether a name is this node's own. All nodes may be given the same list, with all their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    Yes,
    /// An IP address that this machine may have. Hosts can be set up so that an address of another machine looks like
    /// one of their own (`ip_nonlocal_bind`, a `local` route). Only the answer shows which node it is.
    IfItAnswers,
    No,
}

/// The answers for one name that the node was told of.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub is_own: Own,
    /// One for each address that the name resolves to; none if it does not resolve.
    pub answers: Vec<(IpAddr, Answer)>,
}

/// Why a name does not count as answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Silent,
    /// It resolves to this node, and is not its own name.
    Itself,
    /// Its addresses belong to different nodes.
    Several,
    /// It resolves to the same node as an earlier name, which has this index.
    Same(usize),
}

/// The decision that follows from the answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Begin,
    Join,
    /// Wait for the names that have not answered, given by their indexes.
    WaitFor(Vec<(usize, Missing)>),
    /// Wait for the node with this name to create the cluster.
    YieldTo(String),
}

impl Asked {
    /// The node to which this name resolves, and whether it may create the cluster; `None` if the name is `own`'s and
    /// resolves to no other node.
    fn waiting(&self, own: &Owner) -> Result<Option<(&Owner, bool)>, Missing> {
        let mut waiting = self.answers.iter().filter_map(|(_, answer)| match answer {
            Answer::Waiting { owner, may_begin } => Some((owner, *may_begin)),
            _ => None,
        });
        let Some((first, may_begin)) = waiting.next() else {
            return if self.is_own == Own::Yes { Ok(None) } else { Err(Missing::Silent) };
        };
        let is_own_identity = first.identity == own.identity;
        if waiting.any(|(owner, _)| owner.identity != first.identity) || (self.is_own == Own::Yes && !is_own_identity) {
            return Err(Missing::Several);
        }
        match (is_own_identity, self.is_own) {
            (true, Own::Yes | Own::IfItAnswers) => Ok(None),
            (true, Own::No) => Err(Missing::Itself),
            _ if !self.is_complete() => Err(Missing::Silent),
            _ => Ok(Some((first, may_begin))),
        }
    }

    /// Whether all addresses have answered, or all of one IP version: many nodes listen on one version only.
    fn is_complete(&self) -> bool {
        [true, false].into_iter().any(|is_ipv4| {
            let mut answers = self.answers.iter().filter(|(ip, _)| ip.is_ipv4() == is_ipv4).peekable();
            answers.peek().is_some() && answers.all(|(_, answer)| *answer != Answer::Silent)
        })
    }
}

/// Decides for the node `own`, which may create a cluster, from the answers for all names that it was told of.
pub fn decide(own: &Owner, told: &[Asked]) -> Decision {
    if told.iter().flat_map(|asked| &asked.answers).any(|(_, answer)| matches!(answer, Answer::Member(_))) {
        return Decision::Join;
    }
    let mut missing = Vec::new();
    let mut others: Vec<(usize, &Owner, bool)> = Vec::new();
    for (index, asked) in told.iter().enumerate() {
        match asked.waiting(own) {
            Ok(None) => {}
            Ok(Some((owner, may_begin))) => {
                match others.iter().find(|(_, known, _)| known.identity == owner.identity) {
                    Some((first, ..)) => missing.push((index, Missing::Same(*first))),
                    None => others.push((index, owner, may_begin)),
                }
            }
            Err(why) => missing.push((index, why)),
        }
    }
    if !missing.is_empty() {
        return Decision::WaitFor(missing);
    }
    let rank = |owner: &Owner| -> (String, Identity) { (owner.name.clone(), owner.identity) };
    let rivals = others.iter().filter(|(.., may_begin)| *may_begin).map(|(_, owner, _)| rank(owner));
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

    /// A name, with the answers of the addresses that it resolves to.
    fn name(answers: &[(&str, Answer)]) -> Asked {
        let answers = answers.iter().map(|(ip, answer)| (ip.parse().unwrap(), answer.clone())).collect();
        Asked { is_own: Own::No, answers }
    }

    /// Decides when each name has one address.
    fn decide_each(own: &Owner, answers: &[Answer]) -> Decision {
        let told: Vec<Asked> = answers.iter().map(|answer| name(&[("10.0.0.1", answer.clone())])).collect();
        decide(own, &told)
    }

    #[test]
    fn a_node_that_was_told_of_nobody_else_begins() {
        assert_eq!(decide(&owner("b"), &[]), Decision::Begin);
        for answer in [waiting("b", true), Answer::Silent] {
            let own = Asked { is_own: Own::Yes, ..name(&[("10.0.0.1", answer)]) };
            assert_eq!(decide(&owner("b"), &[own]), Decision::Begin);
        }
    }

    #[test]
    fn a_name_that_does_not_lead_to_one_other_node_is_not_answered() {
        let decide = |told: &[Asked]| decide(&owner("a"), told);
        let missing = |why| Decision::WaitFor(vec![(0, why)]);
        let [own, b, c] = ["a", "b", "c"].map(|name| waiting(name, true));
        assert_eq!(decide(&[name(&[])]), missing(Missing::Silent), "it does not resolve");
        assert_eq!(decide(&[name(&[("10.0.0.1", own.clone())])]), missing(Missing::Itself));
        // A name that resolves to all nodes, with this one first.
        let [one, two, three] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        let all = name(&[(one, own.clone()), (two, b.clone()), (three, c.clone())]);
        assert_eq!(decide(&[all]), missing(Missing::Several));
        assert_eq!(decide(&[name(&[(two, b.clone()), (three, c)])]), missing(Missing::Several));
        assert_eq!(decide(&[name(&[(two, b.clone()), (three, Answer::Silent)])]), missing(Missing::Silent));
        let member = Answer::Member(ClusterId(7));
        assert_eq!(decide(&[name(&[(one, own.clone()), (two, b.clone()), (three, member)])]), Decision::Join);
        // Its own name resolves to another node as well.
        let own_name = Asked { is_own: Own::Yes, ..name(&[(one, own), (two, b.clone())]) };
        assert_eq!(decide(&[own_name]), missing(Missing::Several));
        // Two names of one node: the second may be meant for another node.
        let twice = [name(&[(one, b.clone())]), name(&[(two, b)])];
        assert_eq!(decide(&twice), Decision::WaitFor(vec![(1, Missing::Same(0))]));
    }

    #[test]
    fn an_address_that_may_be_this_machines_counts_as_own_only_if_it_answers_as_this_node() {
        let decide = |answer: Answer| {
            decide(&owner("a"), &[Asked { is_own: Own::IfItAnswers, ..name(&[("10.0.0.1", answer)]) }])
        };
        assert_eq!(decide(waiting("a", true)), Decision::Begin);
        assert_eq!(decide(Answer::Silent), Decision::WaitFor(vec![(0, Missing::Silent)]));
        assert_eq!(decide(Answer::Member(ClusterId(7))), Decision::Join);
        assert_eq!(decide(waiting("b", true)), Decision::Begin, "it is another node, which yields to this one");
    }

    #[test]
    fn a_node_needs_to_answer_by_one_ip_version_only() {
        let answers = [("10.0.0.2", waiting("b", true)), ("::2", Answer::Silent)];
        assert_eq!(decide(&owner("a"), &[name(&answers)]), Decision::Begin);
    }

    #[test]
    fn nobody_begins_while_one_is_silent() {
        let answers = [waiting("a", false), Answer::Silent, waiting("d", false), Answer::Silent];
        let missing = vec![(1, Missing::Silent), (3, Missing::Silent)];
        assert_eq!(decide_each(&owner("b"), &answers), Decision::WaitFor(missing));
        assert_eq!(decide_each(&owner("b"), &[Answer::Silent, Answer::Member(ClusterId(7))]), Decision::Join);
    }

    #[test]
    fn of_all_that_may_begin_one_does() {
        let names = ["a", "b", "c"];
        let begins = |own: &&&str| {
            let answers: Vec<Answer> =
                names.iter().filter(|name| *name != *own).map(|name| waiting(name, true)).collect();
            decide_each(&owner(own), &answers) == Decision::Begin
        };
        assert_eq!(names.iter().filter(begins).collect::<Vec<_>>(), [&"a"]);
        assert_eq!(
            decide_each(&owner("c"), &[waiting("a", false), waiting("b", true)]),
            Decision::YieldTo("b".to_owned())
        );
        assert_eq!(decide_each(&owner("b"), &[waiting("a", false), waiting("c", true)]), Decision::Begin);
    }

    #[test]
    fn nodes_that_were_given_one_name_by_mistake_do_not_both_begin() {
        let twin = Owner { identity: Identity(1), name: "b".to_owned() };
        let other = Answer::Waiting { owner: twin.clone(), may_begin: true };
        assert_eq!(decide_each(&owner("b"), &[other]), Decision::YieldTo("b".to_owned()));
        assert_eq!(decide_each(&twin, &[waiting("b", true)]), Decision::Begin);
    }

    /// Some nodes, each of which was told of all others; some of them may begin a cluster. They start, stop and ask
    /// each other while answers are lost, late and duplicated. Returns how many clusters are created if each node
    /// decides by `decide`.
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
                // A process starts or ends: it forgets what it has heard, but not its cluster.
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
        let begun: Vec<usize> = (0..1_000).map(|seed| clusters_begun(seed, decide_each)).collect();
        assert_eq!(begun.iter().max(), Some(&1));
        assert!(begun.iter().filter(|begun| **begun == 1).count() > 500, "most come to begin one");

        // Without any one of the three conditions, two clusters are created.
        let two_are_begun_without = |is_dropped: fn(&Answer) -> bool| {
            let decide = |own: &Owner, answers: &[Answer]| {
                let left: Vec<Answer> = answers.iter().filter(|answer| !is_dropped(answer)).cloned().collect();
                decide_each(own, &left)
            };
            (0..1_000).any(|seed| clusters_begun(seed, decide) > 1)
        };
        assert!(two_are_begun_without(|answer| matches!(answer, Answer::Member(_))));
        assert!(two_are_begun_without(|answer| matches!(answer, Answer::Silent)));
        assert!(two_are_begun_without(|answer| matches!(answer, Answer::Waiting { may_begin: true, .. })));
    }
}
