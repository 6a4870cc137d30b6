//! A round as a picture: the failure, what the nodes said of the cluster meanwhile, and every write.

use std::time::Duration;

use super::{Look, Round, View};
use crate::report::{Mark, Sample, State, Timeline};

/// Pauses from this length on are shaded.
const STALL_FROM: Duration = Duration::from_millis(100);

/// Draws a round. `lanes` are the names of the workload's disks.
pub(super) fn timeline(round: &Round, lanes: &[String]) -> Timeline {
    let led = if round.led {
        ": it led Raft, so that an election ran, too"
    } else {
        ""
    };
    let begin = round.at.saturating_sub(super::BEFORE);
    let mut timeline = Timeline {
        title: round.failure.to_string(),
        lines: vec![
            format!("Done to node {}{led}.", round.victim),
            told(&round.errors),
        ],
        begin,
        zero: round.at,
        lanes: lanes.to_vec(),
        samples: round.samples.iter().map(Sample::from).collect(),
        marks: marks(round),
        stall_from: STALL_FROM,
        ..Timeline::default()
    };
    show(&mut timeline, &round.nodes, &round.looks);
    timeline.ends(round.end);
    timeline
}

/// Shows what nodes said from the timeline's beginning on: who is primary and leads, and what each of them is.
pub(crate) fn show(timeline: &mut Timeline, nodes: &[String], looks: &[Look]) {
    let begin = timeline.begin;
    // Rows stand in the order in which they come first: the cluster's before the nodes'.
    cluster(timeline, nodes, looks);
    for (number, node) in nodes.iter().enumerate() {
        for look in looks.iter().filter(|look| look.node == number) {
            let (state, text) = match &look.view {
                Some(view) => of_node(view),
                None => (State::Down, "no answer"),
            };
            timeline.turns(&format!("node {node}"), look.at.max(begin), state, text);
        }
    }
}

/// What initiators were told besides GOOD, in one line.
fn told(errors: &super::Errors) -> String {
    if errors.is_empty() {
        return "Initiators were told nothing but GOOD.".to_owned();
    }
    let each: Vec<String> = errors
        .iter()
        .map(|(kind, count)| format!("{kind}, {count} times"))
        .collect();
    format!("What initiators met: {}.", each.join("; "))
}

fn marks(round: &Round) -> Vec<Mark> {
    let what = format!("{}: node {}", round.failure, round.victim);
    let mut marks = vec![Mark {
        at: round.at,
        until: round.failure.lasts().then_some(round.healed),
        text: what,
    }];
    if round.failure.lasts() {
        marks.push(Mark {
            at: round.healed,
            until: None,
            text: round.failure.healing().to_owned(),
        });
    }
    marks.push(Mark {
        at: round.healed + round.recovery,
        until: None,
        text: "all in sync".to_owned(),
    });
    marks
}

/// Who is primary and who leads, as the newest of those says who have a quorum.
fn cluster(timeline: &mut Timeline, nodes: &[String], looks: &[Look]) {
    let number = |name: &str| nodes.iter().position(|node| node == name);
    let begin = timeline.begin;
    // `None`: nobody has asked it yet.
    let mut latest: Vec<Option<Option<&View>>> = vec![None; nodes.len()];
    let mut looks: Vec<&Look> = looks.iter().collect();
    looks.sort_by_key(|look| look.at);
    for look in looks {
        let at = look.at.max(begin);
        if let Some(place) = latest.get_mut(look.node) {
            *place = Some(look.view.as_ref());
        }
        let known = latest.iter().flatten().flatten().filter(|view| view.quorum);
        let Some(view) = known.max_by_key(|view| view.revision) else {
            if latest.iter().all(Option::is_some) {
                timeline.turns("primary", at, State::Down, "no quorum");
                timeline.turns("Raft leader", at, State::Down, "no quorum");
            }
            continue;
        };
        match &view.primary {
            Some(primary) => {
                let text = format!("{primary}, epoch {}", view.epoch);
                let state = number(primary).map_or(State::Waiting, State::Of);
                timeline.turns("primary", at, state, &text);
            }
            None => timeline.turns("primary", at, State::Changing, &format!("epoch {}", view.epoch)),
        }
        match &view.leader {
            Some(leader) => {
                let state = number(leader).map_or(State::Waiting, State::Of);
                timeline.turns("Raft leader", at, state, leader);
            }
            None => timeline.turns("Raft leader", at, State::Changing, "election"),
        }
    }
}

/// What a node is to the unit's initiators.
fn of_node(view: &View) -> (State, &str) {
    match view.group.as_deref() {
        _ if !view.quorum => (State::Down, "no quorum"),
        Some(text @ "active/optimized") => (State::Serving, text),
        Some(text @ "active/non-optimized") => (State::Helping, text),
        Some(text @ "transitioning") => (State::Changing, text),
        Some(text @ "unavailable") => (State::Down, text),
        Some(text) => (State::Waiting, text),
        None => (State::Waiting, "votes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::Failure;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn view(revision: u64, primary: &str, epoch: u64, leader: Option<&str>, group: Option<&str>) -> View {
        View {
            revision,
            quorum: true,
            leader: leader.map(str::to_owned),
            primary: Some(primary.to_owned()),
            epoch,
            serves: false,
            group: group.map(str::to_owned),
        }
    }

    #[test]
    fn a_round_shows_failure_healing_and_what_the_nodes_said() {
        let mut round = Round::example(Failure::KillPrimary, ms(700), ms(1500));
        let look = |node: usize, at: u64, view: Option<View>| Look {
            node,
            asked: ms(at),
            at: ms(at),
            view,
        };
        let (optimized, helping) = (Some("active/optimized"), Some("active/non-optimized"));
        round.looks = vec![
            // One that gives no answer yet says nothing of a cluster of which the others were not asked.
            look(1, 790, None),
            look(0, 800, Some(view(7, "a", 1, Some("w"), optimized))),
            look(1, 810, Some(view(7, "a", 1, Some("w"), helping))),
            look(2, 820, Some(view(7, "a", 1, Some("w"), None))),
            look(0, 1050, None),
            look(1, 1600, Some(view(9, "b", 2, Some("w"), optimized))),
            // A node that is behind does not turn the cluster back.
            look(2, 1610, Some(view(8, "a", 1, Some("w"), None))),
        ];
        round.errors = [("connection lost".to_owned(), 3)].into();
        let drawn = timeline(&round, &["through a".to_owned()]);
        let told: Vec<(&str, &str, u128, u128)> = drawn
            .bands
            .iter()
            .map(|band| {
                (
                    band.row.as_str(),
                    band.text.as_str(),
                    band.from.as_millis(),
                    band.to.as_millis(),
                )
            })
            .collect();
        let end = round.end.as_millis();
        assert_eq!(
            told,
            [
                ("primary", "a, epoch 1", 800, 1600),
                ("Raft leader", "w", 800, end),
                ("primary", "b, epoch 2", 1600, end),
                ("node a", "active/optimized", 800, 1050),
                ("node a", "no answer", 1050, end),
                ("node b", "no answer", 790, 810),
                ("node b", "active/non-optimized", 810, 1600),
                ("node b", "active/optimized", 1600, end),
                ("node w", "votes", 820, end),
            ]
        );
        assert_eq!(
            (drawn.marks[0].at, drawn.marks[0].until),
            (ms(1000), Some(ms(4000)))
        );
        assert_eq!(drawn.marks[2].at, ms(5500));
        assert!(
            drawn.lines[1].contains("connection lost, 3 times"),
            "{:?}",
            drawn.lines
        );
    }
}
