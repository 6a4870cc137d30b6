//! The last failover of an extent, out of what a node has recorded, in ten lines at most.

use super::{Event, Kind};

/// Events that are further apart than this do not belong to one failover, in milliseconds.
const GAP_MS: u64 = 5_000;
/// What still belongs to it after the new primary serves, in milliseconds.
const AFTER_MS: u64 = 1_000;
/// Lines besides the first and the last one.
const LINES_MAX: usize = 8;

/// What is said of `extent`'s last change of primary; `None` where none is recorded. `events` are in order.
pub(crate) fn why(events: &[Event], extent: &str) -> Option<Vec<String>> {
    let ours = |event: &Event| event.extent.as_deref().is_none_or(|name| name == extent);
    let is_change = |event: &&Event| {
        event.what == Kind::Primary && event.node.is_some() && event.extent.as_deref() == Some(extent)
    };
    let change = events.iter().rposition(|event| is_change(&event))?;
    let at = events[change].at_ms;
    let counts = |event: &&Event| {
        ours(event)
            && matches!(
                event.what,
                Kind::Leader
                    | Kind::Node
                    | Kind::Lease
                    | Kind::Link
                    | Kind::Primary
                    | Kind::Serving
                    | Kind::InSync
                    | Kind::Disk
            )
    };
    let serves = events[change..]
        .iter()
        .find(|event| event.what == Kind::Serving && ours(event));
    let until = serves.map_or(at, |event| event.at_ms).saturating_add(AFTER_MS);
    let mut story: Vec<&Event> = events
        .iter()
        .filter(counts)
        .filter(|event| event.at_ms <= until)
        .collect();
    // From the change back to the first longer pause.
    let later = |pair: &[&Event]| pair[0].at_ms < at && pair[1].at_ms.saturating_sub(pair[0].at_ms) > GAP_MS;
    if let Some(pause) = story.windows(2).rposition(later) {
        story.drain(..=pause);
    }
    // Nothing from before the story: an earlier failover that was just then.
    if let Some(earlier) = story
        .iter()
        .rposition(|event| is_change(event) && event.at_ms < at)
    {
        story.drain(..=earlier);
    }
    let middle = story.iter().position(|event| event.at_ms >= at).unwrap_or(0);
    let first = (middle + 3).min(story.len()).saturating_sub(LINES_MAX);
    let story = &story[first..story.len().min(first + LINES_MAX)];
    let began = story.first().map_or(at, |event| event.at_ms);
    let took = serves.map(|event| event.at_ms.saturating_sub(began));
    let mut lines = vec![events[change].line()];
    lines.extend(story.iter().map(|event| {
        let after = event.at_ms.saturating_sub(began);
        format!("  +{:>6.3} s  {}", after as f64 / 1000.0, event.sentence())
    }));
    // Only the node that serves knows.
    lines.extend(took.map(|ms| format!("It was served {ms} ms after this began.")));
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::super::event::Level;
    use super::*;

    fn event(at_ms: u64, what: Kind, extent: Option<&str>, node: Option<&str>, text: &str) -> Event {
        Event {
            at_ms,
            level: Level::Info,
            what,
            extent: extent.map(str::to_owned),
            node: node.map(str::to_owned),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_failover_is_told_from_its_beginning_to_its_end_and_nothing_else_is() {
        let disk = Some("disk");
        let events = [
            event(1_000, Kind::Primary, disk, Some("a"), "a is its primary, epoch 1"),
            event(1_010, Kind::Serving, disk, None, "is served here"),
            event(53_000, Kind::Leader, None, Some("w"), "w leads"),
            event(60_000, Kind::Link, None, Some("a"), "link down"),
            event(60_100, Kind::Session, None, None, "an initiator logs in"),
            event(60_500, Kind::Node, None, Some("a"), "a is not heard any more"),
            event(60_580, Kind::Primary, Some("other"), Some("b"), "another extent"),
            event(
                60_583,
                Kind::Primary,
                disk,
                Some("b"),
                "b is its primary instead of a",
            ),
            event(60_590, Kind::Serving, disk, None, "is served here"),
            event(60_591, Kind::InSync, disk, Some("a"), "a is not in sync any more"),
            event(90_000, Kind::InSync, disk, Some("a"), "a is in sync"),
        ];
        let lines = why(&events, "disk").unwrap();
        assert!(
            lines[0].contains("b is its primary instead of a")
                && lines[6] == "It was served 590 ms after this began.",
            "{lines:?}"
        );
        let told: Vec<&str> = lines[1..6]
            .iter()
            .filter_map(|line| line.split_once(" s  ").map(|(_, text)| text))
            .collect();
        assert_eq!(
            told,
            [
                "link down",
                "a is not heard any more",
                "disk: b is its primary instead of a",
                "disk: is served here",
                "disk: a is not in sync any more",
            ]
        );
        assert!(lines[1].starts_with("  + 0.000 s"), "{lines:?}");
        assert_eq!(why(&events, "nothing"), None);
    }

    #[test]
    fn it_has_ten_lines_at_most_and_the_change_is_among_them() {
        let mut events: Vec<Event> = (0..100)
            .map(|n| event(1_000 + n, Kind::Leader, None, None, "leads"))
            .collect();
        events.push(event(2_000, Kind::Primary, Some("disk"), Some("b"), "the change"));
        let lines = why(&events, "disk").unwrap();
        assert!(lines.len() <= 10 && lines.iter().any(|line| line.ends_with("disk: the change")));
        assert!(lines.iter().all(|line| !line.starts_with("It was")));
    }
}
