//! Which nodes are alive: the [failure detector](detector), and the controller's view of it between two gossip rounds
//! ([`LivenessView`]).

pub mod detector;
mod view;

pub use detector::{Detector, Liveness, LivenessState, Reason};
pub use view::LivenessView;
