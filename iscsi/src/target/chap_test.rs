//! Authentication: CHAP one way and both ways, and what must not let anybody in (RFC 7143, 12.1.3 and 9.2.1).

use std::net::IpAddr;
use std::sync::Arc;

use holdfast_types::{IscsiName, Secret, TpgId};

use super::login_client::{Answer, Client, F, NAMES, O, S};
use crate::chap::{self, Algorithm};
use crate::directory::{Access, Authentication, Chap, Directory, InitiatorGroup, Mutual};
use crate::error::Fatal;
use crate::pair::{directory, initiator_name, origin, target_name};
use crate::pdu::LoginStatus;
use crate::target::{Event, PortalConfig};

const SECRET: &str = "correct horse";
const OURS: &str = "battery staple";
const REFUSED: LoginStatus = LoginStatus::AUTHENTICATION_FAILED;

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec()).unwrap()
}

fn chap(user: &str, mutual: Option<&str>) -> Authentication {
    Authentication::Chap(Arc::new(Chap {
        users: [(user.to_owned(), secret(SECRET))].into(),
        mutual: mutual.map(|text| Mutual {
            name: "target".to_owned(),
            secret: secret(text),
        }),
    }))
}

fn group(name: &str, authentication: Authentication) -> InitiatorGroup {
    InitiatorGroup {
        name: name.into(),
        any_initiator: false,
        initiators: [initiator_name()].into(),
        networks: Vec::new(),
        authentication,
    }
}

fn with(groups: Vec<InitiatorGroup>) -> Directory {
    let mut directory = directory();
    for entry in directory.targets.values_mut() {
        entry.access = Access::Groups(groups.iter().cloned().map(Arc::new).collect());
    }
    directory
}

fn client(directory: Directory) -> Client {
    let mut client = Client::new(PortalConfig::new(TpgId(1)), directory);
    client.accept = false;
    client
}

/// A user named `user`, and a target that can prove itself.
fn usual() -> Client {
    client(with(vec![group("hosts", chap("user", Some(OURS)))]))
}

/// Up to the challenge, which is the one that tests give.
fn challenged(mut client: Client, algorithm: Algorithm) -> Client {
    client.expect(
        S,
        None,
        &format!("{NAMES}\nAuthMethod=CHAP,None"),
        "TargetPortalGroupTag=1
         AuthMethod=CHAP",
    );
    client.expect(
        S,
        None,
        &format!("CHAP_A={}", algorithm.number()),
        &format!(
            "CHAP_A={}
             CHAP_I=90
             CHAP_C=0x{}",
            algorithm.number(),
            "5a".repeat(32)
        ),
    );
    client
}

fn response(algorithm: Algorithm, text: &str) -> String {
    let challenge = origin().challenge;
    chap::encode(&algorithm.response(challenge.id, &secret(text), &challenge.bytes))
}

fn logs_in(client: &mut Client) -> (Option<String>, Option<String>) {
    client.say(O, Some(F), "");
    match client.connection.poll_event() {
        Some(Event::Login(login)) => (login.group.map(|name| name.to_string()), login.user),
        other => panic!("{other:?}: {:?}", client.fatal),
    }
}

#[test]
fn every_algorithm_lets_in_who_knows_the_secret_and_nobody_else() {
    for algorithm in Algorithm::ALL {
        let mut client = challenged(usual(), algorithm);
        let right = response(algorithm, SECRET);
        client.expect(S, Some(O), &format!("CHAP_N=user\nCHAP_R={right}"), "");
        assert_eq!(
            logs_in(&mut client),
            (Some("hosts".to_owned()), Some("user".to_owned()))
        );
        for (name, text) in [("user", "wrong horse!"), ("nobody", SECRET), ("", SECRET)] {
            let wrong = response(algorithm, text);
            let keys = format!("CHAP_N={name}\nCHAP_R={wrong}");
            challenged(usual(), algorithm).refused(S, Some(O), &keys, REFUSED);
        }
    }
}

#[test]
fn responses_may_come_in_base64_and_identifiers_in_hexadecimal() {
    use base64::Engine;
    let mut client = challenged(usual(), Algorithm::Md5);
    let bytes = chap::decode(&response(Algorithm::Md5, SECRET)).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let ours = Algorithm::Md5.response(7, &secret(OURS), b"\x01\x02");
    client.expect(
        S,
        Some(O),
        &format!("CHAP_N=user\nCHAP_R=0b{text}\nCHAP_I=0x07\nCHAP_C=0x0102"),
        &format!("CHAP_N=target\nCHAP_R={}", chap::encode(&ours)),
    );
    logs_in(&mut client);
}

#[test]
fn the_target_proves_itself_where_it_is_asked_to() {
    for algorithm in Algorithm::ALL {
        let mut client = challenged(usual(), algorithm);
        client.accept = true;
        let right = response(algorithm, SECRET);
        let challenge = [3; 16];
        let ours = algorithm.response(200, &secret(OURS), &challenge);
        client.expect(
            S,
            Some(F),
            &format!(
                "CHAP_N=user\nCHAP_R={right}\nCHAP_I=200\nCHAP_C={}",
                chap::encode(&challenge)
            ),
            &format!("CHAP_N=target\nCHAP_R={}", chap::encode(&ours)),
        );
    }
}

/// Who reflects a challenge would have us compute its own response (RFC 7143, 9.2.1).
#[test]
fn our_own_challenge_and_one_secret_both_ways_are_refused() {
    let right = response(Algorithm::Md5, SECRET);
    let keys = |challenge: &str| format!("CHAP_N=user\nCHAP_R={right}\nCHAP_I=90\nCHAP_C={challenge}");
    let reflected = chap::encode(&origin().challenge.bytes);
    challenged(usual(), Algorithm::Md5).refused(S, Some(O), &keys(&reflected), REFUSED);
    let same = client(with(vec![group("hosts", chap("user", Some(SECRET)))]));
    challenged(same, Algorithm::Md5).refused(S, Some(O), &keys("0x0102"), REFUSED);
    let none = client(with(vec![group("hosts", chap("user", None))]));
    challenged(none, Algorithm::Md5).refused(S, Some(O), &keys("0x0102"), REFUSED);
}

#[test]
fn nobody_passes_without_authenticating() {
    usual().refused(S, Some(O), &format!("{NAMES}\nAuthMethod=None"), REFUSED);
    usual().refused(S, Some(O), &format!("{NAMES}\nAuthMethod=KRB5,SRP"), REFUSED);
    usual().refused(S, Some(O), NAMES, REFUSED);
    usual().refused(S, Some(F), NAMES, REFUSED);
    // Straight into the operational stage.
    usual().refused(O, Some(F), NAMES, REFUSED);
    // In the middle of it.
    let mut client = challenged(usual(), Algorithm::Md5);
    let answer = client.say(S, Some(F), "");
    assert_eq!(
        answer.map(|answer| answer.transit),
        Some(None),
        "the target holds it back"
    );
    client.refused(O, Some(F), "", LoginStatus::INITIATOR_ERROR);
}

/// A request that wants to go on before it is its turn is answered without the T bit.
#[test]
fn the_target_holds_back_who_is_too_fast() {
    let mut client = usual();
    let answer = client.say(S, Some(O), &format!("{NAMES}\nAuthMethod=CHAP"));
    let Some(Answer {
        status,
        transit,
        keys,
    }) = answer
    else {
        panic!("no answer");
    };
    assert_eq!((status, transit), (LoginStatus::SUCCESS, None));
    assert!(keys.contains(&"AuthMethod=CHAP".to_owned()), "{keys:?}");
}

#[test]
fn keys_out_of_turn_end_the_login() {
    let wrong = LoginStatus::INITIATOR_ERROR;
    let right = response(Algorithm::Md5, SECRET);
    let answer = format!("CHAP_N=user\nCHAP_R={right}");
    usual().refused(S, None, &format!("{NAMES}\nCHAP_A=5"), wrong);
    usual().refused(S, None, &format!("{NAMES}\n{answer}"), wrong);
    usual().refused(S, None, &format!("{NAMES}\nAuthMethod=CHAP\n{answer}"), wrong);
    let again = |keys: &str, status| challenged(usual(), Algorithm::Md5).refused(S, None, keys, status);
    again("CHAP_A=5", wrong);
    again("AuthMethod=None", wrong);
    again("CHAP_N=user", wrong);
    again(&format!("CHAP_R={right}"), wrong);
    again("CHAP_N=user\nCHAP_R=zz", wrong);
    again(&format!("{answer}\nCHAP_I=1"), wrong);
    again(&format!("{answer}\nCHAP_C=0x01"), wrong);
    again(&format!("{answer}\nCHAP_I=256\nCHAP_C=0x01"), wrong);
    again(&format!("{answer}\nCHAP_I=1\nCHAP_C=0x"), wrong);
    again(&format!("{answer}\nCHAP_N=other"), wrong);
    // After the end of it: not again, and not in the next stage.
    let mut client = challenged(usual(), Algorithm::Md5);
    client.expect(S, None, &answer, "");
    client.refused(S, None, &answer, wrong);
    let mut client = challenged(usual(), Algorithm::Md5);
    client.expect(S, Some(O), &answer, "");
    client.refused(O, None, &answer, wrong);
}

#[test]
fn an_algorithm_that_is_not_known_is_refused() {
    let mut client = usual();
    client.say(S, None, &format!("{NAMES}\nAuthMethod=CHAP"));
    client.refused(S, None, "CHAP_A=4,99", REFUSED);
}

#[test]
fn a_group_that_names_the_initiator_comes_before_one_that_takes_anybody() {
    let mut anybody = group("a", Authentication::None);
    anybody.any_initiator = true;
    anybody.initiators.clear();
    let named = group("z", Authentication::None);
    let mut client = client(with(vec![anybody, named]));
    client.say(S, Some(O), &format!("{NAMES}\nAuthMethod=None"));
    assert_eq!(logs_in(&mut client), (Some("z".to_owned()), None));
}

/// The order of the initiator's list decides between a group that asks for nothing and one that wants proof; the user's name tells which.
#[test]
fn the_user_tells_which_group_it_is() {
    let groups = || {
        vec![
            group("a", Authentication::None),
            group("b", chap("other", None)),
            group("c", chap("user", None)),
        ]
    };
    let mut plain = client(with(groups()));
    plain.say(S, Some(O), &format!("{NAMES}\nAuthMethod=None,CHAP"));
    assert_eq!(logs_in(&mut plain), (Some("a".to_owned()), None));
    let mut proven = challenged(client(with(groups())), Algorithm::Sha256);
    let right = response(Algorithm::Sha256, SECRET);
    proven.expect(S, Some(O), &format!("CHAP_N=user\nCHAP_R={right}"), "");
    assert_eq!(
        logs_in(&mut proven),
        (Some("c".to_owned()), Some("user".to_owned()))
    );
}

#[test]
fn where_an_initiator_comes_from_counts() {
    let mut near = group("near", Authentication::None);
    near.networks = vec!["192.0.2.0/24".parse().unwrap()];
    let mut far = group("far", Authentication::None);
    far.networks = vec![
        "198.51.100.0/24".parse().unwrap(),
        "2001:db8::/32".parse().unwrap(),
    ];
    let keys = format!("{NAMES}\nAuthMethod=None");
    client(with(vec![near.clone()])).expect(S, Some(O), &keys, "TargetPortalGroupTag=1\nAuthMethod=None");
    client(with(vec![far.clone()])).refused(S, Some(O), &keys, LoginStatus::NOT_ALLOWED);
    let peer: IpAddr = "192.0.2.200".parse().unwrap();
    let sees = |groups: Vec<InitiatorGroup>, peer| with(groups).visible(&initiator_name(), peer).count();
    assert_eq!(
        (sees(vec![near.clone()], peer), sees(vec![far.clone()], peer)),
        (1, 0)
    );
    assert_eq!(sees(vec![far], "2001:db8::7".parse().unwrap()), 1);
    let stranger: IscsiName = "iqn.2026-11.example:stranger".parse().unwrap();
    assert_eq!(with(vec![near]).visible(&stranger, peer).count(), 0);
}

/// 0203 is for a target that is not there; one that this initiator may not use gets 0202, whether it could prove anything or not.
#[test]
fn strangers_are_not_even_asked_for_a_secret() {
    let mut strange = group("others", chap("user", None));
    strange.initiators = [target_name()].into();
    let keys = format!("{NAMES}\nAuthMethod=CHAP");
    client(with(vec![strange])).refused(S, None, &keys, LoginStatus::NOT_ALLOWED);
    client(with(vec![])).refused(S, None, &keys, LoginStatus::NOT_ALLOWED);
}

/// A node that cannot read the secrets does not say that they are wrong.
#[test]
fn i8_a_node_without_the_key_answers_no_login_that_needs_it() {
    let unreadable = || client(with(vec![group("hosts", Authentication::Unreadable)]));
    unreadable().refused(S, Some(O), &format!("{NAMES}\nAuthMethod=None"), REFUSED);
    let mut client = challenged(unreadable(), Algorithm::Md5);
    let right = response(Algorithm::Md5, SECRET);
    assert_eq!(
        client.say(S, Some(O), &format!("CHAP_N=user\nCHAP_R={right}")),
        None
    );
    assert_eq!(client.fatal, Some(Fatal::SecretsUnreadable));
}

#[test]
fn discovery_has_users_of_its_own() {
    let names = "InitiatorName=iqn.2026-11.example:host\nSessionType=Discovery";
    let closed = || {
        let mut directory = directory();
        directory.discovery = chap("user", None);
        client(directory)
    };
    closed().refused(S, Some(O), &format!("{names}\nAuthMethod=None"), REFUSED);
    closed().refused(O, Some(F), names, REFUSED);
    let mut open = closed();
    open.expect(S, None, &format!("{names}\nAuthMethod=CHAP"), "AuthMethod=CHAP");
    open.say(S, None, "CHAP_A=5");
    let right = response(Algorithm::Md5, SECRET);
    open.expect(S, Some(O), &format!("CHAP_N=user\nCHAP_R={right}"), "");
    assert_eq!(logs_in(&mut open), (None, Some("user".to_owned())));
}

/// Both sides as they run, bytes in random pieces.
#[test]
fn our_own_initiator_logs_in_both_ways_and_tells_a_false_target() {
    use crate::initiator::ChapLogin;
    use crate::pair::{Pair, settings};
    for (seed, algorithm) in (60..).zip(Algorithm::ALL) {
        for (theirs, satisfied) in [(OURS, true), ("another secret", false)] {
            let login = ChapLogin {
                user: "user".to_owned(),
                secret: secret(SECRET),
                algorithms: vec![algorithm],
                mutual: Some((secret(theirs), chap::Challenge::from_random([seed; 33]))),
            };
            let settings = settings().with_chap(login);
            let mut pair = Pair::new(PortalConfig::new(TpgId(1)), settings, u64::from(seed));
            let access = with(vec![group("hosts", chap("user", Some(OURS)))]);
            pair.target.set_directory(Arc::new(access));
            pair.run();
            let through = pair.owner.iter().any(|event| matches!(event, Event::Login(_)));
            assert_eq!(through, satisfied, "{:?} {:?}", pair.fatal, pair.initiator_error);
            assert_eq!(pair.initiator_error.is_none(), satisfied);
        }
    }
}

#[test]
fn no_error_and_no_state_shows_a_secret() {
    let mut client = challenged(usual(), Algorithm::Md5);
    let shown = format!("{:?}", client.connection);
    assert!(!shown.contains(SECRET) && !shown.contains(OURS), "{shown}");
    client.say(S, Some(O), "CHAP_N=user\nCHAP_R=0x00");
    let shown = format!("{:?}", client.fatal);
    assert!(shown.contains("user") && !shown.contains(SECRET), "{shown}");
}
