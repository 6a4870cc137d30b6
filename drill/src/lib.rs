//! Initiators and workloads that put a target to the test: ours or anybody's.
//!
//! [`workload`] writes blocks that say who wrote them and in which order, and notices any block that goes back; [`checker`] judges a
//! whole history of reads and writes; [`rehearsal`] hurts a cluster under a workload and tells how long writes stood still; [`chaos`]
//! hurts it in all ways at a time; [`ground`] is where; [`watch`] looks on while somebody else does the hurting; [`report`] draws what
//! happened over time; [`mod@bench`] measures; [`initiator`] is one iSCSI session; [`multipath`] sends commands over several paths as
//! dm-multipath does. All of them see a [`disk::Disk`], so that they are tested on disks in memory that lose and tear writes.

pub mod bench;
pub mod bench_guard;
pub mod cdb;
pub mod chaos;
pub mod checker;
pub mod disk;
pub mod error;
pub mod ground;
pub mod histogram;
pub mod initiator;
pub mod multipath;
pub mod rehearsal;
pub mod report;
pub mod url;
pub mod watch;
pub mod workload;
