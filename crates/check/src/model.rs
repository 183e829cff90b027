//! The trait for models: what the search and the shrinking need to know about an object.
//!
//! A model is a deterministic state machine: in a state, an operation leads to one next state and has one answer. The
//! search for an order needs only [`initial`](Model::initial), [`action`](Model::action) and [`step`](Model::step) to
//! be correct. Three hints that a model may give make it fast for long histories. The default of each is correct for
//! every model:
//!
//! - **An operation that only observes** ([`only_observes`](Model::only_observes)) is placed as soon as its answer
//!   fits, and never moved.
//! - **An operation of unknown outcome did happen** ([`happened_by`](Model::happened_by)) if its effect was seen. Any
//!   other such operation may be left out, and can stand for all later ones with the same action.
//! - **A sight** is something that answers show and that never returns once the state has changed
//!   ([`sight_of_state`](Model::sight_of_state), [`sight_of_action`](Model::sight_of_action)): for example a value that
//!   no two puts write. While an answer that shows it is not placed yet, nothing may change the state. Some changes
//!   only add to the state: a text that grows passes through each of its prefixes once. So a sight may have a *parent*
//!   ([`parent`](Model::parent)), the only sight from which it can be reached, and a change from the parent to the
//!   child keeps the sights beyond the child reachable.
//!
//! An **action** is an operation without the details that make no difference in this history. Operations with equal
//! actions are interchangeable, so the fewer differences a model keeps, the fewer orders there are: values that no
//! operation reads should be one value, and versions that no answer contains should not be counted.
//!
//! The shrinking needs two more facts: which parts of an answer can be forgotten ([`CLAIMS`](Model::CLAIMS),
//! [`forget`](Model::forget)), and which writes can be removed from a history without making it inexplicable
//! ([`is_removable`](Model::is_removable)).

use crate::operation::{Operation, Time};
use std::fmt::Debug;

/// See the module's header.
pub trait Model: Sized {
    /// An operation and its answer, as a client records it.
    type Kind: Clone + PartialEq + Debug;
    /// The object's state, which determines all future answers.
    type State: Clone + Ord;
    /// An operation, as the search sees it.
    type Action: Clone + Ord;
    /// A part of an answer that can be forgotten without the rest.
    type Claim: Copy + 'static;

    /// All claims, beginning with those that explain the fewest violations.
    const CLAIMS: &'static [Self::Claim] = &[];

    /// Creates the model for a history. The search will ask for the actions of its operations.
    fn of(history: &[Operation<Self::Kind>]) -> Self;

    /// The state before all operations.
    fn initial(&self) -> Self::State;

    /// The operation's effect on a state and its answer, if it has one.
    fn action(&self, operation: &Operation<Self::Kind>) -> Self::Action;

    /// The state after the action, or `None` if the answer would have been different. The action of an operation of
    /// unknown outcome has no answer, so it is possible in every state.
    fn step(&self, state: &Self::State, action: &Self::Action) -> Option<Self::State>;

    /// Whether the operation changes no state in which it could have had its answer.
    fn only_observes(_operation: &Operation<Self::Kind>) -> bool {
        false
    }

    /// For an operation of unknown outcome, the completion of the first answer that shows that it happened.
    fn happened_by(&self, _operation: &Operation<Self::Kind>) -> Option<Time> {
        None
    }

    /// The sight of this state: it is not visible in any state after an operation that does more than observe. Numbered
    /// from 0.
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

    /// Removes a claim from the answer, if it is there. Every explanation of the full answer also explains the rest.
    fn forget(_kind: &mut Self::Kind, _claim: Self::Claim) {}

    /// Whether the history without the operation with this number is sure to have an explanation if the whole history
    /// has one. Operations that only observe are removable without being asked about.
    fn is_removable(_history: &[Operation<Self::Kind>], _number: usize) -> bool {
        false
    }
}
