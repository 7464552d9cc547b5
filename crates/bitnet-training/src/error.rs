//! What goes wrong while training.

use bitnet_core::{BitNetDType, BitNetError, TensorShape};
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = TrainingError> = std::result::Result<T, E>;

/// What goes wrong while training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// An operation on tensors.
    #[error(transparent)]
    Tensor(#[from] BitNetError),
    /// A tokenizer could not be read or used.
    #[error(transparent)]
    Tokenizer(#[from] bitnet_model::tokenizer::TokenizerError),
    /// A configuration or checkpoint of a model.
    #[error(transparent)]
    Model(#[from] bitnet_model::ModelError),
    /// A parameter that a model needs.
    #[error("tensor {name} is missing: is this a checkpoint of another model?")]
    MissingTensor {
        /// Of the parameter.
        name: String,
    },
    /// A tensor that no parameter takes.
    #[error("tensor {name} belongs to no parameter: is this a checkpoint of another model?")]
    UnexpectedTensor {
        /// Of the tensor.
        name: String,
    },
    /// A tensor of another shape.
    #[error("{name} is {got:?}, needed {needed:?}")]
    TensorShape {
        /// Of the tensor.
        name: String,
        /// Its extents.
        got: Vec<usize>,
        /// What they should be.
        needed: Vec<usize>,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A configuration that cannot be.
    #[error("{file}{line}: {key}{problem}")]
    Config {
        /// Name of the file.
        file: String,
        /// `:12`, or nothing where no line is at fault.
        line: String,
        /// `model.heads: `, or nothing where no key is at fault.
        key: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A diverged run.
    #[error(
        "diverged at step {step}: {what}.{} Resume with a lower learning rate, a longer warm-up or a smaller clip",
        saved.map_or(String::new(), |step| format!(" The weights after {step} updates are saved as the newest checkpoint."))
    )]
    Diverged {
        /// The update that was not made.
        step: u64,
        /// What was seen.
        what: String,
        /// Updates of the weights that were saved.
        saved: Option<u64>,
    },
    /// A file of tokens or texts that cannot be used.
    #[error("{path}: {problem}")]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A checkpoint or run directory that cannot be used.
    #[error("{path}: {problem}")]
    Run {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Something that was asked for cannot be; says what can.
    #[error("{0}")]
    Invalid(String),
    /// A parameter that no group of the optimizer takes.
    #[error("parameter {parameter} is in no group of the optimizer: add a group without patterns for the rest")]
    NoGroup {
        /// The parameter.
        parameter: String,
    },
    /// A parameter that an optimizer cannot change without loss.
    #[error("parameter {parameter} is {dtype}: train f32 weights (the arithmetic may be bf16, by autocast)")]
    ParameterDType {
        /// The parameter.
        parameter: String,
        /// Its dtype.
        dtype: BitNetDType,
    },
    /// A gradient of another shape than its parameter.
    #[error("the gradient of {parameter} has shape {got}, the parameter {needed}")]
    GradientShape {
        /// The parameter.
        parameter: String,
        /// Shape of the gradient.
        got: Box<TensorShape>,
        /// Shape of the parameter.
        needed: Box<TensorShape>,
    },
    /// A parameter of Muon that is no matrix.
    #[error("Muon changes matrices only, parameter {parameter} is {shape}: put it in a group of another rule")]
    NotAMatrix {
        /// The parameter.
        parameter: String,
        /// Its shape.
        shape: TensorShape,
    },
    /// The state of an optimizer that does not fit it.
    #[error("optimizer state: {tensor} {problem}")]
    OptimizerState {
        /// The tensor or parameter.
        tensor: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A parameter that an average does not have.
    #[error("the moving average has no {parameter}: it is of another model")]
    NoAverage {
        /// The parameter.
        parameter: String,
    },
    /// A state dict that is not that of the module.
    #[error("the state dict does not fit: {}", differences(missing, unexpected, shapes))]
    StateDict {
        /// Parameters that it lacks.
        missing: Vec<String>,
        /// Tensors that are no parameters.
        unexpected: Vec<String>,
        /// Parameters of another shape.
        shapes: Vec<String>,
    },
}

impl TrainingError {
    /// What the system said about a file.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn data(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    pub(crate) fn run(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Run { path: path.as_ref().to_owned(), problem: problem.into() }
    }
}

/// What is wrong with a state dict, at most a few names of each kind.
fn differences(missing: &[String], unexpected: &[String], shapes: &[String]) -> String {
    const NAMED: usize = 8;
    let list = |(what, names): (&str, &[String])| {
        let more = names.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = names[..names.len().min(NAMED)].join(", ");
        (!names.is_empty()).then(|| format!("{what} {named}{more}"))
    };
    let kinds = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)];
    kinds.into_iter().filter_map(list).collect::<Vec<_>>().join("; ")
}
