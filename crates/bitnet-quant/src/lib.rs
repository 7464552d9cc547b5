#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod codes;
pub mod error;
pub mod formats;
pub mod ternarize;

pub use codes::TernaryCodes;
pub use error::QuantError;
