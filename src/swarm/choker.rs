//! Who may download from us (BEP 3, "choking").
//!
//! A policy over plain rows: numbers in, names of winners out. Everything that a decision needs is in the rows; the only
//! state is the dice for optimistic unchokes.
//!
//! **Leeching** is tit for tat. The peers that send us most, among those that want something, get the regular slots;
//! a fifth of the slots, at least one, go to *optimists*: peers that have earned nothing yet, drawn at random for 30 s
//! each, newcomers with three times the weight. A peer that snubs us can only be an optimist.
//! Regular slots that nobody has earned go to further optimists, so no slot idles while somebody wants it.
//!
//! **Seeding** is a queue. Whoever was unchoked keeps the slot until a quota is used up; then those waiting follow, the
//! longest waiting first, with an advance for peers near the start or the end of their download (libtorrent's
//! anti-leech idea: a newcomer soon has something to pass on, a finisher soon is a seed; one in the middle can trade).
//! The advance is bounded, so everybody's turn comes. Quotas are counted in whole pieces because a peer choked in the middle of a
//! rare piece can get the rest from nobody else: the seeder would send it twice.
//!
//! Slots are filled the moment someone becomes interested ([`Choker::admit`], [`Choker::fill`]); ranking happens once per
//! [`ROUND`], to avoid fibrillation. For the same reason a peer that loses interest stays unchoked while its slot is not
//! needed: it costs nothing, and spares it a round trip when the next piece comes along.

use std::cmp::Reverse;
use std::time::Duration;

use crate::base::PeerKey;

/// Time between two rankings (BEP 3: "only changing who's choked once every ten seconds").
pub const ROUND: Duration = Duration::from_secs(10);
/// How long an optimistic unchoke lasts when others wait (BEP 3).
pub const OPTIMISTIC_TIME: Duration = Duration::from_secs(30);
/// Peers connected for less count three times in the draw of optimists (BEP 3).
pub const NEWCOMER_TIME: Duration = Duration::from_secs(60);
const NEWCOMER_WEIGHT: f64 = 3.0;
/// One optimist for so many slots.
const SLOTS_PER_OPTIMIST: usize = 5;
/// Bytes per second below which a peer has not earned a regular slot: a trickle would keep it for ever, while among the
/// optimists there may be somebody better.
const EARNING_RATE: u64 = 1024;
/// Pieces that a seed's slot is good for while others wait.
const QUOTA_PIECES: u64 = 20;
/// Less than this is not worth a change of slots, where pieces are tiny.
const MIN_QUOTA_BYTES: u64 = 4 << 20;
/// A slot is kept for two rounds at least: on a fast line the quota is gone in no time.
const MIN_TURN: Duration = Duration::from_secs(20);
/// A slot is not kept for longer than this while others wait: on a slow line the quota would last for hours.
const MAX_TURN: Duration = Duration::from_secs(180);
/// A seed's slot that moves less, in bytes per second, after [`MIN_TURN`], is idle and passes on.
const IDLE_RATE: u64 = 512;
/// The most that nearness to start or end of a download counts for in the queue of a seed.
const MAX_ADVANCE: Duration = Duration::from_secs(60);

/// What the choker knows of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Who.
    pub key: PeerKey,
    /// The peer wants something from us.
    pub interested: bool,
    /// We do not choke it at present.
    pub unchoked: bool,
    /// Time since we unchoked it; ignored while it is choked.
    pub unchoked_for: Duration,
    /// Time since we choked it, or since it connected if it never was unchoked; ignored while it is unchoked.
    pub choked_for: Duration,
    /// Bytes per second of payload that it sends us.
    pub down_rate: u64,
    /// Bytes per second of payload that we send it.
    pub up_rate: u64,
    /// Bytes of payload sent to it since we unchoked it.
    pub sent_since_unchoke: u64,
    /// Time since it connected.
    pub connected_for: Duration,
    /// It owes us blocks for too long ([`RequestWindow::is_snubbed`](super::requests::RequestWindow::is_snubbed)).
    pub snubbed: bool,
    /// It says that it downloads nothing (BEP 21). Should it be interested all the same, it comes last.
    pub upload_only: bool,
    /// The share of the torrent that it has, in thousandths, 0 ..= 1000.
    pub pieces: u16,
}

/// Which policy ranks the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// We want pieces ourselves: tit for tat.
    Leeching,
    /// We want nothing: take turns.
    Seeding,
}

/// Decides who is unchoked. See the [module](self).
#[derive(Debug)]
pub struct Choker {
    quota: u64,
    dice: fastrand::Rng,
    /// Indices of rows, kept between rounds for their memory.
    order: Vec<usize>,
    chosen: Vec<PeerKey>,
}

impl Choker {
    /// A choker for a torrent with pieces of `piece_length` bytes. `seed` decides the optimists.
    pub fn new(piece_length: u32, seed: u64) -> Self {
        Self {
            quota: (u64::from(piece_length) * QUOTA_PIECES).max(MIN_QUOTA_BYTES),
            dice: fastrand::Rng::with_seed(seed),
            order: Vec::new(),
            chosen: Vec::new(),
        }
    }

    /// Ranks all peers; to be called every [`ROUND`]. Returns exactly those that shall be unchoked from now on, at most
    /// `slots`, sorted by key (so `binary_search` tells whether one is among them).
    pub fn round(&mut self, mode: Mode, slots: usize, rows: &[Row]) -> &[PeerKey] {
        self.chosen.clear();
        match mode {
            Mode::Leeching => self.reciprocate(slots, rows),
            Mode::Seeding => self.take_turns(slots, rows),
        }
        self.keep_spare(slots, rows);
        self.chosen.sort_unstable();
        &self.chosen
    }

    /// Between two rounds: whom to unchoke in addition, because fewer than `slots` interested peers are unchoked (somebody
    /// left, or there are more slots than before). Chokes nobody. Empty, and cheap, when all slots are in use.
    pub fn fill(&mut self, mode: Mode, slots: usize, rows: &[Row]) -> &[PeerKey] {
        self.chosen.clear();
        let busy = rows.iter().filter(|r| r.interested && r.unchoked).count();
        let free = slots.saturating_sub(busy);
        if free > 0 {
            self.order.clear();
            self.order.extend((0..rows.len()).filter(|&i| rows[i].interested && !rows[i].unchoked));
            match mode {
                Mode::Leeching => {
                    let earned = |i: &usize| Reverse(if has_earned(&rows[*i]) { rows[*i].down_rate } else { 0 });
                    self.draw(rows);
                    self.order.sort_by_key(earned);
                }
                Mode::Seeding => self.order.sort_by_key(|&i| queue_position(&rows[i])),
            }
            self.chosen.extend(self.order.iter().take(free).map(|&i| rows[i].key));
        }
        &self.chosen
    }

    /// Whether a choked peer that has just become interested may be unchoked at once. `busy` is the number of interested peers
    /// that are unchoked. The cheap path: looks at nobody else.
    pub fn admit(&self, slots: usize, busy: usize, row: &Row) -> bool {
        row.interested && !row.unchoked && !row.upload_only && !row.snubbed && busy < slots
    }

    fn reciprocate(&mut self, slots: usize, rows: &[Row]) {
        let optimists = if slots == 0 { 0 } else { (slots / SLOTS_PER_OPTIMIST).max(1) };
        self.order.clear();
        self.order.extend((0..rows.len()).filter(|&i| rows[i].interested && has_earned(&rows[i])));
        // The holder of a slot counts an eighth more: equals, whose rates differ by noise, shall not swap slots.
        let rank = |i: &usize| {
            let row = &rows[*i];
            let bonus = if row.unchoked { row.down_rate / 8 } else { 0 };
            (Reverse(row.down_rate.saturating_add(bonus)), row.key)
        };
        self.order.sort_unstable_by_key(rank);
        self.order.truncate(slots - optimists);
        self.chosen.extend(self.order.iter().map(|&i| rows[i].key));

        let mut regular = std::mem::take(&mut self.order);
        regular.sort_unstable();
        let rest = |i: &usize| rows[*i].interested && regular.binary_search(i).is_err();
        let current = |i: &usize| rows[*i].unchoked && rows[*i].unchoked_for < OPTIMISTIC_TIME;
        let free = slots - regular.len();
        // Optimists whose time is not over stay, in the order of their coming should slots have become fewer.
        let mut stay: Vec<usize> = (0..rows.len()).filter(|i| rest(i) && current(i)).collect();
        stay.sort_unstable_by_key(|&i| Reverse(rows[i].unchoked_for));
        stay.truncate(free);
        self.chosen.extend(stay.iter().map(|&i| rows[i].key));
        // Then a draw among those who wait; and last those whose time is over, if nobody else wants the slot.
        self.order.extend((0..rows.len()).filter(|i| rest(i) && !rows[*i].unchoked));
        self.draw(rows);
        self.order.sort_by_key(|&i| rows[i].upload_only);
        let over = (0..rows.len()).filter(|i| rest(i) && rows[*i].unchoked && !current(i));
        let next = self.order.iter().copied().chain(over).take(free - stay.len());
        self.chosen.extend(next.map(|i| rows[i].key));
        self.order = regular;
    }

    /// Shuffles `order`, such that newcomers come early three times as often, and those who snub us come after the others.
    fn draw(&mut self, rows: &[Row]) {
        let mut drawn: Vec<(bool, f64, usize)> = Vec::with_capacity(self.order.len());
        for &i in &self.order {
            // The smallest of exponentially distributed numbers of rate w falls on each with a chance in proportion to w.
            let weight = if rows[i].connected_for < NEWCOMER_TIME { NEWCOMER_WEIGHT } else { 1.0 };
            drawn.push((rows[i].snubbed, -(1.0 - self.dice.f64()).ln() / weight, i));
        }
        drawn.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        self.order.clear();
        self.order.extend(drawn.iter().map(|d| d.2));
    }

    fn take_turns(&mut self, slots: usize, rows: &[Row]) {
        self.order.clear();
        self.order.extend((0..rows.len()).filter(|&i| rows[i].interested));
        let quota = self.quota;
        self.order.sort_by_cached_key(|&i| {
            let row = &rows[i];
            if row.upload_only {
                (3, Reverse(Duration::ZERO), row.up_rate)
            } else if !row.unchoked {
                (1, queue_position(row), 0)
            } else if turn_is_over(row, quota) {
                // Whoever is not replaced goes on; those who have had the slot for the shortest time first.
                (2, Reverse(MAX_TURN.saturating_sub(row.unchoked_for)), 0)
            } else {
                // Should slots have become fewer, the fastest stay.
                (0, Reverse(Duration::ZERO), u64::MAX - row.up_rate)
            }
        });
        self.chosen.extend(self.order.iter().take(slots).map(|&i| rows[i].key));
    }

    /// Slots that no interested peer wants stay with those who have them.
    fn keep_spare(&mut self, slots: usize, rows: &[Row]) {
        let spare = slots.saturating_sub(self.chosen.len());
        let idle = rows.iter().filter(|r| r.unchoked && !r.interested && !r.upload_only);
        self.chosen.extend(idle.take(spare).map(|r| r.key));
    }
}

fn has_earned(row: &Row) -> bool {
    !row.snubbed && !row.upload_only && row.down_rate >= EARNING_RATE
}

fn turn_is_over(row: &Row, quota: u64) -> bool {
    row.unchoked_for >= MIN_TURN
        && (row.sent_since_unchoke >= quota || row.unchoked_for >= MAX_TURN || row.up_rate < IDLE_RATE)
}

/// Place in the queue of a seed: waiting time, and an advance for those near the start or the end.
fn queue_position(row: &Row) -> Reverse<Duration> {
    let from_middle = u32::from(row.pieces.min(1000).abs_diff(500));
    Reverse(row.choked_for.saturating_add(MAX_ADVANCE * from_middle / 500))
}
