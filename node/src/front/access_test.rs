//! Who gets in and what they see, through real connections, while the rules change under them.

use holdfast_drill::disk::Disk;
use holdfast_drill::initiator::Session;
use holdfast_iscsi::initiator::{ChapLogin, Event, ScsiRequest, Settings};
use holdfast_iscsi::pdu::{AsyncEvent, LoginStatus};
use holdfast_raft::model::{
    AccessCommand, ChapScope, Command, GroupChange, GroupLun, NewExtent, NewGroup, SecondaryAccess,
    TargetChange,
};
use holdfast_types::{BlockSize, ExtentId, Isid, Lba, Lun, Secret};

use super::rig_test::{A, B, EXTENT, Ending, Peer, Rig, cdb, eventually, key, sense, target};

const OTHER: ExtentId = ExtentId::from_u128(0xe2);

fn group(name: &str, initiators: &[&str]) -> Command {
    Command::Access(AccessCommand::CreateGroup {
        name: name.to_owned(),
        group: NewGroup {
            initiators: initiators.iter().map(|name| name.parse().unwrap()).collect(),
            ..NewGroup::default()
        },
    })
}

fn allow(group: &str) -> Command {
    Command::Access(AccessCommand::Allow {
        target: target(),
        group: group.to_owned(),
    })
}

fn map(lun: u16, extent: ExtentId, read_only: bool) -> Command {
    Command::Access(AccessCommand::MapGroupLun {
        target: target(),
        group: "peers".to_owned(),
        lun: lun.try_into().unwrap(),
        unit: GroupLun { extent, read_only },
    })
}

/// A target for the peer alone.
async fn restricted() -> Rig {
    let rig = Rig::start().await;
    rig.apply(&group("peers", &["iqn.2026-11.example:peer"]));
    rig.apply(&allow("peers"));
    rig
}

fn other_extent() -> Command {
    Command::CreateExtent(NewExtent {
        id: OTHER,
        name: "other".to_owned(),
        size_bytes: 16 << 20,
        block_size: BlockSize::B512,
        thin: true,
        on_devices: false,
        confirmed_reads: false,
        write_cache: false,
        replicas: [A, B].into(),
        preferred: Some(A),
        secondary: SecondaryAccess::NonOptimized,
    })
}

async fn ready(peer: &mut Peer, lun: u16) -> (u8, u8, u8) {
    let field = Lun::try_from(lun).unwrap().to_field();
    sense(&peer.command(ScsiRequest::none(field, cdb(0, 0, 0))).await)
}

async fn async_event(peer: &mut Peer) -> AsyncEvent {
    match peer.event().await {
        Ok(Event::Async(message)) => message.event,
        other => panic!("{other:?}"),
    }
}

async fn refused(mut peer: Peer) -> LoginStatus {
    match peer.event().await {
        Ok(Event::LoginRefused(status)) => status,
        other => panic!("{other:?}"),
    }
}

/// The initiator hears why, and its next login is told that it may not (RFC 7143, 11.9.1 and 11.13.5).
#[tokio::test]
async fn who_may_not_be_there_any_more_is_logged_out_at_once() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.apply(&group("others", &["iqn.2026-11.example:other"]));
    assert_eq!(
        ready(&mut peer, 0).await,
        (0, 0, 0),
        "a group alone changes nothing"
    );
    rig.apply(&allow("others"));
    assert_eq!(async_event(&mut peer).await, AsyncEvent::SESSION_DROP);
    assert_eq!(peer.ending().await, Ending::Closed);
    let again = Peer::dial(rig.portal, 1).await;
    assert_eq!(refused(again).await, LoginStatus::NOT_ALLOWED);
    // And back.
    let change = GroupChange {
        add_initiators: ["iqn.2026-11.example:peer".parse().unwrap()].into(),
        ..GroupChange::default()
    };
    rig.apply(&Command::Access(AccessCommand::ChangeGroup {
        name: "others".to_owned(),
        change,
    }));
    rig.peer(1).await;
}

#[tokio::test]
async fn a_group_sees_its_own_luns_and_hears_of_changes() {
    let rig = restricted().await;
    rig.apply(&other_extent());
    let mut peer = rig.peer(1).await;
    rig.apply(&map(5, EXTENT, false));
    assert_eq!(
        ready(&mut peer, 0).await,
        (5, 0x25, 0),
        "the target's own map is not the group's"
    );
    assert_eq!(ready(&mut peer, 5).await, (6, 0x29, 0));
    assert_eq!(ready(&mut peer, 5).await, (0, 0, 0));
    rig.apply(&map(6, OTHER, false));
    assert_eq!(
        ready(&mut peer, 5).await,
        (6, 0x3f, 0x0e),
        "reported LUNs data has changed"
    );
    // What happens to the target's own map is none of the group's business.
    rig.apply(&Command::MapLun {
        target: target(),
        lun: 9.try_into().unwrap(),
        extent: OTHER,
    });
    assert_eq!(ready(&mut peer, 5).await, (0, 0, 0));
    rig.apply(&Command::Access(AccessCommand::ShareLuns {
        target: target(),
        group: "peers".to_owned(),
    }));
    assert_eq!(ready(&mut peer, 5).await, (5, 0x25, 0));
}

#[tokio::test]
async fn a_read_only_lun_and_group_refuse_writes_and_say_when_that_changes() {
    let rig = restricted().await;
    let mut peer = rig.peer(1).await;
    let write = || ScsiRequest::write(0, cdb(0x8a, 0, 1), bytes::Bytes::from(vec![1; 512]));
    assert_eq!(sense(&peer.command(write()).await), (0, 0, 0));
    let lun = |read_only| {
        Command::Access(AccessCommand::SetLunReadOnly {
            target: target(),
            lun: Lun::ZERO,
            read_only,
        })
    };
    rig.apply(&lun(true));
    assert_eq!(
        sense(&peer.command(write()).await),
        (6, 0x2a, 1),
        "mode parameters changed"
    );
    assert_eq!(sense(&peer.command(write()).await).0, 7);
    rig.apply(&lun(false));
    assert_eq!(sense(&peer.command(write()).await), (6, 0x2a, 1));
    assert_eq!(sense(&peer.command(write()).await), (0, 0, 0));
    let change = GroupChange {
        read_only: Some(true),
        ..GroupChange::default()
    };
    rig.apply(&Command::Access(AccessCommand::ChangeGroup {
        name: "peers".to_owned(),
        change,
    }));
    assert_eq!(sense(&peer.command(write()).await), (6, 0x2a, 1));
    assert_eq!(sense(&peer.command(write()).await).0, 7);
}

fn user(secret: Option<&str>) -> Command {
    let scope = ChapScope::Group("peers".to_owned());
    let place = scope.user_place("host");
    let secret = secret.map(|text| {
        let secret = Secret::new(text.as_bytes().to_vec()).unwrap();
        key().seal(&secret, &place, [4; 24])
    });
    Command::Access(AccessCommand::SetUser {
        scope,
        user: "host".to_owned(),
        secret,
    })
}

async fn by_chap(rig: &Rig, secret: &str) -> Peer {
    let mut settings = Settings::new("iqn.2026-11.example:peer".parse().unwrap(), Some(target()));
    settings.isid = Isid([0x80, 0, 0, 0, 1, 7]);
    let settings = settings.with_chap(ChapLogin {
        user: "host".to_owned(),
        secret: Secret::new(secret.as_bytes().to_vec()).unwrap(),
        algorithms: holdfast_iscsi::chap::Algorithm::ALL.to_vec(),
        mutual: None,
    });
    Peer::dial_with(rig.portal, settings).await
}

#[tokio::test]
async fn chap_users_come_in_by_their_secret_and_go_with_their_user() {
    let rig = restricted().await;
    rig.apply(&user(Some("correct horse")));
    let denied = LoginStatus::AUTHENTICATION_FAILED;
    assert_eq!(refused(Peer::dial(rig.portal, 1).await).await, denied);
    assert_eq!(refused(by_chap(&rig, "wrong horse battery").await).await, denied);
    let mut peer = by_chap(&rig, "correct horse").await;
    peer.logged_in().await;
    let sessions = rig.front.registry.sessions();
    assert_eq!(sessions[0].user.as_deref(), Some("host"));
    assert_eq!(sessions[0].group.as_deref(), Some("peers"));
    // Another secret counts from the next login on.
    rig.apply(&user(Some("battery staple")));
    assert_eq!(ready(&mut peer, 0).await, (6, 0x29, 0));
    assert_eq!(refused(by_chap(&rig, "correct horse").await).await, denied);
    rig.apply(&user(None));
    rig.apply(&Command::Access(AccessCommand::SetUser {
        scope: ChapScope::Group("peers".to_owned()),
        user: "somebody else".to_owned(),
        secret: None,
    }));
    // Without users the group asks for nothing, so the session may stay.
    assert_eq!(ready(&mut peer, 0).await, (0, 0, 0));
}

/// I8: the secret may be right; a node that cannot open it does not say that it is wrong.
#[tokio::test]
async fn i8_secrets_that_this_node_cannot_open_end_the_connection() {
    let rig = restricted().await;
    let scope = ChapScope::Group("peers".to_owned());
    let foreign = holdfast_raft::model::ClusterKey::from_random([9; 32]);
    let secret = Secret::new(b"correct horse".to_vec()).unwrap();
    rig.apply(&Command::Access(AccessCommand::SetUser {
        user: "host".to_owned(),
        secret: Some(foreign.seal(&secret, &scope.user_place("host"), [1; 24])),
        scope,
    }));
    let mut peer = by_chap(&rig, "correct horse").await;
    peer.ending().await;
}

#[tokio::test]
async fn a_target_has_as_many_sessions_as_it_may_have() {
    let rig = Rig::start().await;
    let change = TargetChange {
        sessions_max: Some(2),
        ..TargetChange::default()
    };
    rig.apply(&Command::Access(AccessCommand::ChangeTarget {
        target: target(),
        change,
    }));
    let _one = rig.peer(1).await;
    let two = rig.peer(2).await;
    let third = || Peer::dial(rig.portal, 3);
    assert_eq!(refused(third().await).await, LoginStatus::TOO_MANY_CONNECTIONS);
    // One that takes its own session's place is not one too many.
    let two_again = rig.peer(2).await;
    drop(two);
    drop(two_again);
    eventually("a session is gone", || rig.front.registry.sessions().len() == 1).await;
    rig.peer(3).await;
}

#[tokio::test]
async fn a_session_is_closed_by_its_number() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    let id = rig.front.registry.sessions()[0].id;
    assert!(!rig.front.registry.close_session(id + 1));
    assert!(rig.front.registry.close_session(id));
    assert_eq!(async_event(&mut peer).await, AsyncEvent::SESSION_DROP);
    assert_eq!(peer.ending().await, Ending::Closed);
}

/// Who is asked to log out is served until it does.
#[tokio::test]
async fn an_initiator_that_is_asked_to_log_out_is_served_until_it_does() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.front.registry.ask_logout(1);
    assert_eq!(async_event(&mut peer).await, AsyncEvent::LOGOUT_REQUESTED);
    assert_eq!(ready(&mut peer, 0).await, (0, 0, 0));
}

#[tokio::test]
async fn discovery_shows_each_initiator_what_it_may_use() {
    let rig = restricted().await;
    let dial = rig.dial(1);
    assert_eq!(Session::discover(&dial).await.unwrap(), vec![]);
    let error = Session::connect(&dial).await.unwrap_err().to_string();
    assert!(error.contains("202") || error.contains("not allowed"), "{error}");
    let change = GroupChange {
        add_initiators: ["iqn.2026-11.example:drill".parse().unwrap()].into(),
        ..GroupChange::default()
    };
    rig.apply(&Command::Access(AccessCommand::ChangeGroup {
        name: "peers".to_owned(),
        change,
    }));
    assert_eq!(Session::discover(&dial).await.unwrap().len(), 1);
    let session = Session::connect(&dial).await.unwrap();
    session.read(Lba(0), 1).await.unwrap();
}
