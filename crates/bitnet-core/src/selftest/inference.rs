//! Cases of the fused operations of inference.

use super::*;

pub(super) fn all(cases: &mut Cases) {
    norms_and_softmax(cases);
    rotary_embedding(cases);
    attention_over_pages(cases);
    layers_with_states(cases);
    choices_of_tokens(cases);
    gates(cases);
    dense_layers_and_embeddings(cases);
    ternary_layers(cases);
}

/// A matrix of any weight type: random bytes whose scales are small numbers.
fn weights(dtype: BitNetDType, rows: usize, columns: usize) -> Vec<u8> {
    let values = noise(rows * columns, 22);
    let small = f16::from_f32(0.01).to_le_bytes();
    // Offsets of the f16 scales in a block.
    let scales: &[usize] = match dtype {
        BitNetDType::F32 => return values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        BitNetDType::F16 => return values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        BitNetDType::BF16 => return values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        BitNetDType::Q6K => &[208],
        BitNetDType::Q4K | BitNetDType::Q5K | BitNetDType::Q4_1 | BitNetDType::Q5_1 => &[0, 2],
        BitNetDType::Q2K => &[80, 82],
        BitNetDType::Q3K => &[108],
        BitNetDType::Mxfp4 => &[],
        _ => &[0],
    };
    let mut bytes: Vec<u8> =
        noise(rows * dtype.row_bytes(columns), 23).iter().map(|v| (v.to_bits() >> 8) as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.block().1) {
        for &at in scales {
            block[at..at + 2].copy_from_slice(&small);
        }
        if dtype == BitNetDType::Mxfp4 {
            block[0] = 122; // 2^-5
        }
    }
    bytes
}

/// Random canonical codes: 0, 1 or 2 in every place, 1 where a row ends within a byte.
fn codes(rows: usize, columns: usize, seed: u64) -> Vec<u8> {
    let weights: Vec<i8> = noise(rows * columns, seed).iter().map(|v| (v * 1.5).round() as i8).collect();
    let mut bytes = vec![0b01010101u8; rows * columns.div_ceil(4)];
    for (i, &w) in weights.iter().enumerate() {
        let (row, column) = (i / columns, i % columns);
        let byte = &mut bytes[row * columns.div_ceil(4) + column / 4];
        *byte = *byte & !(3 << (2 * (column % 4))) | ((w + 1) as u8) << (2 * (column % 4));
    }
    bytes
}

/// `start..start + tokens`.
fn positions(device: &Device, start: usize, tokens: usize) -> Result<BitNetTensor> {
    BitNetTensor::arange(start, start + tokens, 1, BitNetDType::U32, device)
}

fn norms_and_softmax(cases: &mut Cases) {
    for (rows, width) in [(1, 1), (1, 256), (7, 33), (40, 2560)] {
        cases.add("rms_norm", 1e-6, move |device| {
            let (x, w) = (tensor(device, &[rows, width], 8)?, tensor(device, &[width], 9)?);
            let mut y = out(device, &[rows, width])?;
            device.rms_norm(x.as_ref(), w.as_ref(), 1e-5, y.as_mut()?)?;
            y.to_vec()
        });
        cases.add("softmax", 1e-6, move |device| {
            let x = tensor(device, &[rows, width], 10)?;
            let mut y = out(device, &[rows, width])?;
            device.softmax(x.as_ref(), y.as_mut()?)?;
            let mut logarithms = out(device, &[rows, width])?;
            device.log_softmax(x.as_ref(), logarithms.as_mut()?)?;
            Ok([y.to_vec::<f32>()?, logarithms.to_vec()?].concat())
        });
        cases.add("layer_norm", 2e-6, move |device| {
            let (x, w, b) =
                (tensor(device, &[rows, width], 8)?, tensor(device, &[width], 9)?, tensor(device, &[width], 10)?);
            let mut all = Vec::new();
            for (w, b) in [(None, None), (Some(&w), None), (None, Some(&b)), (Some(&w), Some(&b))] {
                let mut y = out(device, &[rows, width])?;
                let (w, b) = (w.map(BitNetTensor::as_ref), b.map(BitNetTensor::as_ref));
                device.layer_norm(x.as_ref(), w, b, 1e-5, y.as_mut()?)?;
                all.extend(y.to_vec::<f32>()?);
            }
            Ok(all)
        });
        for axis in [0, 1] {
            cases.add("variance and standard deviation", 2e-6, move |device| {
                let x = tensor(device, &[rows, width], 11)?;
                let dims = if axis == 0 { [1, width] } else { [rows, 1] };
                let (mut mean, mut variance) = (out(device, &dims)?, out(device, &dims)?);
                let mut deviation = out(device, &dims)?;
                device.variance(x.as_ref(), axis, 0., mean.as_mut()?, variance.as_mut()?)?;
                device.standard_deviation(x.as_ref(), axis, 0., deviation.as_mut()?)?;
                Ok([mean.to_vec::<f32>()?, variance.to_vec()?, deviation.to_vec()?].concat())
            });
        }
    }
}

fn rotary_embedding(cases: &mut Cases) {
    for (tokens, heads, width, start) in [(1, 1, 2, 0), (5, 3, 34, 4), (3, 2, 128, 9)] {
        cases.add("rope", 1e-6, move |device| {
            let at = positions(device, start, tokens)?;
            let mut x = tensor(device, &[tokens, heads, width], 11)?;
            let (cos, sin) = (tensor(device, &[12, width / 2], 12)?, tensor(device, &[12, width / 2], 13)?);
            device.rope(x.as_mut()?, cos.as_ref(), sin.as_ref(), at.as_ref())?;
            x.to_vec()
        });
    }
}

fn attention_over_pages(cases: &mut Cases) {
    use BitNetDType::{BF16, F16, F32, I8};
    // Rows and first position of two sequences, heads, key heads, width, window.
    let shapes = [
        ([(1, 0), (1, 40)], 1, 1, 2, None),
        ([(1, 30), (2, 63)], 4, 2, 16, None),
        ([(5, 3), (1, 70)], 6, 2, 20, Some(9)),
        ([(70, 0), (1, 0)], 4, 1, 64, None),
        ([(1, 200), (3, 190)], 8, 8, 36, Some(64)),
    ];
    for (texts, heads, kv_heads, width, window) in shapes {
        for dtype in [F32, F16, BF16, I8] {
            // A composition may round the last bit of a score before an 8-bit page does: half a unit of 127.
            let bound = if dtype == I8 { 5e-5 } else { 5e-6 };
            cases.add(format!("store_kv and paged_attention of {dtype}"), bound, move |device| {
                let (page_len, pages, table) = (64, 10, [[7u32, 2, 9, 4], [1, 8, 3, 5]]);
                let empty = |dims: &[usize], dtype| BitNetTensor::zeros(dims, dtype, device);
                let mut keys = empty(&[pages, kv_heads, width, page_len], dtype)?;
                let mut values = empty(&[pages, kv_heads, page_len, width], dtype)?;
                let dims = [pages, kv_heads, page_len];
                let (mut key_scales, mut value_scales) = (empty(&dims, F32)?, empty(&dims, F32)?);
                let (mut slots, mut sequences, mut positions) = (Vec::new(), Vec::new(), Vec::new());
                for (i, (rows, first)) in texts.into_iter().enumerate() {
                    let end = (first + rows) as u32;
                    slots.extend((0..end).map(|n| table[i][n as usize / page_len] * 64 + n % 64));
                    sequences.extend(vec![i as u32; rows]);
                    positions.extend(first as u32..end);
                }
                let tokens = slots.len();
                let new = [15, 16].map(|seed| tensor(device, &[tokens, kv_heads, width], seed));
                let [new_keys, new_values] = new;
                let slots = BitNetTensor::from_slice(&slots, &[tokens], device)?;
                let target = KvPagesMut {
                    keys: keys.as_mut()?,
                    values: values.as_mut()?,
                    scales: if dtype == I8 { Some([key_scales.as_mut()?, value_scales.as_mut()?]) } else { None },
                };
                device.store_kv(new_keys?.as_ref(), new_values?.as_ref(), slots.as_ref(), target)?;
                let rows = positions.len();
                let q = tensor(device, &[rows, heads, width], 14)?;
                let mut y = out(device, &[rows, heads, width])?;
                let table = BitNetTensor::from_slice(&table.concat(), &[2, 4], device)?;
                let sequences = BitNetTensor::from_slice(&sequences, &[rows], device)?;
                let positions = BitNetTensor::from_slice(&positions, &[rows], device)?;
                let scales = (dtype == I8).then(|| [key_scales.as_ref(), value_scales.as_ref()]);
                let pages = KvPages { keys: keys.as_ref(), values: values.as_ref(), scales };
                let at = KvRows { table: table.as_ref(), sequences: sequences.as_ref(), positions: positions.as_ref() };
                let scale = 1. / (width as f32).sqrt();
                device.paged_attention(q.as_ref(), pages, at, scale, window, y.as_mut()?)?;
                y.to_vec()
            });
        }
    }
}

/// Two steps of three sequences, whose states lie in other places.
fn layers_with_states(cases: &mut Cases) {
    // Sequence and position of each row.
    const STEPS: [&[(u32, u32)]; 2] = [&[(0, 0), (0, 1), (0, 2), (1, 7), (2, 0)], &[(1, 8), (0, 3), (2, 1), (2, 2)]];
    fn words(device: &Device, rows: &[(u32, u32)]) -> Result<[BitNetTensor; 3]> {
        let [sequences, positions]: [Vec<u32>; 2] =
            [rows.iter().map(|r| r.0).collect(), rows.iter().map(|r| r.1).collect()];
        let column = |x: &[u32]| BitNetTensor::from_slice(x, &[x.len()], device);
        Ok([column(&sequences)?, column(&positions)?, column(&[2, 0, 3])?])
    }
    for (channels, taps) in [(1, 1), (5, 2), (40, 4)] {
        cases.add("short_conv", 2e-6, move |device| {
            let weights = tensor(device, &[taps, channels], 71)?;
            let mut state = tensor(device, &[4, taps - 1, channels], 72)?;
            let mut all = Vec::new();
            for (step, rows) in STEPS.into_iter().enumerate() {
                let [sequences, positions, slots] = &words(device, rows)?;
                let rows_of =
                    StateRows { sequences: sequences.as_ref(), positions: positions.as_ref(), slots: slots.as_ref() };
                let x = tensor(device, &[rows.len(), channels], 73 + step as u64)?;
                let mut y = out(device, &[rows.len(), channels])?;
                device.short_conv(x.as_ref(), weights.as_ref(), rows_of, state.as_mut()?, y.as_mut()?)?;
                all.extend(y.to_vec::<f32>()?);
            }
            all.extend(state.to_vec::<f32>()?);
            Ok(all)
        });
    }
    for (key_heads, value_heads, key_dim, value_dim) in [(1, 1, 1, 1), (2, 6, 4, 2), (2, 6, 8, 12), (2, 2, 33, 16)] {
        cases.add("gated_delta", 1e-5, move |device| {
            let shape = DeltaShape { key_heads, value_heads, key_dim, value_dim, tiled: key_dim == 4 };
            let (decay, bias) =
                (tensor(device, &[value_heads], 81)?.abs()?.neg()?, tensor(device, &[value_heads], 82)?);
            let mut state = tensor(device, &[4, value_heads, key_dim, value_dim], 83)?;
            let mut all = Vec::new();
            for (step, rows) in STEPS.into_iter().enumerate() {
                let seed = 84 + 3 * step as u64;
                let [sequences, positions, slots] = &words(device, rows)?;
                let rows_of =
                    StateRows { sequences: sequences.as_ref(), positions: positions.as_ref(), slots: slots.as_ref() };
                let qkv = tensor(device, &[rows.len(), shape.row()], seed)?;
                let (a, b) = (
                    tensor(device, &[rows.len(), value_heads], seed + 1)?,
                    tensor(device, &[rows.len(), value_heads], seed + 2)?,
                );
                let gates = DeltaGates { a: a.as_ref(), b: b.as_ref(), decay: decay.as_ref(), bias: bias.as_ref() };
                let mut y = out(device, &[rows.len(), shape.value()])?;
                device.gated_delta(shape, qkv.as_ref(), gates, rows_of, state.as_mut()?, y.as_mut()?)?;
                all.extend(y.to_vec::<f32>()?);
            }
            all.extend(state.to_vec::<f32>()?);
            Ok(all)
        });
    }
}

/// A row for each cut alone, and all of them together.
fn sample_rows() -> Vec<SampleRow> {
    let all = SampleRow {
        temperature: 0.8,
        top_k: 0.,
        top_p: 1.,
        min_p: 0.,
        typical_p: 1.,
        top_n_sigma: 0.,
        xtc_threshold: 2.,
        surprise: f32::INFINITY,
        upper: (1 << 23) as f32,
        lower: 12345.,
    };
    vec![
        all,
        SampleRow { temperature: 0., ..all },
        SampleRow { temperature: 1e-30, ..all },
        SampleRow { upper: 0., lower: 0., ..all },
        SampleRow { upper: 0xff_ffff as f32, lower: 0xff_ffff as f32, ..all },
        SampleRow { top_k: 3., upper: 1e7, ..all },
        SampleRow { top_p: 0.7, upper: 1.5e7, ..all },
        SampleRow { min_p: 0.2, upper: 1.4e7, ..all },
        SampleRow { typical_p: 0.4, upper: 1.2e7, ..all },
        SampleRow { top_n_sigma: 1.1, upper: 1.3e7, ..all },
        SampleRow { xtc_threshold: 0.05, ..all },
        SampleRow { surprise: 4., upper: 1.1e7, ..all },
        SampleRow { surprise: 0., ..all },
        SampleRow {
            top_k: 40.,
            top_p: 0.9,
            min_p: 0.01,
            typical_p: 0.95,
            top_n_sigma: 2.,
            xtc_threshold: 0.3,
            surprise: 6.,
            ..all
        },
    ]
}

fn choices_of_tokens(cases: &mut Cases) {
    // Vocabulary, edits of a row, whether there is a mask.
    for (vocab, edits, masked) in [(1, 0, false), (31, 2, false), (300, 0, true), (1000, 9, true)] {
        cases.add("sample", 1e-5, move |device| {
            let rows = sample_rows();
            let count = rows.len();
            let mut logits: Vec<f32> = noise(count * vocab, 61).iter().map(|x| 6. * x).collect();
            if vocab > 1 {
                logits[3] = f32::NAN;
                // Of equal ones the first; and a row without a finite logit.
                logits[vocab..2 * vocab].iter_mut().for_each(|x| *x = x.round());
                logits[3 * vocab..4 * vocab].fill(f32::NEG_INFINITY);
            }
            let table: Vec<f32> = rows.into_iter().flat_map(SampleRow::to_array).collect();
            // The last is named twice.
            let edited: Vec<u32> = (0..count * edits)
                .map(|i| (i / edits * 7 + (i % edits).min(edits.saturating_sub(2)) * 3) as u32 % vocab as u32)
                .collect();
            let changes: Vec<f32> = edited.iter().flat_map(|&t| [t as f32 / 100., 1.2, 0.25, (t % 3) as f32]).collect();
            let words = if masked { vocab.div_ceil(32) } else { 0 };
            let mask: Vec<u32> = noise(count * words, 62).iter().map(|x| x.to_bits() << 3 | 0x0101_0101).collect();
            let logits = BitNetTensor::from_slice(&logits, &[count, vocab], device)?;
            let table = BitNetTensor::from_slice(&table, &[count, SampleRow::LEN], device)?;
            let edited = BitNetTensor::from_slice(&edited, &[count, edits], device)?;
            let changes = BitNetTensor::from_slice(&changes, &[count, edits, 4], device)?;
            let mask = BitNetTensor::from_slice(&mask, &[count, words], device)?;
            let mut tokens = BitNetTensor::empty(&[count], BitNetDType::U32, device)?;
            let mut chances = out(device, &[count])?;
            let how = SampleRows {
                rows: table.as_ref(),
                edited: edited.as_ref(),
                edits: changes.as_ref(),
                mask: mask.as_ref(),
            };
            device.sample(logits.as_ref(), how, tokens.as_mut()?, chances.as_mut()?)?;
            // A row that failed is -1; tokens and probabilities have one scale.
            let token = |t: u32| if t == u32::MAX { -1. } else { t as f32 / vocab as f32 };
            let tokens = tokens.to_vec::<u32>()?.into_iter().map(token);
            Ok(tokens.chain(chances.to_vec()?).collect())
        });
    }
}

fn gates(cases: &mut Cases) {
    for act in GateActivation::ALL {
        cases.add("gated", 1e-6, move |device| {
            let (mut gate, up) = (tensor(device, &[9, 77], 17)?, tensor(device, &[9, 77], 18)?);
            device.gated(act, gate.as_mut()?, up.as_ref())?;
            gate.to_vec()
        });
    }
    cases.add("add_assign of rows and of one row", 1e-7, move |device| {
        let (mut y, x, bias) =
            (tensor(device, &[9, 77], 19)?, tensor(device, &[9, 77], 20)?, tensor(device, &[77], 21)?);
        device.binary_assign(BinaryOp::Add, y.as_mut()?, x.as_ref())?;
        device.binary_assign(BinaryOp::Add, y.as_mut()?, bias.as_ref())?;
        y.to_vec()
    });
}

fn dense_layers_and_embeddings(cases: &mut Cases) {
    for dtype in BitNetDType::ALL.into_iter().filter(|dtype| dtype.weight_type().is_some()) {
        let columns = if dtype.is_packed() { 256 } else { 37 };
        for tokens in [1, 2, 5] {
            // Some quantized types round activations to 16 bits: 1e-5 of |w| |x| (the kernels' own tests hold them to that),
            // of which a sum of 256 products with changing signs can be a tenth.
            let bound = if dtype.is_packed() { 1e-4 } else { 5e-6 };
            cases.add(format!("linear of {dtype}"), bound, move |device| {
                let x = tensor(device, &[tokens, columns], 24)?;
                let w = BitNetTensor::from_bytes(&weights(dtype, 19, columns), &[19, columns], dtype, device)?;
                let mut y = out(device, &[tokens, 19])?;
                device.linear(x.as_ref(), w.as_ref(), y.as_mut()?)?;
                y.to_vec()
            });
        }
        for (tokens, chosen) in [(1, &[2u32, 0][..]), (3, &[1, 2, 2, 0, 1, 2])] {
            let bound = if dtype.is_packed() { 1e-4 } else { 5e-6 };
            cases.add(format!("expert_linear of {dtype}"), bound, move |device| {
                let x = tensor(device, &[tokens, columns], 24)?;
                let w = BitNetTensor::from_bytes(&weights(dtype, 3 * 5, columns), &[3 * 5, columns], dtype, device)?;
                let experts = BitNetTensor::from_slice(chosen, &[chosen.len()], device)?;
                let mut y = out(device, &[chosen.len(), 5])?;
                device.expert_linear(x.as_ref(), w.as_ref(), experts.as_ref(), y.as_mut()?)?;
                y.to_vec()
            });
        }
        cases.add(format!("embedding of {dtype}"), 0., move |device| {
            let w = BitNetTensor::from_bytes(&weights(dtype, 19, columns), &[19, columns], dtype, device)?;
            let mut y = out(device, &[3, columns])?;
            let ids = |ids: &[u32]| BitNetTensor::from_slice(ids, &[ids.len()], device);
            device.embedding(ids(&[18, 0, 7])?.as_ref(), w.as_ref(), y.as_mut()?)?;
            let beyond = device.embedding(ids(&[19])?.as_ref(), w.as_ref(), out(device, &[1, columns])?.as_mut()?);
            if beyond.and_then(|()| device.synchronize()).is_ok() {
                let message = "an id outside of the table is not an error".into();
                return Err(TensorOpError::Argument { op: "embedding", message }.into());
            }
            y.to_vec()
        });
    }
}

fn ternary_layers(cases: &mut Cases) {
    for (tokens, rows, columns) in [(1, 1, 1), (1, 48, 64), (3, 37, 50), (9, 16, 257), (33, 100, 30)] {
        for rule in ActivationRule::ALL {
            let name = format!("quantize by {rule} and ternary_matmul of stacked parts");
            // With one scale for all of a row products are exact; else the sums over blocks are rounded.
            let bound = if rule == ActivationRule::Token { 3e-7 } else { 1e-6 };
            cases.add(name, bound, move |device| ternary(device, rule, [tokens, rows, columns], [None; 2]));
        }
    }
    for (tokens, rows, columns, group) in [(1, 19, 64, 32), (5, 40, 512, 64), (3, 16, 768, 256), (17, 33, 384, 128)] {
        for rule in ActivationRule::ALL {
            let name = format!("quantize by {rule} and ternary_matmul of groups of {group}");
            cases.add(name, 1e-6, move |device| ternary(device, rule, [tokens, rows, columns], [Some(group); 2]));
            let name = format!("quantize by {rule} and ternary_matmul of rows with their scales");
            cases.add(name, 1e-6, move |device| ternary(device, rule, [tokens, rows, columns], [Some(columns), None]));
        }
    }
}

/// `x` quantized, its products with two stacked matrices with such groups of columns, and what it was quantized to.
fn ternary(
    device: &Device,
    rule: ActivationRule,
    [tokens, rows, columns]: [usize; 3],
    groups: [Option<usize>; 2],
) -> Result<Vec<f32>> {
    let x = tensor(device, &[tokens, columns], 25)?;
    let (digits, sums_of) = (rule.digits(), columns.div_ceil(ActivationRule::SUM_COLUMNS));
    let padded = device.padded_columns(columns);
    let mut values = BitNetTensor::empty(&[tokens * digits * padded], BitNetDType::I8, device)?;
    let layout = Layout::contiguous(TensorShape::new(&[tokens, digits, padded])?).narrow(2, 0, columns)?;
    let mut scales = out(device, &[tokens, rule.blocks(columns)])?;
    let mut sums = BitNetTensor::empty(&[tokens, digits, sums_of], BitNetDType::I32, device)?;
    let place = TensorMut { layout, ..values.as_mut()? };
    device.quantize_activations(rule, x.as_ref(), place, scales.as_mut()?, sums.as_mut()?)?;
    let stored = TensorRef { layout, ..values.as_ref() };
    let quantized = QuantizedActivations { rule, values: stored, scales: scales.as_ref(), sums: sums.as_ref() };
    // The first of two parts has rows in whole groups of any device here; the scales differ.
    let parts = [(32, 26, 0.5), (rows, 27, 2.0)];
    let codes = parts.map(|(rows, seed, _)| codes(rows, columns, seed));
    let part = |(group, (rows, seed, scale)): (Option<usize>, (usize, u64, f32))| match group {
        None => vec![scale],
        Some(group) => noise(rows * (columns / group), seed + 2).iter().map(|v| scale + v.abs()).collect(),
    };
    let factors = [part((groups[0], parts[0])), part((groups[1], parts[1]))];
    let source =
        |i: usize| TernarySource { codes: &codes[i], rows: parts[i].0, columns, scales: &factors[i], group: groups[i] };
    let packed = device.pack_ternary(&[source(0), source(1)])?;
    let mut y = out(device, &[tokens, 32 + rows])?;
    device.ternary_matmul(quantized, &packed, y.as_mut()?)?;
    let mut all = y.to_vec::<f32>()?;
    all.extend(sums.to_vec::<i32>()?.iter().map(|&s| s as f32 * 1e-3));
    all.extend(scales.to_vec::<f32>()?.iter().map(|s| s * 1e-3));
    Ok(all)
}
