//! Whether an endpoint answers: a circuit breaker for one endpoint, as a state machine without I/O or a clock.
//!
//! ```text
//!               a probe is late, or a connection fails
//!        closed ────────────────────────────────────────▶ open
//!          ▲                                               │ after a rest, one probe at a time
//!          └─────────── an answer that comes in time ──────┘
//! ```
//!
//! A request without an answer after [`PROBE_AFTER`] says little about its endpoint: the shard may have no leader, or a
//! slow disk. So the client sends the endpoint a **probe**, which needs no shard. If that is not answered within
//! [`PROBE_LIMIT`] either, the circuit opens, and requests go to other endpoints. The circuit also opens for an
//! endpoint whose answers are all late, since only an answer that comes in time closes it.
//!
//! **Writes.** A write to an endpoint that never answers has an unknown outcome. So the first write after [`FRESH`]
//! without any answer waits for a probe: see [`Circuit::takes_writes`]. An endpoint that answers late still gets writes
//! if there is no better one.
//!
//! **Limits.** Silence is detected a quarter of a second after an endpoint's last answer at the earliest; writes sent
//! within that time have unknown outcomes. In a cluster whose answers all take longer than [`PROBE_LIMIT`], all
//! circuits are open. It remains usable: requests go to endpoints that answered lately.

use std::time::{Duration, Instant};

/// After this long without an answer to a request, the endpoint is probed, unless it has just answered another request
/// in time.
pub(crate) const PROBE_AFTER: Duration = Duration::from_millis(125);

/// An answer that takes longer is late: it proves that the endpoint is alive, but not that it is usable.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_millis(125);

/// A write needs no probe if the endpoint has answered any request within this time.
pub(crate) const FRESH: Duration = Duration::from_secs(1);

/// The pause before an open circuit's first probe. It doubles up to [`LONGEST_REST`].
pub(crate) const FIRST_REST: Duration = Duration::from_millis(250);

/// The longest pause between probes: an endpoint that is back is used again after this time at the latest, as long as
/// there are requests.
pub(crate) const LONGEST_REST: Duration = Duration::from_secs(2);

const _: () =
    assert!(FIRST_REST.as_millis() >= PROBE_LIMIT.as_millis(), "no probe begins before the previous one is late");

/// - At most one probe is under way that is not late.
/// - `open` is set while requests should go to other endpoints.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    /// When the latest answer came, late or not.
    heard_at: Option<Instant>,
    /// When the latest request was sent that was answered in time.
    prompt_at: Option<Instant>,
    /// When the probe that is under way was sent.
    probe: Option<Instant>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// When to probe next.
    retry_at: Instant,
    rest: Duration,
}

impl Circuit {
    /// Whether requests should go to other endpoints, if there are any.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a write may be sent without a preceding probe.
    pub(crate) fn takes_writes(&self, now: Instant) -> bool {
        self.heard_at.is_some_and(|at| now.saturating_duration_since(at) < FRESH)
    }

    /// Whether anything was heard since `start`.
    pub(crate) fn was_heard_since(&self, start: Instant) -> bool {
        self.heard_at.is_some_and(|at| at >= start)
    }

    /// A request sent at `sent` is not answered yet. Returns whether to send a probe.
    pub(crate) fn request_waits(&mut self, sent: Instant, now: Instant) -> bool {
        let is_prompt = self.prompt_at.is_some_and(|at| now.saturating_duration_since(at) < PROBE_AFTER);
        now.saturating_duration_since(sent) >= PROBE_AFTER && !is_prompt && self.open.is_none() && self.begin_probe(now)
    }

    /// A request was sent elsewhere because this circuit is open. Returns whether to send a probe.
    pub(crate) fn request_passes(&mut self, now: Instant) -> bool {
        self.open.as_ref().is_some_and(|open| open.retry_at <= now) && self.begin_probe(now)
    }

    /// A sign of life is needed now. Returns whether to send a probe: false while one is under way.
    pub(crate) fn begin_probe(&mut self, now: Instant) -> bool {
        let begins = self.probe.is_none();
        if begins {
            self.probe = Some(now);
        }
        begins
    }

    /// The endpoint has answered a request sent at `sent`. Returns whether this closes the circuit.
    pub(crate) fn answered(&mut self, sent: Instant, now: Instant) -> bool {
        self.heard_at = Some(now);
        self.probe.take_if(|probe| *probe == sent);
        if now.saturating_duration_since(sent) > PROBE_LIMIT {
            return false;
        }
        self.prompt_at = self.prompt_at.max(Some(sent));
        self.open.take().is_some()
    }

    /// The probe sent at `sent` was not answered within [`PROBE_LIMIT`].
    pub(crate) fn probe_is_late(&mut self, sent: Instant, now: Instant) {
        self.probe.take_if(|probe| *probe == sent);
        self.open(now);
    }

    /// The connection could not be made, or it broke. If a probe found out, `probe` is when it was sent.
    pub(crate) fn failed(&mut self, probe: Option<Instant>, now: Instant) {
        self.probe.take_if(|under_way| Some(*under_way) == probe);
        // Answers on the old connection say nothing about the next one.
        self.heard_at = None;
        self.open(now);
    }

    /// A request sent at `sent` has ended without a useful answer. The endpoint may be alive, but later requests should
    /// try another one.
    pub(crate) fn gave_up(&mut self, sent: Instant, now: Instant) {
        if now.saturating_duration_since(sent) >= PROBE_AFTER {
            self.open(now);
        }
    }

    fn open(&mut self, now: Instant) {
        match &mut self.open {
            None => self.open = Some(Open { retry_at: now + FIRST_REST, rest: FIRST_REST }),
            // One failure may end many requests; only the first counts.
            Some(open) if now < open.retry_at => {}
            Some(open) => {
                open.rest = (open.rest * 2).min(LONGEST_REST);
                open.retry_at = now + open.rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A circuit whose endpoint has just answered, and the time.
    fn closed() -> (Circuit, Instant) {
        let (mut circuit, start) = (Circuit::default(), Instant::now());
        circuit.answered(start, start);
        (circuit, start)
    }

    /// A circuit that a late probe has opened, and the time.
    fn open() -> (Circuit, Instant) {
        let (mut circuit, start) = closed();
        let probed = start + PROBE_AFTER;
        assert!(circuit.request_waits(start, probed));
        let late = probed + PROBE_LIMIT;
        circuit.probe_is_late(probed, late);
        (circuit, late)
    }

    #[test]
    fn silence_opens_the_circuit_after_a_probe() {
        let (mut circuit, start) = closed();
        assert!(!circuit.request_waits(start, start + PROBE_AFTER - MS), "too early");
        assert!(circuit.request_waits(start, start + PROBE_AFTER));
        assert!(!circuit.request_waits(start, start + PROBE_AFTER + MS), "one probe at a time");
        assert!(!circuit.is_open());
        circuit.probe_is_late(start + PROBE_AFTER, start + PROBE_AFTER + PROBE_LIMIT);
        assert!(circuit.is_open());
    }

    #[test]
    fn slow_request_opens_nothing_while_the_endpoint_answers_others() {
        let (mut circuit, start) = closed();
        let now = start + PROBE_AFTER * 4;
        circuit.answered(now - MS, now);
        assert!(!circuit.request_waits(start, now), "it has just answered");
        let now = now + PROBE_AFTER;
        assert!(circuit.request_waits(start, now));
        circuit.answered(now, now + MS);
        assert!(!circuit.is_open());
        assert!(circuit.request_waits(start, now + PROBE_AFTER + MS), "the next probe, since the request still waits");
    }

    #[test]
    fn endpoint_that_answers_late_is_left_and_takes_writes_where_there_is_no_other() {
        let (mut circuit, start) = closed();
        let late = PROBE_LIMIT * 4;
        // Many answers, each of them late.
        for n in 0..100 {
            circuit.answered(start + MS * n, start + MS * n + late);
        }
        let now = start + MS * 100 + late;
        assert!(circuit.request_waits(now - PROBE_AFTER, now), "late answers do not count");
        circuit.answered(now - late + MS, now + MS);
        circuit.probe_is_late(now, now + PROBE_LIMIT);
        assert!(circuit.is_open());
        assert!(!circuit.answered(now, now + late), "late for a probe, too");
        assert!(circuit.is_open() && circuit.takes_writes(now + late));
    }

    #[test]
    fn open_circuit_is_probed_after_rests_that_grow_and_closed_by_an_answer_in_time() {
        let (mut circuit, mut now) = open();
        let mut rest = FIRST_REST;
        for _ in 0..6 {
            assert!(!circuit.request_passes(now + rest - MS));
            now += rest;
            assert!(circuit.request_passes(now));
            assert!(!circuit.request_passes(now + MS), "one probe at a time");
            circuit.probe_is_late(now, now + PROBE_LIMIT);
            now += PROBE_LIMIT;
            rest = (rest * 2).min(LONGEST_REST);
        }
        now += rest;
        assert!(circuit.request_passes(now));
        assert!(circuit.answered(now, now + MS));
        assert!(!circuit.is_open());
        circuit.failed(None, now + MS);
        assert!(circuit.request_passes(now + MS + FIRST_REST), "the rests begin anew");
    }

    #[test]
    fn many_failures_of_one_moment_are_one() {
        let (mut circuit, start) = closed();
        (0..100).for_each(|_| circuit.failed(None, start));
        assert!(circuit.request_passes(start + FIRST_REST));
    }

    #[test]
    fn writes_need_a_sign_of_life() {
        let mut circuit = Circuit::default();
        let start = Instant::now();
        assert!(!circuit.takes_writes(start), "nothing is known of it");
        assert!(circuit.begin_probe(start));
        circuit.answered(start, start + MS);
        assert!(circuit.takes_writes(start + MS) && !circuit.takes_writes(start + MS + FRESH));
        circuit.failed(None, start + MS);
        assert!(!circuit.takes_writes(start + MS), "the connection broke");
    }

    #[test]
    fn an_answer_to_something_else_does_not_end_the_probe() {
        let (mut circuit, start) = closed();
        assert!(circuit.begin_probe(start + MS));
        circuit.answered(start, start + MS);
        assert!(!circuit.begin_probe(start + MS));
        circuit.answered(start + MS, start + MS * 2);
        assert!(circuit.begin_probe(start + MS * 2));
    }

    #[test]
    fn request_without_an_answer_by_its_deadline_opens_the_circuit_unless_the_deadline_was_near() {
        let (mut circuit, start) = closed();
        circuit.gave_up(start, start + PROBE_AFTER - MS);
        assert!(!circuit.is_open());
        circuit.gave_up(start, start + PROBE_AFTER);
        assert!(circuit.is_open());
    }
}
