//! Whether a node begins a cluster.
//!
//! Two clusters of the same nodes are the worst that can come of a start: both take writes, and one of them knows nothing of
//! what the other was trusted with. A node that lost its directory looks like a new one, also to itself. So a node that
//! may begin a cluster, and was told of others, asks *all* of them first:
//!
//! 1. One that belongs to a cluster decides it: the node joins.
//! 2. One that does not answer may belong to a cluster. The node waits for it, and says for whom.
//! 3. Where all have said that they are in none, the node begins, unless another one may as well and has a lower name. That
//!    one begins, and this one waits to join it.
//!
//! Nodes of which each names all others form one cluster, also where all of them may begin: of any two, the one with the
//! higher name has heard of the other's intention before it begins, or of its cluster. A node that was told of nobody
//! begins at once: that is how an operator says that there is no other.

use crate::boot::Owner;
use crate::types::{ClusterId, Identity};

/// What another node says of itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Member(ClusterId),
    /// It is part of no cluster, and waits.
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
    /// For those whose answers are missing, as indexes into the answers.
    WaitFor(Vec<usize>),
    /// For the node of this name to begin.
    YieldTo(String),
}

/// Decides for the node `own`, which may begin a cluster, by the answers of all others that it was told of. Its own answer
/// may be among them, under an address that it did not know for its own.
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
}
