//! Who sent the bad block.
//!
//! A piece that fails its hash convicts nobody if several peers had a part in it. So the digest of every block is
//! remembered with its sender. When the piece verifies later, whoever sent other bytes than the good ones is
//! convicted, and everybody else is cleared. Two things convict, and nothing else:
//!
//! 1. *Proof*: a block sent by the peer differs from the block in the verified piece.
//! 2. *Sole contribution*: every block of a failed piece came from the one peer.
//!
//! An honest peer sends only right blocks, so neither can befall it. A liar cannot escape: a bad block makes its piece fail,
//! the piece is fetched again, and either verifies (1) or, fetched from one peer alone, fails (2).
//! The piece picker must help: **a piece that failed is fetched from a single peer, best one that is no
//! suspect** ([`Blame::is_on_parole`], [`Blame::suspects`]). Each further failure of a piece then convicts a liar, so there are
//! at most as many as there are liars.
//!
//! The score of other clients (-2 per failed piece, +1 per good one, ban at -7) would ban honest peers: one fast liar makes
//! the pieces of all its neighbours fail. Here the score bans nobody. It puts a peer that often had
//! a part in failures not yet explained on *parole* ([`Blame::must_be_alone`]): it is given whole pieces of its own, so that
//! the next lie is rule 2. That also holds against liars whose evidence had to be dropped to bound memory.
//!
//! Digests are keyed with a secret: nobody can make a bad block with the digest of the good one.

use std::collections::{BTreeMap, VecDeque};

use super::bans::Identity;
use crate::base::{PeerKey, PieceIndex};
use crate::hash::keyed_digests;

/// The most block digests remembered, over all pieces: 4 GiB of suspicious data in some 4 MiB of memory. Oldest pieces
/// are dropped first.
pub const MAX_DIGESTS: usize = 1 << 18;
/// Attempts remembered per piece. Each one after the first convicts somebody if the picker helps; a few more may be cut short.
const MAX_ATTEMPTS: usize = 8;
/// Identities with a score. The least suspicious is dropped first.
const MAX_SCORES: usize = 2_000;
/// Part in a failed piece.
const FAILED: i32 = -2;
/// Part in a good piece.
const PASSED: i32 = 1;
/// At this score or below a peer is given only whole pieces: after two failures not made up for.
const PAROLE: i32 = -4;
/// Good pieces count no further than this: nobody saves up for lies.
const MAX_SCORE: i32 = 0;
/// Failures count no further than this: parole of an innocent ends after a few good pieces.
const MIN_SCORE: i32 = -12;

/// Who sent a block: the identity that is banned, and the connection that is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sender {
    /// For the ban, and for recognising a peer that connects anew.
    pub identity: Identity,
    /// The connection over which the block came; it may be closed by now.
    pub key: PeerKey,
}

/// How a peer was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It alone sent a piece that failed.
    SoleContributor,
    /// A block that it sent differs from the one in the verified piece.
    BadBlock {
        /// The number of the block.
        number: u32,
    },
}

/// A peer to be banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guilty {
    /// Who. The key is that of the connection over which the proof came.
    pub sender: Sender,
    /// The piece.
    pub piece: PieceIndex,
    /// Why.
    pub proof: Proof,
}

/// The evidence of one torrent. See the [module](self).
#[derive(Debug)]
pub struct Blame {
    key: [u8; 16],
    cases: BTreeMap<PieceIndex, Case>,
    /// Pieces with a case, oldest first.
    by_age: VecDeque<PieceIndex>,
    digests: usize,
    scores: BTreeMap<Identity, i32>,
}

/// Everything known about the failures of one piece.
#[derive(Debug, Default)]
struct Case {
    attempts: VecDeque<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    senders: Vec<Sender>,
    /// By block number: what was sent, and by which of `senders`.
    blocks: Vec<(u64, u32)>,
}

impl Blame {
    /// No evidence. `seed` is the secret of [`Blame::digests`]: 16 random bytes.
    pub fn new(seed: [u8; 16]) -> Self {
        Self { key: seed, cases: BTreeMap::new(), by_age: VecDeque::new(), digests: 0, scores: BTreeMap::new() }
    }

    /// The keyed digests of blocks, for [`Blame::failed`] and [`Blame::verified`].
    pub fn digests<'a>(&self, blocks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u64> {
        keyed_digests(&self.key, &blocks.into_iter().collect::<Vec<_>>())
    }

    /// The secret of [`Blame::digests`], for another thread that has the bytes at hand: [`keyed_digests`].
    pub fn digest_key(&self) -> [u8; 16] {
        self.key
    }

    /// `piece` failed its hash. `blocks` are its blocks by number: who sent each, and its digest. Returns those to be banned.
    pub fn failed(&mut self, piece: PieceIndex, blocks: &[(Sender, u64)]) -> Vec<Guilty> {
        let Some(&(first, _)) = blocks.first() else { return Vec::new() };
        if blocks.iter().all(|(sender, _)| sender.identity == first.identity) {
            let guilty = Guilty { sender: first, piece, proof: Proof::SoleContributor };
            self.scores.remove(&first.identity);
            return vec![guilty];
        }
        let mut senders: Vec<Sender> = blocks.iter().map(|block| block.0).collect();
        senders.sort_unstable();
        senders.dedup();
        for identity in identities(&senders) {
            self.score(identity, FAILED);
        }
        let number = |sender: &Sender| senders.binary_search(sender).ok().and_then(|i| u32::try_from(i).ok());
        let blocks: Vec<_> = blocks.iter().map(|(s, digest)| (*digest, number(s).unwrap_or(u32::MAX))).collect();
        self.digests += blocks.len();
        let case = self.cases.entry(piece).or_insert_with(|| {
            self.by_age.push_back(piece);
            Case::default()
        });
        case.attempts.push_back(Attempt { senders, blocks });
        if case.attempts.len() > MAX_ATTEMPTS
            && let Some(oldest) = case.attempts.pop_front()
        {
            self.digests -= oldest.blocks.len();
        }
        while self.digests > MAX_DIGESTS
            && self.by_age.len() > 1
            && let Some(&oldest) = self.by_age.front()
        {
            self.close_case(oldest);
        }
        Vec::new()
    }

    /// Whether the digests of `piece` are needed when it verifies. If not, [`Blame::passed`] is enough.
    pub fn remembers(&self, piece: PieceIndex) -> bool {
        self.cases.contains_key(&piece)
    }

    /// `piece` is good, and `good` are the digests of its blocks by number. Returns those whose earlier blocks differ, each identity
    /// once; the others are cleared.
    pub fn verified(&mut self, piece: PieceIndex, good: &[u64]) -> Vec<Guilty> {
        let Some(case) = self.close_case(piece) else { return Vec::new() };
        let mut guilty: Vec<Guilty> = Vec::new();
        for attempt in &case.attempts {
            for ((&(sent, by), &good), number) in attempt.blocks.iter().zip(good).zip(0u32..) {
                let Some(&sender) = attempt.senders.get(by as usize) else { continue };
                if sent != good && guilty.iter().all(|g| g.sender.identity != sender.identity) {
                    guilty.push(Guilty { sender, piece, proof: Proof::BadBlock { number } });
                }
            }
        }
        for attempt in &case.attempts {
            for identity in identities(&attempt.senders) {
                // Explained: whoever was involved is proven guilty or innocent of it.
                self.score(identity, -FAILED);
            }
        }
        for g in &guilty {
            self.scores.remove(&g.sender.identity);
        }
        guilty
    }

    /// `senders` had a part in a piece that is good. Costs nothing as long as nothing ever failed.
    pub fn passed(&mut self, senders: impl IntoIterator<Item = Identity>) {
        if self.scores.is_empty() {
            return;
        }
        for identity in senders {
            self.score(identity, PASSED);
        }
    }

    /// Whether `piece` failed before and has to be fetched from one peer alone.
    pub fn is_on_parole(&self, piece: PieceIndex) -> bool {
        self.cases.contains_key(&piece)
    }

    /// The pieces that have to be fetched from one peer alone, the oldest first: until they are good, their liars are at large.
    pub fn pieces_on_parole(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.by_age.iter().copied()
    }

    /// Who had a part in the failures of `piece`. One that had not is the best to fetch it from: the quickest proof.
    pub fn suspects(&self, piece: PieceIndex) -> Vec<Identity> {
        let senders = self.cases.get(&piece).into_iter().flat_map(|c| &c.attempts).flat_map(|a| &a.senders);
        let mut suspects: Vec<_> = senders.map(|sender| sender.identity).collect();
        suspects.sort_unstable();
        suspects.dedup();
        suspects
    }

    /// Whether a peer is to be given only whole pieces, which nobody else has a part in.
    pub fn must_be_alone(&self, who: Identity) -> bool {
        self.scores.get(&who).is_some_and(|&score| score <= PAROLE)
    }

    fn close_case(&mut self, piece: PieceIndex) -> Option<Case> {
        let case = self.cases.remove(&piece)?;
        self.by_age.retain(|&p| p != piece);
        self.digests -= case.attempts.iter().map(|a| a.blocks.len()).sum::<usize>();
        Some(case)
    }

    /// Scores at the top are not kept: they are the same as those of strangers.
    fn score(&mut self, who: Identity, change: i32) {
        let score = self.scores.get(&who).copied().unwrap_or(MAX_SCORE);
        let score = (score + change).clamp(MIN_SCORE, MAX_SCORE);
        if score == MAX_SCORE {
            self.scores.remove(&who);
            return;
        }
        self.scores.insert(who, score);
        if self.scores.len() > MAX_SCORES
            && let Some(best) = self.scores.iter().max_by_key(|(_, score)| **score).map(|(who, _)| *who)
        {
            self.scores.remove(&best);
        }
    }
}

fn identities(senders: &[Sender]) -> Vec<Identity> {
    let mut identities: Vec<_> = senders.iter().map(|sender| sender.identity).collect();
    identities.dedup();
    identities
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::base::{Geometry, Slab};

    fn pieces(n: u32) -> Vec<PieceIndex> {
        Geometry::new(u64::from(n) * 16_384, 16_384).unwrap().pieces().collect()
    }

    fn senders(n: u32) -> Vec<Sender> {
        let mut slab = Slab::default();
        (0..n).map(|i| Sender { identity: Identity::WebSeed(i), key: slab.insert(()) }).collect()
    }

    #[test]
    fn digests_are_keyed() {
        let digest = |key, block: &'static [u8]| Blame::new(key).digests([block]);
        assert_eq!(digest([1; 16], b"block"), keyed_digests(&Blame::new([1; 16]).digest_key(), &[b"block"]));
        assert_ne!(digest([1; 16], b"block"), digest([2; 16], b"block"));
        assert_ne!(digest([1; 16], b"block"), digest([1; 16], b"blocK"));
    }

    #[test]
    fn sole_contributor_is_guilty_at_once() {
        let (p, s) = (pieces(1)[0], senders(2));
        let mut blame = Blame::new([0; 16]);
        let guilty = blame.failed(p, &[(s[0], 1), (s[0], 2)]);
        assert_eq!(guilty, [Guilty { sender: s[0], piece: p, proof: Proof::SoleContributor }]);
        // One that connected anew in between is still the same.
        let again = Sender { identity: s[0].identity, key: s[1].key };
        assert_eq!(blame.failed(p, &[(s[0], 1), (again, 2)]).len(), 1);
        assert_eq!(blame.failed(p, &[]), []);
    }

    #[test]
    fn one_of_two_waits_for_proof() {
        let (p, s) = (pieces(1)[0], senders(3));
        let mut blame = Blame::new([0; 16]);
        assert_eq!(blame.failed(p, &[(s[0], 1), (s[1], 66), (s[0], 3)]), []);
        assert!(blame.is_on_parole(p) && blame.remembers(p));
        assert_eq!(blame.suspects(p), [s[0].identity, s[1].identity]);
        assert_eq!(blame.pieces_on_parole().collect::<Vec<_>>(), [p]);
        let guilty = blame.verified(p, &[1, 2, 3]);
        assert_eq!(guilty, [Guilty { sender: s[1], piece: p, proof: Proof::BadBlock { number: 1 } }]);
        assert!(!blame.is_on_parole(p) && blame.suspects(p).is_empty());
        assert!(blame.scores.is_empty() && blame.digests == 0, "everything is explained");
        assert_eq!(blame.verified(p, &[1, 2, 3]), []);
    }

    #[test]
    fn parole_comes_with_unexplained_failures_and_goes_with_good_pieces() {
        let (p, s) = (pieces(4), senders(2));
        let mut blame = Blame::new([0; 16]);
        blame.failed(p[0], &[(s[0], 1), (s[1], 2)]);
        assert!(!blame.must_be_alone(s[0].identity));
        blame.failed(p[1], &[(s[0], 1), (s[1], 2)]);
        assert!(blame.must_be_alone(s[0].identity) && blame.must_be_alone(s[1].identity));
        blame.passed([s[0].identity]);
        assert!(!blame.must_be_alone(s[0].identity) && blame.must_be_alone(s[1].identity));
        // Explained failures leave nothing behind.
        assert_eq!(blame.verified(p[0], &[1, 7]).len(), 1);
        assert_eq!(blame.verified(p[1], &[1, 7]).len(), 1);
        assert!(!blame.must_be_alone(s[1].identity) && !blame.must_be_alone(s[0].identity));
    }

    #[test]
    fn memory_is_bounded() {
        let (p, s) = (pieces(40), senders(2));
        let mut blame = Blame::new([0; 16]);
        let blocks: Vec<_> = (0..MAX_DIGESTS / 8).map(|i| (s[i % 2], 0)).collect();
        for &piece in &p {
            blame.failed(piece, &blocks);
            assert!(blame.digests <= MAX_DIGESTS);
        }
        assert!(!blame.remembers(p[0]) && blame.remembers(p[39]));
        for _ in 0..100 {
            blame.failed(p[39], &blocks[..2]);
        }
        assert!(blame.cases[&p[39]].attempts.len() <= MAX_ATTEMPTS);
        for i in 0..10_000 {
            blame.score(Identity::WebSeed(i), FAILED);
        }
        assert!(blame.scores.len() <= MAX_SCORES);
    }

    /// A swarm with liars, and a picker that does as it is told: returns (banned, those who ever lied, failures).
    fn simulate(
        seed: u64,
        honest: u32,
        liars: u32,
        lie_percent: u8,
        parole_works: bool,
    ) -> (BTreeSet<u32>, BTreeSet<u32>, u32) {
        const BLOCKS: usize = 8;
        let mut dice = fastrand::Rng::with_seed(seed);
        let everybody = senders(honest + liars);
        let mut blame = Blame::new([7; 16]);
        let mut todo: VecDeque<PieceIndex> = pieces(60).into();
        let (mut banned, mut lied, mut failures) = (BTreeSet::new(), BTreeSet::new(), 0);
        let number = |s: Sender| if let Identity::WebSeed(n) = s.identity { n } else { unreachable!() };
        while let Some(piece) = todo.pop_front() {
            let peers: Vec<Sender> = everybody.iter().copied().filter(|s| !banned.contains(&number(*s))).collect();
            let alone: Vec<Sender> = peers.iter().copied().filter(|s| blame.must_be_alone(s.identity)).collect();
            let suspects = blame.suspects(piece);
            let from: Vec<Sender> = if parole_works && (blame.is_on_parole(piece) || (!alone.is_empty() && dice.bool()))
            {
                let better: Vec<_> = peers.iter().filter(|s| !suspects.contains(&s.identity)).copied().collect();
                let pool = if !blame.is_on_parole(piece) {
                    &alone
                } else if better.is_empty() {
                    &peers
                } else {
                    &better
                };
                vec![*dice.choice(pool).unwrap()]
            } else {
                (0..BLOCKS).map(|_| *dice.choice(&peers).unwrap()).collect()
            };
            let good: Vec<u64> = (0..8).map(|n| u64::from(piece.get()) << 8 | n).collect();
            let blocks: Vec<(Sender, u64)> = (0..BLOCKS)
                .map(|n| {
                    let sender = from[n % from.len()];
                    let lie = number(sender) >= honest && dice.u8(..100) < lie_percent;
                    if lie {
                        lied.insert(number(sender));
                    }
                    // Half of the liars agree on what to send.
                    (
                        sender,
                        if !lie {
                            good[n]
                        } else if dice.bool() {
                            0xbad
                        } else {
                            dice.u64(..)
                        },
                    )
                })
                .collect();
            let guilty = if blocks.iter().map(|b| b.1).eq(good.iter().copied()) {
                blame.passed(identities(&from));
                blame.verified(piece, &good)
            } else {
                failures += 1;
                todo.push_front(piece);
                blame.failed(piece, &blocks)
            };
            banned.extend(guilty.iter().map(|g| number(g.sender)));
        }
        (banned, lied, failures)
    }

    proptest! {
        #[test]
        fn all_liars_are_found_and_nobody_else(
            seed: u64, honest in 1u32..20, liars in 0u32..20, lie_percent in 1u8..=100, parole_works: bool,
        ) {
            // Without the picker's help a majority of liars can make pieces fail for very long.
            let liars = if parole_works { liars } else { liars.min(honest / 4) };
            let (banned, lied, failures) = simulate(seed, honest, liars, lie_percent, parole_works);
            prop_assert_eq!(&banned, &lied);
            prop_assert!(banned.iter().all(|&n| n >= honest));
            if parole_works {
                // Every piece fails at most once unexplained, and a liar's ban costs at most one failure more.
                prop_assert!(failures <= 2 * liars, "{} failures, {} liars", failures, liars);
            }
        }
    }
}
