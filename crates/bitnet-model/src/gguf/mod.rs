//! GGUF: the file format of llama.cpp and bitnet.cpp.
//!
//! [`Gguf::parse`] reads the header of a file in memory (usually mapped) and borrows nothing from
//! it: tensors are byte ranges of the file. [`GgufWriter`] writes one tensor at a time.
//!
//! Every count, length and offset is checked against the size of the file before anything is
//! allocated for it, so that a damaged file gives a one-line error.

mod error;
mod metadata;
mod reader;
mod split;
mod types;
mod writer;

pub use error::GgufError;
pub use metadata::{Array, FromValue, Metadata, Value};
pub use reader::{Gguf, TensorInfo};
pub use types::GgufType;
pub use writer::GgufWriter;

/// Default alignment of tensors.
const DEFAULT_ALIGNMENT: usize = 32;

/// The metadata key of the alignment.
const ALIGNMENT_KEY: &str = "general.alignment";

/// `n` up to the next multiple of `alignment`, a power of two.
fn align_up(n: usize, alignment: usize) -> Option<usize> {
    n.checked_next_multiple_of(alignment)
}
