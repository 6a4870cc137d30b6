//! Commands that people give, or that finish what they gave: settings, members, placement.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use holdfast_types::{ExtentId, NodeId, Revision};
use serde::{Deserialize, Serialize};

use super::api_tokens::ApiToken;
use super::audit::AuditEntry;
use super::certificates::RotationStage;
use super::command::{Command, ExtentStamp};
use super::importing::Importing;
use super::members::{Join, Token};
use super::placement::ExtentChange;
use super::reply::{Refusal, Reply};
use super::settings::SettingKey;
use super::state::ClusterState;
use super::takeover::LossAccepted;

/// See the module. Each is harmless when it comes twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminCommand {
    /// Changes a setting of the cluster.
    SetSetting {
        /// Which.
        key: SettingKey,
        /// Its new value, in the key's unit.
        value: u64,
    },
    /// L2: every voter has applied the change of the lease time made at `since`.
    LeaseSettled {
        /// [`super::LongerLease::since`].
        since: Revision,
    },
    /// Begins or ends telling an iSNS server of targets and portals.
    SetIsnsServer {
        /// Which.
        server: SocketAddr,
        /// Whether it is told.
        told: bool,
    },
    /// Begins or ends draining a node.
    SetDraining {
        /// Who.
        node: NodeId,
        /// Whether its extents are to move away.
        draining: bool,
    },
    /// Changes an extent in place.
    SetExtent {
        /// Which.
        extent: ExtentId,
        /// What about it.
        change: ExtentChange,
    },
    /// Asks primaries for a planned switchover, or not to make it any more.
    RequestSwitchover {
        /// Which extents.
        extents: Vec<ExtentId>,
        /// The next primary; `None` withdraws the request.
        to: Option<NodeId>,
    },
    /// Names the replicas that an extent is to have.
    SetReplicas {
        /// Which extent.
        extent: ExtentId,
        /// On which data nodes.
        replicas: BTreeSet<NodeId>,
    },
    /// Replicas that were to go may go: the others are in sync, and their primary has shown that it serves.
    Retire {
        /// From where.
        items: Vec<ExtentStamp>,
        /// The primary.
        proposer: NodeId,
    },
    /// Begins or ends an import of an image.
    SetImporting {
        /// Into which extent.
        extent: ExtentId,
        /// By whom.
        mark: Importing,
        /// Whether it begins.
        on: bool,
    },
    /// Makes a token that lets one node in.
    AddToken(Token),
    /// A new node comes in with a token.
    Join(Box<Join>),
    /// Begins a node's leave.
    Leave {
        /// Who.
        node: NodeId,
        /// Its replicas are given up where others are in sync.
        drop_replicas: bool,
    },
    /// Ends a node's leave: it votes no more and holds nothing.
    ForgetNode {
        /// Who.
        node: NodeId,
    },
    /// Begins the change to the next generation of the nodes' certificates.
    RotateCertificates {
        /// The generation that is present now.
        from: u64,
        /// Drawn for the next one: 64 hexadecimal digits.
        salt: String,
    },
    /// A node has taken a step of that change, and keeps it after a restart.
    CertificatesTaken {
        /// Who.
        node: NodeId,
        /// The generation from which the change began.
        number: u64,
        /// Which step.
        stage: RotationStage,
    },
    /// Makes a token with which a program uses the admin service.
    AddApiToken(ApiToken),
    /// Takes it back.
    RevokeApiToken {
        /// Its name.
        name: String,
    },
    /// Keeps calls in the audit log.
    Audit(Vec<AuditEntry>),
    /// Has a replica count as whole that may lack acknowledged writes, where no whole one is left (T4).
    AcceptDataLoss(LossAccepted),
}

impl From<AdminCommand> for Command {
    fn from(command: AdminCommand) -> Self {
        Self::Admin(command)
    }
}

/// iSNS servers at most. Two are usual.
const ISNS_SERVERS_MAX: usize = 8;

impl ClusterState {
    fn set_isns_server(&mut self, server: SocketAddr, told: bool) -> Result<Reply, Refusal> {
        if !told {
            self.isns.remove(&server);
            return Ok(Reply::DONE);
        }
        if server.ip().is_unspecified() || server.port() == 0 {
            return Err(Refusal::Invalid(format!("{server} is no address of a server")));
        }
        if self.isns.len() >= ISNS_SERVERS_MAX && !self.isns.contains(&server) {
            let reason = format!("there are {ISNS_SERVERS_MAX} iSNS servers already, which is the most");
            return Err(Refusal::Invalid(reason));
        }
        self.isns.insert(server);
        Ok(Reply::DONE)
    }

    pub(super) fn administer(&mut self, index: Revision, command: &AdminCommand) -> Result<Reply, Refusal> {
        use AdminCommand as Admin;
        match command {
            Admin::SetSetting { key, value } => self.set_setting(index, *key, *value),
            Admin::LeaseSettled { since } => self.settle_lease(*since),
            Admin::SetIsnsServer { server, told } => self.set_isns_server(*server, *told),
            Admin::SetDraining { node, draining } => self.set_draining(*node, *draining),
            Admin::SetExtent { extent, change } => self.set_extent(*extent, change),
            Admin::RequestSwitchover { extents, to } => self.request_switchover(extents, *to),
            Admin::SetReplicas { extent, replicas } => self.set_replicas(*extent, replicas),
            Admin::Retire { items, proposer } => self.retire(items, *proposer),
            Admin::SetImporting { extent, mark, on } => self.set_importing(*extent, *mark, *on),
            Admin::AddToken(token) => self.add_token(token),
            Admin::Join(join) => self.join(join),
            Admin::Leave { node, drop_replicas } => self.leave(*node, *drop_replicas),
            Admin::ForgetNode { node } => self.forget_node(*node),
            Admin::RotateCertificates { from, salt } => self.rotate_certificates(*from, salt),
            Admin::CertificatesTaken { node, number, stage } => {
                self.certificates_taken(*node, (*number, *stage))
            }
            Admin::AddApiToken(token) => self.add_api_token(token),
            Admin::RevokeApiToken { name } => self.revoke_api_token(name),
            Admin::Audit(entries) => self.add_audit(entries),
            Admin::AcceptDataLoss(loss) => self.accept_data_loss(index, loss),
        }
    }
}
