//! Fluffy: files of users, over gRPC, for the clients of that system. (docs/wires.md, section 2)
//!
//! A file is named by its user and its name there. Both are any text, so both are escaped to be components of a path
//! (`name`): `/users/USER/FILE`.
//!
//! Its clients catch no status. So a refusal is an answer, `ack{false, sentence}`, and they print the sentence; only a download has
//! no such answer. Sentences that the original had are as it had them.
//!
//! | file | what |
//! |---|---|
//! | `name` | users and files as paths |
//! | `transfer` | the pieces of a file, in both directions |
//! | `list` | a list of names, as Python prints it |
//! | `statistics` | how much the machines have to do |

mod list;
mod name;
mod statistics;
mod transfer;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use depot::client::{Error, Files, ListOptions, PutOptions, Source};
use depot::namespace::change::{Condition, Refusal};
use depot::namespace::listing::Kind;
use depot::path::Path;
use tonic::{Request, Response, Status, Streaming};

use crate::facade::Running;
use crate::grpc::{Answers, Calls, Messages, Runtime, status_of};
use crate::monitoring::Record;
use crate::server::Limits;
use list::Printed;
use name::Name;
use proto::fileservice_server::{Fileservice, FileserviceServer};
use proto::hear_beat_server::{HearBeat, HearBeatServer};
use proto::{Ack, ClusterInfo, ClusterStats, Empty, FileData, FileInfo, FileListResponse, MetaData, NodeInfo};
use proto::{Stats, UserInfo};

/// What the .proto files say.
#[allow(missing_docs, clippy::all, reason = "generated")]
mod proto {
    tonic::include_proto!("fileservice");
    tonic::include_proto!("_");
}

/// The .proto files, for reflection.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fluffy.descriptors"));

/// The longest list of names that is sent, as it is printed: a client takes no larger message.
const LONGEST_LIST: usize = 4_000_000;

const EXISTS: &str = "File already exists for this user. Please rename or delete file first.";
const FOUND: &str = "File exists! ";
const NO_MESSAGE: &str = "Nothing was sent, not even a name: an empty file cannot be stored by this client.";
const FOREIGN: &str = "This cluster has its nodes and leaders from its store: nodes of other systems take no part.";

/// Starts to serve `files` on a port. `limits` are for its clients.
pub fn start(
    listener: TcpListener,
    files: Arc<dyn Files>,
    limits: Limits,
    record: Record,
) -> io::Result<Box<dyn Running>> {
    let address = listener.local_addr()?;
    let runtime = Runtime::start(limits, record)?;
    let fluffy = Arc::new(Fluffy { files, calls: runtime.calls() });
    let services = runtime
        .services(DESCRIPTORS)
        .with(FileserviceServer::from_arc(Arc::clone(&fluffy)))
        .with(HearBeatServer::from_arc(fluffy));
    runtime.serve(listener, services)?;
    Ok(Box::new(Server { runtime, address }))
}

/// The façade while it runs.
struct Server {
    runtime: Runtime,
    address: SocketAddr,
}

impl Running for Server {
    fn places(&self) -> String {
        self.address.to_string()
    }

    fn stop(self: Box<Self>, grace: Duration) {
        self.runtime.stop(grace);
    }
}

/// What answers.
struct Fluffy {
    files: Arc<dyn Files>,
    calls: Arc<Calls>,
}

impl Fluffy {
    /// Runs a call that is about one file, and answers with an ack.
    async fn about(
        &self,
        info: FileInfo,
        job: impl FnOnce(&dyn Files, &Name) -> Result<String, String> + Send + 'static,
    ) -> Result<Response<Ack>, Status> {
        let files = Arc::clone(&self.files);
        let done = move || Ok(Name::new(&info.username, &info.filename).and_then(|name| job(&*files, &name)));
        self.calls.run(done).await.map(ack)
    }

    /// Puts what is streamed, if `condition` allows it; `job` says what must hold before a byte is put.
    async fn put(
        &self,
        stream: Streaming<FileData>,
        admit: fn(&dyn Files, &Name) -> Result<Condition, String>,
    ) -> Result<Response<Ack>, Status> {
        let files = Arc::clone(&self.files);
        let job = move |messages: Messages<FileData>| match put(&*files, messages, admit) {
            Ok(message) => Ok(Ok(message)),
            Err(Unput::Refused(why)) => Ok(Err(why)),
            Err(Unput::CutOff(status)) => Err(status),
        };
        self.calls.run_reading(stream, job).await.map(ack)
    }

    async fn statistics(&self) -> Result<ClusterStats, Status> {
        let files = Arc::clone(&self.files);
        let look = move || files.status().map_err(|error| status_of("the cluster's statistics", &error));
        Ok(statistics::of(&self.calls.run(look).await?))
    }
}

/// Why nothing was put.
enum Unput {
    /// The client is to be told.
    Refused(String),
    /// There is none to tell.
    CutOff(Status),
}

fn put(
    files: &dyn Files,
    mut messages: Messages<FileData>,
    admit: fn(&dyn Files, &Name) -> Result<Condition, String>,
) -> Result<String, Unput> {
    let Some(first) = messages.next().map_err(Unput::CutOff)? else { return Err(Unput::Refused(NO_MESSAGE.into())) };
    let name = Name::new(&first.username, &first.filename).map_err(Unput::Refused)?;
    let condition = admit(files, &name).map_err(Unput::Refused)?;
    let mut upload = transfer::upload(first, messages);
    let options = PutOptions { condition, parents: true, ..PutOptions::default() };
    match files.put(&name.path, Source::Once(&mut upload), &options) {
        Ok(_) => Ok(format!("File successfully stored in cluster : {}", name.file)),
        Err(Error::Source(error)) => Err(match upload.cut_off.take() {
            Some(status) => Unput::CutOff(status),
            None => Unput::Refused(format!("{}: {error}", name.file)),
        }),
        Err(Error::Refused(Refusal::AlreadyExists)) => Err(Unput::Refused(EXISTS.into())),
        Err(error) => Err(Unput::Refused(format!("{}: {error}", name.file))),
    }
}

/// A file that is uploaded must not be there.
fn is_absent(files: &dyn Files, name: &Name) -> Result<Condition, String> {
    // Asked before the first piece is read to its end: the client hears of it at once.
    if exists(files, name)? { Err(EXISTS.into()) } else { Ok(Condition::Absent) }
}

/// A file that is updated must be there. Of two updates at a time the one that ends later stays.
fn is_present(files: &dyn Files, name: &Name) -> Result<Condition, String> {
    if exists(files, name)? { Ok(Condition::Any) } else { Err(missing(name)) }
}

fn exists(files: &dyn Files, name: &Name) -> Result<bool, String> {
    match files.stat(&name.path) {
        Ok(stat) => Ok(matches!(stat.kind, Kind::File { .. })),
        Err(Error::Refused(Refusal::NotFound)) => Ok(false),
        Err(error) => Err(format!("{}: {error}", name.file)),
    }
}

fn missing(name: &Name) -> String {
    format!("File {} does not exist.", name.file)
}

fn ack(done: Result<String, String>) -> Response<Ack> {
    let success = done.is_ok();
    let message = done.unwrap_or_else(|why| why);
    Response::new(Ack { success, message })
}

/// The names of a user's files, printed.
fn names(files: &dyn Files, folder: &Path) -> Result<String, Status> {
    let failed = |error| status_of("the list", &error);
    let mut names = Printed::default();
    let mut options = ListOptions::default();
    loop {
        let page = match files.list(folder, &options) {
            Ok(page) => page,
            Err(Error::Refused(Refusal::NotFound | Refusal::NotADirectory)) => return Ok(names.text()),
            Err(error) => return Err(failed(error)),
        };
        let of_page = page.entries.iter().filter(|entry| matches!(entry.stat.kind, Kind::File { .. }));
        of_page.filter_map(|entry| name::unescaped(&entry.name)).for_each(|name| names.push(&name));
        if names.len() > LONGEST_LIST {
            return Err(Status::resource_exhausted("the list is longer than a message may be"));
        }
        match page.after {
            Some(after) => options.after = after,
            None => return Ok(names.text()),
        }
    }
}

#[tonic::async_trait]
impl Fileservice for Fluffy {
    async fn upload_file(self: Arc<Self>, request: Request<Streaming<FileData>>) -> Result<Response<Ack>, Status> {
        self.put(request.into_inner(), is_absent).await
    }

    type DownloadFileStream = Answers<FileData>;

    async fn download_file(self: Arc<Self>, request: Request<FileInfo>) -> Result<Response<Answers<FileData>>, Status> {
        let info = request.into_inner();
        let name = Name::new(&info.username, &info.filename).map_err(Status::invalid_argument)?;
        let files = Arc::clone(&self.files);
        let answers = self.calls.run_writing(move |to| transfer::send(&info, &*files, &name.path, to)).await?;
        Ok(Response::new(answers))
    }

    async fn file_search(self: Arc<Self>, request: Request<FileInfo>) -> Result<Response<Ack>, Status> {
        let search = |files: &dyn Files, name: &Name| {
            if exists(files, name)? { Ok(FOUND.to_owned()) } else { Err(missing(name)) }
        };
        self.about(request.into_inner(), search).await
    }

    async fn replicate_file(self: Arc<Self>, request: Request<Streaming<FileData>>) -> Result<Response<Ack>, Status> {
        self.upload_file(request).await
    }

    async fn file_list(self: Arc<Self>, request: Request<UserInfo>) -> Result<Response<FileListResponse>, Status> {
        let user = request.into_inner().username;
        let folder = name::folder(&user).map_err(Status::invalid_argument)?;
        let files = Arc::clone(&self.files);
        let filenames = self.calls.run(move || names(&*files, &folder)).await?;
        Ok(Response::new(FileListResponse { filenames }))
    }

    async fn file_delete(self: Arc<Self>, request: Request<FileInfo>) -> Result<Response<Ack>, Status> {
        let delete = |files: &dyn Files, name: &Name| match files.remove(&name.path, Condition::Any) {
            Ok(_) => Ok(format!("File successfully deleted from cluster : {}", name.file)),
            Err(Error::Refused(Refusal::NotFound)) => Err(missing(name)),
            Err(error) => Err(format!("{}: {error}", name.file)),
        };
        self.about(request.into_inner(), delete).await
    }

    async fn update_file(self: Arc<Self>, request: Request<Streaming<FileData>>) -> Result<Response<Ack>, Status> {
        self.put(request.into_inner(), is_present).await
    }

    async fn get_cluster_stats(self: Arc<Self>, _: Request<Empty>) -> Result<Response<ClusterStats>, Status> {
        self.statistics().await.map(Response::new)
    }

    async fn get_leader_info(self: Arc<Self>, _: Request<ClusterInfo>) -> Result<Response<Ack>, Status> {
        Ok(ack(Err(FOREIGN.into())))
    }

    async fn meta_data_info(self: Arc<Self>, _: Request<MetaData>) -> Result<Response<Ack>, Status> {
        Ok(ack(Err(FOREIGN.into())))
    }
}

#[tonic::async_trait]
impl HearBeat for Fluffy {
    async fn is_alive(self: Arc<Self>, _: Request<NodeInfo>) -> Result<Response<Stats>, Status> {
        let ClusterStats { cpu_usage, disk_space, used_mem } = self.statistics().await?;
        Ok(Response::new(Stats { cpu_usage, disk_space, used_mem }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::client::memory::Memory;

    #[test]
    fn a_list_is_as_long_as_it_is_printed() {
        let store = Memory::new("test").unwrap();
        let put = |number: usize| {
            // Each of these characters is printed as four.
            let file = format!("{number:03}{}", "\u{1}".repeat(1_000));
            let name = Name::new("alice", &file).unwrap();
            let options = PutOptions { parents: true, ..PutOptions::default() };
            store.put(&name.path, Source::Once(&mut io::empty()), &options).unwrap();
        };
        let listed = || names(&store, &name::folder("alice").unwrap());
        (0..998).for_each(put);
        let list = listed().unwrap();
        assert!(list.len() < LONGEST_LIST && list.starts_with(r"['000\x01\x01"), "{} bytes", list.len());
        (998..1_001).for_each(put);
        assert_eq!(listed().unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
