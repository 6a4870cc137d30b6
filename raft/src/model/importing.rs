//! An extent that is being filled with an image: nobody gets to see it until that is over.

use holdfast_types::{ExtentId, Incarnation, LeaseGeneration, NodeId};
use serde::{Deserialize, Serialize};

use super::reply::{Refusal, Reply};
use super::state::ClusterState;

/// Who fills it. It stands in one lease generation of that node's run: whoever counts the node as lost counts its imports as over, and what
/// it sends on in that generation is refused from then on (L4, F3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Importing {
    /// The node that was asked to.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// Its lease generation.
    pub generation: LeaseGeneration,
    /// Tells the imports of that run apart.
    pub number: u64,
}

impl ClusterState {
    fn stands(&self, mark: &Importing) -> bool {
        self.node(mark.node).is_some_and(|node| {
            !node.is_suspect()
                && node.incarnation == Some(mark.incarnation)
                && node.lease_generation == mark.generation
        })
    }

    /// The import that goes on in an extent.
    pub fn importing(&self, extent: ExtentId) -> Option<Importing> {
        let mark = self.extents.get(&extent)?.importing?;
        self.stands(&mark).then_some(mark)
    }

    /// Begins or ends an import.
    pub(super) fn set_importing(
        &mut self,
        id: ExtentId,
        mark: Importing,
        on: bool,
    ) -> Result<Reply, Refusal> {
        let (shown, other) = (
            self.shown_as(id),
            self.importing(id).filter(|other| *other != mark),
        );
        let stands = self.stands(&mark);
        let extent = self
            .extents
            .get_mut(&id)
            .ok_or(Refusal::NoSuchExtent { extent: id })?;
        if !on {
            if extent.importing == Some(mark) {
                extent.importing = None;
            }
            return Ok(Reply::DONE);
        }
        let what = || format!("extent '{}'", extent.name);
        if let Some(by) = shown {
            return Err(Refusal::InUse { what: what(), by });
        }
        if other.is_some() {
            return Err(Refusal::InUse {
                what: what(),
                by: "another import".to_owned(),
            });
        }
        if !stands {
            return Err(Refusal::Invalid(
                "the node that imports was counted as lost meanwhile".into(),
            ));
        }
        extent.importing = Some(mark);
        Ok(Reply::DONE)
    }

    /// Nobody is shown what is half an image.
    pub(super) fn refuse_importing(&self, id: ExtentId) -> Result<(), Refusal> {
        let Some(mark) = self.importing(id) else {
            return Ok(());
        };
        let name = |node| self.node(node).map_or_else(String::new, |node| node.name.clone());
        Err(Refusal::InUse {
            what: format!(
                "extent '{}'",
                self.extents.get(&id).map_or("", |extent| extent.name.as_str())
            ),
            by: format!("an import by node '{}'", name(mark.node)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::super::*;
    use super::*;

    fn mark(state: &ClusterState, node: NodeId, number: u64) -> Importing {
        Importing {
            node,
            incarnation: state.nodes[&node].incarnation.unwrap(),
            generation: state.nodes[&node].lease_generation,
            number,
        }
    }

    fn set(extent: ExtentId, mark: Importing, on: bool) -> Command {
        AdminCommand::SetImporting { extent, mark, on }.into()
    }

    #[test]
    fn an_extent_is_imported_by_one_or_shown_to_initiators() {
        let mut state = led_by_a(2);
        let extent = extent_id(1);
        must(&Command::CreateTarget { name: iqn() }, &mut state);
        let (by_a, by_b) = (mark(&state, A, 1), mark(&state, B, 1));
        must(&set(extent, by_a, true), &mut state);
        must(&set(extent, by_a, true), &mut state);
        for other in [by_b, mark(&state, A, 2)] {
            let refused = go(&set(extent, other, true), &mut state);
            assert!(
                matches!(refused.refusal(), Some(Refusal::InUse { .. })),
                "{refused:?}"
            );
            // Who has none ends none.
            must(&set(extent, other, false), &mut state);
        }
        let refused = go(&map(3, 1), &mut state);
        assert!(
            matches!(refused.refusal(), Some(Refusal::InUse { .. })),
            "{refused:?}"
        );
        must(&map(4, 2), &mut state);
        must(&set(extent, by_a, false), &mut state);
        must(&map(3, 1), &mut state);
        let refused = go(&set(extent, by_b, true), &mut state);
        assert!(
            matches!(refused.refusal(), Some(Refusal::InUse { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn the_import_of_a_node_that_is_lost_or_starts_anew_is_over() {
        let mut state = led_by_a(2);
        let extent = extent_id(1);
        must(&Command::CreateTarget { name: iqn() }, &mut state);
        let before = mark(&state, B, 1);
        must(&set(extent, before, true), &mut state);
        suspect(&mut state, B);
        assert_eq!(state.importing(extent), None);
        must(&map(3, 1), &mut state);
        let mut state = led_by_a(2);
        must(&set(extent, before, true), &mut state);
        must(&announce(B, 77, 0, &[]), &mut state);
        assert_eq!(state.importing(extent), None);
        // A late word of the earlier run begins nothing.
        let refused = go(&set(extent, before, true), &mut state);
        assert!(
            matches!(refused.refusal(), Some(Refusal::Invalid(_))),
            "{refused:?}"
        );
        must(&set(extent, mark(&state, B, 1), true), &mut state);
    }
}
