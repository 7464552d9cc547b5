#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod config;
mod crc32c;
pub mod data;
pub mod distill;
mod divergence;
pub mod error;
pub mod export;
mod fingerprint;
pub mod lora;
pub mod metrics;
pub mod model;
pub mod module;
pub mod objective;
pub mod optim;
pub mod run_directory;
pub mod schedule;
pub mod tokenize;
pub mod trainer;
pub mod training_run;

pub use config::Config;
pub use error::{Result, TrainingError};
pub use metrics::{Metrics, Observer, StepReport};
pub use model::{ComputeOptions, Transformer};
pub use run_directory::{Resumed, RunDirectory, TrainingCheckpoint};
pub use schedule::{LambdaSchedule, Rates, Schedule};
pub use trainer::{End, Outcome, Trainer};
pub use training_run::TrainingRun;
