use std::time::Duration;

use super::*;

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// A failure at 1 s that is taken back at 3 s, and a request every 10 ms but from 1 s to 1.6 s.
fn timeline() -> Timeline {
    let mut timeline = Timeline {
        title: "kill -9 of the primary".to_owned(),
        lines: vec!["the replica led".to_owned()],
        begin: ms(500),
        zero: ms(1000),
        lanes: vec!["through a".to_owned(), "through b".to_owned()],
        marks: vec![
            Mark {
                at: ms(1000),
                until: Some(ms(3000)),
                text: "node a is killed".to_owned(),
            },
            Mark {
                at: ms(3500),
                until: None,
                text: "in sync again".to_owned(),
            },
        ],
        stall_from: ms(100),
        ..Timeline::default()
    };
    let answered = (50..400).map(|n| ms(n * 10));
    timeline.samples = answered
        .filter(|at| !(ms(1000)..ms(1600)).contains(at))
        .enumerate()
        .map(|(number, at)| Sample {
            lane: number % 2,
            issued: at - ms(3),
            answered: at,
            good: number != 7,
        })
        .collect();
    timeline.turns("node a", ms(500), State::Serving, "active/optimized");
    timeline.turns("node b", ms(500), State::Helping, "active/non-optimized");
    timeline.turns("node a", ms(1000), State::Down, "no answer");
    timeline.turns("node a", ms(1100), State::Down, "no answer");
    timeline.turns("node b", ms(1590), State::Serving, "active/optimized");
    timeline.ends(ms(4000));
    timeline
}

fn page() -> Page {
    Page {
        title: "Drill".to_owned(),
        held: true,
        verdict: vec!["Held".to_owned(), "no block was lost".to_owned()],
        tables: vec![Table {
            title: "Figures".to_owned(),
            heading: vec!["scenario".to_owned(), "stall, ms".to_owned()],
            rows: vec![Row {
                cells: vec!["kill -9 of the primary".to_owned(), "610".to_owned()],
                good: false,
            }],
        }],
        timelines: vec![timeline()],
        foot: "made by a test".to_owned(),
    }
}

fn parsed(text: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..roxmltree::ParsingOptions::default()
    };
    roxmltree::Document::parse_with_options(text, options).unwrap()
}

/// Elements of a class.
fn count(document: &roxmltree::Document<'_>, class: &str) -> usize {
    let is_of = |node: &roxmltree::Node<'_, '_>| {
        node.attribute("class")
            .is_some_and(|all| all.split(' ').any(|one| one == class))
    };
    document.descendants().filter(is_of).count()
}

#[test]
fn a_row_goes_on_until_it_turns_and_ends_with_the_picture() {
    let bands = timeline().bands;
    let told: Vec<_> = bands
        .iter()
        .map(|band| (band.row.as_str(), band.from, band.to, band.state))
        .collect();
    assert_eq!(
        told,
        [
            ("node a", ms(500), ms(1000), State::Serving),
            ("node b", ms(500), ms(1590), State::Helping),
            ("node a", ms(1000), ms(4000), State::Down),
            ("node b", ms(1590), ms(4000), State::Serving),
        ]
    );
}

#[test]
fn a_stall_is_between_answers_of_all_lanes_and_a_failed_request_does_not_end_it() {
    let mut one = timeline();
    assert_eq!(one.stalls(), [(ms(990), ms(1600))]);
    one.samples.push(Sample {
        lane: 0,
        issued: ms(1000),
        answered: ms(1300),
        good: false,
    });
    assert_eq!(one.stalls(), [(ms(990), ms(1600))]);
    one.ends(ms(9000));
    assert_eq!(one.stalls(), [(ms(990), ms(1600)), (ms(3990), ms(9000))]);
    one.stall_from = Duration::ZERO;
    assert_eq!(one.stalls(), []);
}

#[test]
fn the_page_holds_every_mark_band_lane_and_figure_and_is_xml() {
    let text = page().html();
    let document = parsed(&text);
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    for wanted in [
        "Held",
        "no block was lost",
        "610",
        "the replica led",
        "through a",
        "through b",
        "failed",
        "610 ms",
        "made by a test",
        "node a is killed, 0.000 s to 2.000 s",
        "in sync again, 2.500 s",
        "node a: active/optimized, -0.500 s to 0.000 s",
        "node a: no answer, 0.000 s to 3.000 s",
        "node b: active/non-optimized, -0.500 s to 0.590 s",
        "node b: active/optimized, 0.590 s to 3.000 s",
        "nothing was answered for 610 ms, from -0.010 s",
    ] {
        assert!(texts.contains(&wanted), "{wanted} is missing in {texts:?}");
    }
    assert_eq!((count(&document, "mark"), count(&document, "stall")), (2, 1));
    assert_eq!((count(&document, "serving"), count(&document, "helping")), (2, 1));
    assert_eq!((count(&document, "held"), count(&document, "bad")), (1, 1));
    // Nothing is fetched, and nothing runs.
    for outside in ["<script", "src=", "href=", "url(", "@import"] {
        assert!(!text.contains(outside), "{outside}");
    }
}

#[test]
fn hostile_names_stay_text() {
    let hostile = "</title></svg><script>alert(1)</script>'\"&\u{0}\u{ffff}\u{1b}[2J";
    let mut page = page();
    page.title = hostile.to_owned();
    page.verdict = vec![hostile.to_owned(); 2];
    page.foot = hostile.to_owned();
    page.tables[0].title = hostile.to_owned();
    page.tables[0].heading[0] = hostile.to_owned();
    page.tables[0].rows[0].cells[0] = hostile.to_owned();
    let one = &mut page.timelines[0];
    one.title = hostile.to_owned();
    one.lines[0] = hostile.to_owned();
    one.lanes[0] = hostile.to_owned();
    one.marks[0].text = hostile.to_owned();
    one.turns(hostile, ms(1000), State::Changing, hostile);
    one.ends(ms(4000));
    for text in [page.html(), page.svg()] {
        let document = parsed(&text);
        assert!(document.descendants().all(|node| !node.has_tag_name("script")));
        assert!(!text.contains('\u{0}') && !text.contains('\u{1b}'), "{text}");
        let shown = hostile.replace(['\u{0}', '\u{ffff}', '\u{1b}'], "\u{fffd}");
        assert!(
            document
                .descendants()
                .any(|node| node.text() == Some(shown.as_str()))
        );
    }
}

#[test]
fn a_stall_is_told_over_the_areas_of_all_and_where_there_is_room() {
    let mut one = timeline();
    // Three pauses of 120 ms one after the other, behind the long one: too narrow on a long picture for three figures.
    one.samples.retain(|sample| sample.answered <= ms(1600));
    for number in 1..4 {
        let answered = ms(1600 + number * 120);
        one.samples.push(Sample {
            lane: 0,
            issued: answered - ms(120),
            answered,
            good: true,
        });
    }
    one.ends(ms(12_000));
    let text = picture::inline(&one);
    let last_area = text.rfind("class=\"stall\"").unwrap();
    for figure in [">610 ms<", ">10040 ms<"] {
        assert!(
            text.find(figure).is_some_and(|at| at > last_area),
            "{figure} in {text}"
        );
    }
    assert_eq!(text.matches("class=\"stall\"").count(), 5);
    assert!(text.matches(">120 ms<").count() < 3, "figures over each other");
}

#[test]
fn pictures_alone_are_one_file() {
    let mut page = page();
    page.timelines.push(timeline());
    let text = page.svg();
    let document = parsed(&text);
    assert!(
        document
            .root_element()
            .has_tag_name(("http://www.w3.org/2000/svg", "svg"))
    );
    assert_eq!(count(&document, "stall"), 2);
}

#[test]
fn of_requests_on_one_pixel_the_slowest_is_drawn() {
    let mut one = timeline();
    one.lanes.truncate(1);
    let at = |latency: u64| Sample {
        lane: 0,
        issued: ms(2000 - latency),
        answered: ms(2000),
        good: true,
    };
    one.samples = vec![at(1), at(100), at(10)];
    let text = picture::inline(&one);
    let dots = text.matches("h0").count();
    // One for the requests, one in the legend.
    assert_eq!(dots, 2, "{text}");
    let document = parsed(&text);
    let path = document
        .descendants()
        .find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "path")));
    let drawn = path.and_then(|node| node.attribute("d")).unwrap();
    // The scale reaches from 0.1 ms to 1 s in 200 pixels: 100 ms is three of four powers of ten above its bottom.
    let tops: Vec<f64> = drawn
        .split(' ')
        .skip(1)
        .map(|y| y.trim_end_matches("h0").parse().unwrap())
        .collect();
    let axis = text.split("class=\"axis\"").nth(1).unwrap();
    let bottom: f64 = axis.split('"').nth(3).unwrap().parse().unwrap();
    assert!((bottom - tops[0] - 150.0).abs() < 0.2, "{tops:?} over {bottom}");
}

#[test]
fn pictures_of_nothing_and_of_hundreds_of_marks_are_drawn() {
    let mut one = Timeline::default();
    parsed(&picture::inline(&one));
    one.ends(ms(60_000));
    for number in 0..300_u64 {
        one.marks.push(Mark {
            at: ms(number * 200),
            until: Some(ms(number * 200 + 900)),
            text: format!("fault {number}"),
        });
    }
    let text = picture::inline(&one);
    let document = parsed(&text);
    assert_eq!((count(&document, "mark"), count(&document, "when")), (300, 0));
}

#[test]
fn json_tells_the_same() {
    let json = serde_json::to_value(page()).unwrap();
    let one = &json["timelines"][0];
    assert_eq!(one["samples"][0], serde_json::json!([0, 497_000, 500_000, true]));
    assert_eq!(
        (&one["marks"][0]["until_ms"], &one["marks"][1]["until_ms"]),
        (&3000.0.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&one["bands"][0]["state"], &one["bands"][0]["from_ms"]),
        (&"serving".into(), &500.0.into())
    );
    assert_eq!(json["held"], true);
}
