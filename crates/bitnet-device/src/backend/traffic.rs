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
            (Op::Rope, [cos, _, positions], _) => {
                let angles = 2 * positions.layout.shape().elements() * cos.layout.shape().last() * cos.dtype.size();
                positions.distinct_bytes() + angles as u64 + written
            }
            (Op::Attention, [q, keys, values, positions], _) => {
                let capacity = keys.layout.dims()[1].max(1) as u64;
                let filled = filled(positions).unwrap_or(capacity);
                let cache = (keys.distinct_bytes() + values.distinct_bytes()) / capacity * filled;
                q.distinct_bytes() + positions.distinct_bytes() + cache
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
            (Op::Matmul | Op::Linear, [a, ..], [out]) => 2 * elements(&out.layout) * a.layout.shape().last() as u64,
            (Op::TernaryMatmul, [values, ..], [out]) => 2 * elements(&out.layout) * values.layout.shape().last() as u64,
            (Op::Attention, [q, keys, _, positions], _) => {
                // Products with keys and values, of the positions that a token attends to.
                let capacity = keys.layout.dims()[1] as u64;
                let tokens = elements(&positions.layout);
                let seen = filled(positions).unwrap_or(capacity) * tokens - tokens * tokens.saturating_sub(1) / 2;
                4 * elements(&q.layout) / tokens.max(1) * seen
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

/// Positions of a cache that are filled, where the host can see that.
fn filled(positions: &TensorRef) -> Option<u64> {
    let TensorStorage::Cpu(storage) = positions.storage else { return None };
    let all = storage.elements::<u32>().ok()?;
    positions.layout.indices().filter_map(|i| all.get(i)).max().map(|&last| u64::from(last) + 1)
}
