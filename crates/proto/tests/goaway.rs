//! What a GOAWAY says about the request that was under way.

use ringfort_proto::outcome::{self, Outcome};
use ringfort_proto::v1::PutRequest;
use ringfort_proto::v1::kv_client::KvClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Endpoint;

const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;

/// A server that answers the first request with a GOAWAY and closes the connection.
async fn go_away(mut stream: TcpStream, last_stream: u32, reason: u32) -> std::io::Result<()> {
    stream.read_exact(&mut [0; PREFACE]).await?;
    stream.write_all(&frame(SETTINGS, &[])).await?;
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if header[3] == HEADERS {
            return stream.write_all(&frame(GOAWAY, &[last_stream.to_be_bytes(), reason.to_be_bytes()].concat())).await;
        }
    }
}

/// A frame of the connection.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, 0], &[0; 4], payload].concat()
}

async fn outcome_after(last_stream: u32, reason: u32) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        go_away(stream, last_stream, reason).await.unwrap();
    };
    let put = async {
        let channel = Endpoint::from_shared(address).unwrap().connect_lazy();
        KvClient::new(channel).put(PutRequest::default()).await.unwrap_err()
    };
    let ((), status) = tokio::join!(server, put);
    outcome::of(&status)
}

#[tokio::test]
async fn a_write_that_a_stopping_server_did_not_process_was_not_applied() {
    assert_eq!(outcome_after(0, NO_ERROR).await, Outcome::NotApplied);
}

#[tokio::test]
async fn a_write_that_a_stopping_server_may_have_processed_is_unknown() {
    assert_eq!(outcome_after(1, NO_ERROR).await, Outcome::Unknown);
    assert_eq!(outcome_after(1, INTERNAL_ERROR).await, Outcome::Unknown);
}
