//! What an object does, as the search and the shrinking need to know it.
//!
//! A model is a state machine: from a state, an operation leads to one other state and has one answer. The search for an
//! order needs [`initial`](Model::initial), [`action`](Model::action) and [`step`](Model::step), and nothing else to be
//! right. It is fast for long histories because of three facts that a model may tell it. The default of each is right for
//! every model:
//!
//! - **What only observes** ([`only_observes`](Model::only_observes)) is placed as soon as its answer fits, and never moved.
//! - **An operation of unknown outcome did happen** ([`happened_by`](Model::happened_by)) if its effect was seen. Any other
//!   such operation may be left out, and stands for all later ones with the same action.
//! - **A sight** is something that answers show and that is gone for good once the state has changed
//!   ([`sight_of_state`](Model::sight_of_state), [`sight_of_action`](Model::sight_of_action)): for example a value that
//!   no two puts write. While an answer that shows it is still to be placed, nothing may change the state. Some changes only
//!   add to what is there: a text that grows passes through each of its beginnings once. So a sight may have a *parent*
//!   ([`parent`](Model::parent)), the sight from which alone it can be reached, and a change that leads from the
//!   parent to the child leaves the sights beyond the child reachable.
//!
//! An **action** is an operation without all that makes no difference in this history. Two operations with equal actions can
//! stand for each other, so the fewer differences a model keeps, the fewer orders there are: values that nobody reads
//! should be one value, and versions that nobody is told should not be counted.
//!
//! The shrinking needs two more facts: which parts of an answer can be forgotten ([`CLAIMS`](Model::CLAIMS),
//! [`forget`](Model::forget)), and which writes can be removed from a history without making it inexplicable
//! ([`is_removable`](Model::is_removable)).

use crate::operation::{Operation, Time};
use std::fmt::Debug;

/// See the module's header.
pub trait Model: Sized {
    /// What was asked and answered, as a client records it.
    type Kind: Clone + PartialEq + Debug;
    /// What the object holds: decides every answer to come.
    type State: Clone + Ord;
    /// An operation, as the search sees it.
    type Action: Clone + Ord;
    /// A part of an answer that can be forgotten without the rest.
    type Claim: Copy + 'static;

    /// All claims, those first that explain the fewest violations.
    const CLAIMS: &'static [Self::Claim] = &[];

    /// Reads a history of which the actions will be asked for.
    fn of(history: &[Operation<Self::Kind>]) -> Self;

    /// The state before all operations.
    fn initial(&self) -> Self::State;

    /// What the operation does to a state, and what its answer says, if it has one.
    fn action(&self, operation: &Operation<Self::Kind>) -> Self::Action;

    /// The state after the action, or `None` if the answer would have been another one. The action of an operation of
    /// unknown outcome has no answer, so it leads to a state from everywhere.
    fn step(&self, state: &Self::State, action: &Self::Action) -> Option<Self::State>;

    /// Whether the operation leaves every state as it is in which it could have had its answer.
    fn only_observes(_operation: &Operation<Self::Kind>) -> bool {
        false
    }

    /// When the first answer was complete that shows that this operation of unknown outcome happened.
    fn happened_by(&self, _operation: &Operation<Self::Kind>) -> Option<Time> {
        None
    }

    /// What can be seen in this state, and in no state after an operation that does not only observe. Numbers from 0.
    fn sight_of_state(&self, _state: &Self::State) -> Option<usize> {
        None
    }

    /// The sight of the only states that could have given this answer.
    fn sight_of_action(&self, _action: &Self::Action) -> Option<usize> {
        None
    }

    /// The sight that must come immediately before this one; its number is smaller.
    fn parent(&self, _sight: usize) -> Option<usize> {
        None
    }

    /// Takes a claim out of the answer, if it is there. Every explanation of the answer explains what is left.
    fn forget(_kind: &mut Self::Kind, _claim: Self::Claim) {}

    /// Whether the history without the operation with this number is sure to have an explanation if the whole history has
    /// one. Operations that only observe are removable without being asked about.
    fn is_removable(_history: &[Operation<Self::Kind>], _number: usize) -> bool {
        false
    }
}
