//! What nodes tell each other without a leader.

pub mod detector;
