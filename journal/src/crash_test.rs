//! Power cuts at every boundary, again and again on the same disk.

use bytes::Bytes;

use crate::harness_test::*;
use crate::*;

/// Few segments, so that the log is often full.
fn tight() -> Config {
    Config {
        max_segments: 4,
        ..small()
    }
}

/// One life of a process: appends, writes and releases until the script ends or the power goes.
fn live(model: &mut Model, rig: &mut Rig, device: &SimDevice, random: &mut Random, turns: u64) {
    for _ in 0..turns {
        match random.below(8) {
            0..=3 => model.append(rig, device, random),
            4 if !model.durable.is_empty() => {
                let at = usize::try_from(random.below(model.durable.len() as u64)).unwrap();
                let position = *model.durable.keys().nth(at).unwrap();
                model.released = model.released.max(position);
                rig.journal.release_before(position);
            }
            5 => {
                rig.drain();
            }
            _ => {
                rig.writer.step();
            }
        }
        model.hear(rig);
        if model.failed {
            return;
        }
        for (&position, wanted) in model.durable.iter().rev().take(2) {
            match rig.journal.read(position) {
                Ok(record) => assert_eq!(&body(&record), wanted),
                Err(ReadError::Released(_)) => assert!(position < model.released),
                Err(error) => panic!("{error}"),
            }
        }
    }
    if random.below(3) == 0 {
        rig.journal.close();
        rig.drain();
        model.hear(rig);
    }
}

/// Opens the disk, with power cuts in the opening itself, and twice in a row: always the same answer.
fn reopen(model: &mut Model, device: &SimDevice, random: &mut Random) -> Rig {
    let options = OpenOptions {
        known_durable: Some(model.through),
        ..OpenOptions::default()
    };
    let mut first: Option<(Verdict, Vec<Recovered>)> = None;
    for _ in 0..random.below(3) {
        device.cut_power_at(device.operations() + random.below(6));
        let (rig, found) = open_with(device, tight(), options);
        if let Ok(rig) = rig {
            let answer = (rig.recovery.verdict.clone(), found);
            assert_eq!(
                first.get_or_insert_with(|| answer.clone()),
                &answer,
                "the same answer again"
            );
        }
        device.restart();
    }
    let (rig, found) = open_with(device, tight(), options);
    let rig = rig.unwrap_or_else(|error| panic!("{error}"));
    if let Some((verdict, records)) = first {
        assert_eq!(
            (&rig.recovery.verdict, &found),
            (&verdict, &records),
            "the same answer again"
        );
    }
    model.check(&rig.recovery, &found);
    rig
}

fn run(seed: u64, lives: u64, cut: impl Fn(&mut Random) -> u64) -> u64 {
    eprintln!("HOLDFAST_SEED={seed}");
    let mut random = Random(seed);
    let device = SimDevice::new(random.next());
    let mut model = Model::default();
    for _ in 0..lives {
        let mut rig = reopen(&mut model, &device, &mut random);
        device.cut_power_at(device.operations() + cut(&mut random));
        live(&mut model, &mut rig, &device, &mut random, 60);
        drop(rig);
        if random.below(2) == 0 {
            device.cut_power();
        }
        device.restart();
    }
    drop(reopen(&mut model, &device, &mut random));
    device.operations()
}

#[test]
fn j1_nothing_acknowledged_is_lost_by_power_cuts_at_random() {
    for seed in seeds(1000) {
        run(seed, 8, |random| random.below(45));
    }
}

#[test]
fn j1_nothing_acknowledged_is_lost_by_a_power_cut_at_each_operation() {
    for seed in [3, 4, 5] {
        let operations = run(seed, 1, |_| u64::MAX / 2);
        assert!(operations > 20, "the script is long enough: {operations}");
        for at in 0..operations {
            run(seed, 2, |_| at);
        }
    }
}

#[test]
fn equal_bytes_written_again_do_not_revive_a_torn_group() {
    // After each cut the same payload is appended at the same place under another header, as a Raft log does in a new term. The first
    // group's header and the second's payload must never come together.
    let mut kept_whole = 0;
    for seed in seeds(400) {
        eprintln!("HOLDFAST_SEED={seed}");
        let device = SimDevice::new(seed);
        let mut random = Random(seed);
        let mut rig = open(&device);
        rig.put("kept");
        drop(rig);
        let mut known = vec![Bytes::from_static(b"head")];
        for life in 0..6_u8 {
            device.restart();
            let mut rig = open(&device);
            let found: Vec<Bytes> = rig.found.iter().map(|f| f.record.header.clone()).collect();
            assert_eq!(found, known, "what was cut stays cut, what was kept stays");
            device.cut_power_at(device.operations() + random.below(3));
            rig.journal
                .append(1, Bytes::from(vec![life]), vec![7; 6000].into(), 0)
                .unwrap();
            rig.drain();
            drop(rig);
            device.restart();
            let rig = open(&device);
            let found: Vec<Bytes> = rig.found.iter().map(|f| f.record.header.clone()).collect();
            if found != known {
                known.push(Bytes::from(vec![life]));
                kept_whole += 1;
                assert_eq!(found, known, "nothing that was cut comes back");
            }
        }
    }
    assert!(kept_whole > 0 || std::env::var("HOLDFAST_SEED").is_ok());
}

#[test]
fn j2_a_failed_write_is_final() {
    let mut failures = 0;
    for seed in seeds(100) {
        let device = SimDevice::new(seed);
        let mut random = Random(seed);
        let mut model = Model::default();
        let mut rig = reopen(&mut model, &device, &mut random);
        let fails_at = device.operations() + random.below(20);
        device.fail_at(fails_at);
        live(&mut model, &mut rig, &device, &mut random, 200);
        assert_eq!(
            model.failed,
            device.operations() > fails_at,
            "the first error is the last"
        );
        if !model.failed {
            continue;
        }
        failures += 1;
        let operations = device.operations();
        let refused = rig.journal.append(1, "a".into(), "b".into(), 1).unwrap_err();
        assert!(matches!(refused, AppendError::Failed(_)), "{refused}");
        assert_eq!(rig.drain(), Step::Finished);
        assert!(rig.report.lock().unwrap().is_empty(), "told once");
        assert_eq!(device.operations(), operations, "nothing is tried again");
        drop(rig);
        device.restart();
        drop(reopen(&mut model, &device, &mut random));
    }
    assert!(failures > 0 || std::env::var("HOLDFAST_SEED").is_ok());
}
