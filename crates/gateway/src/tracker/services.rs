//! The original's methods, but for the two that carry a file.

use std::collections::BTreeSet;
use std::sync::Arc;

use depot::client::Error;
use depot::identity::DstoreId;
use depot::namespace::change::{Condition, Refusal};
use tokio_stream::Empty;
use tonic::{Request, Response, Status, Streaming};

use super::proto::services_server::Services;
use super::proto::{
    Address, DownloadRequest, DownloadResponse, FileRequest, FileResponse, HeartbeatRequest, Holder, Nothing,
    NotifyRequest, RegisterRequest, RegisterResponse, ReplicaFileRequest, ReplicaRequest, ReplicaResponse,
    UploadRequest, UploadResponse,
};
use super::{Node, Tracker, dialled, ends, failed, path_of};

/// The original's sentences.
const NO_UPLOAD: &str = "no available nodes or ports to upload to";
const NO_DOWNLOAD: &str = "no available nodes or ports to download from";

fn foreign<T>() -> Result<T, Status> {
    Err(Status::failed_precondition("the keepers are those of this store: nodes of other systems take no part"))
}

/// What `unary` answers before it comes here.
fn answered_before<T>() -> Result<T, Status> {
    Err(Status::internal("this method is answered elsewhere"))
}

/// A file, as a client is to download it.
struct Found {
    size: u64,
    version: String,
    /// The Dstores that have a part of it; `None` for a file without bytes, which any of them can give.
    holders: Option<BTreeSet<DstoreId>>,
}

impl Tracker {
    fn find(&self, name: &str) -> Result<Found, Status> {
        let content = match self.files.get(&path_of(name)?, Condition::Any) {
            Err(Error::Refused(Refusal::NotFound | Refusal::IsADirectory)) => return Err(Status::unknown(NO_DOWNLOAD)),
            content => content.map_err(|error| failed(name, &error))?,
        };
        let size = content.size();
        Ok(Found { size, version: content.stat().version.to_string(), holders: (size > 0).then(|| content.holders()) })
    }
}

#[tonic::async_trait]
impl Services for Node {
    async fn client_to_master_upload(self: Arc<Self>, request: Request<Nothing>) -> Result<Response<Address>, Status> {
        let (here, client) = ends(request.extensions())?;
        let keeper = self.tracker.keepers.next_for_upload().ok_or_else(|| Status::unknown(NO_UPLOAD))?;
        self.tracker.step(format_args!("{client} may upload a file to keeper {}", keeper.dstore));
        Ok(Response::new(Address { ip_address: dialled(here), port: keeper.address.port().to_string() }))
    }

    async fn download_file(
        self: Arc<Self>,
        request: Request<DownloadRequest>,
    ) -> Result<Response<DownloadResponse>, Status> {
        let (here, client) = ends(request.extensions())?;
        let name = request.into_inner().file_name;
        let (tracker, asked) = (Arc::clone(&self.tracker), name.clone());
        let found = self.tracker.calls.run(move || tracker.find(&asked)).await?;
        let mut keepers = self.tracker.keepers.all();
        let has_it = |dstore: &DstoreId| found.holders.as_ref().is_none_or(|holders| holders.contains(dstore));
        keepers.retain(|keeper| keeper.is_alive && has_it(&keeper.dstore));
        self.tracker.keepers.rotate(&mut keepers);
        let holders: Vec<Holder> = keepers
            .iter()
            .map(|keeper| Holder {
                node_id: keeper.dstore.to_string(),
                ip_address: dialled(here),
                port: keeper.address.port().to_string(),
            })
            .collect();
        let Holder { ip_address, port, node_id } =
            holders.first().cloned().ok_or_else(|| Status::unknown(NO_DOWNLOAD))?;
        self.tracker.step(format_args!("{client} may download {name:?} from keeper {node_id}"));
        Ok(Response::new(DownloadResponse { ip_address, port, holders, size: found.size, version: found.version }))
    }

    async fn client_to_data_keeper_upload(
        self: Arc<Self>,
        _: Request<UploadRequest>,
    ) -> Result<Response<UploadResponse>, Status> {
        answered_before()
    }

    async fn client_to_data_keeper_download(
        self: Arc<Self>,
        _: Request<FileRequest>,
    ) -> Result<Response<FileResponse>, Status> {
        answered_before()
    }

    async fn register(self: Arc<Self>, _: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        foreign()
    }

    type TrackHeartbeatStream = Empty<Result<Nothing, Status>>;

    async fn track_heartbeat(
        self: Arc<Self>,
        _: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::TrackHeartbeatStream>, Status> {
        foreign()
    }

    async fn data_node_notify_master(self: Arc<Self>, _: Request<NotifyRequest>) -> Result<Response<Nothing>, Status> {
        foreign()
    }

    async fn master_to_client_success_notify(
        self: Arc<Self>,
        _: Request<Nothing>,
    ) -> Result<Response<Nothing>, Status> {
        foreign()
    }

    async fn master_to_data_keeper_replica(
        self: Arc<Self>,
        _: Request<ReplicaRequest>,
    ) -> Result<Response<ReplicaResponse>, Status> {
        foreign()
    }

    async fn node_to_node_replica(
        self: Arc<Self>,
        _: Request<ReplicaFileRequest>,
    ) -> Result<Response<FileResponse>, Status> {
        foreign()
    }
}
