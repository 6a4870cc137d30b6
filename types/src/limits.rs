//! Limits and default times that more than one crate relies on.

use std::time::Duration;

/// Nodes in a cluster, witness included.
pub const NODES_MAX: usize = 9;
/// Replication addresses of a data node: links between two nodes, of which one is used at a time.
pub const REPLICATION_LINKS_MAX: usize = 4;
/// Logical units of a target.
pub const LUNS_MAX: usize = 1024;
/// Largest extent: 16 TiB.
pub const EXTENT_BYTES_MAX: u64 = 16 << 40;
/// Smallest extent: 1 MiB.
pub const EXTENT_BYTES_MIN: u64 = 1 << 20;
/// Most data that one SCSI command moves; said to initiators in VPD page B0. Larger ones get 05/24/00.
pub const TRANSFER_BYTES_MAX: u32 = 8 << 20;
/// Most blocks of a COMPARE AND WRITE; said in VPD page B0.
pub const COMPARE_AND_WRITE_BLOCKS_MAX: u8 = 255;
/// Most data that a WRITE ATOMIC puts; said in VPD page B0. Any command is one record, so it is as atomic at any length.
pub const ATOMIC_BYTES_MAX: u32 = 1 << 20;
/// Most bytes that one EXTENDED COPY moves; said as MAXIMUM SEGMENT LENGTH. Every piece of it must take effect within the hold limit of the
/// command (I11), so this is what a slow disk does in that time.
pub const COPY_BYTES_MAX: u32 = 16 << 20;
/// Bytes that a copy reads and writes at a time: what other commands wait for at most.
pub const COPY_PIECE_BYTES: u32 = 1 << 20;
/// Most LBA status descriptors of one answer; an initiator asks again from where it ends.
pub const MAP_RUNS_MAX: u16 = 256;
/// Most blocks that one UNMAP names, all descriptors together; said in VPD page B0.
pub const UNMAP_BLOCKS_MAX: u32 = 1 << 20;
/// Most descriptors of one UNMAP; said in VPD page B0.
pub const UNMAP_DESCRIPTORS_MAX: u32 = 256;
/// Most bytes that one WRITE SAME covers; said in VPD page B0. The pattern is written out when the record is applied, so this bounds that
/// work.
pub const WRITE_SAME_BYTES_MAX: u32 = 16 << 20;
/// A physical block: in what space is given and taken; what LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT and the granularities of VPD page
/// B0 follow from.
pub const PHYSICAL_BYTES: u32 = 4096;
/// Unit in which replicas are compared and resynchronized. A multiple of every block size.
pub const RESYNC_RANGE_BYTES: u64 = 1 << 20;

/// Between two heartbeats to the same peer (L1).
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(50);
/// The lease time L: how long an acknowledged heartbeat is a promise (L2). The default; cluster state has the value in force.
pub const LEASE_TIME: Duration = Duration::from_millis(600);
/// Silence after which a leader may suspect a node (L6).
pub const SILENT_AFTER: Duration = Duration::from_millis(500);
/// How long a command may wait before it takes effect (W1, I11).
pub const HOLD_LIMIT: Duration = Duration::from_secs(3);
/// No progress with work waiting makes a replica stuck after this long (I10).
pub const STUCK_AFTER: Duration = Duration::from_secs(5);
/// A gap in a node's own run longer than this ends its initiators' connections (L7).
pub const RUN_GAP: Duration = Duration::from_secs(1);
/// Bound on how far two clocks' rates may differ, as a divisor: 1/1000 (L2). What is taken off L is twice this share of it.
pub const CLOCK_RATE_BOUND_DIVISOR: u32 = 1000;
