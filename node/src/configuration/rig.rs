//! A cluster for tests: committed state without nodes around it, changed by the commands that requests become on a node.

use holdfast_proto::admin::CreateExtentRequest;
use holdfast_raft::model::{
    ClusterId, ClusterKey, ClusterState, Command, Init, NewNode, NodeAddresses, Reply, Role,
};
use holdfast_types::{IscsiName, Lun, NodeId, Revision};
use zeroize::Zeroizing;

use super::plan::Step;
use super::{Call, Configuration, Plan, Present, plan, read};
use crate::admin::access::{self, SecretText};
use crate::admin::{change, server};
use crate::status::{Seen, derive};

/// Data nodes a, b and c, and a witness w.
pub(crate) struct Rig {
    pub(crate) state: ClusterState,
}

/// The command that a node makes of a request.
fn command(state: &ClusterState, call: &Call) -> Result<Command, String> {
    let key = ClusterKey::from_random([5; 32]);
    let extent = |name: &str| state.extent_named(name).ok_or(format!("no extent {name}"));
    match call {
        Call::CreateExtent(request) => {
            let new = server::new_extent(state, CreateExtentRequest::clone(request));
            new.map(Command::CreateExtent)
                .map_err(|status| status.to_string())
        }
        Call::ConfirmedReads(request) => Ok(Command::SetConfirmedReads {
            extent: extent(&request.extent)?,
            on: request.on,
        }),
        Call::WriteCache(request) => Ok(Command::SetWriteCache {
            extent: extent(&request.extent)?,
            on: request.on,
            lost: request.lost,
        }),
        Call::CreateTarget(request) => Ok(Command::CreateTarget {
            name: request.iqn.parse().map_err(|error| format!("{error}"))?,
        }),
        Call::MapLun(request) => Ok(Command::MapLun {
            target: request
                .iqn
                .parse::<IscsiName>()
                .map_err(|error| error.to_string())?,
            lun: Lun::try_from(u16::try_from(request.lun).unwrap()).unwrap(),
            extent: extent(&request.extent)?,
        }),
        Call::Change(one) => {
            let made = change::command(state, one.clone());
            made.map(|(command, _)| command)
                .map_err(|status| status.to_string())
        }
        Call::Access(request) => access::command(state, Some(&key), request.clone())
            .map(|made| made.0)
            .map_err(|wrong| wrong.to_string()),
        Call::Secret(place) => {
            let whose = if place.mutual {
                "the target is"
            } else {
                "secret of"
            };
            let secret = SecretText(Zeroizing::new(format!("{whose} {}", place.name)));
            access::command(state, Some(&key), place.request(secret))
                .map(|made| made.0)
                .map_err(|wrong| wrong.to_string())
        }
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        let node = |id: u16, name: &str, role| NewNode {
            id: NodeId(id.into()),
            name: name.into(),
            role,
            addresses: NodeAddresses {
                raft: ([127, 0, 0, 1], 1000 + id).into(),
                replication: (role == Role::Data).then(|| ([127, 0, 0, 1], 2000 + id).into()),
                spare_replication: Vec::new(),
                admin: None,
                heartbeat: ([127, 0, 0, 1], 4000 + id).into(),
                portals: Vec::new(),
            },
        };
        let mut rig = Self {
            state: ClusterState::default(),
        };
        rig.apply(&Command::Init(Init {
            name: "one".into(),
            id: ClusterId(1),
            nodes: vec![
                node(1, "a", Role::Data),
                node(2, "b", Role::Data),
                node(3, "c", Role::Data),
                node(4, "w", Role::Witness),
            ],
        }))
        .unwrap();
        rig
    }

    /// A cluster of which the document is true.
    pub(super) fn of(text: &str) -> Self {
        let mut rig = Self::new();
        let plan = rig.plan(text, false).unwrap();
        rig.carry_out(&plan);
        rig
    }

    fn apply(&mut self, command: &Command) -> Result<(), String> {
        let next = Revision(self.state.revision.0 + 1);
        match self.state.apply(next, command) {
            Reply::Done { .. } => Ok(()),
            other => Err(format!("{other:?} to {command:?}")),
        }
    }

    /// As a node tells it: through the JSON of its answers.
    pub(super) fn present(&self) -> Present {
        let status = serde_json::to_value(derive(&self.state, Seen::default())).unwrap();
        let settings = serde_json::to_value(change::settings(&self.state)).unwrap();
        Present::of(&serde_json::from_value(status).unwrap(), settings).unwrap()
    }

    pub(super) fn configuration(&self) -> Configuration {
        self.present().configuration
    }

    pub(super) fn plan(&self, text: &str, prune: bool) -> Result<Plan, Vec<String>> {
        plan(&read(text)?, &self.present(), prune)
    }

    pub(super) fn step(&mut self, step: &Step) {
        let done = command(&self.state, &step.call).and_then(|command| self.apply(&command));
        done.unwrap_or_else(|why| panic!("{step:?}: {why}"));
    }

    /// Every step, none of which may be refused.
    pub(super) fn carry_out(&mut self, plan: &Plan) {
        for step in &plan.steps {
            self.step(step);
        }
    }
}
