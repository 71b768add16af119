//! A swarm whose memory holds a few blocks only: see [`rig`](crate::rig).

use gannet::swarm::{Spill, Spilled};
use proptest::prelude::*;

use crate::rig::{Job, Op, Rig};

fn op() -> impl Strategy<Value = Op> {
    let peer = 0usize..6;
    prop_oneof![
        2 => (any::<u8>(), any::<bool>()).prop_map(|(have, fast)| Op::Join { have, fast }),
        1 => peer.clone().prop_map(Op::Leave),
        1 => (peer.clone(), 0u32..6).prop_map(|(n, p)| Op::Have(n, p)),
        1 => peer.clone().prop_map(Op::Choke),
        3 => peer.clone().prop_map(Op::Unchoke),
        6 => peer.clone().prop_map(Op::Begin),
        6 => (peer.clone(), prop::bool::weighted(0.05)).prop_map(|(n, bad)| Op::End(n, bad)),
        12 => (peer.clone(), 1usize..6).prop_map(|(n, count)| Op::Send(n, count)),
        1 => peer.prop_map(Op::Reject),
        12 => any::<usize>().prop_map(Op::Disk),
        2 => prop_oneof![0u64..1_000, Just(25_000)].prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: never more memory than there may be, no piece is had unverified, no two writes
    /// of one block at once, nobody honest is accused, and it ends.
    #[test]
    fn whatever_happens_memory_suffices(
        pieces in 1u32..7, blocks in 1u32..13, memory in 1u64..24, seed: u64,
        ops in prop::collection::vec(op(), 1..400),
    ) {
        let mut rig = Rig::new(pieces, blocks, memory, seed);
        for op in &ops {
            rig.apply(op);
        }
        rig.finish();
    }
}

/// The disk fails in the middle: what was in memory is free again, and nothing is had.
#[test]
fn a_write_that_fails_gives_the_piece_up() {
    let mut rig = Rig::new(2, 12, 6, 1);
    rig.apply(&Op::Join { have: 255, fast: true });
    rig.apply(&Op::Unchoke(0));
    for _ in 0..12 {
        rig.apply(&Op::Send(0, 1));
    }
    assert!(!rig.jobs.is_empty(), "nothing was spilled");
    while let Some(job) = rig.jobs.pop() {
        let Job::Spill(Spill { piece, begin, blocks, .. }) = job else { panic!("only spills") };
        rig.swarm.handle_spilled(rig.now, piece, begin, &Spilled::DiskFailed, blocks);
    }
    rig.settle();
    assert_eq!(rig.swarm.totals(rig.now).failed_pieces, 0, "nobody is to blame");
    rig.finish();
}
