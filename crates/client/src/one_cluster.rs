//! Whether the endpoints that a user gave belong to one cluster.
//!
//! A node executes each request that names no cluster, and a client learns its cluster from the first node that
//! answers. With endpoints of two clusters, chance would decide which cluster a command changes.

use crate::routes::Address;
use crate::{Client, Error};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ringfort_proto::v1::MembershipRequest;
use ringfort_proto::v1::membership_client::MembershipClient;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long to wait for answers. An endpoint that needs longer is not compared.
const PATIENCE: Duration = Duration::from_millis(250);

impl Client {
    /// Asks all endpoints that the user gave which cluster they belong to. Endpoints that do not answer soon are not
    /// compared, nor are nodes that belong to no cluster yet.
    ///
    /// # Errors
    /// [`Error::OtherCluster`] if two endpoints belong to different clusters.
    pub async fn check_endpoints(&self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let seeds = self.read_routes().seeds().to_vec();
        if seeds.len() < 2 {
            return Ok(());
        }
        let ask = |address: Address| async move {
            let endpoint = self.shared.endpoints.get(&address).ok()?;
            let answer = MembershipClient::new(endpoint.channel()).ask(MembershipRequest {}).await.ok()?;
            Some((address, answer.into_inner().cluster_id)).filter(|(_, cluster)| *cluster != 0)
        };
        let mut asked: FuturesUnordered<_> = seeds.into_iter().map(ask).collect();
        let mut first = None;
        while let Ok(Some(answer)) = timeout_at(deadline, asked.next()).await {
            let Some((address, cluster)) = answer else { continue };
            let (other_address, expected) = first.get_or_insert_with(|| (address.clone(), cluster));
            if *expected != cluster {
                return Err(Error::OtherCluster {
                    address: address.to_string(),
                    found: cluster,
                    other_address: other_address.to_string(),
                    expected: *expected,
                });
            }
        }
        Ok(())
    }
}
