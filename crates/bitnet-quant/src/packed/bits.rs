//! Codes of one or four bits in bytes, the first in the lowest bits; a row starts at a byte.

/// Codes `[rows, cols]` to `[rows, ceil(cols * width / 8)]` bytes, `stored(code)` in `width` bits each.
pub(super) fn pack(codes: &[i8], cols: usize, width: u32, stored: impl Fn(i8) -> u8) -> Vec<u8> {
    let each = (8 / width) as usize;
    let bytes = |row: &[i8]| -> Vec<u8> {
        let byte = |codes: &[i8]| codes.iter().rev().fold(0, |byte: u8, &c| (byte << width) | stored(c));
        row.chunks(each).map(byte).collect()
    };
    if cols == 0 { Vec::new() } else { codes.chunks_exact(cols).flat_map(bytes).collect() }
}

/// The `rows * cols` codes that [`pack`] stored.
pub(super) fn unpack(bytes: &[u8], cols: usize, width: u32) -> impl Iterator<Item = u8> {
    let each = (8 / width) as usize;
    let rows = bytes.chunks_exact(cols.div_ceil(each).max(1));
    let code = move |row: &[u8], i: usize| (row[i / each] >> (width as usize * (i % each))) & ((1 << width) - 1);
    rows.flat_map(move |row| (0..cols).map(move |i| code(row, i)))
}

/// Codes 0..=15 between the smallest and the largest value of each group, 0 among them: packed codes, scales and zero
/// points. As `torch.fake_quantize_per_channel_affine`: `q = clamp(round(x / scale) + zero point, 0, 15)`, halves to
/// even.
pub(super) fn affine(values: &[f32], cols: usize, group: usize) -> (Vec<u8>, Vec<f32>, Vec<u8>) {
    let (mut codes, mut scales, mut zeros) = (Vec::with_capacity(values.len()), Vec::new(), Vec::new());
    for group in values.chunks_exact(group) {
        let (low, high) = group.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
        // Not from the difference, which may be infinite.
        let scale = (high / 15. - low / 15.).max(1e-5);
        let zero = (-low / scale).round_ties_even().clamp(0., 15.);
        let inverse = 1. / scale;
        codes.extend(group.iter().map(|v| ((v * inverse).round_ties_even() + zero).clamp(0., 15.) as i8));
        scales.push(scale);
        zeros.push(zero as u8);
    }
    (pack(&codes, cols, 4, |c| c as u8), scales, zeros)
}
