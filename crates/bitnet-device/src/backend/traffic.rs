//! What an operation moves and computes, for profiles.

use super::*;

/// Bytes that an operation has to read and write; broadcast elements count once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Additions, multiplications and functions; a multiply-add is two.
    pub operations: u64,
}

impl Op {
    /// What it moves with these operands.
    pub fn traffic(&self, inputs: &[TensorRef], outputs: &[TensorMut]) -> Traffic {
        let all: u64 = inputs.iter().map(TensorRef::distinct_bytes).sum();
        let written: u64 = outputs.iter().map(|out| out.as_ref().distinct_bytes()).sum();
        let operations = self.operations(inputs, outputs);
        let beside = |input: usize| all - inputs[input].distinct_bytes();
        let read = match (self, inputs, outputs) {
            // As many elements are read as written.
            (Op::Gather { .. }, _, _) => beside(0) + written,
            (Op::Scatter { .. }, [source, _], _) => {
                return Traffic { read: all, written: source.distinct_bytes(), operations };
            }
            (Op::Embedding, [table, ids], _) => {
                let rows = ids.layout.shape().elements() * table.dtype.row_bytes(table.layout.shape().last());
                beside(0) + rows as u64
            }
            (Op::ExpertLinear, [_, w, experts], [out]) => {
                let (all, each) = (w.layout.dims()[0], out.layout.shape().last());
                let read = experts.layout.shape().elements().min(all / each.max(1)) * each;
                beside(1) + (read * w.dtype.row_bytes(w.layout.shape().last())) as u64
            }
            (Op::Rope, [cos, _, positions], _) => {
                let angles = 2 * positions.layout.shape().elements() * cos.layout.shape().last() * cos.dtype.size();
                positions.distinct_bytes() + angles as u64 + written
            }
            (Op::StoreKv, [keys, values, slots], _) => {
                let elements = (keys.layout.shape().elements() + values.layout.shape().elements()) as u64;
                let written = elements * outputs[0].dtype.size() as u64;
                return Traffic {
                    read: keys.distinct_bytes() + values.distinct_bytes() + slots.distinct_bytes(),
                    written,
                    operations,
                };
            }
            (Op::PagedAttention { window, .. }, [q, keys, values, ..], _) => {
                // Each sequence is read once for all of its rows.
                let position = |x: &TensorRef| {
                    x.distinct_bytes() / (x.layout.dims()[0] * keys.layout.shape().last()).max(1) as u64
                };
                let seen: u64 =
                    rows(inputs).iter().map(|(_, last)| window.map_or(*last, |w| (*last).min(w.into()))).sum();
                q.distinct_bytes() + (position(keys) + position(values)) * seen
            }
            _ if self.updates() => all + written,
            _ => all,
        };
        Traffic { read, written, operations }
    }

    /// The operations of products and attention; of all others, one for each element read or written, whichever are more.
    fn operations(&self, inputs: &[TensorRef], outputs: &[TensorMut]) -> u64 {
        let elements = |layout: &Layout| layout.shape().elements() as u64;
        match (self, inputs, outputs) {
            (Op::Matmul | Op::Linear | Op::ExpertLinear, [a, ..], [out]) => {
                2 * elements(&out.layout) * a.layout.shape().last() as u64
            }
            (Op::TernaryMatmul(_), [values, ..], [out]) => {
                2 * elements(&out.layout) * values.layout.shape().last() as u64
            }
            (Op::PagedAttention { window, .. }, [q, ..], _) => {
                // Products with keys and values, of the positions that a row attends to.
                let seen = |position: u64| window.map_or(position + 1, |w| (position + 1).min(w.into()));
                let all: u64 = host_words(inputs[5]).map_or(0, |all| all.iter().map(|&p| seen(p.into())).sum());
                4 * elements(&q.layout) / q.layout.dims()[0].max(1) as u64 * all
            }
            (Op::CausalAttention(shape), ..) => causal(shape),
            // The scores again, and five products of their size.
            (Op::CausalAttentionBackward(shape), ..) => causal(shape) * 5 / 2,
            (Op::Embedding | Op::Gather { .. }, _, [out]) => elements(&out.layout),
            _ => {
                let read = inputs.iter().map(|x| elements(&x.layout)).max().unwrap_or(0);
                outputs.iter().map(|out| elements(&out.layout)).max().unwrap_or(0).max(read)
            }
        }
    }
}

/// Operations of the two products of causal attention.
fn causal(shape: &CausalShape) -> u64 {
    let CausalShape { batch, tokens, heads, head_dim, .. } = *shape;
    (2 * batch * heads * tokens * (tokens + 1) * head_dim) as u64
}

impl TensorRef<'_> {
    /// Bytes of its elements; broadcast elements count once.
    pub fn distinct_bytes(&self) -> u64 {
        let shape = self.layout.shape();
        if self.dtype.is_packed() {
            return (shape.elements() / shape.last().max(1) * self.dtype.row_bytes(shape.last())) as u64;
        }
        let extents = shape.dims().iter().zip(self.layout.strides());
        let places: usize =
            extents.map(|(&extent, &stride)| if stride == 0 { extent.min(1) } else { extent }).product();
        (places * self.dtype.size()) as u64
    }
}

/// The sequences of [`Op::PagedAttention`] with the number of their positions, where the host can see them.
fn rows(inputs: &[TensorRef]) -> Vec<(u32, u64)> {
    let (Some(sequences), Some(positions)) = (host_words(inputs[4]), host_words(inputs[5])) else { return Vec::new() };
    let mut longest: Vec<(u32, u64)> = Vec::new();
    for (sequence, position) in sequences.into_iter().zip(positions) {
        match longest.iter_mut().find(|(known, _)| *known == sequence) {
            Some((_, len)) => *len = (*len).max(u64::from(position) + 1),
            None => longest.push((sequence, u64::from(position) + 1)),
        }
    }
    longest
}

/// The elements of a `U32` tensor in host memory.
fn host_words(x: TensorRef) -> Option<Vec<u32>> {
    let TensorStorage::Cpu(storage) = x.storage else { return None };
    let all = storage.elements::<u32>().ok()?;
    x.layout.indices().map(|i| all.get(i).copied()).collect()
}
