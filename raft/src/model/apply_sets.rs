//! Primaries and in-sync sets: the commands of rules E1 to E6 and the second commit of L3.
//!
//! Every item goes through one gate ([`stamped`]), which holds E2's precondition, and one exit ([`Extent::moved`]), which raises the
//! version. No path here can empty an in-sync set or take the primary out of it; only a takeover can (`takeover`).

use std::collections::BTreeSet;

use holdfast_types::{ExtentId, Incarnation, NodeId, SuspicionId};

use crate::fault::{self, Fault};

use super::command::{Candidate, ExtentStamp};
use super::reply::{ItemOutcome, ItemResult, Refusal, Reply};
use super::state::{ClusterState, Extent};

type Applied = Result<Reply, Refusal>;

impl Extent {
    fn moved(&mut self) {
        self.version = self.version.next();
    }

    /// A new reign: the epoch names the primary's run (E1).
    fn reign(&mut self, primary: Option<(NodeId, Incarnation)>) {
        self.epoch = self.epoch.next();
        self.primary = primary.map(|(node, _)| node);
        self.primary_incarnation = primary.map(|(_, run)| run);
        self.handover = None;
        self.moved();
    }

    /// T4: the replica on `node` is the only one that counts as whole.
    pub(super) fn only_whole_on(&mut self, node: NodeId) {
        self.in_sync = BTreeSet::from([node]);
        self.moved();
    }

    /// The retiring replicas are replicas no more. [`Extent::may_retire`] must hold: then the set keeps a member, and its primary.
    pub(super) fn drop_retiring(&mut self) {
        let retiring = std::mem::take(&mut self.retiring);
        self.replicas.retain(|node| !retiring.contains(node));
        self.in_sync.retain(|node| !retiring.contains(node));
        self.forget_left();
        self.moved();
    }

    fn outcome(&self) -> ItemOutcome {
        ItemOutcome::Done {
            epoch: self.epoch,
            version: self.version,
            primary: self.primary,
        }
    }
}

/// E2: the extent is still as the proposal says.
fn stamped(extent: &Extent, stamp: ExtentStamp) -> Result<(), Refusal> {
    if fault::on(Fault::NoPrecondition) {
        return Ok(());
    }
    if extent.epoch != stamp.epoch {
        return Err(Refusal::EpochMoved {
            named: stamp.epoch,
            now: extent.epoch,
        });
    }
    if extent.version != stamp.version {
        return Err(Refusal::VersionMoved {
            named: stamp.version,
            now: extent.version,
        });
    }
    Ok(())
}

fn led_by(extent: &Extent, node: NodeId) -> Result<(), Refusal> {
    if extent.primary == Some(node) {
        Ok(())
    } else {
        Err(Refusal::NotPrimary { node })
    }
}

/// As [`led_by`], and the epoch names the newest run that the node told of: what an earlier run proposed comes too late, for the
/// present one may find its replica damaged and count on the others (J1, E1).
pub(super) fn led_by_newest_run(
    extent: &Extent,
    node: NodeId,
    newest: Option<Incarnation>,
) -> Result<(), Refusal> {
    led_by(extent, node)?;
    if newest.is_some() && newest != extent.primary_incarnation {
        return Err(Refusal::OtherIncarnation);
    }
    Ok(())
}

impl ClusterState {
    fn newest_run(&self, node: NodeId) -> Option<Incarnation> {
        self.nodes.get(&node).and_then(|member| member.incarnation)
    }

    /// Runs `change` over each item whose precondition holds; the items stand for themselves.
    pub(super) fn each(
        &mut self,
        items: &[ExtentStamp],
        change: impl Fn(ExtentId, &mut Extent) -> Result<(), Refusal>,
    ) -> Vec<ItemResult> {
        let one = |stamp: &ExtentStamp| {
            let extent = self.extents.get_mut(&stamp.extent);
            let done = extent
                .ok_or(Refusal::NoSuchExtent { extent: stamp.extent })
                .and_then(|extent| {
                    stamped(extent, *stamp)?;
                    change(stamp.extent, extent)?;
                    Ok(extent.outcome())
                });
            ItemResult {
                extent: stamp.extent,
                outcome: done.unwrap_or_else(|refusal| ItemOutcome::Refused { refusal }),
            }
        };
        items.iter().map(one).collect()
    }

    /// J1, J2: what a node says of its replicas. What an earlier run said is over with the first word of the next one; should that word
    /// come late, the present run makes its own anew.
    pub(super) fn announce(
        &mut self,
        (node, run): (NodeId, Incarnation),
        number: u64,
        unfit: &BTreeSet<ExtentId>,
        after: Option<Incarnation>,
    ) -> Applied {
        let member = self.member_mut(node)?;
        if member.incarnation == Some(run) && number < member.announced {
            return Err(Refusal::AnnouncedSince { node });
        }
        let newest = member.incarnation.unwrap_or(Incarnation(0));
        if newest != run && after.is_some_and(|after| after != newest) {
            return Err(Refusal::AnnouncedSince { node });
        }
        let before = member.incarnation.replace(run);
        member.announced = number;
        member.unfit.clone_from(unfit);
        if before != Some(run) {
            self.nexuses_lost(node);
        }
        Ok(Reply::DONE)
    }

    /// What `node` has announced as unable to serve.
    fn unfit_of(&self, node: NodeId) -> BTreeSet<ExtentId> {
        self.node(node)
            .map(|member| member.unfit.clone())
            .unwrap_or_default()
    }

    /// A suspect is given nothing, and may change nothing (E2).
    pub(super) fn trusted(&self, node: NodeId) -> Result<(), Refusal> {
        match self.nodes.get(&node) {
            None => Err(Refusal::NoSuchNode { node }),
            Some(member) if member.is_suspect() => Err(Refusal::Suspect { node }),
            Some(_) => Ok(()),
        }
    }

    /// L3, second commit. Everything it relies on is looked at here, when it is applied: the same suspicion stands, the old epoch is
    /// the suspect's (an extent that moved on has another primary), the new primary is in sync and no suspect itself, the run that is
    /// named has announced itself, and not that its replica cannot serve (J1, J2).
    ///
    /// Where no candidate fits, the extent is left without primary, under a new epoch: nobody serves it (the suspect's promises have run
    /// out), and the first fit member of that set to come back opens it.
    ///
    /// The in-sync set stays as it is. Announcements cannot tell of a disk that was lost a moment ago; so the next primary takes the
    /// suspect out by itself (a shrink), once its own journal has stored the beginning of the new epoch. Until then the suspect's
    /// replica counts, and may take over when it is back.
    pub(super) fn new_epoch(
        &mut self,
        (suspect, suspicion): (NodeId, SuspicionId),
        candidates: &[Candidate],
        voters: u64,
    ) -> Applied {
        if voters != self.voters.id {
            // L8: those who reported are perhaps no majority of the set that is in force now.
            return Err(Refusal::VotersMoved);
        }
        let stands = self.member_mut(suspect)?.suspicion == Some(suspicion);
        let anyway = fault::on(Fault::NewEpochWithoutSuspicion) || fault::on(Fault::NoSuspectStep);
        if !stands && !anyway {
            return Err(Refusal::NoSuchSuspicion { node: suspect });
        }
        let any = fault::on(Fault::UnfitPromoted);
        let fit: Vec<(Candidate, BTreeSet<ExtentId>)> = candidates
            .iter()
            .filter(|c| self.trusted(c.node).is_ok())
            .filter(|c| any || self.newest_run(c.node) == Some(c.incarnation))
            .map(|c| (*c, self.unfit_of(c.node)))
            .collect();
        let newest = self.runs();
        let lost = self
            .extents
            .iter_mut()
            .filter(|(_, e)| e.primary == Some(suspect));
        let items = lost
            .map(|(id, extent): (&ExtentId, &mut Extent)| {
                let serves = |unfit: &BTreeSet<ExtentId>| any || !unfit.contains(id);
                let member = |node| extent.in_sync.contains(&node) || fault::on(Fault::NoInSyncCheck);
                let has_all = |c: &Candidate| extent.remembers(c.node, c.incarnation, &newest);
                let able = fit
                    .iter()
                    .filter(|(c, unfit)| member(c.node) && serves(unfit) && has_all(c));
                // L8: a replica that is to go serves only where none that stays can.
                let next = able
                    .map(|(c, _)| *c)
                    .min_by_key(|c| extent.retiring.contains(&c.node));
                if next.is_some() && (any || fault::on(Fault::SuspectTakenOut)) {
                    extent.in_sync.remove(&suspect);
                }
                if let Some(next) = next {
                    extent.begin_anew(*id, (next.node, next.incarnation), &newest);
                }
                extent.reign(next.map(|c| (c.node, c.incarnation)));
                ItemResult {
                    extent: *id,
                    outcome: extent.outcome(),
                }
            })
            .collect();
        Ok(Reply::Items { items })
    }

    /// E1, E6: a new epoch for the named primary, or for an in-sync member where there is no primary; proposed by that node only.
    pub(super) fn reopen(&mut self, items: &[ExtentStamp], node: NodeId, run: Incarnation) -> Applied {
        self.trusted(node)?;
        let unfit = self.unfit_of(node);
        let newest = self.runs();
        let items = self.each(items, |id, extent| {
            if unfit.contains(&id) {
                return Err(Refusal::Unfit { node });
            }
            if extent.primary.is_some_and(|primary| primary != node) {
                return Err(Refusal::NotPrimary { node });
            }
            if !extent.in_sync.contains(&node) {
                return Err(Refusal::NotInSync { node });
            }
            if !extent.remembers(node, run, &newest) {
                return Err(Refusal::Forgot { node });
            }
            extent.begin_anew(id, (node, run), &newest);
            extent.reign(Some((node, run)));
            Ok(())
        });
        Ok(Reply::Items { items })
    }

    /// E2, "shrinks and growths of a suspect are refused": a suspect *primary* changes no set, since its extents are about to move and a
    /// set that keeps changing would hold that up (the check of the in-sync set at apply is what keeps it safe). Taking out a member
    /// that is itself suspect is another matter: its healthy primary must be able to, or every write would wait for a dead replica.
    /// That is safe, since a later promotion looks at the set as it then is.
    pub(super) fn shrink(&mut self, items: &[ExtentStamp], proposer: NodeId, remove: NodeId) -> Applied {
        self.trusted(proposer)?;
        if proposer == remove {
            return Err(Refusal::RemovesPrimary { node: remove });
        }
        let newest = self.newest_run(proposer);
        let items = self.each(items, |_, extent| {
            led_by_newest_run(extent, proposer, newest)?;
            if !extent.in_sync.remove(&remove) {
                return Err(Refusal::NotInSync { node: remove });
            }
            extent.forget_left();
            extent.moved();
            Ok(())
        });
        Ok(Reply::Items { items })
    }

    /// R3, E3. Neither a suspect primary nor a suspect newcomer (E2), nor one whose replica cannot serve (J1, J2).
    pub(super) fn grow(
        &mut self,
        items: &[ExtentStamp],
        proposer: NodeId,
        add: NodeId,
        run: Option<Incarnation>,
    ) -> Applied {
        self.trusted(proposer)?;
        self.trusted(add)?;
        let (newest, newcomer) = (self.newest_run(proposer), self.newest_run(add));
        let unfit = self.unfit_of(add);
        let items = self.each(items, |id, extent| {
            led_by_newest_run(extent, proposer, newest)?;
            if !extent.replicas.contains(&add) {
                return Err(Refusal::NotReplica { node: add });
            }
            if unfit.contains(&id) {
                return Err(Refusal::Unfit { node: add });
            }
            // W5: it has what was answered in the run that the primary saw. Until that is announced, an earlier one would count as newer.
            let cached = extent.cache.is_in_force();
            if cached && run.is_none_or(|run| newcomer != Some(run)) {
                return Err(Refusal::OtherIncarnation);
            }
            if !extent.in_sync.insert(add) {
                return Err(Refusal::AlreadyInSync { node: add });
            }
            if let Some(run) = run.filter(|_| cached) {
                extent.cache.runs.insert(add, run);
            }
            extent.moved();
            Ok(())
        });
        Ok(Reply::Items { items })
    }

    /// E3: only the version is raised, so that a growth that is still under way finds another one.
    pub(super) fn grow_void(&mut self, items: &[ExtentStamp], proposer: NodeId) -> Applied {
        self.trusted(proposer)?;
        let newest = self.newest_run(proposer);
        let items = self.each(items, |_, extent| {
            led_by_newest_run(extent, proposer, newest)?;
            extent.moved();
            Ok(())
        });
        Ok(Reply::Items { items })
    }

    /// E6: from the very run that handed back, to a member that is in sync and can serve, in the run that it has announced, and votes (L8).
    pub(super) fn switchover(
        &mut self,
        items: &[ExtentStamp],
        from: (NodeId, Incarnation),
        to: (NodeId, Incarnation),
    ) -> Applied {
        self.trusted(from.0)?;
        self.trusted(to.0)?;
        if from.0 == to.0 {
            return Err(Refusal::Invalid("a switchover goes to another node".into()));
        }
        if self.newest_run(to.0) != Some(to.1) {
            return Err(Refusal::OtherIncarnation);
        }
        if !self.voters.members.contains(&to.0) {
            // L8: it holds no lease, and is suspected by nobody.
            return Err(Refusal::NoVote { node: to.0 });
        }
        let unfit = self.unfit_of(to.0);
        let newest = self.runs();
        let items = self.each(items, |id, extent| {
            led_by(extent, from.0)?;
            if extent.primary_incarnation != Some(from.1) {
                return Err(Refusal::OtherIncarnation);
            }
            if !extent.in_sync.contains(&to.0) {
                return Err(Refusal::NotInSync { node: to.0 });
            }
            if unfit.contains(&id) {
                return Err(Refusal::Unfit { node: to.0 });
            }
            if !extent.remembers(to.0, to.1, &newest) {
                return Err(Refusal::Forgot { node: to.0 });
            }
            extent.begin_anew(id, to, &newest);
            extent.reign(Some(to));
            Ok(())
        });
        Ok(Reply::Items { items })
    }
}
