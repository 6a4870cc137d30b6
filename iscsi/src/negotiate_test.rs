use super::*;

fn replies(offer: Offer, pairs: &[(Key, &str)]) -> (Vec<(Key, Reply)>, Parameters) {
    let mut negotiation = Negotiation::new(offer);
    let replies = negotiation.answer(pairs).unwrap();
    (replies, negotiation.finish().unwrap())
}

fn value(text: &str) -> Reply {
    Reply::Value(text.to_owned())
}

fn one(key: Key, text: &str) -> Reply {
    let (mut replies, _) = replies(Offer::default(), &[(key, text)]);
    replies.remove(0).1
}

#[test]
fn every_key_reads_its_own_name() {
    for key in Key::ALL {
        assert_eq!(Key::from_name(key.name()), Some(*key));
    }
    assert_eq!(Key::from_name("initialr2t"), None, "keys are case-sensitive");
}

#[test]
fn numbers_take_the_lower_value_and_booleans_their_function() {
    assert_eq!(one(Key::MaxBurstLength, "262144"), value("262144"));
    assert_eq!(one(Key::MaxBurstLength, "16776192"), value("1048576"));
    assert_eq!(one(Key::MaxBurstLength, "0x40000"), value("262144"));
    assert_eq!(one(Key::MaxOutstandingR2T, "1"), value("1"));
    assert_eq!(one(Key::MaxConnections, "8"), value("1"));
    assert_eq!(one(Key::ErrorRecoveryLevel, "2"), value("0"));
    assert_eq!(one(Key::InitialR2T, "No"), value("No"));
    assert_eq!(one(Key::InitialR2T, "Yes"), value("Yes"));
    assert_eq!(one(Key::ImmediateData, "No"), value("No"));
    assert_eq!(one(Key::DataPduInOrder, "No"), value("Yes"));
    assert_eq!(one(Key::DefaultTime2Wait, "0"), value("2"), "the longer wait");
    assert_eq!(
        one(Key::DefaultTime2Retain, "20"),
        value("0"),
        "the shorter retention"
    );
    assert_eq!(
        one(Key::TaskReporting, "FastAbort,ResponseFence,RFC3720"),
        value("RFC3720")
    );
    assert_eq!(one(Key::IscsiProtocolLevel, "2"), value("1"));
}

#[test]
fn values_that_make_no_sense_are_rejected() {
    for (key, text) in [
        (Key::MaxBurstLength, "511"),
        (Key::MaxBurstLength, "16777216"),
        (Key::MaxBurstLength, "-1"),
        (Key::MaxBurstLength, ""),
        (Key::MaxBurstLength, "99999999999999999999"),
        (Key::FirstBurstLength, "many"),
        (Key::MaxRecvDataSegmentLength, "0"),
        (Key::InitialR2T, "yes"),
        (Key::MaxOutstandingR2T, "0"),
        (Key::ErrorRecoveryLevel, "3"),
        (Key::DefaultTime2Wait, "3601"),
        (Key::HeaderDigest, "MD5"),
        (Key::TaskReporting, "FastAbort"),
        (Key::TargetAlias, "x"),
        (Key::SendTargets, "All"),
        (Key::OfMarkInt, "2048~8192"),
    ] {
        assert_eq!(one(key, text), value("Reject"), "{}={text}", key.name());
    }
}

#[test]
fn markers_are_off_without_being_misunderstood() {
    assert_eq!(one(Key::IfMarker, "Yes"), value("No"));
    assert_eq!(one(Key::OfMarker, "No"), value("No"));
}

#[test]
fn first_burst_never_exceeds_max_burst_in_either_order() {
    let pairs = [(Key::FirstBurstLength, "262144"), (Key::MaxBurstLength, "65536")];
    let (replies, parameters) = replies(Offer::default(), &pairs);
    assert!(replies.contains(&(Key::FirstBurstLength, value("65536"))));
    assert_eq!(
        (parameters.first_burst_length, parameters.max_burst_length),
        (65536, 65536)
    );
}

#[test]
fn digests_go_by_the_initiators_preference_unless_told_otherwise() {
    let cases = [
        (DigestPolicy::AsInitiatorPrefers, "CRC32C,None", "CRC32C"),
        (DigestPolicy::AsInitiatorPrefers, "None,CRC32C", "None"),
        (DigestPolicy::Never, "CRC32C,None", "None"),
        (DigestPolicy::Always, "None,CRC32C", "CRC32C"),
        (DigestPolicy::Never, "CRC32C", "Reject"),
    ];
    for (policy, offered, wanted) in cases {
        let offer = Offer {
            header_digest: policy,
            ..Offer::default()
        };
        let mut negotiation = Negotiation::new(offer);
        let replies = negotiation.answer(&[(Key::HeaderDigest, offered)]).unwrap();
        assert_eq!(
            replies,
            [(Key::HeaderDigest, value(wanted))],
            "{policy:?} {offered}"
        );
        assert_eq!(
            negotiation.finish().map(|parameters| parameters.digests.header),
            Ok(wanted == "CRC32C")
        );
    }
}

#[test]
fn a_required_digest_cannot_be_left_out() {
    let offer = Offer {
        data_digest: DigestPolicy::Always,
        ..Offer::default()
    };
    let mut negotiation = Negotiation::new(offer.clone());
    let replies = negotiation.answer(&[(Key::DataDigest, "None")]).unwrap();
    assert!(matches!(replies[..], [(_, Reply::Impossible(_))]));
    assert!(
        Negotiation::new(offer).finish().is_err(),
        "nor by not being named"
    );
}

#[test]
fn a_key_may_be_repeated_but_not_negotiated_again() {
    let mut negotiation = Negotiation::new(Offer::default());
    negotiation.answer(&[(Key::MaxBurstLength, "4096")]).unwrap();
    assert_eq!(negotiation.answer(&[(Key::MaxBurstLength, "4096")]), Ok(vec![]));
    assert_eq!(
        negotiation.answer(&[(Key::MaxBurstLength, "8192")]),
        Err(Twice(Key::MaxBurstLength))
    );
}

#[test]
fn nothing_said_leaves_the_defaults_of_the_standard() {
    let (_, parameters) = replies(Offer::default(), &[]);
    assert_eq!(parameters, Parameters::default());
}

#[test]
fn the_offering_side_takes_answers_as_results() {
    let mut parameters = Parameters::default();
    for (key, value) in [
        ("HeaderDigest", "CRC32C"),
        ("MaxRecvDataSegmentLength", "65536"),
        ("MaxBurstLength", "Reject"),
        ("InitialR2T", "No"),
        ("Nonsense", "1"),
    ] {
        parameters.take_answer(key, value);
    }
    assert!(parameters.digests.header && !parameters.initial_r2t);
    assert_eq!(
        (parameters.send_max, parameters.max_burst_length),
        (65_536, 262_144)
    );
}
