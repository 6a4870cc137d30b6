//! Logins at a node that drains, stops, or does neither.

use std::net::{IpAddr, SocketAddr};

use holdfast_iscsi::initiator::Event;
use holdfast_iscsi::pdu::AsyncEvent;
use holdfast_raft::model::{AccessCommand, AdminCommand, Command, TargetChange};
use holdfast_types::LeaseGeneration;

use super::memory_test::Mood;
use super::redirect::closest;
use super::rig_test::{A, B, Ending, Peer, Rig, sense, target};

fn redirect(redirect: bool) -> Command {
    let change = TargetChange {
        redirect: Some(redirect),
        ..TargetChange::default()
    };
    Command::Access(AccessCommand::ChangeTarget {
        target: target(),
        change,
    })
}

fn drain(draining: bool) -> Command {
    AdminCommand::SetDraining { node: A, draining }.into()
}

/// Where b is, as the rig has it.
const OTHER: &str = "127.0.0.1:1";

/// Where the next login of this number ends up: here, or elsewhere.
async fn login(rig: &Rig, number: u8) -> Option<String> {
    let mut peer = Peer::dial(rig.portal, number).await;
    match peer.event().await.unwrap() {
        Event::LoggedIn { .. } => None,
        Event::LoginRedirected(to) => {
            assert!(!to.permanent);
            assert_eq!(peer.ending().await, Ending::Closed);
            Some(to.to_string())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_drained_node_sends_logins_to_the_one_that_serves() {
    let rig = Rig::start().await;
    rig.apply(&redirect(true));
    assert_eq!(login(&rig, 1).await, None);
    rig.apply(&drain(true));
    assert_eq!(login(&rig, 1).await, None, "the extent is still here");
    rig.switchover(A, B);
    assert_eq!(login(&rig, 1).await.as_deref(), Some(OTHER));
    rig.apply(&drain(false));
    assert_eq!(login(&rig, 1).await, None);
}

/// Multipath wants a session with each node: nothing is sent elsewhere where nobody asked for it.
#[tokio::test]
async fn logins_stay_where_they_are_unless_the_target_wants_it() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.apply(&drain(true));
    rig.switchover(A, B);
    assert_eq!(login(&rig, 2).await, None);
    assert_eq!(sense(&peer.ready().await), (6, 0x2a, 6));
    assert_eq!(sense(&peer.ready().await), (0, 0, 0));
    rig.apply(&redirect(true));
    rig.apply(&redirect(false));
    assert_eq!(login(&rig, 2).await, None);
}

#[tokio::test]
async fn nobody_is_sent_to_a_node_that_cannot_serve() {
    let rig = Rig::start().await;
    rig.apply(&redirect(true));
    rig.apply(&drain(true));
    rig.switchover(A, B);
    let other = AdminCommand::SetDraining {
        node: B,
        draining: true,
    };
    rig.apply(&other.into());
    assert_eq!(login(&rig, 1).await, None, "b drains, too");
    let other = AdminCommand::SetDraining {
        node: B,
        draining: false,
    };
    rig.apply(&other.into());
    assert_eq!(login(&rig, 1).await.as_deref(), Some(OTHER));
    rig.apply(&Command::Suspect {
        node: B,
        generation: LeaseGeneration(0),
    });
    assert_eq!(login(&rig, 1).await, None, "b is lost");
}

/// Who is logged in already is asked to leave, once, and served until it does.
#[tokio::test]
async fn sessions_are_asked_to_leave_a_drained_node() {
    let rig = Rig::start().await;
    rig.apply(&redirect(true));
    let mut peer = rig.peer(1).await;
    rig.apply(&drain(true));
    assert!(peer.is_silent().await, "the extent is still here");
    for round in 0..2 {
        rig.switchover(A, B);
        match peer.event().await {
            Ok(Event::Async(message)) => assert_eq!(message.event, AsyncEvent::LOGOUT_REQUESTED),
            other => panic!("{other:?}"),
        }
        assert_eq!(sense(&peer.ready().await), (6, 0x2a, 6), "round {round}");
        assert_eq!(sense(&peer.ready().await), (0, 0, 0));
        rig.apply(&redirect(true));
        assert!(peer.is_silent().await, "it was asked already");
        rig.switchover(B, A);
        assert_eq!(sense(&peer.ready().await), (6, 0x2a, 6));
    }
}

/// F2: through the other node the initiator must not overtake what its old session here still has in storage.
#[tokio::test]
async fn f2_a_login_is_sent_elsewhere_only_after_its_old_session_has_ended() {
    let rig = Rig::start().await;
    rig.apply(&redirect(true));
    let mut old = rig.peer(1).await;
    rig.memory.set_mood(Mood::Deaf);
    old.send_write(0, 1).await;
    rig.until_kept(1).await;
    rig.apply(&drain(true));
    rig.switchover(A, B);
    let mut new = Peer::dial(rig.portal, 1).await;
    assert!(new.is_silent().await);
    rig.memory.release(None);
    match new.event().await {
        Ok(Event::LoginRedirected(to)) => assert_eq!(to.to_string(), OTHER),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_that_stops_sends_logins_elsewhere() {
    let rig = Rig::start().await;
    rig.apply(&redirect(true));
    rig.switchover(A, B);
    assert_eq!(login(&rig, 1).await, None, "it does not stop");
    rig.front.registry.ask_logout(1);
    assert_eq!(login(&rig, 1).await.as_deref(), Some(OTHER));
}

#[test]
fn the_closest_portal_is_one_in_the_same_network() {
    let portals: Vec<SocketAddr> = [
        "10.0.1.2:3260",
        "10.0.2.2:3260",
        "10.0.2.2:3261",
        "[2001:db8:2::2]:3260",
    ]
    .iter()
    .map(|portal| portal.parse().unwrap())
    .collect();
    let closest = |local: &str| {
        let local: IpAddr = local.parse().unwrap();
        closest(&portals, local).map(|portal| portal.to_string())
    };
    assert_eq!(closest("10.0.2.1").as_deref(), Some("10.0.2.2:3260"));
    assert_eq!(closest("10.0.1.1").as_deref(), Some("10.0.1.2:3260"));
    assert_eq!(closest("192.0.2.1").as_deref(), Some("10.0.1.2:3260"));
    assert_eq!(closest("2001:db8:1::1").as_deref(), Some("[2001:db8:2::2]:3260"));
    assert_eq!(
        super::redirect::closest(&portals[..3], "::1".parse().unwrap()),
        None
    );
}
