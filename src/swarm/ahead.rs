//! Laying reads out for the blocks that will come next.

use super::Swarm;
use crate::base::PeerKey;
use crate::wire::{Decoder, PieceHeader};

/// Of all buffers, one in so many may wait at connections for blocks to come.
const LENT_SHARE: usize = 4;

impl Swarm {
    /// Tells `decoder` which blocks `key` will probably send next, at most `reach` of them, and lends it the buffers. Peers
    /// answer in the order in which they were asked, nearly always; nothing depends on it.
    pub fn look_ahead(&mut self, key: PeerKey, decoder: &mut Decoder, reach: usize) {
        // What is asked for must find a buffer even if it comes to another place than was thought.
        let share = (self.pool.ceiling() / LENT_SHARE).saturating_sub(self.lent_ahead);
        let mut may_lend = (self.spare() / 2).min(share);
        let Some(peer) = self.peers.at_mut(key) else { return };
        let begun = decoder.reset_expected();
        let mut wanted = reach.saturating_sub(usize::from(begun.is_some()));
        for asked in &peer.asked {
            if wanted == 0 {
                break;
            }
            let header = PieceHeader::from(asked.block);
            if peer.receiving == Some(asked.block) || begun == Some(header) {
                continue;
            }
            let buf = decoder.take_spare().or_else(|| {
                may_lend = may_lend.checked_sub(1)?;
                let buf = self.pool.take(header.len)?;
                peer.lent_ahead += 1;
                self.lent_ahead += 1;
                Some(buf)
            });
            let Some(mut buf) = buf else { break };
            buf.set_len(header.len);
            decoder.expect(header, buf);
            wanted -= 1;
        }
        while let Some(buf) = decoder.take_spare() {
            peer.lent_ahead = peer.lent_ahead.saturating_sub(1);
            self.lent_ahead = self.lent_ahead.saturating_sub(1);
            self.pool.give(buf);
        }
    }
}
