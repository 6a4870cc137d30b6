//! One thing that happened.

use std::time::{Duration, UNIX_EPOCH};

use holdfast_types::utc_to_the_millisecond;
use serde::{Deserialize, Serialize};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Who leads the cluster.
    Leader,
    /// A node is suspected to be down, or no longer; it came, went or started anew; it is drained.
    Node,
    /// This node's quorum lease.
    Lease,
    /// The replication link to another node.
    Link,
    /// Who is an extent's primary.
    Primary,
    /// The node serves an extent, or no longer.
    Serving,
    /// Who is in sync.
    InSync,
    /// A disk: stuck, fenced, bad blocks, resync, scrub.
    Disk,
    /// An extent was made, grown or deleted.
    Extent,
    /// An initiator logged in or out.
    Session,
    /// An initiator was answered with sense data.
    Sense,
    /// A line of the log that is none of these.
    #[serde(other)]
    Log,
}

impl Kind {
    /// What the field `what` of a tracing event says.
    pub(crate) fn named(name: &str) -> Self {
        serde_json::from_value(serde_json::Value::from(name)).unwrap_or(Self::Log)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Info,
    Warning,
    Error,
}

/// One thing that happened on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// When, by that node's clock, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) level: Level,
    pub(crate) what: Kind,
    /// The extent that it is about, by its name then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) extent: Option<String>,
    /// The node that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    pub(crate) text: String,
}

/// What `holdfast events` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventsDocument {
    /// The node that recorded them.
    pub(crate) recorded_by: String,
    /// Lines that its disk was too slow for: they are in memory alone.
    pub(crate) not_filed: u64,
    /// Oldest first.
    pub(crate) events: Vec<Event>,
}

impl Event {
    /// As a line for people.
    pub(crate) fn line(&self) -> String {
        let at = UNIX_EPOCH + Duration::from_millis(self.at_ms);
        let mark = match self.level {
            Level::Info => "",
            Level::Warning => "! ",
            Level::Error => "!! ",
        };
        format!("{}  {mark}{}", utc_to_the_millisecond(at), self.sentence())
    }

    /// What happened, and to what.
    pub(crate) fn sentence(&self) -> String {
        match &self.extent {
            Some(extent) => format!("{extent}: {}", self.text),
            None => self.text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back_and_a_kind_of_a_newer_release_is_a_line_of_the_log() {
        let event = Event {
            at_ms: 1_796_000_000_123,
            level: Level::Warning,
            what: Kind::InSync,
            extent: Some("disk".to_owned()),
            node: Some("b".to_owned()),
            text: "b is not in sync any more".to_owned(),
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        assert_eq!(
            event.line(),
            "2026-11-30 00:53:20.123 UTC  ! disk: b is not in sync any more"
        );
        let newer = text.replace("in_sync", "weather");
        assert_eq!(serde_json::from_str::<Event>(&newer).unwrap().what, Kind::Log);
        assert_eq!(
            (Kind::named("primary"), Kind::named("nothing")),
            (Kind::Primary, Kind::Log)
        );
    }
}
