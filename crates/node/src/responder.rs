//! Delivers the answer to a request to the task or node that waits for it.

use crate::answers::Answers;
use ringfort_core::request::{Failure, Reply};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Handed to a worker with a request, and returned with the answer.
pub enum Responder {
    /// A task of this node.
    Task(oneshot::Sender<Result<Reply, Failure>>),
    /// A node that forwarded the request: the answers of the stream that brought it, and the request's id on that
    /// stream.
    Peer { answers: Arc<Answers>, id: u64, deadline: Instant },
}

impl Responder {
    /// Whether the answer is no longer awaited: the client or the stream is gone, or the deadline is over. A request
    /// that has not been started is then dropped; otherwise, under overload, all work would go into answers that come
    /// too late.
    pub fn is_abandoned(&self, now: Instant) -> bool {
        match self {
            Responder::Task(sender) => sender.is_closed(),
            Responder::Peer { answers, deadline, .. } => *deadline <= now || answers.has_ended(),
        }
    }

    /// Delivers the answer, or drops it if it is no longer awaited.
    pub fn answer(self, answer: Result<Reply, Failure>) {
        match self {
            Responder::Task(sender) => drop(sender.send(answer)),
            Responder::Peer { answers, id, .. } => answers.give(id, answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_request_is_abandoned_when_its_client_is_gone_or_its_time_is_over() {
        let now = Instant::now();
        let (sender, receiver) = oneshot::channel();
        let responder = Responder::Task(sender);
        assert!(!responder.is_abandoned(now));
        drop(receiver);
        assert!(responder.is_abandoned(now));
        let answers = Arc::new(Answers::default());
        let responder = Responder::Peer { answers: answers.clone(), id: 1, deadline: now + Duration::from_millis(1) };
        assert!(!responder.is_abandoned(now));
        assert!(responder.is_abandoned(now + Duration::from_millis(1)));
        answers.end(None);
        assert!(responder.is_abandoned(now));
    }
}
