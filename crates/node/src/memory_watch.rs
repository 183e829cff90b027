//! Measures how many bytes the maps hold, for `--max-memory`.

use crate::admission::AdmissionState;
use crate::routing::Routing;
use std::sync::Arc;
use std::time::Duration;

/// How often the maps are measured. At one gigabit per second, 6 MB arrive between two measurements.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Measures the maps until the runtime ends. Returns at once if there is no limit.
pub async fn run(routing: Arc<Routing>, admission: Arc<AdmissionState>) {
    while admission.has_memory_limit() {
        let sizes = routing.shards().ids().filter_map(|shard| Some(routing.view(shard)?.size().1 as u64));
        admission.measured(sizes.sum());
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
