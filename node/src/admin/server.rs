//! The node's side of the admin service: names become ids, requests become commands of the cluster, refusals become one clear line.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use holdfast_proto::admin::admin_server::Admin;
use holdfast_proto::admin::{
    AcceptDataLossRequest, AccessRequest as AccessMessage, AddDeviceRequest, AdoptRequest, ApiTokensRequest,
    AuditLogRequest, CertificateReply, CertificateRequest, ChangeRequest, CheckRequest,
    ClearReservationsRequest, CloseSessionRequest, CreateApiTokenReply, CreateApiTokenRequest,
    CreateExtentRequest, CreateTargetRequest, DevicesRequest, Document, Done, EventsRequest, HealRequest,
    IdentifyRequest, Identity, InitializeRequest, InjectRequest, JoinRequest, MapLunRequest,
    ReaddressRequest, RemoveDeviceRequest, ScrubExtentRequest, SetConfirmedReadsRequest,
    SetWriteCacheRequest, SettingsRequest, StatusRequest, SwitchoverRequest, TakeoverRequest, TokenReply,
    TokenRequest,
};
use holdfast_proto::admin::{ImportHead, ImportPart};
use holdfast_raft::consensus::ProposeError;
use holdfast_raft::model::{
    AdminCommand, ApiSecret, ApiToken, ClusterId, ClusterKey, ClusterState, Command, Init, NewExtent,
    NewNode, NodeAddresses, Refusal, Reply, Role, SecondaryAccess,
};
use holdfast_scsi::reservation::UnitOutcome;
use holdfast_trust::{AdminRole, check_admin_name};
use holdfast_types::{BlockSize, ExtentId, IscsiName, Lun, NodeId, unix_seconds};
use tonic::{Request, Response, Status, Streaming};

use super::access::{self, AccessRequest};
use super::api_tokens::ApiTokenStatus;
use super::devices::{self, DeviceStream};
use super::import::{self, ImportStream};
use super::injection;
use super::readdress;
use crate::config::check_replication;
use crate::runtime::{Node, Running};

/// Longest time for which an API token is good, but for those without an end.
const API_TOKEN_DAYS_MAX: u32 = 3650;

/// Entries of the audit log that are shown where nobody says how many.
const AUDIT_SHOWN: usize = 100;

type Answer<T> = Result<Response<T>, Status>;

/// The admin service of a node.
pub(crate) struct Service {
    node: Arc<Node>,
}

/// What the cluster refuses: the kind of the refusal, and its line.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let line = refusal.to_string();
    match refusal {
        Refusal::Invalid(_) | Refusal::BadName { .. } => invalid(line),
        Refusal::NoSuchNode { .. }
        | Refusal::NoSuchExtent { .. }
        | Refusal::NoSuchTarget { .. }
        | Refusal::NoSuchLun { .. } => Status::not_found(line),
        Refusal::Exists { .. } | Refusal::LunTaken { .. } => Status::already_exists(line),
        Refusal::NotInitialized => Status::unavailable(line),
        _ => failed(line),
    }
}

/// What failed on the way to the cluster: whether trying again later may help.
pub(super) fn fault(error: anyhow::Error) -> Status {
    let line = format!("{error:#}");
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return refused(refusal);
    }
    match error.downcast_ref::<ProposeError>() {
        Some(ProposeError::Refused(_)) | None => failed(line),
        Some(_) => Status::unavailable(line),
    }
}

impl Service {
    /// Of this node. Checks everything but who asks: that is [`Guard`](super::Guard)'s.
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

pub(super) fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

pub(super) fn failed(error: impl std::fmt::Display) -> Status {
    Status::failed_precondition(format!("{error:#}"))
}

impl Service {
    /// The running node, once it belongs to a cluster.
    async fn running(&self) -> Result<Arc<Running>, Status> {
        self.node.running().await.ok_or_else(|| {
            Status::unavailable("this node belongs to no cluster yet; see 'holdfast cluster init'")
        })
    }

    /// Begins an import.
    pub(super) async fn import(
        &self,
        head: ImportHead,
        parts: Streaming<ImportPart>,
    ) -> Answer<ImportStream> {
        let running = self.running().await?;
        import::begin(running, head, parts).await.map(Response::new)
    }

    /// Proposes what was made of names as `before` has them.
    async fn propose(&self, before: &ClusterState, command: Command, message: String) -> Answer<Done> {
        let running = self.running().await?;
        let reply = running.propose(command).await.map_err(fault)?;
        // Deleted since its name was looked up.
        if let Reply::Refused { refusal } = &reply
            && let Refusal::NoSuchExtent { extent } = refusal
            && let Some(gone) = before.extents.get(extent)
        {
            return Err(no_extent(&gone.name));
        }
        done(reply, message)
    }
}

fn done(reply: Reply, message: String) -> Answer<Done> {
    match reply {
        Reply::Done { warnings } => Ok(Response::new(Done { message, warnings })),
        Reply::Refused { refusal } => Err(refused(&refusal)),
        other => Err(Status::internal(format!(
            "the cluster gave an answer that does not belong to the request: {other:?}"
        ))),
    }
}

pub(super) fn node_named(state: &ClusterState, name: &str) -> Result<NodeId, Status> {
    state.node_named(name).ok_or_else(|| {
        let names: Vec<&str> = state.nodes.values().map(|node| node.name.as_str()).collect();
        Status::not_found(format!(
            "there is no node '{name}'; the nodes are {}",
            names.join(", ")
        ))
    })
}

/// Refuses a witness, where only a data node makes sense; `why` says so.
pub(super) fn refuse_witness(state: &ClusterState, node: NodeId, why: &str) -> Result<(), Status> {
    match state.nodes.get(&node) {
        Some(member) if member.role == Role::Witness => {
            Err(invalid(format!("node '{}' is a witness: {why}", member.name)))
        }
        _ => Ok(()),
    }
}

/// The node that is preferred: one of those that keep a replica.
pub(super) fn preferred_named<'a>(
    state: &ClusterState,
    replicas: impl IntoIterator<Item = &'a NodeId>,
    name: &str,
) -> Result<NodeId, Status> {
    let node = node_named(state, name)?;
    let replicas: Vec<&NodeId> = replicas.into_iter().collect();
    if replicas.contains(&&node) {
        return Ok(node);
    }
    let names = replicas.iter().filter_map(|id| state.nodes.get(id));
    let names: Vec<&str> = names.map(|node| node.name.as_str()).collect();
    Err(invalid(format!(
        "preferred = '{name}': it keeps no replica of the extent; those that do are {}",
        names.join(", ")
    )))
}

pub(super) fn extent_named(state: &ClusterState, name: &str) -> Result<ExtentId, Status> {
    state.extent_named(name).ok_or_else(|| no_extent(name))
}

fn no_extent(name: &str) -> Status {
    Status::not_found(format!("there is no extent '{name}'; see 'holdfast extent list'"))
}

fn target_name(text: &str) -> Result<IscsiName, Status> {
    text.parse()
        .map_err(|error| invalid(format!("'{text}' is no target name: {error}")))
}

fn lun_number(number: u32) -> Result<Lun, Status> {
    let lun = u16::try_from(number)
        .ok()
        .and_then(|number| Lun::try_from(number).ok());
    lun.ok_or_else(|| invalid(format!("LUN {number} is not between 0 and 16383")))
}

/// A data node's word about itself as the member that it becomes.
fn member(identity: &Identity) -> Result<NewNode, Status> {
    let address = |field: &str, text: &str| -> Result<SocketAddr, Status> {
        text.parse().map_err(|_| {
            invalid(format!(
                "node '{}': {field} '{text}' is not ADDRESS:PORT",
                identity.name
            ))
        })
    };
    let optional = |field: &str, text: &str| match text {
        "" => Ok(None),
        text => address(field, text).map(Some),
    };
    let role = match identity.role.as_str() {
        "data" => Role::Data,
        "witness" => Role::Witness,
        other => {
            return Err(invalid(format!(
                "node '{}': '{other}' is not a role",
                identity.name
            )));
        }
    };
    let replication = optional("replication", &identity.replication)?;
    let spares = identity.spare_replication.iter();
    let spare_replication: Vec<SocketAddr> = spares
        .map(|text| address("spare_replication", text))
        .collect::<Result<_, _>>()?;
    if !spare_replication.is_empty() {
        let all: Vec<SocketAddr> = replication
            .into_iter()
            .chain(spare_replication.iter().copied())
            .collect();
        check_replication(&all).map_err(|error| invalid(format!("node '{}': {error}", identity.name)))?;
    }
    Ok(NewNode {
        id: NodeId(identity.node_id),
        name: identity.name.clone(),
        role,
        addresses: NodeAddresses {
            raft: address("raft", &identity.raft)?,
            replication,
            spare_replication,
            admin: optional("admin", &identity.admin)?,
            heartbeat: address("heartbeat", &identity.heartbeat)?,
            portals: identity
                .portals
                .iter()
                .map(|text| address("portals", text))
                .collect::<Result<_, _>>()?,
        },
    })
}

pub(crate) fn new_extent(state: &ClusterState, request: CreateExtentRequest) -> Result<NewExtent, Status> {
    let block_size = BlockSize::try_from(request.block_size)
        .map_err(|error| invalid(format!("extent '{}': {error}", request.name)))?;
    let replicas: Vec<NodeId> = if request.replicas.is_empty() {
        state
            .nodes
            .iter()
            .filter(|(_, node)| node.role == Role::Data)
            .map(|(id, _)| *id)
            .collect()
    } else {
        request
            .replicas
            .iter()
            .map(|name| node_named(state, name))
            .collect::<Result<_, _>>()?
    };
    let preferred = match request.preferred.as_str() {
        "" => replicas.first().copied(),
        name => Some(preferred_named(state, &replicas, name)?),
    };
    Ok(NewExtent {
        id: ExtentId::from_u128(rand::random()),
        name: request.name,
        size_bytes: request.size_bytes,
        block_size,
        thin: !(request.full || request.on_devices),
        on_devices: request.on_devices,
        confirmed_reads: request.confirmed_reads,
        write_cache: request.write_cache,
        replicas: replicas.into_iter().collect::<BTreeSet<_>>(),
        preferred,
        secondary: SecondaryAccess::NonOptimized,
    })
}

#[tonic::async_trait]
impl Admin for Service {
    async fn status(&self, _request: Request<StatusRequest>) -> Answer<Document> {
        let document = self.node.status().await;
        let json = serde_json::to_string(&document).map_err(failed)?;
        Ok(Response::new(Document { json }))
    }

    async fn check(&self, _request: Request<CheckRequest>) -> Answer<Document> {
        // Refuses where there is no cluster.
        self.running().await?;
        let document = self.node.check().await;
        let json = serde_json::to_string(&document).map_err(failed)?;
        Ok(Response::new(Document { json }))
    }

    type AddDeviceStream = DeviceStream;

    async fn add_device(&self, request: Request<AddDeviceRequest>) -> Answer<DeviceStream> {
        let running = self.running().await?;
        devices::add(running, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn remove_device(&self, request: Request<RemoveDeviceRequest>) -> Answer<Done> {
        let running = self.running().await?;
        let message = devices::remove(running, request.into_inner()).await?;
        let warnings = Vec::new();
        Ok(Response::new(Done { message, warnings }))
    }

    async fn devices(&self, _request: Request<DevicesRequest>) -> Answer<Document> {
        let running = self.running().await?;
        let json = serde_json::to_string(&devices::list(&running).await?).map_err(failed)?;
        Ok(Response::new(Document { json }))
    }

    type ImportExtentStream = ImportStream;

    async fn import_extent(&self, request: Request<Streaming<ImportPart>>) -> Answer<ImportStream> {
        let mut parts = request.into_inner();
        let head = import::head(&mut parts).await?;
        self.import(head, parts).await
    }

    async fn events(&self, request: Request<EventsRequest>) -> Answer<Document> {
        let EventsRequest { last, all } = request.into_inner();
        let document = self.node.events(last as usize, all);
        let json = serde_json::to_string(&document).map_err(failed)?;
        Ok(Response::new(Document { json }))
    }

    async fn identify(&self, _request: Request<IdentifyRequest>) -> Answer<Identity> {
        Ok(Response::new(self.node.identify()))
    }

    async fn adopt(&self, request: Request<AdoptRequest>) -> Answer<Identity> {
        let request = request.into_inner();
        let cluster: ClusterId = request.cluster_id.clone().try_into().map_err(invalid)?;
        if request.node_id == 0 {
            return Err(invalid("node id 0 is nobody's"));
        }
        let key = match request.cluster_key.as_str() {
            "" => None,
            text => Some(
                ClusterKey::from_text(text)
                    .ok_or_else(|| invalid("the cluster key is not 64 hexadecimal digits"))?,
            ),
        };
        self.node
            .adopt(cluster, NodeId(request.node_id), key)
            .await
            .map_err(failed)?;
        Ok(Response::new(self.node.identify()))
    }

    async fn initialize(&self, request: Request<InitializeRequest>) -> Answer<Done> {
        let request = request.into_inner();
        let running = self.running().await?;
        let id: ClusterId = request.cluster_id.clone().try_into().map_err(invalid)?;
        let nodes = request
            .members
            .iter()
            .map(member)
            .collect::<Result<Vec<_>, _>>()?;
        let init = Init {
            name: request.cluster_name,
            id,
            nodes,
        };
        let reply = running.initialize(init).await.map_err(fault)?;
        running.announce_key().await.map_err(fault)?;
        done(reply, "The cluster is made.".to_owned())
    }

    async fn create_extent(&self, request: Request<CreateExtentRequest>) -> Answer<Done> {
        let running = self.running().await?;
        let state = running.state();
        let extent = new_extent(&state, request.into_inner())?;
        let message = format!("Extent {} is created ({}).", extent.name, extent.id);
        let command = Command::CreateExtent(extent);
        let unsure = devices::check_room(&running, &state, &command).await?;
        let mut done = self.propose(&state, command, message).await?;
        done.get_mut().warnings.extend(unsure);
        Ok(done)
    }

    async fn set_confirmed_reads(&self, request: Request<SetConfirmedReadsRequest>) -> Answer<Done> {
        let request = request.into_inner();
        let state = self.running().await?.state();
        let extent = extent_named(&state, &request.extent)?;
        let word = if request.on { "confirmed" } else { "not confirmed" };
        let message = format!("Reads of {} are {word} from now on.", request.extent);
        let command = Command::SetConfirmedReads {
            extent,
            on: request.on,
        };
        self.propose(&state, command, message).await
    }

    async fn set_write_cache(&self, request: Request<SetWriteCacheRequest>) -> Answer<Done> {
        let SetWriteCacheRequest {
            extent: name,
            on,
            lost,
        } = request.into_inner();
        let running = self.running().await?;
        let extent = extent_named(&running.state(), &name)?;
        running.set_write_cache(extent, on, lost).await.map_err(fault)?;
        let message = match (on, lost) {
            (true, _) => format!("Writes of {name} are acknowledged from memory from now on (WCE=1)."),
            (false, false) => format!(
                "What was written to {name} is stable, and will be before it is acknowledged (WCE=0)."
            ),
            (false, true) => {
                format!("What was written to {name} will be stable before it is acknowledged (WCE=0).")
            }
        };
        let warnings = Vec::new();
        Ok(Response::new(Done { message, warnings }))
    }

    async fn create_target(&self, request: Request<CreateTargetRequest>) -> Answer<Done> {
        let name = target_name(&request.into_inner().iqn)?;
        let message = format!("Target {name} is there.");
        let state = self.running().await?.state();
        self.propose(&state, Command::CreateTarget { name }, message)
            .await
    }

    async fn map_lun(&self, request: Request<MapLunRequest>) -> Answer<Done> {
        let request = request.into_inner();
        let running = self.running().await?;
        let target = target_name(&request.iqn)?;
        let lun = lun_number(request.lun)?;
        let state = running.state();
        let extent = extent_named(&state, &request.extent)?;
        let message = format!("LUN {lun} of {target} is extent {}.", request.extent);
        self.propose(&state, Command::MapLun { target, lun, extent }, message)
            .await
    }

    async fn change_access(&self, request: Request<AccessMessage>) -> Answer<Done> {
        // The text of an error of serde's may quote the document, so it is not passed on.
        let request: AccessRequest = serde_json::from_str(&request.into_inner().json)
            .map_err(|_| invalid("the request cannot be read: are command and node of the same release?"))?;
        let running = self.running().await?;
        running.announce_key().await.map_err(fault)?;
        let state = running.state();
        let (command, message) = access::command(&state, running.key().as_ref(), request)?;
        self.propose(&state, command, message).await
    }

    async fn close_session(&self, request: Request<CloseSessionRequest>) -> Answer<Done> {
        let id = request.into_inner().id;
        let running = self.running().await?;
        let message = if running.close_session(id) {
            format!("Session {id} ends; the initiator may log in again.")
        } else {
            format!("There is no session {id} on this node.")
        };
        Ok(Response::new(Done {
            message,
            warnings: Vec::new(),
        }))
    }

    async fn clear_reservations(&self, request: Request<ClearReservationsRequest>) -> Answer<Done> {
        let request = request.into_inner();
        let running = self.running().await?;
        let target = target_name(&request.iqn)?;
        let lun = lun_number(request.lun)?;
        let Some(extent) = running.state().lun(&target, lun).map(|unit| unit.id) else {
            return Err(Status::not_found(format!(
                "{target} has no LUN {lun}; see 'holdfast target list'"
            )));
        };
        let outcome = running.clear_reservations(extent, target.clone()).await;
        match outcome.map_err(fault)? {
            UnitOutcome::Good => Ok(Response::new(Done {
                message: format!("Nothing is registered or reserved on LUN {lun} of {target} any more."),
                warnings: Vec::new(),
            })),
            other => Err(failed(format!("the cluster refused: {other:?}"))),
        }
    }

    async fn scrub_extent(&self, request: Request<ScrubExtentRequest>) -> Answer<Done> {
        let ScrubExtentRequest {
            extent: name,
            relayed,
        } = request.into_inner();
        let running = self.running().await?;
        let state = running.state();
        let extent = extent_named(&state, &name)?;
        running.scrub(extent, &name, relayed).await.map_err(fault)?;
        let alone = state
            .extents
            .get(&extent)
            .is_some_and(|extent| extent.in_sync.len() < 2);
        let message = if alone {
            format!("Extent {name} has only one replica in sync: it is compared once there is another one.")
        } else {
            format!(
                "The replicas of extent {name} are compared in the background; status tells what is found."
            )
        };
        Ok(Response::new(Done {
            message,
            warnings: Vec::new(),
        }))
    }

    async fn takeover(&self, request: Request<TakeoverRequest>) -> Answer<Document> {
        let TakeoverRequest { confirmed, by } = request.into_inner();
        let plan = self.node.take_over(confirmed, &by).await.map_err(failed)?;
        let json = serde_json::to_string(&plan).map_err(failed)?;
        Ok(Response::new(Document { json }))
    }

    async fn accept_data_loss(&self, request: Request<AcceptDataLossRequest>) -> Answer<Done> {
        let AcceptDataLossRequest {
            extent,
            by,
            confirmed,
        } = request.into_inner();
        let running = self.running().await?;
        let extent = extent_named(&running.state(), &extent)?;
        let message = running
            .accept_data_loss(extent, confirmed, &by)
            .await
            .map_err(failed)?;
        Ok(Response::new(Done {
            message,
            warnings: Vec::new(),
        }))
    }

    async fn inject(&self, request: Request<InjectRequest>) -> Answer<Done> {
        let InjectRequest {
            site,
            fault,
            millis,
            by,
        } = request.into_inner();
        let running = self.running().await?;
        let lasts = std::time::Duration::from_millis(millis.into());
        let me = running.me();
        let message = injection::put((&site, &fault, lasts), &by, me, &running.state())?;
        Ok(Response::new(Done {
            message: format!("{site}: {message}"),
            warnings: Vec::new(),
        }))
    }

    async fn heal(&self, request: Request<HealRequest>) -> Answer<Done> {
        let HealRequest { site, by } = request.into_inner();
        let running = self.running().await?;
        let message = injection::heal(&site, &by, running.me(), &running.state())?;
        Ok(Response::new(Done {
            message,
            warnings: Vec::new(),
        }))
    }

    async fn switchover(&self, request: Request<SwitchoverRequest>) -> Answer<Done> {
        let request = request.into_inner();
        let running = self.running().await?;
        let state = running.state();
        let to = node_named(&state, &request.to)?;
        refuse_witness(&state, to, "it takes no extents")?;
        let extents = if request.extents.is_empty() {
            state.extents.keys().copied().collect()
        } else {
            request
                .extents
                .iter()
                .map(|name| extent_named(&state, name))
                .collect::<Result<Vec<_>, _>>()?
        };
        let moved = running.switchover(extents, to).await.map_err(fault)?;
        let message = format!(
            "{moved} of the extents moved; {} is primary of all of them.",
            request.to
        );
        Ok(Response::new(Done {
            message,
            warnings: Vec::new(),
        }))
    }

    async fn change(&self, request: Request<ChangeRequest>) -> Answer<Done> {
        let running = self.running().await?;
        let change = request
            .into_inner()
            .change
            .ok_or_else(|| invalid("an empty change; do both sides run the same release?"))?;
        let state = running.state();
        let (command, message) = super::change::command(&state, change)?;
        let unsure = devices::check_room(&running, &state, &command).await?;
        let mut done = self.propose(&state, command, message).await?;
        done.get_mut().warnings.extend(unsure);
        Ok(done)
    }

    async fn settings(&self, _request: Request<SettingsRequest>) -> Answer<Document> {
        let running = self.running().await?;
        let json = serde_json::to_string(&super::change::settings(&running.state())).map_err(failed)?;
        Ok(Response::new(Document { json }))
    }

    async fn token(&self, request: Request<TokenRequest>) -> Answer<TokenReply> {
        let running = self.running().await?;
        let valid_seconds = match request.into_inner().valid_seconds {
            0 => 86_400,
            seconds => seconds,
        };
        let valid = std::time::Duration::from_secs(valid_seconds.into());
        let token = running.token(valid).await.map_err(fault)?;
        Ok(Response::new(TokenReply { token, valid_seconds }))
    }

    async fn certificate(&self, request: Request<CertificateRequest>) -> Answer<CertificateReply> {
        let CertificateRequest { role, name } = request.into_inner();
        let role: AdminRole = role.parse().map_err(|why: String| invalid(why))?;
        check_admin_name(&name).map_err(invalid)?;
        let running = self.running().await?;
        let pem = running.trust().issue_admin(role, &name).map_err(failed)?;
        tracing::warn!("a certificate for {role} '{name}' was made");
        Ok(Response::new(CertificateReply { pem: pem.to_string() }))
    }

    async fn create_api_token(&self, request: Request<CreateApiTokenRequest>) -> Answer<CreateApiTokenReply> {
        let CreateApiTokenRequest {
            name,
            role,
            valid_days,
        } = request.into_inner();
        let role = match role.parse().map_err(|why: String| invalid(why))? {
            AdminRole::None => return Err(invalid("an API token of role none would open nothing")),
            role => role,
        };
        if valid_days > API_TOKEN_DAYS_MAX {
            return Err(invalid(format!(
                "an API token is good for {API_TOKEN_DAYS_MAX} days at most, or until it is revoked"
            )));
        }
        let secret = ApiSecret::from_random(&name, rand::random()).map_err(invalid)?;
        let created = unix_seconds(SystemTime::now());
        let expires = (valid_days > 0).then(|| created + u64::from(valid_days) * 86_400);
        let hash = secret.hash();
        let token = ApiToken {
            name,
            role,
            hash,
            created,
            expires,
        };
        let state = self.running().await?.state();
        self.propose(&state, AdminCommand::AddApiToken(token).into(), String::new())
            .await?;
        Ok(Response::new(CreateApiTokenReply {
            token: secret.to_text().to_string(),
            expires: expires.unwrap_or_default(),
        }))
    }

    async fn api_tokens(&self, _request: Request<ApiTokensRequest>) -> Answer<Document> {
        let state = self.running().await?.state();
        let tokens: Vec<_> = state.api_tokens.values().map(ApiTokenStatus::of).collect();
        let json = serde_json::to_string(&tokens).map_err(failed)?;
        Ok(Response::new(Document { json }))
    }

    async fn audit_log(&self, request: Request<AuditLogRequest>) -> Answer<Document> {
        let last = match request.into_inner().last {
            0 => AUDIT_SHOWN,
            last => usize::try_from(last).unwrap_or(usize::MAX),
        };
        let state = self.running().await?.state();
        let json = serde_json::to_string(&state.audit_last(last)).map_err(failed)?;
        Ok(Response::new(Document { json }))
    }

    async fn readdress(&self, _request: Request<ReaddressRequest>) -> Answer<Done> {
        let running = self.running().await?;
        let (reply, message) = readdress::move_to(&running, self.node.addresses()).await?;
        done(reply, message)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Answer<Done> {
        let request = request.into_inner();
        let token = request.token.parse().map_err(|why: String| invalid(why))?;
        let me = member(&self.node.identify())?;
        let (message, warnings) = self
            .node
            .join(token, me, (&request.replaces, request.force))
            .await
            .map_err(failed)?;
        Ok(Response::new(Done { message, warnings }))
    }
}
