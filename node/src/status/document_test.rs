use super::*;

#[test]
fn fields_that_scripts_rely_on_are_there() {
    let document = super::super::text::sample();
    let json = serde_json::to_value(&document).unwrap();
    for field in [
        "cluster", "health", "reasons", "alarms", "sessions", "quorum", "leader", "revision", "nodes",
        "extents", "targets",
    ] {
        assert!(json.get(field).is_some(), "{field}");
    }
    assert_eq!(json["health"], "ok");
    assert_eq!(json["nodes"][0]["role"], "data");
    assert_eq!(json["nodes"][0]["state"], "up");
    for field in [
        "name",
        "naa",
        "size_bytes",
        "block_size",
        "epoch",
        "primary",
        "in_sync",
        "replicas",
    ] {
        assert!(json["extents"][0].get(field).is_some(), "{field}");
    }
    assert_eq!(json["extents"][0]["replicas"][0]["state"], "in_sync");
    for field in ["applied_lsn", "resync", "node"] {
        assert!(json["extents"][0]["replicas"][0].get(field).is_some(), "{field}");
    }
    for field in ["node", "id", "state", "preferred"] {
        assert!(
            json["targets"][0]["luns"][0]["groups"][0].get(field).is_some(),
            "{field}"
        );
    }
    let back: StatusDocument = serde_json::from_value(json).unwrap();
    assert_eq!(back, document);
}

#[test]
fn health_orders_from_fine_to_worst() {
    assert!(
        Health::Ok < Health::Degraded && Health::Degraded < Health::AtRisk && Health::AtRisk < Health::Down
    );
    assert_eq!(Health::Degraded.exit_status(), 1);
}
