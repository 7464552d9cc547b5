//! Decoding of blocks against gguf-py, bit for bit (`golden/blocks.py`).

use bitnet_kernels::blocks::{BlockType, dequantize_row};

#[test]
fn decoding_equals_gguf_py() {
    let mut golden = include_bytes!("golden/blocks.bin").as_slice();
    for kind in BlockType::ALL {
        let blocks = match kind.block_len() {
            1 => 40,
            32 => 6,
            _ => 3,
        };
        let bytes = golden.split_off(..blocks * kind.block_bytes()).unwrap();
        let mut ours = vec![f32::NAN; blocks * kind.block_len()];
        let expected = golden.split_off(..4 * ours.len()).unwrap();
        dequantize_row(kind, bytes, &mut ours);
        for (i, (ours, expected)) in ours.iter().zip(expected.as_chunks::<4>().0).enumerate() {
            let expected = f32::from_le_bytes(*expected);
            assert_eq!(ours.to_bits(), expected.to_bits(), "{kind} weight {i}");
        }
    }
    assert!(golden.is_empty());
}
