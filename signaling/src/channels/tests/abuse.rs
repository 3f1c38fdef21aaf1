//! Slow, hostile and malformed clients: each is told why and cut, and nobody else notices.

use super::kit::{Bench, CHANNEL, closed, handshake, options};
use crate::{
    channels::Options,
    websocket::{
        Limits,
        frame::{self, Opcode},
    },
};
use bytes::BytesMut;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A client's frame, masked by zeros so that it can be read in a trace.
fn masked(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put_header(&mut out, fin, opcode, payload.len(), Some([0; 4]));
    out.extend_from_slice(payload);
    out.to_vec()
}

/// Reads the server's frames (all of them short of 64 KiB) until its close frame and answers the code.
async fn close_code(stream: &mut TcpStream) -> u16 {
    loop {
        let first = stream.read_u8().await.unwrap();
        let length = match stream.read_u8().await.unwrap() {
            126 => usize::from(stream.read_u16().await.unwrap()),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        if first == 0x88 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

async fn raw(bench: &Bench, after: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", bench.port)).await.unwrap();
    // In one write with the handshake: whoever speaks early is heard all the same.
    let mut bytes = handshake("north", bench.port, None).into_bytes();
    bytes.extend_from_slice(after);
    stream.write_all(&bytes).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(
        head.to_lowercase()
            .contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    assert!(!head.to_lowercase().contains("sec-websocket-extensions"));
    stream
}

#[tokio::test]
async fn malformed_frames_get_their_code_and_the_others_go_on() {
    let bench = Bench::start(options()).await;
    let mut witness = bench.enter("north").await;
    witness.subscribe(CHANNEL).await;
    for (bytes, code) in [
        (vec![0x81, 0x02, b'{', b'}'], 1002),
        (vec![0xC1, 0x80, 0, 0, 0, 0], 1002),
        (masked(true, Opcode::Continuation, b"x"), 1002),
        (masked(true, Opcode::Text, b"\xff"), 1007),
        (vec![0x81, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], 1009),
        (masked(true, Opcode::Binary, b"{}"), 3501),
        (masked(true, Opcode::Text, b"{\"id\":"), 3501),
        (masked(true, Opcode::Text, b"[]"), 3501),
        (
            masked(
                true,
                Opcode::Text,
                b"{\"id\":1,\"subscribe\":{\"channel\":\"board:main\"}}",
            ),
            3501,
        ),
        (
            masked(
                true,
                Opcode::Text,
                b"{\"id\":1,\"connect\":{\"token\":\"mt_1_nonsense\"}}",
            ),
            3500,
        ),
    ] {
        let mut stream = raw(&bench, &bytes).await;
        assert_eq!(close_code(&mut stream).await, code, "{bytes:?}");
    }
    let mut bad = bench.enter("north").await;
    bad.text("{\"id\":7,\"ping\":{}}\n{\"id\":8,\"subscribe\":{\"channel\":7}}")
        .await;
    assert_eq!(bad.next().await["id"], 7, "what was sound is answered");
    assert_eq!(closed(&mut bad).await, (3501, "bad request".into()));
    bench.publish("north", CHANNEL, &json!(1));
    assert_eq!(witness.push("pub").await["pub"]["data"], 1);
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused() {
    let bench = Bench::start(options()).await;
    let own = format!("http://north.localhost:{}", bench.port);
    assert!(bench.refusal("north", Some(&own)).await.contains("101"));
    assert!(
        bench
            .refusal("north", Some("http://evil.example"))
            .await
            .contains("403")
    );
    assert!(bench.refusal("nobody", None).await.contains("404"));
}

#[tokio::test]
async fn who_never_connects_is_cut() {
    let deadline = std::time::Duration::from_millis(50);
    let bench = Bench::start(Options {
        connect_deadline: deadline,
        ..options()
    })
    .await;
    let mut idle = bench.dial("north").await;
    assert_eq!(closed(&mut idle).await, (3502, "stale".into()));
}

#[tokio::test]
async fn limits_on_channels_and_commands() {
    let bench = Bench::start(Options {
        channels_per_client: 2,
        burst: 20,
        ..options()
    })
    .await;
    let mut client = bench.enter("north").await;
    client.subscribe("patient:1").await;
    client.subscribe("patient:2").await;
    let third = json!({ "subscribe": { "channel": "patient:3" } });
    assert_eq!(client.ask(third.clone()).await["error"]["code"], 106);
    client.ask(json!({ "unsubscribe": { "channel": "patient:1" } })).await;
    assert!(client.ask(third).await["subscribe"].is_object());
    // The clock stands still, so the bucket is not filled again: refusals, and then the end.
    let mut refused = 0;
    while client.ask(json!({ "ping": {} })).await["error"]["code"] != 111 {
        refused += 1;
        assert!(refused < 20);
    }
    for _ in 0..300 {
        client.text("{\"id\":9,\"ping\":{}}").await;
    }
    assert_eq!(closed(&mut client).await.0, 4429);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_with_3008_and_delays_nobody() {
    let socket = Limits {
        queue: 128 * 1024,
        closing: std::time::Duration::from_secs(30),
        ..Limits::default()
    };
    let bench = Bench::start(Options { socket, ..options() }).await;
    let mut slow = bench.enter("north").await;
    slow.subscribe(CHANNEL).await;
    let mut healthy = bench.enter("north").await;
    healthy.subscribe(CHANNEL).await;
    let text = "x".repeat(20_000);
    let mut sent = 0;
    while bench.count("slow") == 0 {
        sent += 1;
        assert!(sent < 5_000, "100 MB wait for a client that does not read");
        bench.publish("north", CHANNEL, &json!([sent, text]));
        assert_eq!(healthy.push("pub").await["pub"]["data"][0], sent);
    }
    // What was under way still arrives, in order and without a gap, and then the reason.
    let mut seen = 0;
    let code = loop {
        match futures_util::StreamExt::next(&mut slow.ws).await.unwrap().unwrap() {
            tokio_tungstenite::tungstenite::Message::Close(frame) => break u16::from(frame.unwrap().code),
            message => {
                let value: serde_json::Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
                if let Some(n) = value["push"]["pub"]["data"][0].as_i64() {
                    seen += 1;
                    assert_eq!(n, seen);
                }
            }
        }
    };
    assert_eq!(code, 3008);
    assert!(seen < sent);
    bench.publish("north", CHANNEL, &json!("after"));
    assert_eq!(healthy.push("pub").await["pub"]["data"], "after");
}
