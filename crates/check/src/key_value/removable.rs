//! Which writes can be removed from a key's history without making it inexplicable.
//!
//! Take an order that explains the history, and remove the write W from it. The key's content differs only between W
//! and the next put or delete; versions differ until the next delete. So an operation O whose answer W's absence could
//! change must be known to lie outside that interval. Either it completed before W was invoked, or another write that
//! ends the difference *shields* it: a write that was invoked after W completed, and completed before O was invoked.
//!
//! Which answers W's absence could change while the difference lasts:
//!
//! | answer | W: put or append | W: delete | W: increment |
//! |---|---|---|---|
//! | a text with W's value | yes, wherever it is | | |
//! | any other text | no: each text has W's value | if its first value was appended | no: only numbers, and the next row |
//! | a number, or a text that begins with one | no | yes | yes |
//! | that an increment succeeded, its number | no | yes | yes |
//! | a length | yes | yes | yes |
//! | absence | no | yes | no |
//! | that a delete found the key | yes, unless any write shields it | | as for a put |
//!
//! A "no" is treated as a "yes" where that makes the code shorter. Increments of unknown outcome that failed on a text
//! could succeed without W: then they are left out of the order that explains the rest.

use super::{Base, Kind, Value};
use crate::operation::Operation;

/// See the module's header.
pub fn is_removable(history: &[Operation], number: usize) -> bool {
    let gone = &history[number];
    let others = || history.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, operation)| operation);
    let is_delete = |kind: &Kind| matches!(kind, Kind::Delete { .. });
    let is_replacement = |kind: &Kind| matches!(kind, Kind::Put { .. } | Kind::Delete { .. });
    let is_creation = |kind: &Kind| kind.is_write() && !matches!(kind, Kind::Delete { .. });
    let is_appended = |value: Value| {
        others().any(|other| matches!(other.kind, Kind::Append { value: appended, .. } if appended == value))
    };
    others().all(|observer| {
        if observer.precedes(gone) {
            return true;
        }
        let is_shielded = |sees: bool, ends: fn(&Kind) -> bool| {
            !sees || others().any(|write| ends(&write.kind) && gone.precedes(write) && write.precedes(observer))
        };
        let content = observer.read();
        let sees_number = content.is_some_and(|content| matches!(content.base, Base::Number(_)))
            || (observer.is_answered() && matches!(observer.kind, Kind::Increment { .. }));
        let sees_value = gone.kind.written().is_some_and(|value| content.is_some_and(|read| read.contains(value)));
        let sees_no_other_content = match gone.kind {
            Kind::Get { .. } => return true,
            Kind::Put { .. } | Kind::Append { .. } | Kind::Increment { .. } => {
                !sees_value && is_shielded(observer.found_to_delete(), Kind::is_write)
            }
            Kind::Delete { .. } => {
                let sees_appended = content.is_some_and(|content| match content.base {
                    Base::Value(value) => is_appended(value),
                    Base::Number(_) => false,
                });
                is_shielded(observer.saw_absence(), is_creation)
                    && is_shielded(sees_appended, is_replacement)
                    // Not needed for soundness: of two deletes of a key, the first is the one to keep.
                    && is_shielded(observer.found_to_delete(), Kind::is_write)
            }
        };
        sees_no_other_content
            && is_shielded(sees_number || observer.saw_length().is_some(), is_replacement)
            && is_shielded(observer.saw_version().is_some(), is_delete)
    })
}
