//! Weights in the formats of files: plain floats and the block-quantized types of GGUF.
//!
//! A matrix `[rows, columns]` is row-major and each row is a sequence of blocks, so `bytes` may be a part of a
//! memory-mapped file at any alignment. Products with such a matrix are in [`crate::FloatKernel::linear`].

mod dequantize;

use crate::lengths::elements;
pub use bitnet_device::BlockType;
pub use dequantize::dequantize_row;
pub(crate) use dequantize::{dequantize, q4_k_scales};

/// A matrix or an index that does not fit.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Rows are whole blocks.
    #[error("a row of {columns} weights is not a whole number of {kind} blocks of {}", kind.block_len())]
    Row { kind: BlockType, columns: usize },
    /// The bytes are not those of the shape.
    #[error("a {kind} matrix of {rows} x {columns} weights does not have {bytes} bytes")]
    Size { kind: BlockType, rows: usize, columns: usize, bytes: usize },
    /// A token that the embedding does not have.
    #[error("token {id} is outside of the vocabulary of {rows}")]
    Token { id: u32, rows: usize },
}

/// A weight matrix `[rows, columns]` in the bytes of a file.
#[derive(Clone, Copy)]
pub struct BlockMatrix<'a> {
    kind: BlockType,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> BlockMatrix<'a> {
    /// A view of `bytes` as `rows` rows of `columns` weights.
    ///
    /// # Errors
    /// [`BlockError`] when a row is not whole blocks or the size is not that of the shape.
    pub fn new(kind: BlockType, rows: usize, columns: usize, bytes: &'a [u8]) -> Result<BlockMatrix<'a>, BlockError> {
        let row_bytes = kind.row_bytes(columns).ok_or(BlockError::Row { kind, columns })?;
        if row_bytes.checked_mul(rows) != Some(bytes.len()) {
            return Err(BlockError::Size { kind, rows, columns, bytes: bytes.len() });
        }
        Ok(BlockMatrix { kind, rows, columns, row_bytes, bytes })
    }

    /// How the weights are stored.
    pub fn kind(&self) -> BlockType {
        self.kind
    }

    /// Rows: outputs of a linear layer, tokens of an embedding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Weights of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The bytes of row `row`.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.bytes[row * self.row_bytes..][..self.row_bytes]
    }

    /// The bytes of `count` rows from `row` on.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn rows_from(&self, row: usize, count: usize) -> &'a [u8] {
        assert!(row <= self.rows && count <= self.rows - row, "rows {row} + {count} of {}", self.rows);
        &self.bytes[row * self.row_bytes..][..count * self.row_bytes]
    }
}

/// Looks up the rows of tokens: `out[t] = table[ids[t]]`, out `[T, columns]`.
///
/// # Errors
/// [`BlockError::Token`] for an id that is not a row of the table.
///
/// # Panics
/// When `out` is not `[T, columns]`.
pub fn embedding(ids: &[u32], table: &BlockMatrix<'_>, out: &mut [f32]) -> Result<(), BlockError> {
    let columns = table.columns;
    assert_eq!(Some(out.len()), elements([ids.len(), columns]), "out is [ids, columns]");
    for (t, &id) in ids.iter().enumerate() {
        if id as usize >= table.rows {
            return Err(BlockError::Token { id, rows: table.rows });
        }
        let row = &mut out[t * columns..][..columns];
        dequantize_row(table.kind, table.row(id as usize), row);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked() {
        let bytes = [0u8; 420];
        let matrix = BlockMatrix::new(BlockType::Q6_K, 2, 256, &bytes).unwrap();
        assert_eq!(matrix.row(1).len(), 210);
        let wrong = |kind, rows, columns| BlockMatrix::new(kind, rows, columns, &bytes).err();
        assert!(matches!(wrong(BlockType::Q6_K, 2, 100), Some(BlockError::Row { columns: 100, .. })));
        assert!(matches!(wrong(BlockType::Q6_K, 3, 256), Some(BlockError::Size { rows: 3, .. })));
        assert!(wrong(BlockType::F32, usize::MAX, 2).is_some());
        assert!(wrong(BlockType::F32, 2, usize::MAX).is_some());
    }

    #[test]
    fn embedding_looks_up_rows() {
        let bytes: Vec<u8> = (0..6u8).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let table = BlockMatrix::new(BlockType::F32, 3, 2, &bytes).unwrap();
        let mut out = [0.0; 4];
        embedding(&[2, 0], &table, &mut out).unwrap();
        assert_eq!(out, [4.0, 5.0, 0.0, 1.0]);
        let error = embedding(&[0, 3], &table, &mut out).unwrap_err();
        assert_eq!(error, BlockError::Token { id: 3, rows: 3 });
    }
}
