//! Hashes of a v2 torrent's pieces, for peers that lack them (BEP 52): what we have of each file's tree is its piece layer,
//! and what stands above it.

use rustc_hash::FxHashMap;

use crate::metainfo::{Info, merkle};
use crate::wire::{HashRequest, MAX_HASHES};

type Hash = [u8; 32];

/// What answers take to be made quickly, besides the layers themselves.
#[derive(Debug, Default)]
pub struct HashTrees {
    /// Files with a piece layer, by root. Made when somebody first asks.
    by_root: Option<FxHashMap<Hash, usize>>,
    /// By file, the nodes from which [`MAX_HASHES`] hashes of the piece layer hang, and the layers above them: so that an
    /// answer costs a thousand hashes at most, however long the layer.
    tops: FxHashMap<usize, Vec<Vec<Hash>>>,
}

impl HashTrees {
    /// The bytes that answer `request`, for a `hashes` message. `None` if it is not sound, or about anything but a piece
    /// layer of `info`, which always must be the same.
    pub fn answer(&mut self, info: &Info, request: &HashRequest) -> Option<Vec<u8>> {
        let level = merkle::piece_level(info.geometry().piece_length());
        if !request.is_sound() || request.base_layer != level {
            return None;
        }
        let by_root = self.by_root.get_or_insert_with(|| {
            let files = info.files().iter().enumerate().filter(|(number, _)| info.piece_layer(*number).is_some());
            files.filter_map(|(number, file)| Some((file.pieces_root?, number))).collect()
        });
        let file = *by_root.get(&request.pieces_root)?;
        let layer = info.piece_layer(file)?;
        let (index, length) = (request.index as usize, request.length as usize);
        let width = layer.len().next_power_of_two();
        if index >= layer.len() || length > width {
            return None;
        }
        let known_uncles = width.ilog2() - request.length.ilog2();
        if request.uncles() > known_uncles {
            return None;
        }
        let mut answer = Vec::with_capacity((request.length + request.uncles()) as usize * 32);
        let pad = merkle::padding(level);
        for n in index..index + length {
            answer.extend_from_slice(layer.get(n).unwrap_or(&pad));
        }
        let lowest = request.length.ilog2();
        for height in lowest..lowest + request.uncles() {
            let uncle = (index >> height) ^ 1;
            answer.extend_from_slice(&self.node(file, layer, level, height, uncle));
        }
        Some(answer)
    }

    /// Node number `number` of those that stand `height` layers above the piece layer.
    fn node(&mut self, file: usize, layer: &[Hash], level: u32, height: u32, number: usize) -> Hash {
        let part = MAX_HASHES.ilog2();
        if height < part {
            let begin = number << height;
            let below = layer.get(begin..).unwrap_or_default();
            return merkle::root(below.get(..1 << height).unwrap_or(below), 1 << height, level);
        }
        let tops = self.tops.entry(file).or_insert_with(|| {
            let parts = layer.chunks(MAX_HASHES as usize);
            let mut tops = vec![parts.map(|part| merkle::root(part, MAX_HASHES, level)).collect::<Vec<Hash>>()];
            let mut pad_level = level + part;
            while let Some(below) = tops.last().filter(|below| below.len() > 1) {
                let pad = merkle::padding(pad_level);
                let right = |pair: &[Hash]| pair.get(1).copied().unwrap_or(pad);
                let above = below.chunks(2).map(|pair| merkle::parent(&pair[0], &right(pair))).collect();
                tops.push(above);
                pad_level += 1;
            }
            tops
        });
        let nodes = tops.get((height - part) as usize);
        nodes.and_then(|nodes| nodes.get(number)).copied().unwrap_or_else(|| merkle::padding(level + height))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hash_picker::tests::torrent;
    use super::*;

    /// Every answer leads to the file's root, whichever part of whichever layer it is about.
    #[test]
    fn answers_prove_themselves() {
        for pieces in [2usize, 3, 8, 511, 512, 513, 1_024, 1_025, 2_500] {
            let info = torrent(&[pieces], 0);
            let layer = info.piece_layer(0).unwrap();
            let root = info.files()[0].pieces_root.unwrap();
            let width = pieces.next_power_of_two();
            let mut trees = HashTrees::default();
            for log in 0..10 {
                let length = 1usize << log;
                if length > width {
                    continue;
                }
                for index in (0..pieces).step_by(length).take(9).chain([(pieces - 1) / length * length]) {
                    let request = HashRequest {
                        pieces_root: root,
                        base_layer: 0,
                        index: u32::try_from(index).unwrap(),
                        length: u32::try_from(length).unwrap(),
                        proof_layers: width.ilog2() - 1,
                    };
                    let answer = trees.answer(&info, &request).unwrap();
                    let (hashes, uncles) = request.split(&answer).unwrap();
                    assert_eq!(merkle::root_from_proof(hashes, index, uncles), Some(root), "{pieces} {request:?}");
                    assert_eq!(hashes[0], layer[index]);
                    // Those who know the upper layers ask for a part of the way.
                    for proof_layers in 0..request.proof_layers {
                        let part = HashRequest { proof_layers, ..request };
                        let shorter = trees.answer(&info, &part).unwrap();
                        assert_eq!(shorter, answer[..shorter.len()]);
                        assert!(part.split(&shorter).is_some());
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_asked_breaks_anything(
            base_layer in prop_oneof![0u32..3, any::<u32>()],
            index in prop_oneof![0u32..3_000, any::<u32>()],
            length in prop_oneof![0u32..1_200, any::<u32>()],
            proof_layers in prop_oneof![0u32..40, any::<u32>()],
        ) {
            let info = torrent(&[1_300, 1, 2], 0);
            let mut trees = HashTrees::default();
            for file in info.files() {
                let request =
                    HashRequest { pieces_root: file.pieces_root.unwrap(), base_layer, index, length, proof_layers };
                if let Some(answer) = trees.answer(&info, &request) {
                    prop_assert!(request.split(&answer).is_some());
                    prop_assert!(index < 1_300 && base_layer == 0 && file.length > 16_384);
                }
            }
        }
    }
}
