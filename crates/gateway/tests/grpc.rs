//! Clients of gRPC that are slow, silent, hostile, or gone; by way of Fluffy and Tracker.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use depot::client::memory::Memory;
use depot::client::{Files, PutOptions, Source};
use gateway::facade::Running;
use gateway::monitoring::Record;
use gateway::server::Limits;
use gateway::{fluffy, tracker};
use kit::bytes;
use tokio_stream::{Stream, StreamExt, iter, pending};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longer than anything takes that does not wait for ever.
const SOON: Duration = Duration::from_secs(30);

/// What is waited for where a limit is under test.
const SHORT: Duration = Duration::from_millis(300);

#[derive(Clone, PartialEq, prost::Message)]
struct FileData {
    #[prost(string, tag = "1")]
    username: String,
    #[prost(string, tag = "2")]
    filename: String,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ack {
    #[prost(bool, tag = "1")]
    success: bool,
    #[prost(string, tag = "2")]
    message: String,
}

fn piece(file: &str, data: &[u8]) -> FileData {
    FileData { username: "alice".into(), filename: file.into(), data: data.to_vec() }
}

/// A Fluffy over a store in memory.
struct Served {
    store: Arc<dyn Files>,
    facade: Box<dyn Running>,
    address: SocketAddr,
    runtime: tokio::runtime::Runtime,
}

impl Served {
    fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        let store: Arc<dyn Files> = Arc::new(Memory::new("test").unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let facade = fluffy::start(listener, Arc::clone(&store), limits, Record::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { store, facade, address, runtime }
    }

    fn wait<T>(&self, job: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(SOON, job).await.expect("it comes to an end") })
    }

    async fn client(&self) -> Result<Grpc<Channel>, Status> {
        let failed = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).map_err(failed)?;
        let mut client = Grpc::new(endpoint.connect().await.map_err(failed)?);
        client.ready().await.map_err(failed)?;
        Ok(client)
    }

    async fn upload(&self, pieces: impl Stream<Item = FileData> + Send + 'static) -> Result<Ack, Status> {
        let (path, codec) = (PathAndQuery::from_static("/fileservice.Fileservice/UploadFile"), ProstCodec::default());
        let answer = self.client().await?.client_streaming(Request::new(pieces), path, codec).await;
        answer.map(tonic::Response::into_inner)
    }

    fn has(&self, file: &str) -> bool {
        self.store.stat(&format!("/users/alice/{file}").parse().unwrap()).is_ok()
    }

    /// That it still does what it is for. A client on a slow machine may be too slow for a limit that is under test, and tries again.
    #[track_caller]
    fn works(&self, file: &str) {
        kit::eventually("it stores a file", || {
            let _ = self.wait(self.upload(iter([piece(file, b"content")])));
            self.has(file)
        });
    }
}

/// Connects, and says this.
fn dial(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let _ = stream.write_all(bytes); // it may end meanwhile
    stream
}

/// Waits until the connection ends.
#[track_caller]
fn ends(stream: &mut TcpStream) {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("it does not end: {error}"),
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A call on stream 1, whose body is still to come: headers without compression.
fn call(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let field = |(name, value): (&str, &str)| {
        [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    let headers: Vec<u8> = fields.into_iter().flat_map(field).collect();
    [PREFACE.to_vec(), frame(4, 0, 0, &[]), frame(1, 4, 1, &headers)].concat()
}

/// Waits until stream 1 has ended: by headers that end it, or by a reset.
#[track_caller]
fn call_ends(stream: &mut TcpStream) {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).expect("its payload");
        let (kind, flags, of) = (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        if of == 1 && (kind == 3 || kind == 1 && flags & 1 == 1) {
            return;
        }
    }
}

#[test]
fn what_is_no_http2_is_closed_at_once() {
    let served = Served::with(|_| ());
    for said in [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), bytes(1, 100_000), vec![0; 24]] {
        ends(&mut dial(served.address, &said));
    }
    // A preface, and then frames that are none.
    ends(&mut dial(served.address, &[PREFACE, &bytes(2, 100_000)].concat()));
    served.works("a");
}

#[test]
fn a_connection_that_does_not_come_to_speak_is_closed() {
    let served = Served::with(|limits| limits.head = SHORT);
    for said in [0, 1, PREFACE.len() - 1] {
        ends(&mut dial(served.address, &PREFACE[..said]));
    }
    served.works("a");
}

#[test]
fn connections_beyond_the_limit_are_closed_until_others_end() {
    let served = Served::with(|limits| limits.connections = 2);
    let begun = [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
    let mut both = [0, 1].map(|_| dial(served.address, &begun));
    // Each is served: it gets the server's settings.
    both.iter_mut().for_each(|stream| stream.read_exact(&mut [0; 9]).unwrap());
    ends(&mut dial(served.address, &begun));
    drop(both);
    let is_served = || dial(served.address, &begun).read_exact(&mut [0; 9]).is_ok();
    kit::eventually("there is room again", is_served);
}

#[test]
fn an_upload_that_stalls_is_ended_and_leaves_nothing() {
    let served = Served::with(|limits| limits.stall = SHORT);
    let stalls = [0, 1, 3].map(|count| iter(vec![piece("a", b"content"); count]).chain(pending()));
    for stalls in stalls {
        let refused = served.wait(served.upload(stalls)).unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
    }
    assert!(!served.has("a"));
    served.works("a");
}

#[test]
fn a_download_that_is_not_taken_is_cut_off_and_looks_so() {
    let served = Served::with(|limits| limits.stall = SHORT);
    let content = bytes(1, 30_000_000);
    let options = PutOptions { parents: true, ..PutOptions::default() };
    served.store.put(&"/users/alice/a".parse().unwrap(), Source::Once(&mut &*content), &options).unwrap();
    let (taken, ended) = served.wait(async {
        let path = PathAndQuery::from_static("/fileservice.Fileservice/DownloadFile");
        let answer = loop {
            // A client on a slow machine may ask too slowly.
            let Ok(mut client) = served.client().await else { continue };
            let asked = Request::new(piece("a", b""));
            let answer = client.server_streaming(asked, path.clone(), ProstCodec::<_, FileData>::default()).await;
            if let Ok(answer) = answer {
                break answer;
            }
        };
        // Time is under test: nothing is taken for longer than is waited for.
        tokio::time::sleep(4 * SHORT).await;
        let (mut pieces, mut taken) = (answer.into_inner(), 0);
        loop {
            match pieces.message().await {
                Ok(Some(piece)) => taken += piece.data.len(),
                ended => return (taken, ended),
            }
        }
    });
    let ended = ended.map(drop);
    assert!(taken < content.len() && ended.is_err(), "a part is not taken for the whole: {taken} bytes, {ended:?}");
    served.works("b");
}

/// A client that answers pings could hold what waits for it for as long as it likes.
#[test]
fn an_answer_that_is_granted_no_window_is_given_up() {
    let served = Served::with(|limits| limits.stall = SHORT);
    let content = bytes(1, 3_000_000);
    let options = PutOptions { parents: true, ..PutOptions::default() };
    served.store.put(&"/users/alice/a".parse().unwrap(), Source::Once(&mut &*content), &options).unwrap();
    let message = prost::Message::encode_to_vec(&piece("a", b""));
    let data = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
    for window in [0_u32, 1, 100_000] {
        // Settings with another initial window, before the call's own, which leave it as it is.
        let of_window = frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
        let call = call("/fileservice.Fileservice/DownloadFile");
        let (preface, rest) = call.split_at(PREFACE.len());
        let said = [preface, &of_window, rest, &frame(0, 1, 1, &data)].concat();
        let begun = Instant::now();
        ends(&mut dial(served.address, &said));
        // A ping that is not answered would end it, too, after 50 s.
        assert!(begun.elapsed() < SOON, "with a window of {window}");
    }
    served.works("b");
}

#[test]
fn a_connection_carries_fewer_calls_than_there_are_threads() {
    let served = Served::with(|_| ());
    let mut stream = dial(served.address, &[PREFACE.to_vec(), frame(4, 0, 0, &[])].concat());
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).unwrap();
    let most = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).expect("a limit is said");
    assert_eq!((head[3], u32::from_be_bytes(most[2..].try_into().unwrap())), (4, 32));
}

#[test]
fn a_message_without_measure_is_refused_before_it_is_read() {
    let served = Served::with(|_| ());
    let mut stream = dial(served.address, &call("/fileservice.Fileservice/UploadFile"));
    stream.write_all(&frame(0, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3])).unwrap();
    call_ends(&mut stream);
    served.works("a");
}

#[test]
fn an_upload_to_a_keeper_that_ends_too_early_is_not_put() {
    let store: Arc<dyn Files> = Arc::new(Memory::new("test").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let options = tracker::Options { keepers: 0, notify: 0, ..tracker::Options::default() };
    let tracker = tracker::start(listener, Arc::clone(&store), options, Record::default()).unwrap();
    let upload = call("/services.Services/clientToDataKeeperUpload");
    // A file "a" of three bytes, and its port: 12 bytes.
    let message = [0, 0, 0, 0, 12, 0x0a, 1, b'a', 0x12, 3, b'x', b'y', b'z', 0x1a, 2, b'8', b'0'];
    for cut in 0..message.len() {
        let mut stream = dial(address, &upload);
        stream.write_all(&frame(0, 1, 1, &message[..cut])).unwrap();
        call_ends(&mut stream);
        assert!(store.stat(&"/a".parse().unwrap()).is_err(), "it is put after {cut} bytes");
    }
    // Whole, but cancelled in place of ended; then with a second message; then as it should be.
    let mut stream = dial(address, &upload);
    stream.write_all(&[frame(0, 0, 1, &message), frame(3, 0, 1, &8_u32.to_be_bytes())].concat()).unwrap();
    drop(stream);
    let mut stream = dial(address, &upload);
    stream.write_all(&frame(0, 1, 1, &[message, message].concat())).unwrap();
    call_ends(&mut stream);
    assert!(store.stat(&"/a".parse().unwrap()).is_err());
    let mut stream = dial(address, &upload);
    stream.write_all(&frame(0, 1, 1, &message)).unwrap();
    call_ends(&mut stream);
    assert!(store.stat(&"/a".parse().unwrap()).is_ok());
    tracker.stop(Duration::ZERO);
}

#[test]
fn a_facade_that_ends_lets_calls_end_and_then_cuts_them_off() {
    let served = Served::with(|_| ());
    let (more, rest) = tokio::sync::mpsc::channel(1);
    let pieces = iter([piece("a", b"1")]).chain(tokio_stream::wrappers::ReceiverStream::new(rest));
    let Served { store, facade, address, runtime } = served;
    let client = async move {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let mut client = Grpc::new(channel);
        client.ready().await.unwrap();
        // What is answered has a connection that the server has taken.
        let (path, codec) = (PathAndQuery::from_static("/fileservice.Fileservice/FileSearch"), ProstCodec::default());
        let found: Result<tonic::Response<Ack>, Status> =
            client.unary(Request::new(piece("a", b"")), path, codec).await;
        assert!(!found.unwrap().into_inner().success);
        client.ready().await.unwrap();
        let (path, codec) = (PathAndQuery::from_static("/fileservice.Fileservice/UploadFile"), ProstCodec::default());
        let done: Result<tonic::Response<Ack>, Status> =
            client.client_streaming(Request::new(pieces), path, codec).await;
        done
    };
    let call = runtime.spawn(client);
    // It is under way once there is room for a third piece.
    runtime.block_on(async { more.send(piece("a", b"2")).await.and(more.send(piece("a", b"3")).await) }).unwrap();
    let stopping = std::thread::spawn(move || facade.stop(SOON));
    kit::eventually("no more connections are taken", || TcpStream::connect(address).is_err());
    drop(more);
    let done = runtime.block_on(call).unwrap().unwrap();
    assert!(done.into_inner().success, "it was given the time to end");
    stopping.join().unwrap();
    assert!(store.stat(&"/users/alice/a".parse().unwrap()).is_ok());

    let served = Served::with(|_| ());
    let mut stream = dial(served.address, &call_of_an_upload());
    stream.read_exact(&mut [0; 9]).unwrap(); // the server's settings
    served.facade.stop(Duration::ZERO);
    ends(&mut stream);
    assert!(served.store.stat(&"/users/alice/b".parse().unwrap()).is_err());
}

/// An upload that never ends, with its first piece.
fn call_of_an_upload() -> Vec<u8> {
    let message = prost::Message::encode_to_vec(&piece("b", b"1"));
    let data = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
    [call("/fileservice.Fileservice/UploadFile"), frame(0, 0, 1, &data)].concat()
}
