//! Which nodes are alive: the [failure detector](detector), and what the controller knows of it between two rounds of
//! gossip ([`LivenessView`]).

pub mod detector;
mod view;

pub use detector::{Detector, Liveness, LivenessState, Reason};
pub use view::LivenessView;
