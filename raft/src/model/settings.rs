//! Settings of the whole cluster, changed by command while it runs.
//!
//! Each key has one line in [`SettingKey::spec`]: its name, unit, range, default and what it is for. A new setting is a new line there.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use holdfast_types::{LEASE_TIME, Revision};
use serde::{Deserialize, Serialize};

use super::reply::{Refusal, Reply};
use super::state::ClusterState;

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingKey {
    /// The lease time L (L2).
    LeaseTime,
    /// How long a preferred node has to be in sync and stable before an extent goes back to it.
    FailbackAfter,
}

/// How a value is read and printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds: `600ms`, `5s`, `10m`, `2h`.
    Time,
}

/// Everything about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// As a user types it.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// The value where nothing was set.
    pub default: u64,
    /// Smallest value, `off` aside.
    pub min: u64,
    /// Largest value.
    pub max: u64,
    /// What `off` (stored as 0) means, where it is allowed.
    pub off: Option<&'static str>,
    /// What it is for, in one line.
    pub help: &'static str,
}

const fn ms(time: Duration) -> u64 {
    time.as_secs() * 1000 + time.subsec_millis() as u64
}

impl SettingKey {
    /// All keys, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::LeaseTime, Self::FailbackAfter];

    /// Everything about it.
    pub const fn spec(self) -> Spec {
        match self {
            Self::LeaseTime => Spec {
                name: "lease-time",
                unit: Unit::Time,
                default: ms(LEASE_TIME),
                min: 300,
                max: 5000,
                off: None,
                help: "how long an acknowledged heartbeat is a promise; a lost primary is replaced after about this long",
            },
            Self::FailbackAfter => Spec {
                name: "failback-after",
                unit: Unit::Time,
                default: 60_000,
                min: 5000,
                max: 86_400_000,
                off: Some("extents stay where they are"),
                help: "an extent goes back to its preferred node once that has been in sync and stable for this long",
            },
        }
    }

    /// The key of that name.
    ///
    /// # Errors
    /// One line that names all keys.
    pub fn named(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|key| key.spec().name == name)
            .ok_or_else(|| {
                let names: Vec<&str> = Self::ALL.iter().map(|key| key.spec().name).collect();
                format!(
                    "there is no setting '{name}'; the settings are {}",
                    names.join(", ")
                )
            })
    }

    /// A value as a user types it, within the range.
    ///
    /// # Errors
    /// One line that says what is allowed.
    pub fn parse(self, text: &str) -> Result<u64, String> {
        let spec = self.spec();
        let value = match (text, spec.unit) {
            ("off", _) => Some(0),
            (text, Unit::Time) => parse_time(text),
        };
        let value = value.ok_or_else(|| format!("{} = '{text}': {}", spec.name, self.allowed()))?;
        self.check(value)?;
        Ok(value)
    }

    /// # Errors
    /// One line that says what is allowed.
    fn check(self, value: u64) -> Result<(), String> {
        let spec = self.spec();
        let fits = (spec.min..=spec.max).contains(&value) || (value == 0 && spec.off.is_some());
        if fits {
            return Ok(());
        }
        Err(format!(
            "{} = {}: {}",
            spec.name,
            self.print(value),
            self.allowed()
        ))
    }

    /// What is allowed, for people.
    pub fn allowed(self) -> String {
        let spec = self.spec();
        let off = spec
            .off
            .map(|means| format!(", or off ({means})"))
            .unwrap_or_default();
        format!(
            "allowed is {} to {}{off}",
            self.print(spec.min),
            self.print(spec.max)
        )
    }

    /// A value for people, as [`Self::parse`] takes it.
    pub fn print(self, value: u64) -> String {
        let spec = self.spec();
        match spec.unit {
            _ if value == 0 => "off".to_owned(),
            Unit::Time if value.is_multiple_of(1000) => format!("{}s", value / 1000),
            Unit::Time => format!("{value}ms"),
        }
    }
}

impl fmt::Display for SettingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().name)
    }
}

fn parse_time(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// An older, longer lease time that some promise may still follow (L2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongerLease {
    /// The longest value that may still be followed, in milliseconds.
    pub ms: u64,
    /// The newest change of the lease time: once every voter has applied it, nobody counts with more than the present value.
    pub since: Revision,
}

/// What is set for the whole cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// What was set; everything else has its default.
    #[serde(default)]
    values: BTreeMap<SettingKey, u64>,
    /// There while a shorter lease time is not yet known to every voter (L2).
    #[serde(default)]
    pub longer_lease: Option<LongerLease>,
}

impl Settings {
    /// The value in force, in the unit of the key; 0 is `off`.
    pub fn get(&self, key: SettingKey) -> u64 {
        self.values.get(&key).copied().unwrap_or(key.spec().default)
    }

    /// Whether it was set, and is not its default.
    pub fn is_set(&self, key: SettingKey) -> bool {
        self.values.contains_key(&key)
    }

    /// The value as a time; `None` for `off`.
    pub fn time(&self, key: SettingKey) -> Option<Duration> {
        Some(self.get(key))
            .filter(|ms| *ms > 0)
            .map(Duration::from_millis)
    }

    /// The lease time L (L2): how long a promise is given for, and counted.
    pub fn lease_time(&self) -> Duration {
        Duration::from_millis(self.get(SettingKey::LeaseTime))
    }

    /// How long a voter waits where it cannot know what was promised before (L5, L8): for the longest lease time that any promise may
    /// follow.
    pub fn lease_wait(&self) -> Duration {
        let longer = self.longer_lease.map_or(0, |longer| longer.ms);
        Duration::from_millis(longer.max(self.get(SettingKey::LeaseTime)))
    }
}

impl ClusterState {
    /// A default is stored as nothing, so that a later release may have a better one.
    pub(super) fn set_setting(
        &mut self,
        index: Revision,
        key: SettingKey,
        value: u64,
    ) -> Result<Reply, Refusal> {
        key.check(value).map_err(Refusal::Invalid)?;
        let before = self.settings.get(key);
        if before == value {
            return Ok(Reply::DONE);
        }
        if value == key.spec().default {
            self.settings.values.remove(&key);
        } else {
            self.settings.values.insert(key, value);
        }
        if key == SettingKey::LeaseTime {
            // L2: also a second change before the first one is settled keeps the longest value that anybody may follow.
            let longest = self
                .settings
                .longer_lease
                .map_or(before, |longer| longer.ms.max(before));
            self.settings.longer_lease = Some(LongerLease {
                ms: longest,
                since: index,
            });
        }
        let warnings = match key {
            SettingKey::LeaseTime if value > 1500 => vec![format!(
                "a lost primary is replaced after about {}: longer than most hosts expect, and commands are held for 3s at most",
                key.print(value)
            )],
            _ => Vec::new(),
        };
        Ok(Reply::Done { warnings })
    }

    /// L2: every voter has applied the newest change of the lease time, so nobody counts with a longer one any more.
    pub(super) fn settle_lease(&mut self, since: Revision) -> Result<Reply, Refusal> {
        match self.settings.longer_lease {
            Some(longer) if longer.since == since => {
                self.settings.longer_lease = None;
                Ok(Reply::DONE)
            }
            // A newer change has come since, or it is settled.
            _ => Err(Refusal::Invalid("the lease time has changed since".into())),
        }
    }
}

#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
