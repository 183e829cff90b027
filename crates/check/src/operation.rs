//! An operation on an object, and what its client knows of its outcome.
//!
//! | ending | what the client knows | when it takes effect |
//! |---|---|---|
//! | [`Ending::Answered`] | the answer, which the kind of the operation holds | once, between invocation and completion |
//! | [`Ending::Refused`] | the store promised that nothing happened | never |
//! | [`Ending::Unknown`] | nothing | once at any time after the invocation, or never |

use crate::key_value::Kind;

/// A moment of the history: nanoseconds since its beginning, or the number of an event. One operation came before
/// another if it completed *before* the other was invoked. Operations that meet at the same time count as concurrent,
/// which never accuses a store wrongly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Time(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    Answered(Time),
    Refused,
    Unknown,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation<K = Kind> {
    pub client: u32,
    /// The operation and its answer, which counts only if the ending is [`Ending::Answered`].
    pub kind: K,
    pub invoked: Time,
    pub ending: Ending,
}

impl<K> Operation<K> {
    /// When the client received the answer, if it did.
    pub fn completed(&self) -> Option<Time> {
        match self.ending {
            Ending::Answered(at) => Some(at),
            Ending::Refused | Ending::Unknown => None,
        }
    }

    /// Whether this operation completed before the other one was invoked.
    pub fn precedes(&self, other: &Operation<K>) -> bool {
        self.completed().is_some_and(|completed| completed < other.invoked)
    }

    pub fn is_answered(&self) -> bool {
        matches!(self.ending, Ending::Answered(_))
    }
}
