//! Golden bytes that pin the field numbers other programs are built against.

use bytes::Bytes;
use prost::Message;
use ringfort_proto::{FILE_DESCRIPTOR_SET, v1};

#[test]
fn fixed_messages_keep_their_bytes() {
    let put = v1::PutRequest { key: "k".into(), value: "v".into(), consistency: 0 };
    assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x01v");

    let get = v1::GetRequest { key: "k".into(), consistency: v1::Consistency::Linearizable.into() };
    assert_eq!(get.encode_to_vec(), b"\x0a\x01k");

    let got = v1::GetResponse { value: "v".into(), found: true, ..Default::default() };
    assert_eq!(got.encode_to_vec(), b"\x0a\x01v\x10\x01");

    let delete = v1::DeleteRequest { key: "k".into(), consistency: 0 };
    assert_eq!(delete.encode_to_vec(), b"\x0a\x01k");

    let join = v1::JoinRequest {
        node_id: "n".into(),
        raft_address: "r".into(),
        grpc_address: "g".into(),
        ..Default::default()
    };
    assert_eq!(join.encode_to_vec(), b"\x0a\x01n\x12\x01r\x1a\x01g");
}

#[test]
fn decoding_refers_to_the_received_buffer() {
    let value = Bytes::from(vec![7; 1000]);
    let entry = v1::RaftEntry { data: value, ..Default::default() };
    let batch = v1::PeerBatch {
        raft: vec![v1::RaftMessage { entries: vec![entry], ..Default::default() }],
        ..Default::default()
    };
    let received = Bytes::from(batch.encode_to_vec());
    let decoded = v1::PeerBatch::decode(received.clone()).unwrap();
    let data = &decoded.raft[0].entries[0].data;
    assert!(received.as_ptr_range().contains(&data.as_ptr()), "the value was copied");
}

#[test]
fn reflection_knows_every_service() {
    for service in ["Kv", "Cluster", "Peer"] {
        let declared = [&[0x0a, service.len() as u8], service.as_bytes()].concat();
        assert!(FILE_DESCRIPTOR_SET.windows(declared.len()).any(|window| window == declared), "{service}");
    }
}
