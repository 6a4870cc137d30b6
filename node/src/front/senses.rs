//! Which sense data a session was answered with, for the flight recorder: each code at once, then once a minute at most with how often.

use std::collections::HashMap;
use std::time::Duration;

use holdfast_scsi::{AdditionalSense, Sense, SenseKey};
use holdfast_types::{EVENTS, Mono};

use super::session::Session;

/// How often a code is told at most.
const TOLD_EVERY: Duration = Duration::from_mins(1);
/// Codes of one session that are told apart; there are fewer than that.
const CODES_MAX: usize = 128;
/// Power on, reset, or nexus loss: every session hears it first, on every unit.
const POWER_ON: u8 = 0x29;

/// What one session was answered with.
#[derive(Debug, Default)]
pub(super) struct Senses(HashMap<(SenseKey, AdditionalSense), Told>);

#[derive(Debug)]
struct Told {
    at: Mono,
    /// Answers since, that one not included.
    since: u64,
}

impl Senses {
    /// It was answered once more. `Some`: it is to be told now, for so many answers.
    pub(super) fn answered(&mut self, sense: &Sense, now: Mono) -> Option<u64> {
        if sense.key == SenseKey::UnitAttention && sense.code.0 == POWER_ON {
            return None;
        }
        let code = (sense.key, sense.code);
        if let Some(told) = self.0.get_mut(&code) {
            told.since += 1;
            if now.since(told.at) < TOLD_EVERY {
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.since));
        }
        if self.0.len() >= CODES_MAX {
            return None;
        }
        self.0.insert(code, Told { at: now, since: 0 });
        Some(1)
    }
}

/// Whether it says that something went wrong, not only that the initiator asked for what there is not, or must hear something.
const fn is_trouble(key: SenseKey) -> bool {
    matches!(
        key,
        SenseKey::MediumError | SenseKey::DataProtect | SenseKey::CopyAborted
    )
}

impl Session {
    /// Tells the flight recorder what the initiator is told.
    pub(super) fn record(&mut self, sense: &Sense) {
        let now = self.front.now();
        let Some(session) = &mut self.logged_in else {
            return;
        };
        let Some(times) = session.senses.answered(sense, now) else {
            return;
        };
        let times = if times > 1 {
            format!(", {times} times")
        } else {
            String::new()
        };
        let text = format!(
            "{} was answered {sense}{times}, session {}",
            session.login.initiator, session.instance.serial
        );
        if is_trouble(sense.key) {
            tracing::warn!(target: EVENTS, what = "sense", "{text}");
        } else {
            tracing::info!(target: EVENTS, what = "sense", "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_code_is_told_at_once_and_then_once_a_minute_with_how_often() {
        let mut senses = Senses::default();
        assert_eq!(senses.answered(&Sense::STANDBY, at(0)), Some(1));
        for second in 1..60 {
            assert_eq!(senses.answered(&Sense::STANDBY, at(second)), None);
        }
        // Another one does not wait for it.
        assert_eq!(senses.answered(&Sense::WRITE_PROTECTED, at(30)), Some(1));
        assert_eq!(senses.answered(&Sense::STANDBY, at(60)), Some(60));
        assert_eq!(senses.answered(&Sense::STANDBY, at(61)), None);
        assert_eq!(senses.answered(&Sense::STANDBY, at(200)), Some(2));
    }

    #[test]
    fn what_every_login_hears_is_not_told() {
        let power_on = Sense::new(SenseKey::UnitAttention, AdditionalSense(POWER_ON, 7));
        assert_eq!(Senses::default().answered(&power_on, at(0)), None);
    }
}
