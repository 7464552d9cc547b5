#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod composed;
pub mod golden;
mod queue;
mod reference;

pub use composed::composed_device;
pub use queue::queue_device;
pub use reference::{ReferenceBackend, reference_device};
