//! Running a model: sessions, sampling, generation and perplexity.
#![forbid(unsafe_code)]

mod error;
mod linear;
mod model;
mod session;

pub use error::{InferenceError, Result};
pub use model::Model;
pub use session::Session;
