use super::*;

const SIZE: BlockSize = BlockSize::B512;
const PIECE: u64 = (COPY_PIECE_BYTES / 512) as u64;

fn id(n: u128) -> ExtentId {
    ExtentId::from_u128(n)
}

fn segment(source: u128, from: u64, blocks: u64, destination: u128, to: u64) -> CopySegment {
    CopySegment {
        source: id(source),
        from: BlockRange::new(Lba(from), blocks).unwrap(),
        destination: id(destination),
        to: Lba(to),
        block_size: SIZE,
    }
}

/// Carries a copy out on two extents in memory, one byte a block.
fn run(segments: Vec<CopySegment>, disks: &mut [Vec<u8>; 2]) -> (Finished, CopyJob, usize) {
    let mut job = CopyJob::new(Some(CopyId(7)), segments);
    let mut step = job.begin();
    let mut operations = 0;
    loop {
        let (extent, op) = match step {
            CopyStep::Operation { extent, op } => (extent, op),
            CopyStep::Finished(finished) => return (finished, job, operations),
        };
        operations += 1;
        let disk = &mut disks[usize::try_from(extent.as_u128()).unwrap()];
        let span = |range: &BlockRange| {
            usize::try_from(range.lba().0).unwrap()..usize::try_from(range.end().0).unwrap()
        };
        let outcome = match op {
            BlockOp::Read { range } => {
                assert!(range.blocks() <= PIECE);
                let bytes = disk[span(&range)].iter().flat_map(|byte| [*byte; 512]);
                OpOutcome::Data(bytes.collect())
            }
            BlockOp::Write { range, data, .. } => {
                disk[span(&range)]
                    .iter_mut()
                    .zip(data.chunks(512))
                    .for_each(|(block, data)| *block = data[0]);
                OpOutcome::Done
            }
            BlockOp::Zero { ranges } => {
                disk[span(&ranges[0])].fill(0);
                OpOutcome::Done
            }
            other => panic!("{other:?}"),
        };
        step = job.advance(outcome);
    }
}

fn disks() -> [Vec<u8>; 2] {
    let some = |seed: usize| {
        (0..20_000)
            .map(|i| u8::try_from((i * 7 + seed) % 251).unwrap())
            .collect()
    };
    [some(1), some(100)]
}

#[test]
fn a_copy_moves_every_block_between_extents() {
    let mut found = disks();
    let wanted = disks();
    let blocks = 2 * PIECE + 5;
    let (finished, job, operations) = run(
        vec![
            segment(0, 10, blocks, 1, 300),
            segment(0, 0, 0, 1, 0),
            segment(1, 0, 3, 0, 0),
        ],
        &mut found,
    );
    assert_eq!(finished, Finished::Response(Response::good()));
    assert_eq!(operations, 8);
    let n = usize::try_from(blocks).unwrap();
    assert_eq!(found[1][300..300 + n], wanted[0][10..10 + n]);
    assert_eq!(found[1][..300], wanted[1][..300]);
    assert_eq!(found[0][..3], wanted[1][..3]);
    let result = job.result(Some(Status::Good)).unwrap();
    assert_eq!((result.segments, result.bytes), (3, (blocks + 3) * 512));
}

/// Within one extent source and destination may overlap, in either direction: the result is the source as it was.
#[test]
fn an_overlapping_copy_is_that_of_the_source_as_it_was() {
    for (from, to) in [
        (100, 101),
        (101, 100),
        (100, 100 + PIECE),
        (100, 3000),
        (3000, 100),
        (100, 100),
    ] {
        let mut found = disks();
        let wanted = disks();
        let blocks = 2 * PIECE + 77;
        run(vec![segment(0, from, blocks, 0, to)], &mut found);
        let at = |start: u64| usize::try_from(start).unwrap()..usize::try_from(start + blocks).unwrap();
        assert_eq!(found[0][at(to)], wanted[0][at(from)], "{from} to {to}");
    }
}

#[test]
fn zeros_are_freed_at_the_destination() {
    let mut job = CopyJob::new(None, vec![segment(0, 0, 4, 1, 8)]);
    job.begin();
    let CopyStep::Operation { extent, op } = job.advance(OpOutcome::Data(vec![0; 2048].into())) else {
        panic!("no operation");
    };
    let ranges = vec![BlockRange::new(Lba(8), 4).unwrap()];
    assert_eq!((extent, op), (id(1), BlockOp::Zero { ranges }));
    assert_eq!(job.result(None), None);
}

#[test]
fn i8_every_outcome_of_a_piece_has_its_answer() {
    let on = |outcome| {
        let mut job = CopyJob::new(None, vec![segment(0, 0, 4, 1, 8)]);
        job.begin();
        match job.advance(outcome) {
            CopyStep::Finished(finished) => finished,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(on(OpOutcome::Reset), Finished::ResetConnection);
    assert_eq!(on(OpOutcome::Miscompare { offset: 0 }), Finished::ResetConnection);
    assert_eq!(
        on(OpOutcome::Aborted),
        Finished::Response(Response::check(COPY_ABORTED))
    );
    assert_eq!(
        on(OpOutcome::Transitioning),
        Finished::Response(Response::transitioning())
    );
    assert_eq!(
        on(OpOutcome::NoSpace),
        Finished::Response(Response::check(Sense::SPACE_ALLOCATION_FAILED))
    );
}
