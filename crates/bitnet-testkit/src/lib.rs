#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod golden;
mod reference;

pub use reference::{ReferenceBackend, reference_device};
