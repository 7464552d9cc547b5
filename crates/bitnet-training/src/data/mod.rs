//! From token files to batches.
//!
//! ```
//! use bitnet_core::Device;
//! use bitnet_training::config::{Order, Packing};
//! use bitnet_training::data::{DataLoader, LoaderOptions, TokenSet, TokenWriter};
//! let path = std::env::temp_dir().join(format!("bitnet-doc-{}.tokens", std::process::id()));
//! let mut writer = TokenWriter::create(&path, 256, None, 0)?;
//! writer.put(&(0..100).collect::<Vec<u32>>())?;
//! writer.finish()?;
//!
//! let tokens = TokenSet::open(&[&path])?;
//! let options = LoaderOptions { context: 8, batch: 2, packing: Packing::Stream, order: Order::Sequential, seed: 0 };
//! let mut loader = DataLoader::new(tokens, options, &Device::cpu())?;
//! let batch = loader.next_batch()?;
//! assert_eq!(batch.inputs.dims(), [2, 8]);
//! assert_eq!(batch.targets.to_vec::<i64>()?[..3], [1, 2, 3]);
//! # std::fs::remove_file(path).unwrap();
//! # Ok::<(), bitnet_training::TrainingError>(())
//! ```

mod files;
mod loader;
mod order;
mod prepare;
mod rows;
mod set;
mod tokens;

pub use files::expand;
pub use loader::{Batch, DataLoader, DataPosition, Evaluation, LoaderOptions};
pub use prepare::{Prepared, prepare};
pub use set::TokenSet;
pub use tokens::{TokenFile, TokenWriter};

/// A target that is not counted, as PyTorch's `ignore_index`.
pub const IGNORED: i64 = -100;
