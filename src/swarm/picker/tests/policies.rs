use super::*;

fn sorted(picks: &str) -> String {
    let mut picks: Vec<_> = picks.split(' ').collect();
    picks.sort_unstable();
    picks.join(" ")
}

#[test]
fn rarest_first() {
    let mut s = Scene::draw(1, &["us ####.....", "a ##.######", "b ##.#.#.##", "c ##.#.#.#.", "d ########."]);
    // Of what a has: 4 and 6 at two peers, 8 at two, 5 and 7 at four.
    assert_eq!(sorted(&s.pick("a", 3)), "4.0 6.0 8.0");
    assert_eq!(sorted(&s.pick("a", 3)), "5.0 7.0");
    let mut s = Scene::draw(1, &["us ####...", "a #######", "b #######", "c ....#.#", "d ......#"]);
    assert_eq!(s.pick("a", 3), "5.0 4.0 6.0");
}

#[test]
fn the_order_follows_the_swarm() {
    let mut s = Scene::draw(1, &["us ####..", "a ######", "b ....#.", "c ....#."]);
    s.leave("b");
    s.leave("c");
    let late = s.join("late", Bitfield::new(6));
    let piece = s.piece(5);
    let peer = s.peers.iter_mut().find(|peer| peer.key == late).unwrap();
    peer.have.set(piece);
    s.picker.add_have(peer.counted.as_mut().unwrap(), piece);
    assert_eq!(s.pick("a", 1), "4.0");
    let peer = s.peers.iter_mut().find(|peer| peer.key == late).unwrap();
    peer.have.clear(piece);
    s.picker.remove_have(peer.counted.as_mut().unwrap(), piece);
    assert_eq!(s.picker.availability(piece), 1);
    assert_eq!(s.pick("a", 1), "5.0");
}

#[test]
fn the_first_pieces_are_any() {
    let picks =
        |seed| Scene::draw_seeded(1, seed, &["us ............", "a ############", "b .###########"]).pick("a", 1);
    let all: std::collections::BTreeSet<_> = (0..100).map(picks).collect();
    assert!(all.len() > 8, "{all:?}");
}

#[test]
fn equals_are_taken_by_luck_and_luck_is_seeded() {
    let draw = |seed| Scene::draw_seeded(1, seed, &["us ####............", "a ################"]);
    let picks: Vec<_> = (0..100).map(|seed| draw(seed).pick("a", 2)).collect();
    let again: Vec<_> = (0..100).map(|seed| draw(seed).pick("a", 2)).collect();
    assert_eq!(picks, again);
    let all: std::collections::BTreeSet<_> = picks.iter().collect();
    assert!(all.len() > 8, "{all:?}");
}

#[test]
fn priorities_beat_rarity() {
    let lines = ["us ####.....", "want ====-=+_+", "a #########", "b ....#.#.#", "c .......##"];
    assert_eq!(Scene::draw(1, &lines).pick("a", 9), "6.0 8.0 5.0 4.0");
    let mut s = Scene::draw(2, &lines);
    assert_eq!(s.pick("a", 1), "6.0");
    let (low, skip) = (s.piece(4), s.piece(6));
    s.picker.set_priority(low, Priority::High);
    s.picker.set_priority(skip, Priority::Skip);
    assert_eq!(s.pick("a", 3), "4.0 4.1 8.0");
    assert!(!s.picker.wants(skip));
    // What was asked for before is still taken.
    assert!(matches!(s.receive("a", 6, 0), Received::New { piece_full: false, .. }));
    s.picker.set_priority(skip, Priority::High);
    assert_eq!(sorted(&s.pick("a", 2)), "6.1 8.1");
}

#[test]
fn a_higher_priority_is_not_kept_waiting_by_an_open_piece() {
    let mut s = Scene::draw(4, &["us ####...", "a #######"]);
    let first = s.pick_blocks("a", 2, usize::MAX)[0].piece().get();
    let other = s.piece(if first == 4 { 5 } else { 4 });
    s.picker.set_priority(other, Priority::High);
    assert_eq!(s.pick("a", 5), format!("{other}.0 {other}.1 {other}.2 {other}.3 {first}.2"));
}

#[test]
fn suggested_pieces_win_among_equals_only() {
    for seed in 0..20 {
        let lines = ["us ####......", "a ##########", "b ......####"];
        // Pieces 4 and 5 are the rarest, 6 ... 9 equal.
        let mut s = Scene::draw_seeded(1, seed, &lines);
        let suggested = [s.piece(9), s.piece(9), s.piece(6), s.piece(0), s.piece(5)];
        s.peer("a").suggested = suggested.to_vec();
        assert_eq!(s.pick("a", 4), "5.0 4.0 9.0 6.0");
    }
}

#[test]
fn sequential_goes_from_first_to_last() {
    let mut s = Scene::draw(2, &["us #......", "want =====++", "a #######", "b ##.###.", "c ..####."]);
    s.picker.set_sequential(true);
    assert_eq!(s.pick("b", 3), "5.0 5.1 1.0");
    assert_eq!(s.pick("c", 2), "2.0 2.1");
    // Also behind others, however fast.
    s.peer("a").fast = true;
    assert_eq!(s.pick("a", 4), "6.0 6.1 1.1 3.0");
    assert_eq!(s.pick("b", 9), "3.1 4.0 4.1");
    assert!(s.picker.asked_count() == 12);
    s.picker.release_peer(s.key("c"));
    s.picker.abandon(s.piece(5));
    assert_eq!(s.pick("a", 4), "5.0 5.1 2.0 2.1");
}

#[test]
fn slow_peers_share_and_fast_ones_do_not() {
    let mut s = Scene::draw(4, &["us ####....", "a ########", "b ########", "c ########", "d ########"]);
    for fast in ["c", "d"] {
        s.peer(fast).fast = true;
    }
    let pieces = |blocks: &[Block]| -> Vec<u32> { blocks.iter().map(|block| block.piece().get()).collect() };
    let a = pieces(&s.pick_blocks("a", 1, usize::MAX));
    let c = pieces(&s.pick_blocks("c", 2, usize::MAX));
    let b = pieces(&s.pick_blocks("b", 1, usize::MAX));
    let d = pieces(&s.pick_blocks("d", 1, usize::MAX));
    assert_eq!(a, b, "slow ones share");
    assert!(c[0] == c[1] && c[0] != a[0] && d[0] != a[0] && d[0] != c[0]);
    // Each goes on where it was; then the fast one opens another, the slow one as well.
    assert_eq!(pieces(&s.pick_blocks("c", 2, usize::MAX)), [c[0]; 2]);
    assert_eq!(pieces(&s.pick_blocks("a", 2, usize::MAX)), [a[0]; 2]);
    assert_eq!(s.picker.open_count(), 3);
    let last = pieces(&s.pick_blocks("c", 1, usize::MAX));
    assert_eq!(s.picker.open_count(), 4);
    // Nothing new any more: a fast piece is better than nothing, one that is shared better than one that is not.
    let rest = pieces(&s.pick_blocks("a", 6, usize::MAX));
    assert_eq!(rest.len(), 6);
    assert!(rest.iter().all(|piece| *piece == d[0] || *piece == last[0]));
}

#[test]
fn what_nobody_works_on_is_taken_up_first() {
    let mut s = Scene::draw(4, &["us ####....", "a ########", "b ########"]);
    s.peer("b").fast = true;
    let left = s.pick_blocks("a", 2, usize::MAX)[0].piece();
    assert_eq!(s.receive("a", left.get(), 0), Received::New { piece_full: false, also_asked: vec![] });
    s.leave("a");
    assert_eq!(s.pick("b", 3), format!("{left}.1 {left}.2 {left}.3"));
    assert_eq!(s.picker.open_count(), 1);
}

#[test]
fn no_piece_is_opened_without_room() {
    let mut s = Scene::draw(4, &["us ####....", "a ########", "b ########"]);
    assert!(s.pick_blocks("a", 9, 0).is_empty());
    assert!(s.pick_blocks("a", 9, 3).is_empty(), "no part of one, either");
    let blocks = s.pick_blocks("a", 3, 7);
    assert_eq!((blocks.len(), s.picker.open_count()), (3, 1));
    // What is open already needs no room.
    assert_eq!(s.pick_blocks("b", 9, 0).len(), 1);
    assert!(s.pick_blocks("b", 9, 0).is_empty(), "no endgame while pieces are missing");
    // When there is room again it is used: that nothing was found for want of it is not remembered.
    assert_eq!(s.pick_blocks("b", 9, 8).len(), 8);
    assert_eq!(s.picker.open_blocks(), 12);
    // In order, too, and without looking through all the others.
    let mut s = Scene::draw(4, &["us ####....", "a ########"]);
    s.picker.set_sequential(true);
    assert_eq!(s.pick_blocks("a", 9, 3).len(), 0);
    assert_eq!(s.pick_blocks("a", 9, 7).len(), 4);
}

/// Otherwise nobody would ever know which of all those that are idle spoils it.
#[test]
fn a_bad_piece_is_left_to_its_peer_unless_that_is_far_too_slow() {
    let mut s = Scene::draw(4, &["us #", "want =", "a #", "b #", "c #"]);
    let piece = s.piece(0);
    s.picker.lost(piece);
    for (name, rate) in [("a", 1000), ("b", 3999), ("c", 4000)] {
        s.peer(name).rate = rate;
        s.peer(name).fast = true;
    }
    s.pick("b", 4);
    s.picker.failed(piece);
    assert_eq!(s.pick("a", 2), "0.0 0.1");
    assert_eq!(s.pick("b", 4), "");
    // Also when nothing of it is under way for a moment, say because there are no buffers.
    for number in [0, 1] {
        s.receive("a", 0, number);
    }
    assert_eq!(s.pick("b", 4), "");
    assert_eq!(s.pick("c", 1), "0.2");
    // From then on it is the one of the other, and no endgame has it twice.
    assert_eq!((s.pick("a", 4), s.pick("b", 4)), (String::new(), String::new()));
    // What its peer refuses others may have.
    let (c, refused) = (s.key("c"), s.block(0, 2));
    s.picker.release(c, refused);
    assert_eq!(s.pick("b", 1), "0.2");
    let b = s.key("b");
    s.picker.disown(b);
    assert_eq!(s.pick("a", 1), "0.3");
}

/// Nor does a peer that is late with all that is left of it keep it from others by being asked once more.
#[test]
fn a_bad_piece_does_not_wait_for_who_is_late_with_it() {
    let mut s = Scene::draw(2, &["us .", "a #", "b #"]);
    let piece = s.piece(0);
    for name in ["a", "b"] {
        s.peer(name).rate = 1000;
    }
    s.pick("a", 2);
    s.picker.failed(piece);
    assert_eq!(s.pick("a", 2), "0.0 0.1");
    let a = s.key("a");
    assert_eq!(s.picker.lapse_peer(a), 2);
    assert_eq!(s.pick("a", 2), "");
    assert_eq!(s.pick("b", 2), "0.0 0.1");
}

#[test]
fn choked_peers_are_asked_for_allowed_pieces() {
    let mut s = Scene::draw(2, &["us #.....", "a .#####", "b .##..."]);
    s.peer("a").allowed = Some(vec![]);
    assert_eq!(s.pick("a", 9), "");
    let allowed = vec![s.piece(0), s.piece(2), s.piece(3)];
    s.peer("a").allowed = Some(allowed);
    assert_eq!(s.pick("a", 3), "3.0 3.1 2.0");
    assert_eq!(s.pick("a", 3), "2.1");
    assert_eq!(s.pick("a", 3), "");
}

#[test]
fn blocks_come_once() {
    let mut s = Scene::draw(2, &["us .", "a #", "b #"]);
    assert_eq!(s.receive("a", 0, 0), Received::Unwanted);
    assert_eq!((s.pick("a", 1), s.pick("b", 1)), ("0.0".into(), "0.1".into()));
    assert_eq!(s.receive("b", 0, 0), Received::Unwanted, "asked from somebody else");
    assert_eq!(s.receive("a", 0, 0), Received::New { piece_full: false, also_asked: vec![] });
    assert_eq!(s.receive("a", 0, 0), Received::Duplicate);
    assert_eq!(s.receive("b", 0, 1), Received::New { piece_full: true, also_asked: vec![] });
    let piece = s.piece(0);
    assert_eq!(s.picker.state(piece), PieceState::Full);
    assert_eq!(s.receive("b", 0, 1), Received::Duplicate);
    assert_eq!(s.picker.senders(piece), [s.key("a"), s.key("b")]);
    assert_eq!(s.picker.received_from(piece, 1), Some(s.key("b")));
    assert!(s.picker.verified(piece) && !s.picker.verified(piece));
    assert_eq!(s.receive("a", 0, 0), Received::Duplicate);
    assert!(s.picker.is_complete() && s.picker.is_seed());
    assert!(s.picker.lost(piece));
    assert_eq!(s.pick("a", 9), "0.0 0.1");
}

#[test]
fn ranges_that_are_no_blocks_are_unwanted() {
    let mut s = Scene::draw(2, &["us .", "a #"]);
    s.pick("a", 2);
    for (begin, len) in [(1, BLOCK_LEN), (0, 100), (BLOCK_LEN, 100), (BLOCK_LEN - 1, 1)] {
        let range = s.picker.geometry.range(0, begin, len).unwrap();
        assert_eq!(s.picker.receive(s.key("a"), range), Received::Unwanted);
    }
}

#[test]
fn what_is_late_is_asked_from_others_and_still_taken() {
    let mut s = Scene::draw(2, &["us .", "a #", "b #", "c #"]);
    assert_eq!(s.pick("a", 2), "0.0 0.1");
    assert_eq!(s.picker.lapse_peer(s.key("a")), 2);
    assert_eq!(s.picker.lapse_peer(s.key("a")), 0);
    assert_eq!(s.pick("a", 2), "", "not the same one again");
    assert_eq!(s.pick("b", 2), "0.0 0.1");
    assert_eq!(s.picker.duplicates(), 0);
    let (a, b) = (s.key("a"), s.key("b"));
    assert_eq!(s.receive("a", 0, 0), Received::New { piece_full: false, also_asked: vec![b] });
    assert_eq!(s.receive("b", 0, 1), Received::New { piece_full: true, also_asked: vec![a] });
    assert_eq!(s.receive("a", 0, 1), Received::Duplicate);
}

#[test]
fn a_bad_piece_comes_from_one_peer_the_next_time() {
    let mut s = Scene::draw(4, &["us #####..", "a #######", "b #######"]);
    let piece = s.pick_blocks("a", 2, usize::MAX)[0].piece();
    assert_eq!(s.pick("b", 2), format!("{piece}.2 {piece}.3"));
    for (name, number) in [("a", 0), ("a", 1), ("b", 2), ("b", 3)] {
        s.receive(name, piece.get(), number);
    }
    assert!(s.picker.failed(piece));
    assert_eq!(s.picker.state(piece), PieceState::Missing);
    let other = s.piece(if piece.get() == 5 { 6 } else { 5 });
    s.picker.set_priority(piece, Priority::High);
    assert_eq!(s.pick("a", 1), format!("{piece}.0"));
    assert_eq!(s.pick("b", 4), format!("{other}.0 {other}.1 {other}.2 {other}.3"));
    assert_eq!(s.pick("a", 1), format!("{piece}.1"));
    // Better that than nothing.
    assert_eq!(s.pick("b", 1), format!("{piece}.2"));
}

#[test]
fn endgame_relieves_slow_peers_of_what_they_would_come_to_last() {
    let mut s = Scene::draw(8, &["us .", "slow #", "old #", "a #", "b #"]);
    for name in ["a", "b", "old"] {
        s.peer(name).fast = true;
    }
    assert_eq!(s.pick("old", 2), "0.0 0.1");
    assert_eq!(s.pick("slow", 4), "0.2 0.3 0.4 0.5");
    assert_eq!(s.pick("a", 1), "0.6");
    assert_eq!(s.pick("b", 1), "0.7", "while something is free nothing is asked for twice");
    assert_eq!(s.picker.duplicates(), 0);
    // Slow ones first, from the end; then of the fast ones the one that was asked first.
    assert_eq!(s.pick("a", 5), "0.5 0.4 0.3 0.2 0.1");
    assert_eq!(s.pick("slow", 9), "", "does not ask for what fast ones bring");
    let (slow, a) = (s.key("slow"), s.key("a"));
    assert_eq!(s.receive("a", 0, 5), Received::New { piece_full: false, also_asked: vec![slow] });
    assert_eq!(s.receive("slow", 0, 2), Received::New { piece_full: false, also_asked: vec![a] });
    assert!(!s.picker.is_requested_by(slow, s.block(0, 5)));
    assert_eq!(s.picker.requests_of(slow).count(), 2);
    // The last blocks may be asked for more often.
    assert_eq!(s.pick("b", 2), "0.4 0.3");
    assert_eq!(s.picker.requested_from(s.piece(0), 4).count(), 3);
}

#[test]
fn endgame_has_a_limit() {
    let mut s = Scene::draw(64, &["us .", "slow #", "a #", "b #", "c #"]);
    for name in ["a", "b", "c"] {
        s.peer(name).fast = true;
    }
    s.pick("slow", 64);
    let total: usize = ["a", "b", "c"].map(|name| s.pick_blocks(name, 64, 64).len()).iter().sum();
    assert_eq!((total, s.picker.duplicates()), (16, 16));
    // Also over the life of the torrent.
    s.leave("a");
    assert_eq!(s.pick("b", 9), "");
}

#[test]
fn endgame_goes_on_to_the_next() {
    let lines = ["us .".to_owned(), "slow #".into(), "slower #".into(), "a #".into(), "b #".into()];
    let mut s = Scene::draw(1200, &lines.each_ref().map(|line| line.as_str()));
    for name in ["a", "b"] {
        s.peer(name).fast = true;
    }
    s.pick_blocks("slower", 1190, 10_000);
    assert_eq!(s.pick("slow", 10).split(' ').count(), 10);
    // The budget is 24. What is asked for twice is not looked at again; what is not any more, is.
    assert_eq!(s.pick("a", 2), "0.1189 0.1188");
    assert_eq!(s.pick("b", 2), "0.1187 0.1186");
    let a = s.key("a");
    assert!(s.picker.release(a, s.block(0, 1188)));
    assert_eq!(s.pick("b", 1), "0.1188");
    s.picker.release_peer(a);
    assert_eq!(s.pick("a", 1), "0.1189");
}

#[test]
fn endgame_takes_half_of_a_fast_peer() {
    let mut s = Scene::draw(800, &["us .", "a #", "b #"]);
    s.peer("a").fast = true;
    s.peer("b").fast = true;
    s.pick_blocks("a", 780, 1000);
    s.pick_blocks("b", 20, 1000);
    let all: Vec<_> = (0..780).map(|number| s.block(0, number)).collect();
    for block in &all[..772] {
        s.picker.receive(s.key("a"), *block);
    }
    for number in 780..800 {
        s.receive("b", 0, number);
    }
    assert_eq!(s.picker.requests_of(s.key("a")).count(), 8);
    assert_eq!(s.pick("b", 20), "0.779 0.778 0.777 0.776 0.775 0.774 0.773 0.772", "the last ones by all");
    let mut s = Scene::draw(800, &["us .", "a #", "b #"]);
    s.peer("a").fast = true;
    s.peer("b").fast = true;
    s.pick_blocks("a", 800, 1000);
    for block in &all[..780] {
        s.picker.receive(s.key("a"), *block);
    }
    assert_eq!(s.pick("b", 20).split(' ').count(), 10);
    assert_eq!(s.pick("b", 20).split(' ').count(), 5);
}

#[test]
fn endgame_does_not_wait_for_what_nobody_has() {
    let mut s = Scene::draw(1, &["us ####..", "a #####.", "b #####."]);
    assert_eq!(s.pick("a", 9), "4.0");
    assert_eq!(s.pick("b", 9), "4.0");
    let mut s = Scene::draw(1, &["us ####..", "a #####.", "b #####.", "c .....#"]);
    assert_eq!(s.pick("a", 9), "4.0");
    assert_eq!(s.pick("b", 9), "");
}

#[test]
fn a_peer_may_become_a_seed_and_stop_being_one() {
    let mut s = Scene::draw(1, &["us ....", "a ###.", "b ####"]);
    let piece = s.piece(3);
    let Scene { picker, peers, .. } = &mut s;
    peers[0].have.set(piece);
    picker.add_have(peers[0].counted.as_mut().unwrap(), piece);
    peers[1].have.clear(piece);
    picker.remove_have(peers[1].counted.as_mut().unwrap(), piece);
    s.check();
    s.leave("a");
    s.check();
    s.leave("b");
    s.check();
    assert!(s.picker.geometry.pieces().all(|piece| s.picker.availability(piece) == 0));
}

#[test]
fn interest_has_a_witness() {
    let mut s = Scene::draw(1, &["us #...", "want ===_", "a ##.#", "b #..#", "c .##."]);
    let (a, b, c) = (s.peers[0].have.clone(), s.peers[1].have.clone(), s.peers[2].have.clone());
    assert_eq!(s.picker.witness(&a), Some(s.piece(1)));
    assert!(!s.picker.is_interesting(&b));
    assert_eq!(s.picker.interesting_count(&c), 2);
    let piece = s.piece(1);
    s.picker.verified(piece);
    assert!(!s.picker.is_interesting(&a) && !s.picker.wants(piece));
}

#[test]
fn a_peer_with_little_of_what_is_rare_is_asked_for_the_best_that_it_has() {
    // It has 30 of 3000 pieces. All others but seeds have these 30, 15 of them one more; everything else is rarer.
    let every = |n: u32| -> String { (0..3000u32).map(|i| if i.is_multiple_of(n) { '#' } else { '.' }).collect() };
    let (theirs, every_second) = (every(100), every(200));
    let us: String = (0..3000).map(|i| if i < 10 && i > 0 { '#' } else { '.' }).collect();
    let lines = [format!("us {us}"), format!("a {theirs}"), format!("b {theirs}"), format!("c {every_second}")];
    let mut s = Scene::draw(1, &lines.each_ref().map(|line| line.as_str()));
    for i in 0..3 {
        s.join(&format!("seed{i}"), Bitfield::full(3000));
    }
    // One that has all the others makes them less rare than these: then the search has to give up.
    let first = s.pick_blocks("a", 1, usize::MAX)[0].piece().get();
    assert_eq!(first % 200, 100);
    let mut others = Bitfield::full(3000);
    for i in (0..3000).step_by(100) {
        others.clear(s.piece(i));
    }
    let have = s.peers[0].have.clone();
    for i in 0..6 {
        s.join(&format!("more{i}"), have.clone());
    }
    s.join("others", others);
    let rest: Vec<_> = s.pick_blocks("a", 14, usize::MAX).iter().map(|block| block.piece().get() % 200).collect();
    assert_eq!(rest, [100; 14], "the rarer ones first");
    assert_eq!(s.pick_blocks("a", 99, usize::MAX).len(), 15);
    assert_eq!(s.pick("a", 1), "");
    // Also as it gets more, or something is free again.
    let piece = s.piece(77);
    s.peers[0].have.set(piece);
    s.picker.add_have(s.peers[0].counted.as_mut().unwrap(), piece);
    assert_eq!(s.pick("a", 9), "77.0");
    s.picker.release_peer(s.key("a"));
    assert_eq!(s.pick_blocks("a", 99, usize::MAX).len(), 31);
}

/// A long download by fast and slow peers that come and go: pieces under way are as many as peers, not more and more.
#[test]
fn open_pieces_stay_few() {
    let line = ".".repeat(400);
    let mut s = Scene::draw(16, &[&format!("us {line}")]);
    let mut rng = Rng::with_seed(5);
    for i in 0..20 {
        s.join(&format!("p{i}"), Bitfield::full(400));
        s.peers[i].fast = i % 2 == 0;
    }
    let mut most = 0;
    for turn in 0..3000 {
        let at = rng.usize(..20);
        let (name, key, fast) = (s.peers[at].name.clone(), s.peers[at].key, s.peers[at].fast);
        let queue = if fast { 32 } else { 4 };
        let asked = s.picker.requests_of(key).count();
        let blocks = s.pick_blocks(&name, queue - asked, usize::MAX);
        assert!(!blocks.is_empty() || asked == queue || s.picker.asked_count() > 0 || s.picker.is_complete());
        let some: Vec<_> = s.picker.requests_of(key).take(rng.usize(..queue)).collect();
        for block in some {
            if let Received::New { piece_full: true, .. } = s.picker.receive(key, block) {
                s.picker.verified(block.piece());
            }
        }
        if turn % 50 == 0 {
            s.picker.release_peer(key);
        }
        most = s.picker.open_count().max(most);
    }
    // A fast one has up to three under way with 32 requests, ten slow ones share a few.
    assert!(most <= 10 * 3 + 10, "{most}");
    assert!(s.picker.is_complete());
}
