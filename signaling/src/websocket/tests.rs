//! The codec against RFC 6455's own examples, and against itself for any cut of any message.

use super::{
    Decoder, Fault, Message,
    frame::{self, Opcode},
};
use bytes::BytesMut;
use proptest::prelude::*;

fn client(fin: bool, opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put_header(&mut out, fin, opcode, payload.len(), Some(mask));
    let start = out.len();
    out.extend_from_slice(payload);
    frame::apply_mask(&mut out[start..], mask, 0);
    out.to_vec()
}

fn decode(limit: usize, bytes: &[u8]) -> Result<Vec<Message>, Fault> {
    let mut out = Vec::new();
    Decoder::new(limit).decode(&mut bytes.to_vec(), &mut out)?;
    Ok(out)
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[test]
fn examples_of_rfc_6455_section_5_7() {
    // A single-frame masked text message: "Hello".
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(100, &hello), Ok(vec![Message::Text("Hello".into())]));
    assert_eq!(client(true, Opcode::Text, b"Hello", MASK), hello);
    // A single-frame unmasked text message, as a server sends it.
    assert_eq!(&frame::text("Hello")[..], [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    // Unmasked ping, and the masked answer with the same body.
    assert_eq!(
        &frame::encode(Opcode::Ping, b"Hello")[..],
        [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]
    );
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(100, &pong), Ok(vec![Message::Pong(b"Hello".to_vec())]));
    // 256 bytes and 64 KiB of binary in one unmasked frame: the two longer forms of the length.
    assert_eq!(&frame::binary(&[7; 256])[..4], [0x82, 0x7E, 0x01, 0x00]);
    assert_eq!(&frame::binary(&[7; 65536])[..10], [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn fragments_with_a_ping_between_them() {
    let mut wire = client(false, Opcode::Text, b"Hel", MASK);
    wire.extend(client(true, Opcode::Ping, b"?", MASK));
    wire.extend(client(true, Opcode::Continuation, b"lo", MASK));
    assert_eq!(
        decode(100, &wire),
        Ok(vec![Message::Ping(b"?".to_vec()), Message::Text("Hello".into())])
    );
}

#[test]
fn what_the_standard_forbids_is_refused() {
    let protocol = |bytes: &[u8]| matches!(decode(1000, bytes), Err(Fault::Protocol(_)));
    assert!(protocol(&[0xC1, 0x80, 0, 0, 0, 0]), "reserved bit");
    assert!(protocol(&[0x83, 0x80, 0, 0, 0, 0]), "reserved opcode");
    assert!(protocol(&[0x81, 0x01, b'x']), "no mask");
    assert!(
        protocol(&client(true, Opcode::Continuation, b"x", MASK)),
        "continuation first"
    );
    assert!(protocol(&client(false, Opcode::Ping, b"", MASK)), "fragmented ping");
    assert!(protocol(&client(true, Opcode::Ping, &[0; 126], MASK)), "long ping");
    assert!(
        protocol(&[0x81, 0xFE, 0, 5, 0, 0, 0, 0]),
        "longer length form than needed"
    );
    assert!(
        protocol(&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        "top bit of the length"
    );
    assert!(protocol(
        &[
            client(false, Opcode::Text, b"a", MASK),
            client(true, Opcode::Text, b"b", MASK)
        ]
        .concat()
    ));
    assert!(protocol(&client(true, Opcode::Close, &[3], MASK)), "half a close code");
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        assert!(
            protocol(&client(true, Opcode::Close, &code.to_be_bytes(), MASK)),
            "{code}"
        );
    }
    assert_eq!(
        decode(100, &client(true, Opcode::Close, b"\x03\xe8\xff", MASK)),
        Err(Fault::Utf8)
    );
    assert_eq!(
        decode(100, &client(true, Opcode::Close, b"", MASK)),
        Ok(vec![Message::Close(None)])
    );
}

#[test]
fn limits_hold_for_an_announcement_and_for_the_sum_of_fragments() {
    // The header alone is enough: nothing is reserved or waited for.
    assert_eq!(
        decode(100, &[0x82, 0xFF, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]),
        Err(Fault::TooBig)
    );
    let parts = [
        client(false, Opcode::Binary, &[0; 60], MASK),
        client(true, Opcode::Continuation, &[0; 41], MASK),
    ];
    assert_eq!(decode(100, &parts.concat()), Err(Fault::TooBig));
    assert_eq!(decode(101, &parts.concat()), Ok(vec![Message::Binary(vec![0; 101])]));
}

#[test]
fn text_is_refused_at_the_first_bad_byte_and_at_a_cut_character() {
    // Bad in the first fragment: refused although the message is not complete.
    assert_eq!(
        decode(100, &client(false, Opcode::Text, b"ok \xC0", MASK)),
        Err(Fault::Utf8)
    );
    // Half a euro sign at the end of a fragment is fine, at the end of a message it is not.
    let halves = [
        client(false, Opcode::Text, b"\xE2\x82", MASK),
        client(true, Opcode::Continuation, b"\xAC", MASK),
    ];
    assert_eq!(decode(100, &halves.concat()), Ok(vec![Message::Text("€".into())]));
    assert_eq!(
        decode(100, &client(true, Opcode::Text, b"\xE2\x82", MASK)),
        Err(Fault::Utf8)
    );
}

#[test]
fn a_close_reason_fits_a_control_frame() {
    let frame = frame::close(3501, &"é".repeat(100));
    assert!(frame.len() <= 2 + frame::MAX_CONTROL);
    assert!(std::str::from_utf8(&frame[4..]).is_ok());
}

proptest! {
    /// Any text, in any fragments, in any pieces of the stream, comes out whole.
    #[test]
    fn any_cut_decodes_to_the_same(
        texts in prop::collection::vec(".{0,300}", 1..4),
        cuts in prop::collection::vec(1_usize..200, 1..8),
        reads in prop::collection::vec(1_usize..50, 1..8),
        mask in any::<[u8; 4]>(),
    ) {
        let mut wire = Vec::new();
        let mut cuts = cuts.iter().copied().cycle();
        for text in &texts {
            let (mut rest, mut opcode) = (text.as_bytes(), Opcode::Text);
            loop {
                let cut = cuts.next().unwrap().min(rest.len());
                let (piece, after) = rest.split_at(cut);
                wire.extend(client(after.is_empty(), opcode, piece, mask));
                if after.is_empty() { break }
                (rest, opcode) = (after, Opcode::Continuation);
            }
        }
        let (mut decoder, mut out, mut rest) = (Decoder::new(1 << 20), Vec::new(), &mut wire[..]);
        let mut reads = reads.iter().copied().cycle();
        while !rest.is_empty() {
            let at = reads.next().unwrap().min(rest.len());
            let (piece, after) = rest.split_at_mut(at);
            decoder.decode(piece, &mut out).unwrap();
            rest = after;
        }
        prop_assert_eq!(out, texts.into_iter().map(Message::Text).collect::<Vec<_>>());
    }

    /// No input panics, and no input makes a message beyond the limit.
    #[test]
    fn noise_is_survived(mut noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut out = Vec::new();
        let _ = Decoder::new(64).decode(&mut noise, &mut out);
        for message in out {
            let len = match message {
                Message::Text(t) => t.len(),
                Message::Binary(b) | Message::Ping(b) | Message::Pong(b) => b.len(),
                Message::Close(_) => 0,
            };
            prop_assert!(len <= 125);
        }
    }
}

/// One echo server for each way of serving that the product may use.
#[tokio::test]
async fn the_raw_stream_is_reached_under_every_listener() {
    use axum::{Router, routing::get};
    use futures_util::{SinkExt, StreamExt};
    use hyper_util::{
        rt::{TokioExecutor, TokioIo},
        server::conn::auto,
        service::TowerToHyperService,
    };
    use tokio::net::{TcpListener, TcpStream};

    let echo = |upgrade: super::Upgrade| async move {
        upgrade.accept(|mut reader| async move {
            let mut messages = Vec::new();
            while reader.next(&mut messages).await.is_ok() {
                for message in messages.drain(..) {
                    if let Message::Text(text) = message {
                        reader.socket().send(&frame::text(&text));
                    }
                }
            }
        })
    };
    let router = Router::new().route("/echo", get(echo));
    for way in ["axum", "auto", "http1"] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router.clone();
        let server = tokio::spawn(async move {
            if way == "axum" {
                axum::serve(listener, router).await.unwrap();
                return;
            }
            let (stream, _) = listener.accept().await.unwrap();
            let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(router));
            if way == "auto" {
                let builder = auto::Builder::new(TokioExecutor::new());
                builder.serve_connection_with_upgrades(io, service).await.unwrap();
            } else {
                let builder = hyper::server::conn::http1::Builder::new();
                builder.serve_connection(io, service).with_upgrades().await.unwrap();
            }
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut ws, _) = tokio_tungstenite::client_async(format!("ws://{address}/echo"), stream)
            .await
            .unwrap();
        let long = "€".repeat(20_000);
        ws.send(long.clone().into()).await.unwrap();
        assert_eq!(ws.next().await.unwrap().unwrap().into_text().unwrap(), long, "{way}");
        ws.close(None).await.unwrap();
        assert!(ws.next().await.unwrap().unwrap().is_close(), "{way}");
        assert!(
            ws.next().await.is_none(),
            "{way}: the server ends the connection after the closing handshake"
        );
        server.abort();
    }
}

#[tokio::test]
async fn a_connection_keeps_nothing_of_its_http_request() {
    use super::{Limits, Reader, Socket};
    use bytes::{Buf, Bytes};
    use std::sync::Arc;
    use tokio::net::{TcpListener, TcpStream};

    struct Buffer(Vec<u8>, #[expect(dead_code, reason = "counts the owners")] Arc<()>);
    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    // As after a request that filled the buffer exactly: no byte is left, but the buffer is.
    let alive = Arc::new(());
    let mut early = Bytes::from_owner(Buffer(vec![b'x'; 16 * 1024], alive.clone()));
    early.advance(16 * 1024);
    let reader = Reader::new(
        Socket::new(super::wire::Wire::Plain(stream), Limits::default()).unwrap(),
        early,
    );
    assert_eq!(Arc::strong_count(&alive), 1);
    drop(reader);
}

/// Long frames to a reader that is slow, so that TLS has part of them and the socket is full; then the goodbye.
#[tokio::test]
async fn the_same_stream_is_reached_under_tls() {
    use super::{Message, Sent};
    use axum::{Router, routing::get};
    use futures_util::{SinkExt, StreamExt};
    use hyper_util::{
        rt::{TokioExecutor, TokioIo},
        server::conn::auto,
        service::TowerToHyperService,
    };
    use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
    use std::{sync::Arc, time::Duration};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    const FRAMES: usize = 40;
    let long = Arc::new("€".repeat(20_000));
    let said = long.clone();
    // Echoes; and to `more` it sends far more than the kernel's buffers take.
    let talk = move |upgrade: super::Upgrade| async move {
        let limits = super::Limits {
            queue: 8 << 20,
            ..super::Limits::default()
        };
        upgrade.limits(limits).accept(move |mut reader| async move {
            let mut messages = Vec::new();
            while reader.next(&mut messages).await.is_ok() {
                for message in messages.drain(..) {
                    match message {
                        Message::Text(text) if text == "more" => {
                            let sent: Vec<Sent> =
                                (0..FRAMES).map(|_| reader.socket().send(&frame::text(&said))).collect();
                            assert!(sent.contains(&Sent::Queued), "the test is to fill the kernel's buffers");
                        }
                        Message::Text(text) => {
                            reader.socket().send(&frame::text(&text));
                        }
                        _ => {}
                    }
                }
            }
        })
    };
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let router = Router::new().route("/talk", get(talk));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let builder = auto::Builder::new(TokioExecutor::new());
            builder
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await
                .unwrap();
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = TlsConnector::from(Arc::new(client))
            .connect(name, stream)
            .await
            .unwrap();
        let (mut ws, _) = tokio_tungstenite::client_async(format!("wss://localhost:{}/talk", address.port()), stream)
            .await
            .unwrap();
        let all = async {
            // Both in one write: the second is in TLS's hands before the first was asked for.
            ws.feed("one".into()).await.unwrap();
            ws.feed((*long).clone().into()).await.unwrap();
            ws.flush().await.unwrap();
            assert_eq!(ws.next().await.unwrap().unwrap().into_text().unwrap(), "one");
            assert_eq!(ws.next().await.unwrap().unwrap().into_text().unwrap().as_str(), *long);
            ws.send("more".into()).await.unwrap();
            for _ in 0..FRAMES {
                assert_eq!(ws.next().await.unwrap().unwrap().into_text().unwrap().as_str(), *long);
            }
            ws.send("again".into()).await.unwrap();
            assert_eq!(ws.next().await.unwrap().unwrap().into_text().unwrap(), "again");
            ws.close(None).await.unwrap();
            assert!(ws.next().await.unwrap().unwrap().is_close());
            // A goodbye of TLS, not a cut: rustls would tell the difference.
            assert!(ws.next().await.is_none());
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        server.await.unwrap();
    }
}
