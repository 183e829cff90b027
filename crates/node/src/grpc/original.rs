//! The interface of the system that Ringfort replaces (`proto.KV`), for its clients.

use super::call::{answer, open};
use super::status_of;
use crate::error_kind::ErrorKind;
use crate::service::{Call, CallError, Consistency, Service};
use bytes::Bytes;
use ringfort_core::eventual;
use ringfort_core::kv::{Get, Kind, Operation, Put};
use ringfort_core::system::topology::{NODE_NAME_RULE, is_node_name};
use ringfort_proto::gossip_request::MAX_GOSSIP_KEYS;
use ringfort_proto::original::kv_server::Kv;
use ringfort_proto::original::*;
use ringfort_proto::{metadata, outcome};
use tonic::{Request, Response, Status};

pub struct OriginalService {
    pub service: Service,
}

#[tonic::async_trait]
impl Kv for OriginalService {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (deadline, get) = open(&self.service, Kind::Get, request)?;
        let call = Call::query(Get { key: get.key.into() }, Consistency::Linearizable);
        let record = answer::<Get>(&self.service, call, deadline).await?.into_inner();
        let value = record.map_or(Ok(String::new()), |record| string_of(record.value))?;
        Ok(Response::new(GetResponse { value }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (deadline, put) = open(&self.service, Kind::Put, request)?;
        let put = Put { key: put.key.into(), value: put.value.into() };
        let call = Call::command(put, Consistency::Linearizable);
        answer::<Put>(&self.service, call, deadline).await?;
        Ok(Response::new(PutResponse {}))
    }

    /// Never adds the caller as a member. The call carries no identity, so a node that lost its directory could not be
    /// distinguished from a second node of the same name. Also, a program that does not speak Ringfort's peer protocol
    /// would be assigned replicas that it can't hold.
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        metadata::check_cluster(request.metadata(), self.service.cluster().0)?;
        let JoinRequest { node_id, raft_address, grpc_address } = request.into_inner();
        // Checked first because the errors below include the name, and errors are bounded in length.
        if !is_node_name(&node_id) {
            return Err(outcome::invalid(format!("node_id is not a valid node name: {NODE_NAME_RULE}")));
        }
        let members = self.service.members();
        match members.values().find(|member| member.name == node_id) {
            Some(known) if known.raft_address == raft_address && known.grpc_address == grpc_address => {
                Ok(Response::new(JoinResponse {}))
            }
            Some(known) => Err(outcome::refused(format!(
                "{node_id} is a member, at {} for nodes and {} for clients: to change its addresses, start it again \
                 with other --port, --raft-port or --advertise",
                known.raft_address, known.grpc_address
            ))),
            None => {
                let own = members.get(&self.service.node()).map_or("HOST:PORT", |own| &own.grpc_address);
                Err(outcome::refused(format!(
                    "this call does not add members: start a Ringfort node with `ringfort serve --node-id={node_id} \
                     --join-addr={own}`, and it joins by itself"
                )))
            }
        }
    }

    async fn gossip(&self, request: Request<GossipRequest>) -> Result<Response<GossipResponse>, Status> {
        let (deadline, gossip) = open(&self.service, Kind::Put, request)?;
        let keys = gossip.state.len() + gossip.left_out;
        if gossip.left_out > 0 {
            return Err(outcome::invalid(format!(
                "{keys} keys in one call of Gossip: send {MAX_GOSSIP_KEYS} at most, and the others in further calls"
            )));
        }
        let puts = gossip.state.into_iter().map(|(key, value)| Put { key: key.into(), value: value.into() });
        let puts: Vec<Put> = puts.collect();
        // A retry would fail too, so nothing is stored that it could overwrite.
        puts.iter().try_for_each(check_eventual).map_err(|error| {
            self.service.count_refused(Kind::Put);
            outcome::invalid(format!("{error}; none of the {keys} keys was stored"))
        })?;
        let writes = puts.into_iter().map(|put| Call::command(put, Consistency::Eventual));
        let answers = self.service.answer_all(writes.collect(), deadline).await;
        let all = answers.len();
        let errors: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        let is_unknown = errors.iter().any(|error| error.kind() == ErrorKind::Unknown);
        match errors.first() {
            None => Ok(Response::new(GossipResponse {})),
            Some(error) if errors.len() == all && !is_unknown => Err(status_of(error)),
            Some(error) => Err(outcome::unknown(format!(
                "{} of {all} keys were stored; the first error: {error}; if you send all keys again, they get new \
                 timestamps and overwrite what others have written since",
                all - errors.len()
            ))),
        }
    }
}

fn check_eventual(put: &Put) -> Result<(), CallError> {
    put.check()?;
    Ok(eventual::check_size(&put.key, Some(&put.value))?)
}

/// Decodes a value that another interface may have written.
fn string_of(value: Bytes) -> Result<String, Status> {
    String::from_utf8(value.into()).map_err(|_| {
        outcome::refused("the value is not UTF-8, so this interface can't return it: read it with ringfort.v1.Kv/Get")
    })
}
