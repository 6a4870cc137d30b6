//! What a node looks at before it joins a cluster: whether it reaches every member at every address, what packets pass, and the clocks.
//! Nothing is changed by it anywhere.

use std::net::SocketAddr;

use anyhow::{bail, ensure};
use futures::future::join_all;
use holdfast_raft::consensus::{JoinToken, MeetError, MetMember, meet_with_token};
use holdfast_types::LEASE_TIME;

use super::document::{CheckLine, Verdict};
use super::judge;
use super::look::{self, Ends, Way};
use crate::config::NodeConfig;

/// Looks at the ways to all members that are up but `replaced`; what is worth a word. With `force`, that packets or answers have trouble on
/// the way is such a word, too.
///
/// # Errors
/// One line: which address of which member does not answer, or which packets do not pass. Nothing is said where no member can be asked at
/// all, since who asks to join hears why.
pub(crate) async fn before_joining(
    config: &NodeConfig,
    token: &JoinToken,
    replaced: &str,
    force: bool,
) -> anyhow::Result<Vec<String>> {
    let Some(members) = first_answer(token).await else {
        return Ok(Vec::new());
    };
    let ends = Ends::of(config);
    let others = members.iter().filter(|member| member.name != replaced);
    let looked = join_all(others.map(|member| look_at(&ends, token, member))).await;
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
    clock: Option<look::ClockLook>,
    earlier: bool,
}

async fn look_at(ends: &Ends, token: &JoinToken, member: &MetMember) -> Looked {
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
    looked.ways = look::ways(ends, name, addresses, &met).await;
    looked
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
                judge::packets(me, way, None),
                round_trip,
            ]
            .into_iter()
            .flatten()
        });
        ways.chain(clock).collect()
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
