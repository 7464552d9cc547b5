//! Dropout.

use crate::{BitNetTensor, Generator, Result, TensorOpError};

impl BitNetTensor {
    /// Each element zero with probability `p`, else divided by `1 - p` (Srivastava et al. 2014;
    /// `torch.nn.functional.dropout`).
    pub fn dropout(&self, p: f64, generator: &mut Generator) -> Result<Self> {
        Ok(self.dropout_with_mask(p, generator)?.0)
    }

    /// [`dropout`](Self::dropout), and the factor of each element, 0 or `1 / (1 - p)`, which the derivative uses.
    pub fn dropout_with_mask(&self, p: f64, generator: &mut Generator) -> Result<(Self, Self)> {
        self.is_float("dropout")?;
        if !(0. ..=1.).contains(&p) {
            let message = format!("p is {p}: a probability lies between 0 and 1");
            return Err(TensorOpError::Argument { op: "dropout", message }.into());
        }
        let mut mask = Self::bernoulli(1. - p, self.dims(), self.dtype(), self.device(), generator)?;
        if p < 1. {
            mask.mul_(1. / (1. - p))?;
        }
        Ok((self.mul(&mask)?, mask))
    }
}
