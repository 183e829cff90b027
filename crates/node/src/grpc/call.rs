//! A client's call on its way to the service and back.

use super::{status_of, timeout};
use crate::execute::Executed;
use crate::service::{Call, CallError, Service};
use ringfort_core::kv::Kind;
use ringfort_core::kv::op::Listed;
use ringfort_core::request::Replies;
use ringfort_proto::metadata;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// The deadline and message of a call for this operation, if it is meant for this cluster.
pub fn open<M>(service: &Service, operation: Kind, request: Request<M>) -> Result<(Instant, M), Status> {
    metadata::check_cluster(request.metadata(), service.cluster().0)
        .inspect_err(|_| service.count_refused(operation))?;
    Ok((timeout::deadline(request.metadata()), request.into_inner()))
}

/// Has the service answer a call for the operation `O`. If another node leads, the response names it to the client.
pub async fn answer<O>(service: &Service, call: Call, deadline: Instant) -> Result<Response<O::Reply>, Status>
where
    O: Listed<Replies: Replies>,
{
    let executed = service.answer(call, deadline).await;
    let Executed { reply, elsewhere } = executed.map_err(|error| status_of(&error))?;
    let reply = reply.to::<O>().ok_or_else(|| status_of(&CallError::OtherReply))?;
    let mut response = Response::new(reply);
    if let Some(node) = elsewhere {
        service.with_address(node, |address| metadata::set_leader(response.metadata_mut(), address));
    }
    Ok(response)
}
