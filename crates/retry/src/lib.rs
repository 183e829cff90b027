//! The retry policy: whether and when a request is sent again. One state machine for the node, the Rust client and the
//! simulator's clients. It has no clock, no socket and no random numbers.
//!
//! **The rule.** An attempt whose outcome is unknown may have been applied. A request that must not be applied twice is
//! never sent again after such an attempt. Any other request may be: a read, or a write for which applying it twice has
//! the same effect as once.
//!
//! An attempt that was certainly not applied is followed by another one, until there is no time left. If the answer
//! names the shard's leader, that node is asked at once, but only a few times in a row: during an election, two nodes
//! may name each other. Otherwise there is a pause before the next attempt, which doubles each time.
//!
//! Once an attempt's outcome is unknown, so is the request's, even if a later attempt is refused
//! ([`Retry::is_unknown`]).

use std::time::Duration;

/// How an attempt without an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// Not applied: another node leads the shard, and the caller now knows which one.
    Redirected,
    /// Not applied, for a reason that may go away.
    NotApplied,
    /// Not applied, and another attempt would be useless.
    Refused,
    /// It may have been applied, or may be applied later.
    Unknown,
}

/// What to do after an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Ask the node that was named, at once.
    AskLeader,
    /// Send the request again after this pause.
    SendAfter(Duration),
    /// Report the last attempt's error.
    GiveUp,
}

/// How quickly attempts follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The pause before the first repetition that does not follow a redirection. It doubles with each one.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// How many redirections in a row are followed without a pause.
    pub redirections: u32,
}

/// The attempts of one request.
#[derive(Clone, Debug)]
pub struct Retry {
    pace: Pace,
    repeats: bool,
    reserve: Duration,
    pause: Duration,
    redirections: u32,
    is_unknown: bool,
}

impl Retry {
    /// `repeats`: whether applying the request twice has the same effect as once. True for reads.
    pub const fn new(pace: Pace, repeats: bool) -> Retry {
        Retry { pace, repeats, reserve: Duration::ZERO, pause: pace.first_pause, redirections: 0, is_unknown: false }
    }

    /// No attempt begins after a pause in this last part of the time: its answer might come too late, and the outcome
    /// would be unknown instead of certainly not applied. A leader that was named is still asked at once.
    pub const fn with_reserve(self, reserve: Duration) -> Retry {
        Retry { reserve, ..self }
    }

    /// An attempt has ended without an answer. `left` is the time until the request's deadline.
    pub fn ended(&mut self, attempt: Attempt, left: Duration) -> Next {
        match attempt {
            Attempt::Refused => return Next::GiveUp,
            Attempt::Unknown => {
                self.is_unknown = true;
                if !self.repeats {
                    return Next::GiveUp;
                }
            }
            Attempt::Redirected if self.redirections < self.pace.redirections && !left.is_zero() => {
                self.redirections += 1;
                return Next::AskLeader;
            }
            Attempt::Redirected | Attempt::NotApplied => {}
        }
        self.redirections = 0;
        let pause = self.pause;
        if pause >= left.saturating_sub(self.reserve) {
            return Next::GiveUp;
        }
        self.pause = (pause * 2).min(self.pace.longest_pause);
        Next::SendAfter(pause)
    }

    /// Whether any attempt so far may have been applied.
    pub fn is_unknown(&self) -> bool {
        self.is_unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACE: Pace =
        Pace { first_pause: Duration::from_millis(2), longest_pause: Duration::from_millis(50), redirections: 2 };
    const LONG: Duration = Duration::from_secs(60);

    fn pause(milliseconds: u64) -> Next {
        Next::SendAfter(Duration::from_millis(milliseconds))
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut retry = Retry::new(PACE, false);
        let pauses: Vec<Next> = (0..7).map(|_| retry.ended(Attempt::NotApplied, LONG)).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 50, 50].map(pause));
    }

    #[test]
    fn a_few_redirections_in_a_row_are_followed_at_once() {
        let mut retry = Retry::new(PACE, false);
        let mut redirected = || retry.ended(Attempt::Redirected, LONG);
        let followed: Vec<Next> = (0..6).map(|_| redirected()).collect();
        assert_eq!(followed, [Next::AskLeader, Next::AskLeader, pause(2), Next::AskLeader, Next::AskLeader, pause(4)]);
    }

    #[test]
    fn nothing_is_sent_when_no_time_is_left() {
        let mut retry = Retry::new(PACE, true);
        assert_eq!(retry.ended(Attempt::NotApplied, PACE.first_pause), Next::GiveUp);
        assert_eq!(retry.ended(Attempt::Redirected, Duration::ZERO), Next::GiveUp);
    }

    #[test]
    fn no_pause_ends_in_the_reserve_although_the_answers_name_a_leader() {
        let reserve = Duration::from_millis(200);
        let mut retry = Retry::new(PACE, false).with_reserve(reserve);
        let within = reserve + PACE.first_pause;
        let ended: Vec<Next> = (0..3).map(|_| retry.ended(Attempt::Redirected, within)).collect();
        assert_eq!(ended, [Next::AskLeader, Next::AskLeader, Next::GiveUp]);
        assert_eq!(retry.ended(Attempt::NotApplied, within + PACE.first_pause), pause(2));
    }

    fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
        let attempt = prop_oneof![
            Just(Attempt::Redirected),
            Just(Attempt::NotApplied),
            Just(Attempt::Refused),
            Just(Attempt::Unknown)
        ];
        prop::collection::vec(attempt, 0..20)
    }

    proptest! {
        #[test]
        fn the_rule_holds_whatever_happens(attempts in attempts(), repeats: bool) {
            let mut retry = Retry::new(PACE, repeats);
            let mut may_be_applied = false;
            for attempt in attempts {
                may_be_applied |= attempt == Attempt::Unknown;
                let next = retry.ended(attempt, LONG);
                prop_assert!(next == Next::GiveUp || repeats || !may_be_applied, "{attempt:?} is followed by {next:?}");
                prop_assert_eq!(retry.is_unknown(), may_be_applied);
                prop_assert_eq!(next == Next::AskLeader, next == Next::AskLeader && attempt == Attempt::Redirected);
                if next == Next::GiveUp {
                    break;
                }
            }
        }
    }
}
