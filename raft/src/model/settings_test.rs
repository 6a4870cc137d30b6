use super::super::fixture::{go, must, trio};
use super::super::{AdminCommand, Command};
use super::*;

fn set(key: SettingKey, value: u64) -> Command {
    AdminCommand::SetSetting { key, value }.into()
}

#[test]
fn every_default_is_allowed_and_prints_as_it_is_read() {
    for key in SettingKey::ALL {
        let spec = key.spec();
        for value in [spec.default, spec.min, spec.max] {
            assert_eq!(key.parse(&key.print(value)), Ok(value), "{key}");
        }
        assert_eq!(SettingKey::named(spec.name), Ok(key));
    }
}

#[test]
fn i12_wrong_keys_and_values_get_one_line_that_says_what_is_allowed() {
    let error = SettingKey::named("lease").unwrap_err();
    assert!(
        error.contains("'lease'") && error.contains("lease-time, failback-after"),
        "{error}"
    );
    for text in [
        "600",
        "6 s",
        "-1s",
        "99h",
        "299ms",
        "5001ms",
        "off",
        "",
        "18446744073709551615h",
    ] {
        let error = SettingKey::LeaseTime.parse(text).unwrap_err();
        assert!(
            error.contains("lease-time") && error.contains("300ms to 5s"),
            "{error}"
        );
    }
    let error = SettingKey::FailbackAfter.parse("1s").unwrap_err();
    assert!(
        error.contains("5s to 86400s, or off (extents stay where they are)"),
        "{error}"
    );
    let mut state = trio(0);
    let before = state.settings.clone();
    let reply = go(&set(SettingKey::LeaseTime, 1), &mut state);
    assert!(reply.refusal().is_some());
    assert_eq!(state.settings, before);
}

#[test]
fn a_setting_is_changed_and_goes_back_to_its_default() {
    let mut state = trio(0);
    must(&set(SettingKey::FailbackAfter, 0), &mut state);
    assert_eq!(state.settings.time(SettingKey::FailbackAfter), None);
    must(&set(SettingKey::FailbackAfter, 60_000), &mut state);
    assert!(!state.settings.is_set(SettingKey::FailbackAfter));
    assert_eq!(state.settings, Settings::default());
}

#[test]
fn l2_a_shorter_lease_time_is_waited_for_until_every_voter_has_it() {
    let mut state = trio(0);
    must(&set(SettingKey::LeaseTime, 1000), &mut state);
    let first = state.revision;
    must(&set(SettingKey::LeaseTime, 400), &mut state);
    let second = state.revision;
    assert_eq!(state.settings.lease_time(), Duration::from_millis(400));
    assert_eq!(
        state.settings.lease_wait(),
        Duration::from_secs(1),
        "the longest of all since the last settlement"
    );
    let late = go(&AdminCommand::LeaseSettled { since: first }.into(), &mut state);
    assert!(
        late.refusal().is_some(),
        "a late settlement of the first change settles nothing"
    );
    assert_eq!(state.settings.lease_wait(), Duration::from_secs(1));
    must(&AdminCommand::LeaseSettled { since: second }.into(), &mut state);
    assert_eq!(state.settings.lease_wait(), Duration::from_millis(400));
}
