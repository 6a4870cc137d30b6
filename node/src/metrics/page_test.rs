use std::collections::BTreeSet;

use holdfast_types::OpOutcome;

use super::*;
use crate::status::sample;

/// What a scraper would stumble over: a sample without a family, a family twice, a name that is not ours, a value that is no number.
fn check(text: &str) -> BTreeSet<String> {
    let mut families = BTreeSet::new();
    let mut family = String::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap_or_default().to_owned();
            assert!(families.insert(family.clone()), "{family} comes twice");
            assert!(family.starts_with("holdfast_"), "{family}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest.split(' ').next(), Some(family.as_str()));
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap_or_default();
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .filter(|base| *base == family)
                .unwrap_or(name);
            assert_eq!(base, family, "{line}");
            assert!(seen.insert(series.to_owned()), "{series} comes twice");
        }
    }
    seen
}

#[test]
fn the_page_is_what_prometheus_reads_and_tells_of_every_part() {
    let document = sample();
    let facts = Facts {
        disk: Some((1000, 500)),
        journal: Some((100, 1)),
        ..Facts::of_process()
    };
    assert!(facts.resident_bytes > 0);
    let extent = &document.extents[0];
    let took = Duration::from_micros(700);
    let meter = facts.traffic.extent(extent.id);
    meter.count(Operation::Write, 4096, took, &OpOutcome::Done);
    meter.count(
        Operation::Write,
        4096,
        Duration::from_secs(60),
        &OpOutcome::Transitioning,
    );
    facts.traffic.initiator("iqn.2026-01.none.test:host").count(
        Operation::Write,
        4096,
        took,
        &OpOutcome::Done,
    );
    // Of an extent that is not in the cluster's state any more.
    facts
        .traffic
        .extent(ExtentId::from_u128(99))
        .count(Operation::Read, 0, took, &OpOutcome::Done);
    let text = page(&document, &facts);
    check(&text);
    let name = &extent.name;
    for line in [
        format!(
            "holdfast_extent_size_bytes{{extent=\"{name}\"}} {}",
            extent.size_bytes
        ),
        format!(
            "holdfast_extent_operation_seconds_bucket{{extent=\"{name}\",operation=\"write\",le=\"0.0005\"}} 0"
        ),
        format!(
            "holdfast_extent_operation_seconds_bucket{{extent=\"{name}\",operation=\"write\",le=\"0.001\"}} 1"
        ),
        format!(
            "holdfast_extent_operation_seconds_bucket{{extent=\"{name}\",operation=\"write\",le=\"5\"}} 1"
        ),
        format!(
            "holdfast_extent_operation_seconds_bucket{{extent=\"{name}\",operation=\"write\",le=\"+Inf\"}} 2"
        ),
        format!("holdfast_extent_operation_seconds_count{{extent=\"{name}\",operation=\"write\"}} 2"),
        format!("holdfast_extent_transferred_bytes_total{{extent=\"{name}\",operation=\"write\"}} 4096"),
        format!("holdfast_extent_operations_total{{extent=\"{name}\",outcome=\"transitioning\"}} 1"),
        "holdfast_initiator_operations_total{initiator=\"iqn.2026-01.none.test:host\",outcome=\"ok\"} 1"
            .to_owned(),
        "holdfast_disk_free_bytes 500".to_owned(),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
    for node in &document.nodes {
        assert!(text.contains(&format!("holdfast_node_up{{node=\"{}\"}}", node.name)));
    }
    assert!(
        !text.contains("operation=\"read\""),
        "an extent that is gone has no name"
    );
}

#[test]
fn a_node_without_a_cluster_has_a_page() {
    let document = crate::status::derive(&Default::default(), crate::status::Seen::default());
    let text = page(&document, &Facts::default());
    assert!(check(&text).contains("holdfast_cluster_quorum"));
    assert!(text.contains("holdfast_cluster_quorum 0\n"));
}
