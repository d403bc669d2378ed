//! How many publishes a CPU-second of the server buys, through each face. Run it with
//! `cargo test --release -p starling-server --lib api::tests::speed -- --ignored --nocapture`.
//!
//! The server has threads of its own, whose CPU time the kernel counts; the client's does not matter. Nobody subscribes, and
//! the broker answers at once: what is measured is the way from the socket to the broker and back.

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use starling_proto::api::PublishRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime,
};

use super::fakes::{FakeNode, serve_grpc, serve_http};
use crate::config::{GrpcApi, HttpApi, Secret};

const IN_FLIGHT: usize = 64;
const CALLS: usize = 200_000;
const SERVER_THREADS: &str = "speed-server";

#[test]
#[ignore = "a measurement, not a check"]
fn publishes_per_cpu_second() {
    for workers in [0, 2] {
        for connections in [4, IN_FLIGHT] {
            report("HTTP", workers, connections);
            report("gRPC", workers, connections);
        }
    }
}

/// Serves from `workers` threads, or for 0 from one thread with a current-thread runtime.
fn report(face: &str, workers: usize, connections: usize) {
    let server = match workers {
        0 => runtime::Builder::new_current_thread().enable_all().build(),
        _ => runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name(SERVER_THREADS)
            .enable_all()
            .build(),
    }
    .expect("a runtime starts");
    let node = Arc::new(FakeNode::deaf());
    let http = HttpApi { key: Some(Secret::new("a-key-of-usual-length")), ..HttpApi::default() };
    let grpc = GrpcApi { key: Some(Secret::new("a-key-of-usual-length")), ..GrpcApi::default() };
    let address = server.block_on(async {
        match face {
            "HTTP" => serve_http(&node, &http).await,
            _ => serve_grpc(&node, &grpc).await,
        }
    });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::Builder::new()
        .name(SERVER_THREADS.to_owned())
        .spawn(move || server.block_on(async { drop(stopped.await) }))
        .expect("a thread starts");

    let client = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let (taken, cpu) = client.block_on(async {
        let load = async |calls| match face {
            "HTTP" => load_http(address, connections, calls).await,
            _ => load_grpc(address, connections, calls).await,
        };
        load(CALLS / 10).await;
        let (begun, before) = (Instant::now(), server_cpu());
        load(CALLS).await;
        (begun.elapsed(), server_cpu() - before)
    });
    println!(
        "{face:5} {connections:3} connections, {} server: {:7.0} per CPU-second, {:4.1} us each, {:7.0} per second",
        if workers == 0 { "1-thread" } else { "2-worker" },
        CALLS as f64 / cpu.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / CALLS as f64,
        CALLS as f64 / taken.as_secs_f64(),
    );
    drop(stop);
    serving.join().expect("the server ends");
}

async fn load_http(address: SocketAddr, connections: usize, calls: usize) {
    let body =
        r#"{"channel":"front-page","data":{"text":"a message of about a hundred bytes, as they are often sent"}}"#;
    let request = format!(
        "POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: speed\r\nX-API-Key: a-key-of-usual-length\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let depth = IN_FLIGHT / connections;
    let batch = request.repeat(depth).into_bytes();
    let each = calls / connections / depth;
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (request, batch) = (request.clone(), batch.clone());
            tokio::spawn(async move {
                let mut socket = TcpStream::connect(address).await.expect("the server accepts");
                socket.set_nodelay(true).expect("a fresh socket takes options");
                let mut buffer = vec![0; 64 * 1024];
                // All answers have the length of the first.
                socket.write_all(request.as_bytes()).await.expect("the server reads");
                let length = socket.read(&mut buffer).await.expect("the server answers");
                assert!(buffer[..length].ends_with(b"{\"result\":{}}"), "not in one piece");
                for _ in 0..each {
                    socket.write_all(&batch).await.expect("the server reads");
                    let mut missing = depth * length;
                    while missing > 0 {
                        let read = socket.read(&mut buffer).await.expect("the server answers");
                        assert_ne!(read, 0, "the server hung up");
                        missing -= read;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the load runs");
    }
}

async fn load_grpc(address: SocketAddr, connections: usize, calls: usize) {
    let data = Bytes::from_static(br#"{"text":"a message of about a hundred bytes, as they are often sent"}"#);
    let message = PublishRequest { channel: "front-page".to_owned(), data, ..Default::default() }.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a short message");
    let frame = Bytes::from([&[0], &length.to_be_bytes()[..], &message].concat());
    let depth = IN_FLIGHT / connections;
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let socket = TcpStream::connect(address).await.expect("the server accepts");
        socket.set_nodelay(true).expect("a fresh socket takes options");
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .expect("the server speaks HTTP/2");
        tokio::spawn(connection);
        for _ in 0..depth {
            let (mut sender, frame) = (sender.clone(), frame.clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..calls / IN_FLIGHT {
                    let request = Request::post("http://127.0.0.1/centrifugal.centrifugo.api.CentrifugoApi/Publish")
                        .header("content-type", "application/grpc")
                        .header("te", "trailers")
                        .header("user-agent", "speed")
                        .header("authorization", "apikey a-key-of-usual-length")
                        .body(Full::new(frame.clone()))
                        .expect("a well-formed request");
                    let response = sender.send_request(request).await.expect("the server answers");
                    let answer = response.into_body().collect().await.expect("the answer arrives");
                    assert_eq!(answer.to_bytes(), &b"\0\0\0\0\x02\x12\0"[..]);
                }
            }));
        }
    }
    for task in tasks {
        task.await.expect("the load runs");
    }
}

/// CPU time of all server threads so far, in user mode and in the kernel.
fn server_cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("the kernel lists threads");
    let of_server = tasks
        .flatten()
        .map(|task| task.path())
        .filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == SERVER_THREADS));
    let nanos = of_server.filter_map(|task| {
        let times = fs::read_to_string(task.join("schedstat")).ok()?;
        times.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
