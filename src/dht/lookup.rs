//! The search for the nodes nearest to a target (BEP 5), which is what every operation begins with.
//!
//! Several queries are under way at once. A node that has not answered in the time that answers usually take no longer
//! holds up the others, though its answer is still welcome. The search ends when the nearest [`K`] nodes have answered.
//!
//! Against liars: one node per owner of addresses; nodes whose id is not bound to their address (BEP 42) are asked too,
//! but few at a time and they do not count towards the end, so that a crowd of invented ids beside the target does not
//! hide the honest ones behind it.

use std::collections::BTreeSet;

use super::address::Owner;
use super::id::NodeId;
use super::krpc::{Contact, Query, Want};
use super::table::K;

/// Queries under way.
pub(super) const ALPHA: usize = 5;
/// Those of them that may go to nodes with an id of their own choice, as long as there are others.
const ALPHA_UNBOUND: usize = 2;
/// Nodes that are remembered, the nearest ones: of each kind.
const MAX_CANDIDATES: usize = 100;
/// Queries of one lookup.
const MAX_QUERIES: usize = 200;
/// Nodes with an id of their own choice that are asked even if enough others have answered.
const MIN_UNBOUND: usize = 8;
/// Nodes on which something is stored, besides the nearest [`K`] with bound ids.
const MAX_UNBOUND_STORES: usize = 4;

/// What is asked of every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Nodes,
    Peers { no_seed: bool, scrape: bool },
    Item,
    Sample,
}

impl Question {
    pub(super) fn query(&self, target: NodeId, want: Want) -> Query<'static> {
        match self {
            Self::Nodes => Query::FindNode { target, want },
            Self::Peers { no_seed, scrape } => {
                Query::GetPeers { info_hash: target, want, no_seed: *no_seed, scrape: *scrape }
            }
            Self::Item => Query::Get { target, seq: None, want },
            Self::Sample => Query::Sample { target, want },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    /// Asked, and slower than most.
    Slow,
    Answered,
    Failed,
}

#[derive(Clone, Debug)]
struct Candidate {
    distance: [u8; 20],
    contact: Contact,
    depth: u8,
    state: State,
    token: Option<Vec<u8>>,
    /// What it has stored at the target (BEP 44), by version.
    seq: Option<i64>,
}

/// A node on which something may be stored.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) contact: Contact,
    pub(super) token: Vec<u8>,
    pub(super) seq: Option<i64>,
}

/// Candidates of one kind, the nearest first.
#[derive(Debug, Default)]
struct Ranking(Vec<Candidate>);

/// How far a ranking is.
enum Progress {
    /// The one at that place is to be asked next.
    Fresh(usize),
    /// Answers are on their way.
    Waiting,
    /// The nearest [`K`] that are there have answered.
    Enough,
    /// Fewer have, and nobody is left to be asked.
    Exhausted,
}

impl Ranking {
    fn progress(&self) -> Progress {
        let (mut answered, mut waiting) = (0, false);
        for (place, candidate) in self.0.iter().enumerate() {
            match candidate.state {
                State::Fresh => return Progress::Fresh(place),
                State::Asked => waiting = true,
                State::Answered => answered += 1,
                State::Slow | State::Failed => {}
            }
            if answered >= K {
                break;
            }
        }
        match (waiting, answered >= K) {
            (true, _) => Progress::Waiting,
            (false, true) => Progress::Enough,
            (false, false) => Progress::Exhausted,
        }
    }

    fn count(&self, state: State) -> usize {
        self.0.iter().filter(|candidate| candidate.state == state).count()
    }

    fn tried(&self) -> usize {
        self.0.len() - self.count(State::Fresh)
    }
}

/// One search. See the [module](self).
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) target: NodeId,
    pub(super) question: Question,
    /// Nodes whose ids are bound to their addresses...
    bound: Ranking,
    /// ...and those whose are not.
    unbound: Ranking,
    owners: BTreeSet<Owner>,
    pub(super) asked: usize,
    pub(super) answered: usize,
    /// No more questions: what was looked for is there.
    pub(super) satisfied: bool,
}

impl Lookup {
    pub(super) fn new(target: NodeId, question: Question) -> Self {
        Self {
            target,
            question,
            bound: Ranking::default(),
            unbound: Ranking::default(),
            owners: BTreeSet::new(),
            asked: 0,
            answered: 0,
            satisfied: false,
        }
    }

    /// A node that may be asked, named by one that was asked at `depth` - 1.
    pub(super) fn add(&mut self, contact: Contact, depth: u8) {
        let distance = contact.id.distance(&self.target);
        let bound = contact.id.is_bound_to(contact.address.ip());
        let Ranking(ranking) = if bound { &mut self.bound } else { &mut self.unbound };
        let at = ranking.partition_point(|known| known.distance < distance);
        let taken = ranking.get(at).is_some_and(|known| known.distance == distance);
        if taken || at >= MAX_CANDIDATES || !self.owners.insert(Owner::of(contact.address)) {
            return;
        }
        ranking.insert(at, Candidate { distance, contact, depth, state: State::Fresh, token: None, seq: None });
        // Those under way stay, so that their answers are known as such.
        if ranking.len() > MAX_CANDIDATES
            && let Some(last) = ranking.pop_if(|last| last.state == State::Fresh)
        {
            self.owners.remove(&Owner::of(last.contact.address));
        }
    }

    /// The node to be asked now, if there is one; it counts as asked.
    pub(super) fn next(&mut self) -> Option<Contact> {
        let (bound, unbound) = (self.bound.count(State::Asked), self.unbound.count(State::Asked));
        if self.satisfied || self.asked >= MAX_QUERIES || bound + unbound >= ALPHA {
            return None;
        }
        let progress = self.bound.progress();
        let unbound_welcome = match progress {
            Progress::Fresh(_) | Progress::Waiting => unbound < ALPHA_UNBOUND,
            Progress::Enough => self.unbound.tried() < MIN_UNBOUND,
            Progress::Exhausted => true,
        };
        let fresh = |ranking: &Ranking, progress| match progress {
            Progress::Fresh(place) => ranking.0.get(place).map(|candidate| (candidate.distance, place)),
            _ => None,
        };
        let bound = fresh(&self.bound, progress);
        let unbound = fresh(&self.unbound, self.unbound.progress()).filter(|_| unbound_welcome);
        let candidate = match (bound, unbound) {
            (Some((near, place)), other) if other.is_none_or(|(far, _)| near < far) => self.bound.0.get_mut(place),
            (_, Some((_, place))) => self.unbound.0.get_mut(place),
            _ => None,
        }?;
        candidate.state = State::Asked;
        self.asked += 1;
        Some(candidate.contact)
    }

    /// Whether the search has come to its end.
    pub(super) fn is_done(&self) -> bool {
        let out_of_queries = self.asked >= MAX_QUERIES;
        let open = |progress: &Progress| match progress {
            Progress::Fresh(_) => !out_of_queries,
            Progress::Waiting => true,
            Progress::Enough | Progress::Exhausted => false,
        };
        let (bound, unbound) = (self.bound.progress(), self.unbound.progress());
        if self.satisfied {
            return true;
        }
        if open(&bound)
            || self.unbound.count(State::Asked) > 0
            || (out_of_queries && self.bound.count(State::Asked) > 0)
        {
            return false;
        }
        match bound {
            Progress::Enough => self.unbound.tried() >= MIN_UNBOUND || !open(&unbound),
            _ if open(&unbound) => false,
            // Nobody is left to be asked: the slow ones get their time when too few have answered.
            _ => self.answered >= K || self.bound.count(State::Slow) + self.unbound.count(State::Slow) == 0,
        }
    }

    fn find(&mut self, id: &NodeId) -> Option<&mut Candidate> {
        let distance = id.distance(&self.target);
        let place = |ranking: &Ranking| ranking.0.binary_search_by_key(&distance, |known| known.distance).ok();
        match (place(&self.bound), place(&self.unbound)) {
            (Some(place), _) => self.bound.0.get_mut(place),
            (None, Some(place)) => self.unbound.0.get_mut(place),
            (None, None) => None,
        }
    }

    /// A node has not answered so far.
    pub(super) fn slow(&mut self, id: &NodeId) {
        if let Some(candidate) = self.find(id).filter(|candidate| candidate.state == State::Asked) {
            candidate.state = State::Slow;
        }
    }

    /// A node will not answer any more, or did so with an error.
    pub(super) fn failed(&mut self, id: &NodeId) {
        if let Some(candidate) = self.find(id) {
            candidate.state = State::Failed;
        }
    }

    /// The node that was named as `id` calls itself otherwise: it is another candidate, and whoever named it was wrong.
    pub(super) fn renamed(&mut self, id: &NodeId, truly: Contact) {
        let depth = self.find(id).map_or(1, |candidate| candidate.depth);
        self.failed(id);
        self.owners.remove(&Owner::of(truly.address));
        self.add(truly, depth);
    }

    /// A node has answered. Returns the depth at which it stands: 1 for those we knew.
    pub(super) fn answered(&mut self, id: &NodeId, token: Option<&[u8]>, seq: Option<i64>) -> u8 {
        let Some(candidate) = self.find(id) else { return 1 };
        candidate.state = State::Answered;
        candidate.token = token.map(<[u8]>::to_vec);
        candidate.seq = seq;
        let depth = candidate.depth;
        self.answered += 1;
        depth
    }

    /// Where to store: the nearest [`K`] that have given a token and have a bound id, and some nearer ones that have not.
    pub(super) fn places(&self) -> Vec<Place> {
        let with_token = |ranking: &Ranking, count| -> Vec<([u8; 20], Place)> {
            let answered = ranking.0.iter().filter(|c| c.state == State::Answered);
            let place =
                |c: &Candidate| Some((c.distance, Place { contact: c.contact, token: c.token.clone()?, seq: c.seq }));
            answered.filter_map(place).take(count).collect()
        };
        let mut places = with_token(&self.bound, K);
        let farthest = places.get(K - 1).map(|(distance, _)| *distance);
        let count = if farthest.is_some() { MAX_UNBOUND_STORES } else { K };
        let nearer = with_token(&self.unbound, count);
        places.extend(nearer.into_iter().filter(|(distance, _)| farthest.is_none_or(|far| *distance < far)));
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// The nearest nodes that have answered.
    pub(super) fn nearest(&self) -> Vec<Contact> {
        let all = self.bound.0.iter().chain(&self.unbound.0);
        let mut all: Vec<_> = all.filter(|c| c.state == State::Answered).map(|c| (c.distance, c.contact)).collect();
        all.sort_unstable_by_key(|(distance, _)| *distance);
        all.into_iter().map(|(_, contact)| contact).take(K).collect()
    }

    /// Whether nobody is known who could be asked.
    pub(super) fn is_empty(&self) -> bool {
        self.bound.0.is_empty() && self.unbound.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::random::Random;
    use std::net::{Ipv4Addr, SocketAddr};

    fn contact(n: u32, random: &mut Random) -> Contact {
        let address = SocketAddr::from((Ipv4Addr::from_bits(0x0900_0001 + (n << 8)), 1));
        Contact { id: NodeId::bound_to(address.ip(), random), address }
    }

    #[test]
    fn it_ends_when_the_nearest_have_answered_and_slow_ones_are_passed_over() {
        let mut random = Random::new([7; 32]);
        let mut lookup = Lookup::new(NodeId::random(&mut random), Question::Nodes);
        (0..40).for_each(|n| lookup.add(contact(n, &mut random), 1));
        let first: Vec<_> = std::iter::from_fn(|| lookup.next()).collect();
        assert_eq!(first.len(), ALPHA);
        assert!(!lookup.is_done());
        lookup.slow(&first[0].id);
        lookup.failed(&first[1].id);
        for contact in &first[2..] {
            lookup.answered(&contact.id, Some(b"t"), None);
        }
        let mut answered = ALPHA - 2;
        while let Some(next) = lookup.next() {
            assert!(!lookup.is_done());
            lookup.answered(&next.id, Some(b"t"), None);
            answered += 1;
        }
        assert!(lookup.is_done() && answered == K && lookup.asked == K + 2);
        assert_eq!(lookup.places().len(), K);
        assert_eq!(lookup.answered(&first[0].id, Some(b"t"), None), 1, "late, but welcome");
        assert_eq!(lookup.places()[0].contact, first[0]);
    }

    /// D-5: a hundred invented ids beside the target do not hide the honest nodes.
    #[test]
    fn dht5_a_crowd_of_invented_ids_does_not_end_the_search() {
        let mut random = Random::new([8; 32]);
        let target = NodeId::random(&mut random);
        let mut lookup = Lookup::new(target, Question::Nodes);
        for n in 0..100 {
            let address = SocketAddr::from((Ipv4Addr::from_bits(0x0a0b_0001 ^ 0x6000_0000 ^ (n << 8)), 1));
            lookup.add(Contact { id: target.sibling(150, &mut random), address }, 1);
        }
        let honest: Vec<_> = (0..20).map(|n| contact(n, &mut random)).collect();
        honest.iter().for_each(|c| lookup.add(*c, 1));
        let mut asked = Vec::new();
        while let Some(next) = lookup.next() {
            asked.push(next);
            if asked.len() % 3 == 0 {
                let first = asked[asked.len() - 3];
                lookup.answered(&first.id, Some(b"t"), None);
            }
        }
        for contact in &asked {
            lookup.answered(&contact.id, Some(b"t"), None);
        }
        while let Some(next) = lookup.next() {
            lookup.answered(&next.id, Some(b"t"), None);
        }
        assert!(lookup.is_done());
        let honest_places = lookup.places().iter().filter(|p| honest.contains(&p.contact)).count();
        assert_eq!(honest_places, K);
    }

    #[test]
    fn candidates_are_bounded_and_one_per_owner() {
        let mut random = Random::new([9; 32]);
        let mut lookup = Lookup::new(NodeId::random(&mut random), Question::Nodes);
        for n in 0..1_000 {
            lookup.add(contact(n, &mut random), 1);
            let address = SocketAddr::from((Ipv4Addr::new(9, 9, 9, n.to_be_bytes()[3]), 1));
            lookup.add(Contact { id: NodeId::random(&mut random), address }, 1);
        }
        let (bound, unbound) = (&lookup.bound.0, &lookup.unbound.0);
        assert_eq!(bound.len(), MAX_CANDIDATES);
        assert!(bound.is_sorted_by_key(|c| c.distance) && unbound.len() <= MAX_CANDIDATES);
        assert!(
            bound.iter().chain(unbound).filter(|c| c.contact.address.to_string().starts_with("9.9.9.")).count() <= 1
        );
    }
}
