use super::sha256;

/// Bytes under one leaf of a v2 tree (BEP 52: "16KiB blocks").
pub const LEAF_LEN: usize = 16_384;

/// What stands for a leaf beyond the end of a file (BEP 52: "set to zero").
pub const ZERO_HASH: [u8; 32] = [0; 32];

/// The hash above two nodes of a tree.
pub fn merkle_parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    sha256(&[left, right])
}

/// Makes `layer`, and the `pad` that continues it without end on its right, those one further up.
pub fn merkle_climb(layer: &mut Vec<[u8; 32]>, pad: &mut [u8; 32]) {
    let parents = layer.len().div_ceil(2);
    for n in 0..parents {
        let right = layer.get(2 * n + 1).unwrap_or(pad);
        layer[n] = merkle_parent(&layer[2 * n], right);
    }
    layer.truncate(parents);
    *pad = merkle_parent(pad, pad);
}

/// The root of the tree over `layer`, padded on its right with `pad` to `width` nodes.
///
/// `pad` is [`ZERO_HASH`] for a layer of leaves, [`merkle_pad`] for a layer further up. A `width` below the length of
/// the layer is taken as that length; one that is no power of two as the next that is. An empty layer has the root
/// of a tree of padding.
pub fn merkle_root(mut layer: Vec<[u8; 32]>, width: u32, mut pad: [u8; 32]) -> [u8; 32] {
    let mut width = (width as usize).max(layer.len()).max(1).next_power_of_two();
    while width > 1 {
        merkle_climb(&mut layer, &mut pad);
        width /= 2;
    }
    layer.first().copied().unwrap_or(pad)
}

/// The root of a tree of `2^level` leaves of padding: what pads the layer that stands `level` above the leaves.
pub fn merkle_pad(level: u32) -> [u8; 32] {
    (0..level).fold(ZERO_HASH, |pad, _| merkle_parent(&pad, &pad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_trees() {
        let leaf = |n: u8| [n; 32];
        let pair = |a: &[u8; 32], b: &[u8; 32]| sha256(&[a, b]);
        assert_eq!(merkle_root(vec![leaf(1)], 1, ZERO_HASH), leaf(1));
        assert_eq!(merkle_root(vec![leaf(1), leaf(2)], 2, ZERO_HASH), pair(&leaf(1), &leaf(2)));
        let left = pair(&leaf(1), &leaf(2));
        let right = pair(&leaf(3), &ZERO_HASH);
        assert_eq!(merkle_root(vec![leaf(1), leaf(2), leaf(3)], 4, ZERO_HASH), pair(&left, &right));
        let zeros = pair(&ZERO_HASH, &ZERO_HASH);
        assert_eq!(merkle_pad(1), zeros);
        assert_eq!(merkle_root(vec![leaf(1), leaf(2)], 4, ZERO_HASH), pair(&left, &zeros));
        // A layer two up, padded with the hash of the padding beneath it, gives the root of the whole.
        assert_eq!(merkle_root(vec![left], 2, merkle_pad(1)), pair(&left, &zeros));
    }
}
