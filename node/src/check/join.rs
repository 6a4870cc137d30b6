//! What a node looks at before it joins a cluster: whether it reaches every member at every address, and is reached by it, what packets
//! pass both ways, and the clocks. Nothing is changed by it anywhere.

use std::net::SocketAddr;

use anyhow::{anyhow, bail, ensure};
use futures::future::join_all;
use holdfast_raft::consensus::{
    JoinToken, MeetError, MetMember, Newcomer, look_back_with_token, meet_with_token,
};
use holdfast_raft::model::NewNode;
use holdfast_types::LEASE_TIME;

use super::document::{CheckLine, Verdict};
use super::doorstep::Doorstep;
use super::judge;
use super::look::{self, Ends, Way};
use crate::config::NodeConfig;

/// Looks at the ways to all members that are up but `replaced`; what is worth a word. With `force`, that packets or answers have trouble on
/// the way is such a word, too.
///
/// # Errors
/// One line: which address of this node cannot be listened on, which one of whom does not answer, or which packets do not pass. Nothing is
/// said where no member can be asked at all, since who asks to join hears why.
pub(crate) async fn before_joining(
    config: &NodeConfig,
    me: &NewNode,
    token: &JoinToken,
    (replaced, force): (&str, bool),
) -> anyhow::Result<Vec<String>> {
    let Some(members) = first_answer(token).await else {
        return Ok(Vec::new());
    };
    let ends = Ends::of(config);
    let doorstep = Doorstep::open(config)
        .await
        .map_err(|error| anyhow!("{error:#}. Nothing was changed"))?;
    let newcomer = Newcomer {
        name: me.name.clone(),
        addresses: me.addresses.clone(),
        nonce: doorstep.nonce,
    };
    let others = members.iter().filter(|member| member.name != replaced);
    let looked = join_all(others.map(|member| look_at(&ends, token, member, &newcomer))).await;
    doorstep.close().await;
    let lines: Vec<CheckLine> = looked
        .into_iter()
        .flat_map(|looked| looked.lines(&config.name))
        .collect();
    decide(lines, force)
}

/// What the lines mean for a join.
fn decide(lines: Vec<CheckLine>, force: bool) -> anyhow::Result<Vec<String>> {
    let mut warnings = Vec::new();
    for line in lines.into_iter().filter(|line| line.verdict != Verdict::Ok) {
        let advice = line.advice.unwrap_or_default();
        if line.verdict == Verdict::Warning {
            warnings.push(format!("{}; {advice}", line.found));
            continue;
        }
        // A member that is not reached would hold up everybody else, and be taken for dead.
        ensure!(
            line.check != "reach",
            "{}: {advice}. Nothing was changed",
            line.found
        );
        if force {
            warnings.push(format!("{}; {advice}", line.found));
            continue;
        }
        bail!(
            "{}: {advice}. Nothing was changed; --force joins all the same",
            line.found
        );
    }
    Ok(warnings)
}

/// The members, as the first one that answers tells of them. `None`: none does, or they run a release that cannot say.
async fn first_answer(token: &JoinToken) -> Option<Vec<MetMember>> {
    for member in &token.members {
        match meet_with_token(token, *member).await {
            Ok(met) => return Some(met.members),
            Err(why) => tracing::info!(%member, %why, "the member does not tell of the others"),
        }
    }
    None
}

/// What was found on the way to one member.
struct Looked {
    member: String,
    heard: bool,
    raft: SocketAddr,
    ways: Vec<Way>,
    /// The ways from the member to this node.
    back: Result<Vec<Way>, MeetError>,
    clock: Option<look::ClockLook>,
    earlier: bool,
}

/// A member's ways to this node, as it found them.
async fn look_back(
    token: &JoinToken,
    member: SocketAddr,
    newcomer: &Newcomer,
) -> Result<Vec<Way>, MeetError> {
    let json = look_back_with_token(token, member, newcomer).await?;
    serde_json::from_slice(&json)
        .map_err(|error| MeetError::Failed(format!("its answer cannot be read: {error}")))
}

async fn look_at(ends: &Ends, token: &JoinToken, member: &MetMember, newcomer: &Newcomer) -> Looked {
    let MetMember {
        name,
        addresses,
        heard,
        ..
    } = member;
    let mut looked = Looked {
        member: name.clone(),
        heard: *heard,
        raft: addresses.raft,
        ways: Vec::new(),
        back: Ok(Vec::new()),
        clock: None,
        earlier: false,
    };
    // Nobody reaches a node that is down.
    if !looked.heard {
        return looked;
    }
    let met = meet_with_token(token, addresses.raft).await;
    looked.earlier = matches!(met, Err(MeetError::Earlier));
    looked.clock = met.as_ref().ok().map(|met| look::clock(name, met));
    let nonce = met.map(|met| met.nonce);
    if nonce.is_ok() {
        looked.back = look_back(token, addresses.raft, newcomer).await;
    }
    looked.ways = look::ways(ends, name, addresses, &nonce).await;
    looked
}

/// The largest packet that the other end of a way sends, where it measured that.
fn sent(back: &[Way], way: &Way) -> Option<usize> {
    let same = |other: &&Way| other.network == way.network && other.link == way.link;
    let probed = back.iter().find(same)?.probed?;
    Some(probed.sizes.route)
}

impl Looked {
    fn lines(self, me: &str) -> Vec<CheckLine> {
        let about = |check| (check, format!("{me} -> {}", self.member));
        let name = &self.member;
        if !self.heard {
            return vec![CheckLine::not_ok(
                Verdict::Warning,
                about("node"),
                format!(
                    "{name} ({}) is down for the cluster, too, so the way to it was not looked at",
                    self.raft
                ),
                "run 'holdfast cluster check' once it is up",
            )];
        }
        if self.earlier {
            return vec![CheckLine::not_ok(
                Verdict::Warning,
                about("node"),
                format!("{name} runs an earlier release, so the way to it was not looked at"),
                "bring all nodes to one release",
            )];
        }
        let clock = self.clock.as_ref().and_then(|clock| judge::clock_line(me, clock));
        let ways = self.ways.iter().flat_map(|way| {
            let about = format!("{me} -> {name}, {}", way.network);
            let probed = way.probed.as_ref();
            let round_trip = probed
                .map(|probed| judge::round_trip(&about, probed.round_trip_us, probed.lost(), LEASE_TIME));
            let round_trip = round_trip.map(|line| CheckLine {
                found: format!(
                    "the {} address of {name}, {}: {}",
                    way.network, way.address, line.found
                ),
                ..line
            });
            [
                judge::unreached(me, way),
                judge::packets(me, way, sent(self.back.as_deref().unwrap_or_default(), way)),
                round_trip,
            ]
            .into_iter()
            .flatten()
        });
        ways.chain(self.back_lines()).chain(clock).collect()
    }

    /// What the member found.
    fn back_lines(&self) -> Vec<CheckLine> {
        let name = &self.member;
        match &self.back {
            Ok(back) => back
                .iter()
                .flat_map(|way| {
                    [
                        judge::unreached(name, way),
                        judge::packets(name, way, sent(&self.ways, way)),
                    ]
                })
                .flatten()
                .collect(),
            // What an earlier release cannot do is no trouble of the way.
            Err(MeetError::Earlier) => Vec::new(),
            Err(MeetError::Failed(why)) => vec![CheckLine::not_ok(
                Verdict::Warning,
                ("reach", format!("{name} -> {}", self.raft)),
                format!("{name} did not look at the way back: {why}"),
                "run 'holdfast cluster check' afterwards",
            )],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::look::Network;
    use super::super::way::{Probed, Sizes};
    use super::*;

    fn looked(passes: usize, unreached: Option<&str>) -> Looked {
        let way = |network| Way {
            to: "b".into(),
            network,
            link: 0,
            address: "10.0.0.2:7400".parse().unwrap(),
            unreached: None,
            probed: None,
            unprobed: None,
        };
        let sizes = Sizes { route: 9000, passes };
        let probed = Probed {
            round_trip_us: 200,
            asked: 5,
            answered: 5,
            sizes,
        };
        Looked {
            member: "b".into(),
            heard: true,
            raft: "10.0.0.2:7400".parse().unwrap(),
            ways: vec![
                way(Network::Raft),
                Way {
                    unreached: unreached.map(str::to_owned),
                    probed: unreached.is_none().then_some(probed),
                    ..way(Network::Heartbeat)
                },
            ],
            back: Ok(Vec::new()),
            clock: Some(look::ClockLook {
                of: "b".into(),
                ahead_us: 5_000_000,
                within_us: 100,
            }),
            earlier: false,
        }
    }

    #[test]
    fn what_is_not_reached_refuses_and_what_is_cut_refuses_unless_forced() {
        let warned = decide(looked(9000, None).lines("c"), false).unwrap();
        assert!(
            matches!(&warned[..], [one] if one.contains("5000 ms ahead of that of c")),
            "{warned:?}"
        );
        let cut = decide(looked(1500, None).lines("c"), false)
            .unwrap_err()
            .to_string();
        assert!(
            cut.contains("those above 1500 get lost") && cut.ends_with("--force joins all the same"),
            "{cut}"
        );
        assert_eq!(decide(looked(1500, None).lines("c"), true).unwrap().len(), 2);
        for force in [false, true] {
            let line = decide(looked(9000, Some("timed out")).lines("c"), force)
                .unwrap_err()
                .to_string();
            let wanted = "the heartbeat address 10.0.0.2:7400 of b does not answer c (timed out)";
            assert!(
                line.starts_with(wanted) && line.ends_with("Nothing was changed"),
                "{line}"
            );
        }
    }

    #[test]
    fn what_a_member_does_not_reach_refuses_too() {
        let back = |unreached: Option<&str>, passes| {
            let mut ways = looked(passes, unreached).ways;
            for way in &mut ways {
                way.to = "c".into();
            }
            Looked {
                back: Ok(ways),
                ..looked(9000, None)
            }
        };
        let line = decide(back(Some("timed out"), 9000).lines("c"), false)
            .unwrap_err()
            .to_string();
        let wanted = "the heartbeat address 10.0.0.2:7400 of c does not answer b (timed out)";
        assert!(line.starts_with(wanted), "{line}");
        let cut = decide(back(None, 1500).lines("c"), false)
            .unwrap_err()
            .to_string();
        assert!(cut.starts_with("b sends packets of 9000 bytes"), "{cut}");
        // A look back that failed is no reason to stay out; that of an earlier release is not even told.
        let failed = |why| Looked {
            back: Err(why),
            ..looked(9000, None)
        };
        let warned = |why| decide(failed(why).lines("c"), false).unwrap().len();
        assert_eq!(warned(MeetError::Failed("no answer in time".into())), 2);
        assert_eq!(warned(MeetError::Earlier), 1);
    }

    #[test]
    fn a_member_that_is_down_or_older_is_a_warning() {
        let down = Looked {
            heard: false,
            ..looked(9000, None)
        };
        assert_eq!(decide(down.lines("c"), false).unwrap().len(), 1);
        let older = Looked {
            earlier: true,
            ..looked(9000, None)
        };
        assert_eq!(decide(older.lines("c"), false).unwrap().len(), 1);
    }
}
