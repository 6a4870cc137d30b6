//! What people hear of a core: what happened as an event ([`EVENTS`]), the rest as a line of the log.

use holdfast_types::{EVENTS, ExtentId};

use crate::core::api::{FenceReason, Note, RoleName, StuckPart};

/// Tells it.
pub(super) fn tell(extent: ExtentId, note: &Note) {
    match note {
        Note::Role {
            role: RoleName::Primary,
            epoch,
        } => {
            tracing::info!(target: EVENTS, what = "serving", %extent, "is served by this node, epoch {epoch}")
        }
        Note::Fenced { reason } => {
            let why = reason.map_or("found damaged at the start", failed);
            tracing::error!(target: EVENTS, what = "disk", %extent, "this node's replica is out of service: {why}");
        }
        Note::Stuck { part } => {
            tracing::warn!(target: EVENTS, what = "disk", %extent, "this node's disk makes no progress: {}", hanging(*part))
        }
        Note::Moves => {
            tracing::info!(target: EVENTS, what = "disk", %extent, "this node's disk makes progress again")
        }
        Note::ResyncStarted { node, ranges } => tracing::info!(
            target: EVENTS,
            what = "disk",
            %extent,
            %node,
            "node {node} is resynced: {ranges} ranges of 1 MiB are compared"
        ),
        Note::BadBlocks { node, blocks } => {
            tracing::warn!(target: EVENTS, what = "disk", %extent, %node, "node {node} has {blocks} bad blocks")
        }
        Note::Repaired { node, blocks } => {
            tracing::info!(target: EVENTS, what = "disk", %extent, %node, "{blocks} bad blocks are repaired on node {node}")
        }
        Note::Unreadable { .. } | Note::Diverged { .. } => tell_loss(extent, note),
        Note::ScrubStarted { .. } | Note::ScrubWaits { .. } | Note::Scrubbed { .. } => {
            tell_scrub(extent, note)
        }
        Note::BadMessage { .. } | Note::RefusedBy { .. } => tracing::warn!(%extent, ?note, "replication"),
        _ => tracing::info!(%extent, ?note, "replication"),
    }
}

const fn failed(reason: FenceReason) -> &'static str {
    match reason {
        FenceReason::Journal => "a write or flush of the journal failed",
        FenceReason::Extent => "a write or flush of the extent failed",
    }
}

const fn hanging(part: StuckPart) -> &'static str {
    match part {
        StuckPart::Journal => "the journal's writes hang",
        StuckPart::Extent => "the extent's reads or writes hang",
    }
}

fn tell_loss(extent: ExtentId, note: &Note) {
    match note {
        Note::Unreadable { lba } => tracing::error!(
            target: EVENTS,
            what = "disk",
            %extent,
            %lba,
            "a block is bad in every replica that counts: it cannot be repaired, and reads of it end as unreadable until it is written"
        ),
        Note::Diverged { node, range, blocks } => tracing::error!(
            target: EVENTS,
            what = "disk",
            %extent,
            %node,
            %range,
            blocks,
            "A REPLICA IN SYNC DIFFERS from the primary, that of node {node}, although both copies have the right checksums: the primary's \
             contents, which initiators were given, replace the replica's"
        ),
        _ => {}
    }
}

fn tell_scrub(extent: ExtentId, note: &Note) {
    match note {
        Note::ScrubStarted { node } => tracing::info!(
            target: EVENTS,
            what = "disk",
            %extent,
            %node,
            "a scrub compares node {node}, which is in sync, with the primary"
        ),
        Note::ScrubWaits { node, range } => tracing::warn!(
            %extent,
            %node,
            %range,
            "a range was not read in time for a scrub: it is compared later"
        ),
        Note::Scrubbed { outcome } => tracing::info!(
            target: EVENTS,
            what = "disk",
            %extent,
            seconds = outcome.took.as_secs(),
            bad = outcome.found,
            repaired = outcome.repaired,
            lost = outcome.lost,
            diverged = outcome.diverged,
            "a scrub compared every replica in sync"
        ),
        _ => {}
    }
}
