//! Applying a command: dispatch, and everything but primaries and in-sync sets (those are in `apply_sets`).

use std::collections::BTreeSet;

use holdfast_types::{
    BlockSize, EXTENT_BYTES_MAX, EXTENT_BYTES_MIN, Epoch, ExtentId, InSyncVersion, IscsiName, LUNS_MAX,
    LeaseGeneration, Lun, NODES_MAX, NodeId, Revision, SuspicionId, TpgId,
};

use holdfast_scsi::reservation::UnitState;

use super::apply_unit::AnsweredCalls;
use super::cache::WriteCache;
use super::command::{Command, Init, NewExtent};
use super::name::check_name;
use super::reply::{Refusal, Reply};
use super::state::{ClusterIdentity, ClusterState, Extent, Node, Role, Target, VoterSet};

type Applied = Result<Reply, Refusal>;

impl ClusterState {
    /// Applies the entry at log index `index`. A refused command changes nothing but the revision (I12).
    pub fn apply(&mut self, index: Revision, command: &Command) -> Reply {
        if index <= self.revision {
            return Refusal::AppliedBefore.into();
        }
        self.revision = index;
        if self.cluster.is_none() && !matches!(command, Command::Init(_)) {
            return Refusal::NotInitialized.into();
        }
        // P3: told by the difference of states, whatever the command was, so that a node that got a snapshot counts the same.
        let before = command.moves_groups().then(|| self.all_groups());
        let reply = self.dispatch(index, command).unwrap_or_else(Reply::from);
        if let Some(before) = before {
            for (id, old) in before {
                if self.groups_of(id) != old
                    && let Some(extent) = self.extents.get_mut(&id)
                {
                    extent.alua_changes += 1;
                }
            }
        }
        reply
    }

    fn dispatch(&mut self, index: Revision, command: &Command) -> Applied {
        match command {
            Command::Init(init) => self.init(index, init),
            Command::SetNode(moves) => self.set_addresses(moves),
            Command::Announce {
                node,
                incarnation,
                number,
                unfit,
                after,
            } => self.announce((*node, *incarnation), *number, unfit, *after),
            Command::CreateExtent(new) => self.create_extent(new),
            Command::ResizeExtent { extent, size_bytes } => self.resize_extent(*extent, *size_bytes),
            Command::SetConfirmedReads { extent, on } => self.set_confirmed_reads(*extent, *on),
            Command::SetWriteCache { extent, on, lost } => self.set_write_cache(*extent, *on, *lost),
            Command::CacheSettled { items, proposer } => self.cache_settled(items, *proposer),
            Command::DeleteExtent { extent } => self.delete_extent(*extent),
            Command::CreateTarget { name } => {
                self.targets.entry(name.clone()).or_default();
                Ok(Reply::DONE)
            }
            Command::DeleteTarget { name } => self.delete_target(name),
            Command::Access(command) => self.apply_access(command),
            Command::MapLun { target, lun, extent } => self.map_lun(target, *lun, *extent),
            Command::UnmapLun { target, lun } => self.unmap_lun(target, *lun),
            Command::Unit {
                call,
                extent,
                by,
                change,
            } => self.change_unit(*call, *extent, by, change),
            Command::Suspect { node, generation } => self.suspect(index, *node, *generation),
            Command::ClearSuspect { node, suspicion } => self.clear(*node, *suspicion),
            Command::NewEpoch {
                suspect,
                suspicion,
                candidates,
                voters,
            } => self.new_epoch((*suspect, *suspicion), candidates, *voters),
            Command::Reopen {
                items,
                node,
                incarnation,
            } => self.reopen(items, *node, *incarnation),
            Command::Shrink {
                items,
                proposer,
                remove,
            } => self.shrink(items, *proposer, *remove),
            Command::Grow {
                items,
                proposer,
                add,
                run,
            } => self.grow(items, *proposer, *add, *run),
            Command::GrowVoid { items, proposer } => self.grow_void(items, *proposer),
            Command::Switchover {
                items,
                from,
                from_incarnation,
                to,
                to_incarnation,
            } => self.switchover(items, (*from, *from_incarnation), (*to, *to_incarnation)),
            Command::Admin(command) => self.administer(index, command),
        }
    }

    fn set_confirmed_reads(&mut self, extent: ExtentId, on: bool) -> Applied {
        let found = self.extents.get_mut(&extent);
        found.ok_or(Refusal::NoSuchExtent { extent })?.confirmed_reads = on;
        Ok(Reply::DONE)
    }

    pub(super) fn member_mut(&mut self, node: NodeId) -> Result<&mut Node, Refusal> {
        self.nodes.get_mut(&node).ok_or(Refusal::NoSuchNode { node })
    }

    fn init(&mut self, index: Revision, init: &Init) -> Applied {
        if let Some(cluster) = &self.cluster {
            // The same proposal again (its first reply was lost) is no error.
            let again = cluster.id == init.id && cluster.name == init.name;
            return if again {
                Ok(Reply::DONE)
            } else {
                Err(Refusal::AlreadyInitialized)
            };
        }
        check_init(init)?;
        for (tpg, new) in (1..).zip(&init.nodes) {
            self.last_tpg = TpgId(tpg);
            self.nodes.insert(new.id, Node::new(new, TpgId(tpg)));
        }
        self.voters = VoterSet {
            id: index.0,
            members: self.nodes.keys().copied().collect(),
            outgoing: BTreeSet::new(),
        };
        self.cluster = Some(ClusterIdentity {
            name: init.name.clone(),
            id: init.id,
        });
        Ok(Reply::Done {
            warnings: init_warnings(init),
        })
    }

    fn create_extent(&mut self, new: &NewExtent) -> Applied {
        check_name(&new.name)?;
        let mut extent = Extent {
            name: new.name.clone(),
            size_bytes: new.size_bytes,
            block_size: new.block_size,
            thin: new.thin,
            on_devices: new.on_devices,
            confirmed_reads: new.confirmed_reads,
            cache: WriteCache::default(),
            replicas: new.replicas.clone(),
            replicas_wanted: 0,
            retiring: BTreeSet::new(),
            preferred: new.preferred,
            handover: None,
            epoch: Epoch(0),
            primary: None,
            primary_incarnation: None,
            in_sync: new.replicas.clone(),
            version: InSyncVersion(1),
            secondary: new.secondary,
            alua_changes: 0,
            capacity_changes: 0,
            unit: UnitState::default(),
            answered: AnsweredCalls::new(),
            importing: None,
        };
        if let Some(old) = self.extents.get(&new.id) {
            let again =
                old.name == new.name && old.size_bytes == new.size_bytes && old.replicas == new.replicas;
            return if again {
                Ok(Reply::DONE)
            } else {
                Err(exists(&new.id))
            };
        }
        if self.extent_named(&new.name).is_some() {
            return Err(exists(&format!("extent '{}'", new.name)));
        }
        check_size(new.size_bytes, new.block_size)?;
        if new.on_devices && new.thin {
            return Err(Refusal::Invalid(
                "an extent on devices has all of its space: it cannot be thin".into(),
            ));
        }
        if new.replicas.is_empty() {
            return Err(Refusal::Invalid("an extent needs at least one replica".into()));
        }
        for &node in new.replicas.iter().chain(&new.preferred) {
            let member = self.node(node).ok_or(Refusal::NoSuchNode { node })?;
            if member.role != Role::Data || !new.replicas.contains(&node) {
                return Err(Refusal::NotReplica { node });
            }
            if member.leaving {
                return Err(leaving(&member.name));
            }
        }
        if new.write_cache {
            extent.cache.since = Some(extent.unit.version);
            extent.note_runs(new.id, &self.runs());
        }
        self.extents.insert(new.id, extent);
        Ok(Reply::DONE)
    }

    fn resize_extent(&mut self, id: ExtentId, size_bytes: u64) -> Applied {
        let extent = self
            .extents
            .get_mut(&id)
            .ok_or(Refusal::NoSuchExtent { extent: id })?;
        check_size(size_bytes, extent.block_size)?;
        if size_bytes < extent.size_bytes {
            let now = extent.size_bytes;
            return Err(Refusal::Invalid(format!(
                "an extent only grows: it has {now} bytes"
            )));
        }
        if size_bytes > extent.size_bytes {
            extent.size_bytes = size_bytes;
            extent.capacity_changes += 1;
        }
        Ok(Reply::DONE)
    }

    /// As what initiators may see an extent, for people; `None` where it is no LUN.
    pub fn shown_as(&self, extent: ExtentId) -> Option<String> {
        let own = self.targets.iter().find_map(|(name, target)| {
            let (lun, _) = target.luns.iter().find(|(_, unit)| **unit == extent)?;
            Some(format!("LUN {lun} of {name}"))
        });
        own.or_else(|| {
            let (target, group, lun) = self.shown_to_group(extent)?;
            Some(format!("LUN {lun} of {target} for initiator group '{group}'"))
        })
    }

    fn delete_extent(&mut self, extent: ExtentId) -> Applied {
        if let Some(by) = self.shown_as(extent) {
            let what = format!("extent {extent}");
            return Err(Refusal::InUse { what, by });
        }
        self.extents
            .remove(&extent)
            .ok_or(Refusal::NoSuchExtent { extent })?;
        Ok(Reply::DONE)
    }

    fn delete_target(&mut self, name: &IscsiName) -> Applied {
        let target = self.target_mut(name)?;
        if !target.luns.is_empty() {
            return Err(Refusal::InUse {
                what: format!("target {name}"),
                by: format!("{} LUNs", target.luns.len()),
            });
        }
        self.targets.remove(name);
        self.access.targets.remove(name);
        Ok(Reply::DONE)
    }

    fn target_mut(&mut self, name: &IscsiName) -> Result<&mut Target, Refusal> {
        self.targets
            .get_mut(name)
            .ok_or_else(|| Refusal::NoSuchTarget { name: name.clone() })
    }

    fn map_lun(&mut self, name: &IscsiName, lun: Lun, extent: ExtentId) -> Applied {
        if !self.extents.contains_key(&extent) {
            return Err(Refusal::NoSuchExtent { extent });
        }
        self.refuse_importing(extent)?;
        let target = self.target_mut(name)?;
        match target.luns.get(&lun) {
            Some(old) if *old == extent => return Ok(Reply::DONE),
            Some(_) => {
                return Err(Refusal::LunTaken {
                    target: name.clone(),
                    lun,
                });
            }
            None => {}
        }
        if let Some((other, _)) = target.luns.iter().find(|(_, e)| **e == extent) {
            return Err(exists(&format!("the extent as LUN {other} of {name}")));
        }
        if target.luns.len() >= LUNS_MAX {
            return Err(Refusal::Invalid(format!("a target has at most {LUNS_MAX} LUNs")));
        }
        target.luns.insert(lun, extent);
        target.lun_changes += 1;
        Ok(Reply::DONE)
    }

    fn unmap_lun(&mut self, name: &IscsiName, lun: Lun) -> Applied {
        let target = self.target_mut(name)?;
        if target.luns.remove(&lun).is_none() {
            return Err(Refusal::NoSuchLun {
                target: name.clone(),
                lun,
            });
        }
        target.lun_changes += 1;
        self.forget_lun(name, lun);
        Ok(Reply::DONE)
    }

    /// L3, first commit. The suspicion's id is this entry's index. A second proposal finds the first one's suspicion standing.
    fn suspect(&mut self, index: Revision, node: NodeId, named: LeaseGeneration) -> Applied {
        let member = self.member_mut(node)?;
        if let Some(suspicion) = member.suspicion {
            return Ok(Reply::Suspected { suspicion });
        }
        let now = member.lease_generation;
        if now != named {
            return Err(Refusal::GenerationMoved { node, named, now });
        }
        let suspicion = SuspicionId(index.0);
        member.suspicion = Some(suspicion);
        // L7: its connections belong to the lease generation that ends here.
        self.nexuses_lost(node);
        Ok(Reply::Suspected { suspicion })
    }

    /// L4: a new lease generation, so that promises asked for before it are worth nothing.
    fn clear(&mut self, node: NodeId, suspicion: SuspicionId) -> Applied {
        let member = self.member_mut(node)?;
        if member.suspicion != Some(suspicion) {
            return Err(Refusal::NoSuchSuspicion { node });
        }
        member.suspicion = None;
        member.lease_generation = member.lease_generation.next();
        Ok(Reply::Cleared {
            generation: member.lease_generation,
        })
    }
}

/// L8: a node that leaves gets no replica any more.
pub(super) fn leaving(name: &str) -> Refusal {
    Refusal::Invalid(format!("node '{name}' is leaving the cluster"))
}

fn exists(what: &impl ToString) -> Refusal {
    Refusal::Exists {
        what: what.to_string(),
    }
}

fn check_size(bytes: u64, block: BlockSize) -> Result<(), Refusal> {
    if !(EXTENT_BYTES_MIN..=EXTENT_BYTES_MAX).contains(&bytes) {
        return Err(Refusal::Invalid(format!(
            "an extent has {EXTENT_BYTES_MIN} to {EXTENT_BYTES_MAX} bytes, not {bytes}"
        )));
    }
    if !bytes.is_multiple_of(u64::from(block.bytes())) {
        let block = block.bytes();
        return Err(Refusal::Invalid(format!(
            "{bytes} bytes are no whole number of {block}-byte blocks"
        )));
    }
    Ok(())
}

fn check_init(init: &Init) -> Result<(), Refusal> {
    check_name(&init.name)?;
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for node in &init.nodes {
        check_name(&node.name)?;
        if node.id == NodeId(0) || !ids.insert(node.id) {
            return Err(Refusal::Invalid(format!(
                "node id {} is 0 or given twice",
                node.id
            )));
        }
        if !names.insert(&node.name) {
            return Err(exists(&format!("node '{}'", node.name)));
        }
    }
    if init.nodes.len() > NODES_MAX {
        return Err(Refusal::Invalid(format!(
            "a cluster has at most {NODES_MAX} nodes"
        )));
    }
    if !init.nodes.iter().any(|n| n.role == Role::Data) {
        return Err(Refusal::Invalid("a cluster needs a data node".into()));
    }
    Ok(())
}

fn init_warnings(init: &Init) -> Vec<String> {
    let data = init.nodes.iter().filter(|n| n.role == Role::Data).count();
    voter_warnings(init.nodes.len(), data)
}

/// What a cluster of so many voters, so many of them data nodes, cannot do.
pub(super) fn voter_warnings(voters: usize, data: usize) -> Vec<String> {
    let text = match (voters, data) {
        (1, _) => "one node alone: nothing is highly available until more nodes join",
        (2, 2) => {
            "two voters without a witness: if one is lost, nothing will fail over by itself; add a witness, or use \
             'holdfast cluster takeover' when one node is known to be down"
        }
        (2, _) => "two voters: if one is lost, nothing will fail over by itself; add another node",
        (_, 1) => "one data node: there is no second replica to fail over to",
        _ => return Vec::new(),
    };
    vec![text.to_owned()]
}
