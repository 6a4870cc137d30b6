//! What is said of a node's disk: only what was measured, or what the kernel says of it.

use super::super::disk::DiskLook;
use super::super::document::{CheckLine, Verdict};
use super::bytes;

/// Durable writes a second, one after the other, that no disk that turns can do, with whatever cache.
const TURNING_MAX: u64 = 50_000;
/// The same of any device behind a block layer: the way there and back takes longer.
const ANY_MAX: u64 = 300_000;
/// Percent of free space below which it is worth a line, as the alarm of `status` has it.
const LOW_PERCENT: u64 = 10;
/// Percent of free space below which thin extents are about to stop growing.
const FULL_PERCENT: u64 = 1;

/// Lines about one node's disk.
pub(super) fn lines(name: &str, disk: Option<&DiskLook>) -> Vec<CheckLine> {
    match disk {
        Some(disk) => vec![flush(name, disk), room(name, disk)],
        None => vec![CheckLine::not_ok(
            Verdict::Warning,
            ("flush", name.to_owned()),
            "its disk could not be looked at",
            format!("the log of {name} says why"),
        )],
    }
}

fn flush(name: &str, disk: &DiskLook) -> CheckLine {
    let DiskLook { dir, file_system, .. } = disk;
    let line = |verdict, found: String, advice: &str| {
        CheckLine::not_ok(verdict, ("flush", name.to_owned()), found, advice)
    };
    if let Some(why) = &disk.failed {
        let found = format!("durable writes in {dir} fail ({why})");
        return line(
            Verdict::Failed,
            found,
            "see that the directory can be written and its disk works",
        );
    }
    let rate = u64::from(disk.writes) * 1_000_000 / disk.took_us.max(1);
    let device = disk.device.as_deref().unwrap_or(file_system);
    let told = format!("{rate} durable writes of 4 KiB a second, one after the other, on {device}");
    match file_system.as_str() {
        "tmpfs" | "ramfs" => line(
            Verdict::Warning,
            format!("{dir} is in memory ({file_system}): nothing there outlives the machine's power"),
            "set dir in node.toml to a directory on a disk",
        ),
        "overlayfs" => line(
            Verdict::Warning,
            format!(
                "{dir} is on overlayfs, as a container's own files are, which go with the container; {told}"
            ),
            "set dir in node.toml to a directory on a disk, or to a volume",
        ),
        "nfs" | "fuse" => line(
            Verdict::Warning,
            format!(
                "{dir} is on {file_system}, and whether what is flushed there is stable is somebody else's word; {told}"
            ),
            "set dir in node.toml to a directory on a disk of this machine",
        ),
        _ if disk.turns == Some(true) && rate > TURNING_MAX => line(
            Verdict::Warning,
            format!("{told}, which the kernel takes for a disk that turns: no such disk is that fast"),
            "find out where flushes end: a hypervisor or controller may acknowledge what is in its memory alone",
        ),
        _ if rate > ANY_MAX => line(
            Verdict::Warning,
            format!("{told}: no disk is that fast"),
            "find out where flushes end: they seem to reach no device",
        ),
        _ => {
            let cache = match disk.cache.as_deref() {
                Some("write back") => "; its cache is volatile, and the kernel has it flushed",
                Some("write through") => {
                    "; by its own word it has no volatile cache, so the kernel sends it no flushes"
                }
                _ => "",
            };
            CheckLine::ok("flush", name, format!("{told}{cache}"))
        }
    }
}

fn room(name: &str, disk: &DiskLook) -> CheckLine {
    let (total, free) = (disk.total_bytes, disk.free_bytes);
    let percent = u64::try_from(u128::from(free) * 100 / u128::from(total.max(1))).unwrap_or(100);
    let found = format!("{percent} % free: {} of {}", bytes(free), bytes(total));
    let verdict = match percent {
        0..FULL_PERCENT => Verdict::Failed,
        FULL_PERCENT..LOW_PERCENT => Verdict::Warning,
        _ => return CheckLine::ok("room", name, found),
    };
    let advice = "see 'A disk is full' in docs/runbooks.md";
    CheckLine::not_ok(verdict, ("room", name.to_owned()), found, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> DiskLook {
        DiskLook {
            dir: "/var/lib/holdfast".into(),
            file_system: "ext4".into(),
            device: Some("sda".into()),
            turns: Some(true),
            cache: Some("write back".into()),
            writes: 60,
            took_us: 500_000,
            failed: None,
            total_bytes: 100 << 30,
            free_bytes: 50 << 30,
        }
    }

    fn verdicts(disk: &DiskLook) -> [Verdict; 2] {
        let lines = lines("a", Some(disk));
        [lines[0].verdict, lines[1].verdict]
    }

    #[test]
    fn a_disk_is_doubted_only_where_its_rate_or_its_place_says_so() {
        use Verdict::{Failed, Ok, Warning};
        assert_eq!(verdicts(&disk()), [Ok, Ok]);
        // A controller with a battery is fast, too.
        let fast = DiskLook {
            took_us: 6_000,
            ..disk()
        };
        assert_eq!(verdicts(&fast)[0], Ok);
        let lying = DiskLook {
            took_us: 600,
            ..disk()
        };
        assert_eq!(verdicts(&lying)[0], Warning);
        let solid = DiskLook {
            turns: Some(false),
            ..lying
        };
        assert_eq!(verdicts(&solid)[0], Ok);
        assert_eq!(
            verdicts(&DiskLook {
                took_us: 100,
                ..solid
            })[0],
            Warning
        );
        for place in ["tmpfs", "ramfs", "overlayfs", "nfs", "fuse"] {
            let there = DiskLook {
                file_system: place.into(),
                ..disk()
            };
            assert_eq!(verdicts(&there)[0], Warning, "{place}");
        }
        let broken = DiskLook {
            failed: Some("read-only".into()),
            ..disk()
        };
        assert_eq!(verdicts(&broken)[0], Failed);
        // Nothing measured is no rate.
        assert_eq!(
            verdicts(&DiskLook {
                writes: 0,
                took_us: 0,
                ..disk()
            })[0],
            Ok
        );
    }

    #[test]
    fn room_is_said_in_words_that_grow_with_the_need() {
        use Verdict::{Failed, Ok, Warning};
        for (free, verdict) in [(10, Ok), (9, Warning), (1, Warning), (0, Failed)] {
            let disk = DiskLook {
                free_bytes: free << 30,
                ..disk()
            };
            assert_eq!(verdicts(&disk)[1], verdict, "{free}");
        }
        let none = DiskLook {
            total_bytes: 0,
            free_bytes: 0,
            ..disk()
        };
        assert_eq!(verdicts(&none)[1], Failed);
        assert_eq!(lines("a", None)[0].verdict, Warning);
    }
}
