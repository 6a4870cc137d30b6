//! The command's side of the admin service.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::http;
use holdfast_proto::admin::admin_client::AdminClient as Rpc;
use holdfast_proto::admin::{
    AcceptDataLossRequest, AccessRequest as AccessMessage, AddDeviceRequest, AdoptRequest, ApiTokensRequest,
    AuditLogRequest, CertificateRequest, ChangeRequest, CheckRequest, ClearReservationsRequest,
    CloseSessionRequest, CreateApiTokenReply, CreateApiTokenRequest, CreateExtentRequest,
    CreateTargetRequest, DeviceProgress, DevicesRequest, Done, EventsRequest, HealRequest, IdentifyRequest,
    Identity, InitializeRequest, InjectRequest, JoinRequest, MapLunRequest, ReaddressRequest,
    RemoveDeviceRequest, ScrubExtentRequest, SetConfirmedReadsRequest, SetWriteCacheRequest, SettingsRequest,
    StatusRequest, SwitchoverRequest, TakeoverRequest, TokenReply, TokenRequest, change_request::Change,
};
use holdfast_proto::admin::{ImportPart, ImportProgress};
use holdfast_raft::model::{AuditEntry, ClusterKey};
use holdfast_trust::{ClientStream, Credentials, HandshakeError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tower_service::Service as _;

use super::access::AccessRequest;
use super::{AdminAddress, ApiTokenStatus, DeviceStatus, TakeoverPlan};
use crate::check::CheckDocument;
use crate::events::EventsDocument;
use crate::socket::Reach;
use crate::status::StatusDocument;

/// A connection to one node's admin service.
pub(crate) struct AdminClient {
    rpc: Rpc<InterceptedService<Channel, Bearer>>,
    /// For what is served beside the service.
    channel: InterceptedService<Channel, Bearer>,
    address: AdminAddress,
    /// Kept for when it dials again.
    _reach: Option<Reach>,
}

/// The certificate that `--certificate` names.
static CREDENTIALS: OnceLock<Credentials> = OnceLock::new();
/// What `--api-token` names, as the head that shows it.
static API_TOKEN: OnceLock<AsciiMetadataValue> = OnceLock::new();
/// Longest page that is read.
const PAGE_MAX: usize = 64 << 20;
/// Longest wait for a connection, and then for its handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// From now on admin ports are dialled with this certificate, and over TLS.
pub(crate) fn use_certificate(credentials: Credentials) {
    // Set once, when the command line is read.
    let _ = CREDENTIALS.set(credentials);
}

/// From now on every request shows this API token.
///
/// # Errors
/// No token looks like that.
pub(crate) fn use_api_token(token: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
        "an API token is one word"
    );
    let mut value: AsciiMetadataValue = format!("Bearer {token}").parse()?;
    value.set_sensitive(true);
    // Set once, when the command line is read.
    let _ = API_TOKEN.set(value);
    Ok(())
}

/// Shows the API token, where there is one.
#[derive(Debug, Clone, Copy)]
struct Bearer;

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = API_TOKEN.get() {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

async fn dial(credentials: &Credentials, address: SocketAddr) -> Result<ClientStream, HandshakeError> {
    let stream = holdfast_trust::reach(address, CONNECT_WITHIN).await?;
    tokio::time::timeout(CONNECT_WITHIN, credentials.connect(stream))
        .await
        .map_err(|_| HandshakeError::Io(std::io::ErrorKind::TimedOut.into()))?
}

/// An answered refusal, as one line.
fn refused(status: tonic::Status) -> anyhow::Error {
    anyhow!("{}", status.message())
}

impl AdminClient {
    /// Dials, as `--certificate` says; waits two seconds at most.
    pub(crate) async fn connect(address: &AdminAddress) -> anyhow::Result<Self> {
        Self::connect_as(address, CREDENTIALS.get().cloned()).await
    }

    /// The same with an administrator's certificate, where there is one; a Unix socket needs none.
    pub(crate) async fn connect_as(
        address: &AdminAddress,
        credentials: Option<Credentials>,
    ) -> anyhow::Result<Self> {
        let (uri, reach) = match address {
            AdminAddress::Tcp(address) => (format!("http://{address}"), None),
            AdminAddress::Unix(path) => {
                let reach = std::path::absolute(path)
                    .and_then(|path| Reach::new(&path))
                    .with_context(|| format!("no node answers on {address}"))?;
                (format!("unix://{}", reach.path().display()), Some(reach))
            }
        };
        let endpoint = Endpoint::from_shared(uri)
            .with_context(|| format!("cannot use {address} as an admin address"))?
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(30))
            .tcp_nodelay(true);
        let lost = || format!("no node answers on {address}; is it running, and is --admin its address?");
        let channel = match (address, credentials) {
            (AdminAddress::Tcp(place), Some(credentials)) => {
                let place = *place;
                // Once at first, so that what is wrong is said.
                drop(dial(&credentials, place).await.with_context(lost)?);
                holdfast_trust::channel(&endpoint, move || {
                    let credentials = credentials.clone();
                    async move { dial(&credentials, place).await }
                })
            }
            _ => endpoint.connect().await.with_context(lost)?,
        };
        let channel = InterceptedService::new(channel, Bearer);
        Ok(Self {
            rpc: Rpc::new(channel.clone()),
            channel,
            address: address.clone(),
            _reach: reach,
        })
    }

    /// What is served at `path` beside the service, such as the metrics.
    pub(crate) async fn page(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        let request = http::Request::get(path).body(Body::empty())?;
        futures::future::poll_fn(|cx| self.channel.poll_ready(cx)).await?;
        let answer = self.channel.call(request).await?;
        anyhow::ensure!(answer.status().is_success(), "{path}: {}", answer.status());
        let bytes = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), PAGE_MAX).await?;
        Ok(bytes.into())
    }

    /// The cluster as the node knows it.
    pub(crate) async fn status(&mut self) -> anyhow::Result<StatusDocument> {
        let reply = self
            .rpc
            .status(StatusRequest {})
            .await
            .map_err(refused)?
            .into_inner();
        serde_json::from_str(&reply.json).with_context(|| {
            format!(
                "{} answers a status that this release does not understand",
                self.address
            )
        })
    }

    /// What the node has recorded: the newest `last` events, with `all` its other lines, too.
    pub(crate) async fn events(&mut self, last: u32, all: bool) -> anyhow::Result<EventsDocument> {
        let request = EventsRequest { last, all };
        let reply = self.rpc.events(request).await.map_err(refused)?.into_inner();
        Ok(serde_json::from_str(&reply.json)?)
    }

    /// What a look at the whole cluster has found.
    pub(crate) async fn check(&mut self) -> anyhow::Result<CheckDocument> {
        let reply = self
            .rpc
            .check(CheckRequest {})
            .await
            .map_err(refused)?
            .into_inner();
        Ok(serde_json::from_str(&reply.json)?)
    }

    /// Who the node is.
    pub(crate) async fn identify(&mut self) -> anyhow::Result<Identity> {
        Ok(self
            .rpc
            .identify(IdentifyRequest {})
            .await
            .map_err(refused)?
            .into_inner())
    }

    /// Tells the node its cluster and id.
    pub(crate) async fn adopt(
        &mut self,
        cluster_id: &str,
        node_id: u64,
        key: &ClusterKey,
    ) -> anyhow::Result<Identity> {
        let request = AdoptRequest {
            cluster_id: cluster_id.to_owned(),
            node_id,
            cluster_key: key.to_text().to_string(),
        };
        Ok(self.rpc.adopt(request).await.map_err(refused)?.into_inner())
    }

    /// Makes the adopted nodes one cluster.
    pub(crate) async fn initialize(&mut self, request: InitializeRequest) -> anyhow::Result<Done> {
        Ok(self.rpc.initialize(request).await.map_err(refused)?.into_inner())
    }

    /// Creates an extent.
    pub(crate) async fn create_extent(&mut self, request: CreateExtentRequest) -> anyhow::Result<Done> {
        Ok(self
            .rpc
            .create_extent(request)
            .await
            .map_err(refused)?
            .into_inner())
    }

    /// Has an extent made equal to an image that comes in parts; how far it is, and what came of it.
    pub(crate) async fn import_extent(
        &mut self,
        parts: ReceiverStream<ImportPart>,
    ) -> anyhow::Result<Streaming<ImportProgress>> {
        Ok(self.rpc.import_extent(parts).await.map_err(refused)?.into_inner())
    }

    /// Gives the node a block device; how far it is, and what came of it.
    pub(crate) async fn add_device(
        &mut self,
        request: AddDeviceRequest,
    ) -> anyhow::Result<Streaming<DeviceProgress>> {
        Ok(self.rpc.add_device(request).await.map_err(refused)?.into_inner())
    }

    /// Takes a block device from the node.
    pub(crate) async fn remove_device(&mut self, request: RemoveDeviceRequest) -> anyhow::Result<Done> {
        Ok(self
            .rpc
            .remove_device(request)
            .await
            .map_err(refused)?
            .into_inner())
    }

    /// The node's block devices.
    pub(crate) async fn devices(&mut self) -> anyhow::Result<Vec<DeviceStatus>> {
        let reply = self.rpc.devices(DevicesRequest {}).await.map_err(refused)?;
        Ok(serde_json::from_str(&reply.into_inner().json)?)
    }

    /// Switches confirmed reads.
    pub(crate) async fn set_confirmed_reads(
        &mut self,
        request: SetConfirmedReadsRequest,
    ) -> anyhow::Result<Done> {
        let done = self.rpc.set_confirmed_reads(request).await;
        Ok(done.map_err(refused)?.into_inner())
    }

    /// Switches write-back.
    pub(crate) async fn set_write_cache(&mut self, request: SetWriteCacheRequest) -> anyhow::Result<Done> {
        let done = self.rpc.set_write_cache(request).await;
        Ok(done.map_err(refused)?.into_inner())
    }

    /// Creates a target.
    pub(crate) async fn create_target(&mut self, request: CreateTargetRequest) -> anyhow::Result<Done> {
        Ok(self
            .rpc
            .create_target(request)
            .await
            .map_err(refused)?
            .into_inner())
    }

    /// Maps an extent as a LUN of a target.
    pub(crate) async fn map_lun(&mut self, request: MapLunRequest) -> anyhow::Result<Done> {
        Ok(self.rpc.map_lun(request).await.map_err(refused)?.into_inner())
    }

    /// Takes every registration and reservation of a LUN away.
    pub(crate) async fn clear_reservations(
        &mut self,
        request: ClearReservationsRequest,
    ) -> anyhow::Result<Done> {
        Ok(self
            .rpc
            .clear_reservations(request)
            .await
            .map_err(refused)?
            .into_inner())
    }

    /// Changes who may use what.
    pub(crate) async fn change_access(&mut self, request: &AccessRequest) -> anyhow::Result<Done> {
        let request = AccessMessage {
            json: serde_json::to_string(request)?,
        };
        Ok(self
            .rpc
            .change_access(request)
            .await
            .map_err(refused)?
            .into_inner())
    }

    /// Ends a session of the node.
    pub(crate) async fn close_session(&mut self, id: u64) -> anyhow::Result<Done> {
        let request = CloseSessionRequest { id };
        Ok(self
            .rpc
            .close_session(request)
            .await
            .map_err(refused)?
            .into_inner())
    }

    /// Has an extent's replicas compared.
    pub(crate) async fn scrub_extent(&mut self, request: ScrubExtentRequest) -> anyhow::Result<Done> {
        Ok(self
            .rpc
            .scrub_extent(request)
            .await
            .map_err(refused)?
            .into_inner())
    }

    /// Moves extents, planned.
    pub(crate) async fn switchover(&mut self, request: SwitchoverRequest) -> anyhow::Result<Done> {
        Ok(self.rpc.switchover(request).await.map_err(refused)?.into_inner())
    }

    /// Changes one thing.
    pub(crate) async fn change(&mut self, change: Change) -> anyhow::Result<Done> {
        let request = ChangeRequest { change: Some(change) };
        Ok(self.rpc.change(request).await.map_err(refused)?.into_inner())
    }

    /// The settings, as the JSON document that is printed.
    pub(crate) async fn settings(&mut self) -> anyhow::Result<serde_json::Value> {
        let reply = self.rpc.settings(SettingsRequest {}).await.map_err(refused)?;
        Ok(serde_json::from_str(&reply.into_inner().json)?)
    }

    /// A one-time token.
    pub(crate) async fn token(&mut self, valid_seconds: u32) -> anyhow::Result<TokenReply> {
        let request = TokenRequest { valid_seconds };
        Ok(self.rpc.token(request).await.map_err(refused)?.into_inner())
    }

    /// An administrator's certificate, as a PEM file.
    pub(crate) async fn certificate(&mut self, request: CertificateRequest) -> anyhow::Result<String> {
        let reply = self.rpc.certificate(request).await.map_err(refused)?;
        Ok(reply.into_inner().pem)
    }

    /// A new API token.
    pub(crate) async fn create_api_token(
        &mut self,
        request: CreateApiTokenRequest,
    ) -> anyhow::Result<CreateApiTokenReply> {
        let reply = self.rpc.create_api_token(request).await.map_err(refused)?;
        Ok(reply.into_inner())
    }

    /// The API tokens.
    pub(crate) async fn api_tokens(&mut self) -> anyhow::Result<Vec<ApiTokenStatus>> {
        let reply = self.rpc.api_tokens(ApiTokensRequest {}).await.map_err(refused)?;
        Ok(serde_json::from_str(&reply.into_inner().json)?)
    }

    /// The newest entries of the audit log.
    pub(crate) async fn audit_log(&mut self, last: u32) -> anyhow::Result<Vec<AuditEntry>> {
        let reply = self
            .rpc
            .audit_log(AuditLogRequest { last })
            .await
            .map_err(refused)?;
        Ok(serde_json::from_str(&reply.into_inner().json)?)
    }

    /// The plan of a takeover by the node that was dialled; with `confirmed`, the takeover.
    pub(crate) async fn takeover(&mut self, confirmed: bool, by: &str) -> anyhow::Result<TakeoverPlan> {
        let by = by.to_owned();
        let request = TakeoverRequest { confirmed, by };
        let reply = self.rpc.takeover(request).await.map_err(refused)?.into_inner();
        Ok(serde_json::from_str(&reply.json)?)
    }

    /// Says what of an extent may be lost; with `confirmed` accepts it.
    pub(crate) async fn accept_data_loss(
        &mut self,
        extent: &str,
        confirmed: bool,
        by: &str,
    ) -> anyhow::Result<Done> {
        let request = AcceptDataLossRequest {
            extent: extent.to_owned(),
            by: by.to_owned(),
            confirmed,
        };
        Ok(self
            .rpc
            .accept_data_loss(request)
            .await
            .map_err(refused)?
            .into_inner())
    }

    /// Has the node that was dialled suffer a fault.
    pub(crate) async fn inject(&mut self, request: InjectRequest) -> anyhow::Result<Done> {
        Ok(self.rpc.inject(request).await.map_err(refused)?.into_inner())
    }

    /// Heals the node that was dialled.
    pub(crate) async fn heal(&mut self, request: HealRequest) -> anyhow::Result<Done> {
        Ok(self.rpc.heal(request).await.map_err(refused)?.into_inner())
    }

    /// Has the cluster know where the node that was dialled listens.
    pub(crate) async fn readdress(&mut self) -> anyhow::Result<Done> {
        let request = ReaddressRequest {};
        Ok(self.rpc.readdress(request).await.map_err(refused)?.into_inner())
    }

    /// Lets the node that was dialled join a cluster.
    pub(crate) async fn join(&mut self, request: JoinRequest) -> anyhow::Result<Done> {
        Ok(self.rpc.join(request).await.map_err(refused)?.into_inner())
    }
}
