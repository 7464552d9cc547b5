//! A hash of a model's weights, to tell whether it is the same model.

use crate::Result;
use crate::model::Transformer;

const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash of the names, shapes and values of all parameters. Equal models have equal fingerprints; it is not made to
/// withstand an adversary.
///
/// # Errors
/// When a tensor cannot be read.
pub fn fingerprint(model: &Transformer) -> Result<u64> {
    let mut hash = PRIME;
    for (name, tensor) in model.tensors() {
        hash = mixed(hash, name.as_bytes());
        tensor.dims().iter().for_each(|&extent| hash = word(hash, extent as u64));
        hash = mixed(hash, &tensor.detach().to_bytes()?);
    }
    Ok(hash)
}

fn word(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(29) ^ word).wrapping_mul(PRIME)
}

fn mixed(hash: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(eight)
    });
    words.fold(word(hash, bytes.len() as u64), word)
}
