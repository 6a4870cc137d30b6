//! A run as a page to look at: a picture for each storm.

use std::time::Duration;

use super::report::{Report, StormReport};
use crate::rehearsal::{Look, timeline};
use crate::report::{Mark, Page, Row, Sample, Table, Timeline};
use crate::workload;

/// Pauses from this length on are shaded.
const STALL_FROM: Duration = Duration::from_millis(500);
/// Shown before a storm.
const BEFORE: Duration = Duration::from_millis(500);

/// What was seen of a run besides its report, by the workload's clock.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Names of the initiators.
    pub lanes: Vec<String>,
    /// Their calls.
    pub samples: Vec<workload::Sample>,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// What the nodes said, in the order of time for each of them.
    pub looks: Vec<Look>,
}

impl Seen {
    /// Whether a node ever said that it served under a lease in an epoch that another one had told to be over before it was asked (I4).
    pub fn outdated(&self) -> Option<String> {
        let mut told: Vec<(Duration, u64, usize)> = self
            .looks
            .iter()
            .filter_map(|look| Some((look.at, look.view.as_ref()?.epoch, look.node)))
            .collect();
        told.sort_unstable();
        // The newest epoch that anybody had told by then.
        let newest = told.iter().scan((Duration::ZERO, 0, 0), |newest, one| {
            if one.1 > newest.1 {
                *newest = *one;
            }
            Some(*newest)
        });
        let newest: Vec<(Duration, u64, usize)> = newest.collect();
        let name = |node: usize| self.nodes.get(node).map_or("?", String::as_str);
        self.looks.iter().find_map(|look| {
            let view = look.view.as_ref().filter(|view| view.serves)?;
            let before = told.partition_point(|(at, ..)| *at <= look.asked);
            let (at, epoch, by) = *newest.get(before.checked_sub(1)?)?;
            (epoch > view.epoch).then(|| {
                format!(
                    "{} said at {:.3} s that it serves in epoch {}, and {} had told of epoch {epoch} at {:.3} s (I4)",
                    name(look.node),
                    look.asked.as_secs_f64(),
                    view.epoch,
                    name(by),
                    at.as_secs_f64()
                )
            })
        })
    }
}

fn at(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1e3)
}

impl Report {
    /// The page. `foot` is its small print.
    pub fn page(&self, seen: &Seen, foot: String) -> Page {
        let storms = self.storms.iter().enumerate();
        let mut verdict: Vec<String> = self.to_string().lines().map(str::to_owned).collect();
        // The conclusion, which comes last in the text, stands first.
        verdict.rotate_right(1);
        Page {
            title: format!("Chaos, seed {}", self.seed),
            held: self.held,
            verdict,
            tables: vec![self.table()],
            timelines: storms
                .map(|(number, storm)| drawn(number + 1, storm, seen))
                .collect(),
            foot,
        }
    }

    fn table(&self) -> Table {
        let heading = [
            "storm",
            "strikes",
            "nothing answered for, s",
            "in sync after, s",
            "all served after, s",
        ];
        let row = |(number, storm): (usize, &StormReport)| Row {
            cells: vec![
                (number + 1).to_string(),
                storm.events.len().to_string(),
                format!("{:.1}", storm.stall_ms / 1e3),
                format!("{:.1}", storm.whole_ms / 1e3),
                format!("{:.1}", storm.served_ms / 1e3),
            ],
            good: storm.trouble.is_none(),
        };
        Table {
            title: "Storms".to_owned(),
            heading: heading.map(str::to_owned).to_vec(),
            rows: self.storms.iter().enumerate().map(row).collect(),
        }
    }
}

fn drawn(number: usize, storm: &StormReport, seen: &Seen) -> Timeline {
    let (begin, end) = (at(storm.begin_ms).saturating_sub(BEFORE), at(storm.end_ms));
    let within = |time: Duration| (begin..=end).contains(&time);
    let mark = |event: &super::Event| Mark {
        at: at(event.at_ms),
        until: (event.until_ms > event.at_ms).then(|| at(event.until_ms)),
        text: event.text.clone(),
    };
    let mut timeline = Timeline {
        title: format!("Storm {number}"),
        lines: storm.trouble.iter().cloned().collect(),
        begin,
        zero: at(storm.begin_ms),
        lanes: seen.lanes.clone(),
        samples: seen
            .samples
            .iter()
            .filter(|one| within(one.answered))
            .map(Sample::from)
            .collect(),
        marks: storm.events.iter().map(mark).collect(),
        stall_from: STALL_FROM,
        ..Timeline::default()
    };
    let looks: Vec<Look> = seen
        .looks
        .iter()
        .filter(|look| within(look.at))
        .cloned()
        .collect();
    timeline::show(&mut timeline, &seen.nodes, &looks);
    timeline.ends(end);
    timeline
}

#[cfg(test)]
mod tests {
    use super::super::{Event, Fault, Place};
    use super::*;
    use crate::rehearsal::View;

    #[test]
    fn every_storm_is_drawn_with_what_happened_in_it() {
        let storm = |from: u64| StormReport {
            begin_ms: Event::ms(Duration::from_secs(from)),
            end_ms: Event::ms(Duration::from_secs(from + 5)),
            events: vec![Event::new(
                Fault::Kill { at: Place::B },
                Duration::from_secs(from + 1),
            )],
            stall_ms: 700.0,
            whole_ms: 1200.0,
            served_ms: 1300.0,
            trouble: None,
        };
        let load = crate::workload::mixed::Report {
            acknowledged: 2,
            faults: Vec::new(),
            verdict: Ok(crate::checker::Summary::default()),
        };
        let storms = vec![storm(1), storm(20)];
        let report = Report::new(
            3,
            Duration::from_secs(30),
            storms,
            vec![("blocks", load)],
            Vec::new(),
        );
        let sample = |ms: u64| workload::Sample {
            lane: 0,
            issued: Duration::from_millis(ms),
            answered: Duration::from_millis(ms + 1),
        };
        let seen = Seen {
            lanes: vec!["one".to_owned()],
            samples: vec![sample(2000), sample(12_000), sample(21_000)],
            nodes: vec!["a".to_owned()],
            looks: vec![Look {
                node: 0,
                asked: Duration::from_secs(22),
                at: Duration::from_secs(22),
                view: None,
            }],
        };
        let page = report.page(&seen, String::new());
        assert!(
            page.verdict[0].starts_with("Nothing was lost"),
            "{:?}",
            page.verdict
        );
        assert!(page.verdict[1].starts_with("seed 3"), "{:?}", page.verdict);
        let counts = |of: fn(&Timeline) -> usize| page.timelines.iter().map(of).collect::<Vec<_>>();
        assert_eq!(
            counts(|one| one.samples.len()),
            [1, 1],
            "what is between storms is in neither"
        );
        assert_eq!(counts(|one| one.marks.len()), [1, 1]);
        assert_eq!(
            counts(|one| one.bands.iter().filter(|band| band.row == "node a").count()),
            [0, 1]
        );
        assert!(page.html().contains("kill -9 of b"));
    }

    #[test]
    fn whoever_serves_in_an_epoch_that_is_over_is_found() {
        let look = |node: usize, asked: u64, at: u64, epoch: u64, serves: bool| Look {
            node,
            asked: Duration::from_millis(asked),
            at: Duration::from_millis(at),
            view: Some(View {
                revision: 1,
                quorum: true,
                leader: None,
                primary: None,
                epoch,
                serves,
                group: None,
            }),
        };
        let seen = |looks: &[Look]| Seen {
            lanes: Vec::new(),
            samples: Vec::new(),
            nodes: vec!["a".to_owned(), "b".to_owned()],
            looks: looks.to_vec(),
        };
        let mut looks = [
            look(0, 10, 11, 1, true),
            look(0, 110, 131, 1, true),
            look(1, 115, 120, 2, true),
            // One that knows less and serves nothing does no harm.
            look(0, 210, 211, 1, false),
        ];
        assert_eq!(seen(&looks).outdated(), None, "it was asked before anybody told");
        looks[1].asked = Duration::from_millis(120);
        let found = seen(&looks).outdated().unwrap();
        assert!(
            found.starts_with("a said at 0.120 s that it serves in epoch 1, and b had told of epoch 2"),
            "{found}"
        );
    }
}
