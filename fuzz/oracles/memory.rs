//! A swarm whose memory holds a few blocks, peers that come, go and lie, disk threads in any order: no piece is had
//! unverified, nobody honest is accused, memory suffices, and in the end all is there. The rig is that of `tests/sim`.

#[allow(dead_code)]
#[path = "../../tests/sim/rig.rs"]
mod rig;

use rig::{Op, Rig};

use super::tape::Tape;

/// Things that happen in one input.
const STEPS: usize = 300;

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let [pieces, blocks, memory, seed] = tape.array();
    let mut rig =
        Rig::new(u32::from(pieces % 6) + 1, u32::from(blocks % 12) + 1, u64::from(memory % 23) + 1, seed.into());
    for _ in 0..STEPS {
        if tape.is_over() {
            break;
        }
        rig.apply(&op(&mut tape));
    }
    rig.finish();
}

fn op(tape: &mut Tape<'_>) -> Op {
    let [kind, a, b] = tape.array();
    let peer = usize::from(a);
    match kind % 24 {
        0..2 => Op::Join { have: a, fast: b & 1 == 1 },
        2 => Op::Leave(peer),
        3 => Op::Have(peer, u32::from(b % 6)),
        4 => Op::Choke(peer),
        5..8 => Op::Unchoke(peer),
        8..10 => Op::Begin(peer),
        10..12 => Op::End(peer, b == 0),
        12..16 => Op::Send(peer, usize::from(b % 5) + 1),
        16 => Op::Reject(peer),
        17..23 => Op::Disk(usize::from(b)),
        _ => Op::Wait(if b < 240 { u64::from(b) * 5 } else { 25_000 }),
    }
}
