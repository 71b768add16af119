//! What web seeds are asked for.

use super::*;

#[test]
fn a_run_begins_where_the_last_one_ended_or_at_the_longest_gap() {
    let mut s = Scene::draw(2, &["us ##....##..#......#.", "web ###################", "b ###################"]);
    assert_eq!(s.run("web", &[], Some(4), 4), "4 5");
    // Behind it there is nothing: the first gap that is long enough is long enough.
    assert_eq!(s.run("web", &[], Some(6), 6), "11 12 13");
    assert_eq!(s.run("web", &[], Some(14), 100), "14 15 16");
    assert_eq!(s.run("web", &[], Some(17), 4), "2 3");
    // None is: the longest.
    assert_eq!(s.run("web", &[], Some(16), 8), "8 9");
    assert_eq!(s.run("web", &[], None, 8), "18");
    // What is left is asked for already: nothing, but in endgame from others.
    assert_eq!(s.run("web", &[], None, 8), "");
    assert_ne!(s.run("b", &[], None, 8), "");
}

#[test]
fn what_nobody_goes_on_with_comes_first_and_what_peers_are_at_last() {
    let mut s =
        Scene::draw(4, &["us ##........", "web ##########", "gone ....#.....", "peer .......#..", "slow ........#."]);
    s.peer("peer").fast = true;
    assert_eq!((s.pick("gone", 2), s.pick("peer", 2), s.pick("slow", 1)).1, "7.0 7.1");
    s.leave("gone");
    assert_eq!(show(&s.run_blocks("web", &[], None, 9, usize::MAX)), "4.0 4.1 4.2 4.3 5.0 5.1 5.2 5.3 6.0");
    // It goes on with its own piece.
    assert_eq!(show(&s.run_blocks("web", &[], None, 3, usize::MAX)), "6.1 6.2 6.3");
    assert_eq!(s.run("web", &[], None, 100), "2 3");
    assert_eq!(s.run("web", &[], None, 100), "9");
    let mut last = s.run_blocks("web", &[], None, 100, usize::MAX);
    last.sort_unstable();
    assert_eq!(show(&last), "7.2 7.3 8.1 8.2 8.3");
}

#[test]
fn lanes_share_a_piece_and_nothing_twice() {
    let mut s = Scene::draw(8, &["us ..", "one ##", "two ##", "other ##"]);
    let runs = |s: &mut Scene, name: &str, kin: &[&str]| show(&s.run_blocks(name, kin, Some(1), 3, 8));
    assert_eq!(runs(&mut s, "one", &["one", "two"]), "1.0 1.1 1.2");
    assert_eq!(runs(&mut s, "two", &["one", "two"]), "1.3 1.4 1.5");
    assert_eq!(runs(&mut s, "other", &["other"]), "0.0 0.1 0.2");
    assert_eq!(runs(&mut s, "one", &["one", "two"]), "1.6 1.7");
    assert_eq!(show(&s.run_blocks("one", &["one", "two"], None, 9, 0)), "0.3 0.4 0.5 0.6 0.7");
    // In endgame only from others, and not everything.
    let again = s.run_blocks("two", &["one", "two"], None, 9, 8);
    assert!(!again.is_empty() && again.iter().all(|block| block.piece().get() == 0 && block.number() < 3), "{again:?}");
}

#[test]
fn priorities_memory_and_order() {
    let mut s = Scene::draw(2, &["us ..........", "want -===_++===", "web ##########"]);
    assert_eq!(s.run("web", &[], Some(1), 100), "5 6");
    assert_eq!(show(&s.run_blocks("web", &[], Some(1), 100, 3)), "1.0 1.1");
    assert_eq!(s.run("web", &[], Some(2), 100), "2 3");
    s.picker.set_sequential(true);
    assert_eq!(s.run("web", &[], Some(9), 4), "7 8");
    assert_eq!(s.run("web", &[], Some(0), 4), "9");
    assert_eq!(s.run("web", &[], None, 4), "0");
}

/// Of a server that lacks some of it, only the rest; pieces that failed before, too, but from one source.
#[test]
fn what_the_server_has() {
    let mut s = Scene::draw(2, &["us ........", "web ##..####", "peer ########"]);
    assert_eq!(s.run("web", &[], Some(3), 100), "4 5 6 7");
    assert_eq!(s.run("web", &[], Some(3), 100), "0 1");
    let piece = s.piece(5);
    assert!(s.picker.failed(piece));
    assert_eq!(s.run("web", &[], None, 1), "5");
    assert!(s.picker.is_exclusive(piece));
    let others = s.pick("peer", 4);
    assert!(!others.contains("5."), "{others}");
}
