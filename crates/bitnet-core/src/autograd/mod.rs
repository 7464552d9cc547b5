//! Reverse-mode differentiation: operations on tensors that require a gradient are recorded on a tape, which
//! [`BitNetTensor::backward`] traverses in reverse.
//!
//! ```
//! use bitnet_core::{BitNetTensor, Device};
//! let mut x = BitNetTensor::from_slice(&[1f32, 2., 3.], &[3], &Device::cpu())?;
//! x.requires_grad_(true)?;
//! x.square()?.sum(.., false)?.backward()?;
//! assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [2., 4., 6.]);
//! # Ok::<(), bitnet_core::BitNetError>(())
//! ```
//!
//! The derivative of every operation is written in tensor operations, so that it runs on every device and can be
//! differentiated again. What an operation saved is freed once its derivative was computed, or with the tensors that
//! refer to it. Writes cannot invalidate saved tensors: the tape shares their storage, and shared storage is copied
//! when written.

mod checkpoint;
pub(crate) mod derivative;
mod engine;
mod node;

pub use checkpoint::checkpoint;
pub use engine::{BackwardOptions, gradients};
pub(crate) use node::Node;

use crate::{BitNetTensor, Result, TensorOpError};
use node::Backward;
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

/// Whether this thread records operations on tensors that require a gradient.
pub fn is_recording() -> bool {
    RECORDING.get()
}

/// Runs `body` with recording on or off on this thread, then restores the setting, also after a panic.
fn with_recording<R>(on: bool, body: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDING.set(self.0);
        }
    }
    let _restore = Restore(RECORDING.replace(on));
    body()
}

/// `body` without recording (`torch.no_grad`): evaluation, and updates of weights in place.
pub fn no_grad<R>(body: impl FnOnce() -> R) -> R {
    with_recording(false, body)
}

/// `body` with recording, inside [`no_grad`] (`torch.enable_grad`).
pub fn enable_grad<R>(body: impl FnOnce() -> R) -> R {
    with_recording(true, body)
}

/// Whether an operation on these tensors is recorded.
#[inline]
pub fn is_recorded(inputs: &[&BitNetTensor]) -> bool {
    inputs.iter().any(|x| x.node.is_some()) && is_recording()
}

/// An operation with a custom derivative (`torch.autograd.Function`).
///
/// `forward` runs without recording. If an input requires a gradient, `backward` receives the detached result and
/// returns the function from the gradient of the result to that of each input, in order and with its shape and dtype;
/// `None` for inputs without one. That function runs with recording on if second derivatives are needed; it must then
/// recompute the result from the inputs, because the saved result has no history.
///
/// ```
/// use bitnet_core::{BitNetTensor, Device, autograd};
/// // Rounding that lets the gradient through: a straight-through estimator.
/// fn round(x: &BitNetTensor) -> bitnet_core::Result<BitNetTensor> {
///     autograd::differentiable("round", &[x], || x.round(), |_| |grad: &BitNetTensor| Ok(vec![Some(grad.clone())]))
/// }
/// let mut x = BitNetTensor::from_slice(&[0.4f32, 1.7], &[2], &Device::cpu())?;
/// x.requires_grad_(true)?;
/// round(&x)?.sum(.., false)?.backward()?;
/// assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [1., 1.]);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
pub fn differentiable<B>(
    op: &'static str,
    inputs: &[&BitNetTensor],
    forward: impl FnOnce() -> Result<BitNetTensor>,
    backward: impl FnOnce(&BitNetTensor) -> B,
) -> Result<BitNetTensor>
where
    B: Fn(&BitNetTensor) -> Result<Vec<Option<BitNetTensor>>> + Send + Sync + 'static,
{
    if !is_recorded(inputs) {
        return forward();
    }
    let mut out = no_grad(forward)?.detach();
    let backward: Backward = Arc::new(backward(&out));
    out.node = Some(Node::inner(op, inputs, &out, |_| backward));
    Ok(out)
}

/// [`differentiable`] whose derivative is computed from the gradient and the result, which has its history if second
/// derivatives are needed.
pub(crate) fn differentiable_by_result<B>(
    op: &'static str,
    inputs: &[&BitNetTensor],
    forward: impl FnOnce() -> Result<BitNetTensor>,
    backward: impl FnOnce() -> B,
) -> Result<BitNetTensor>
where
    B: Fn(&BitNetTensor, &BitNetTensor) -> Result<Vec<Option<BitNetTensor>>> + Send + Sync + 'static,
{
    if !is_recorded(inputs) {
        return forward();
    }
    let mut out = no_grad(forward)?.detach();
    let (saved, backward) = (out.clone(), backward());
    let node = Node::inner(op, inputs, &out, |node| {
        let node = node.clone();
        Arc::new(move |grad: &BitNetTensor| {
            let mut result = saved.clone();
            result.node = if is_recording() { node.upgrade() } else { None };
            backward(grad, &result)
        })
    });
    out.node = Some(node);
    Ok(out)
}

/// An error if an operation without derivative would be recorded.
pub(crate) fn not_differentiable(op: &'static str, inputs: &[&BitNetTensor]) -> Result<()> {
    if is_recorded(inputs) {
        let message = "not differentiable: give it a tensor without history by detach(), or call it in no_grad";
        return Err(TensorOpError::Argument { op, message: message.into() }.into());
    }
    Ok(())
}

/// An error if an `_into` form would be recorded.
pub(crate) fn not_into(op: &'static str, inputs: &[&BitNetTensor]) -> Result<()> {
    if is_recorded(inputs) {
        let message = "not differentiable: use the form that gives a new tensor, or call it in no_grad";
        return Err(TensorOpError::Argument { op, message: message.into() }.into());
    }
    Ok(())
}

impl BitNetTensor {
    /// Sets whether [`backward`](Self::backward) computes its gradient, as a leaf (`torch.Tensor.requires_grad_`).
    ///
    /// # Errors
    /// For dtypes other than floats, and for the result of a recorded operation, which is not a leaf.
    pub fn requires_grad_(&mut self, required: bool) -> Result<&mut Self> {
        const OP: &str = "requires_grad_";
        let refuse = |message: String| Err(TensorOpError::Argument { op: OP, message }.into());
        if required && !self.dtype().is_float() {
            return refuse(format!("{} has no derivative: cast it to a float with to_dtype()", self.dtype()));
        }
        match &self.node {
            Some(node) if !node.is_leaf() => {
                if !required {
                    return refuse("it is the result of an operation: use detach()".into());
                }
            }
            Some(_) if required => {}
            _ => self.node = required.then(|| Node::leaf(self)),
        }
        Ok(self)
    }

    /// Whether operations on it are recorded.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// Whether it is a leaf: not the result of a recorded operation.
    pub fn is_leaf(&self) -> bool {
        self.node.as_ref().is_none_or(|node| node.is_leaf())
    }

    /// The gradient of a leaf, or of a tensor with [`retain_grad`](Self::retain_grad), summed over all backward
    /// passes since it was last cleared.
    pub fn grad(&self) -> Option<Self> {
        self.node.as_ref()?.grad()
    }

    /// Replaces the gradient; `None` clears it.
    ///
    /// # Errors
    /// If this tensor requires no gradient, or the gradient has another shape, dtype or device.
    pub fn set_grad(&self, grad: Option<Self>) -> Result<()> {
        match (&self.node, &grad) {
            (None, None) => Ok(()),
            (None, Some(_)) => {
                let message = "the tensor does not require a gradient: call requires_grad_(true) first".into();
                Err(TensorOpError::Argument { op: "set_grad", message }.into())
            }
            (Some(node), _) => {
                if let Some(grad) = &grad {
                    node.check("set_grad", grad)?;
                }
                node.set_grad(grad);
                Ok(())
            }
        }
    }

    /// Clears the gradient.
    pub fn zero_grad(&self) {
        if let Some(node) = &self.node {
            node.set_grad(None);
        }
    }

    /// Returns the gradient and clears it.
    pub fn take_grad(&self) -> Option<Self> {
        self.node.as_ref()?.take_grad()
    }

    /// Keeps the gradient of the result of an operation, as leaves do (`torch.Tensor.retain_grad`).
    pub fn retain_grad(&self) {
        if let Some(node) = &self.node {
            node.retain_grad();
        }
    }

    /// The same values, sharing storage, without history.
    #[inline]
    pub fn detach(&self) -> Self {
        self.with_layout(*self.layout())
    }

    /// Whether an in-place operation with `others` is recorded, so that it must replace the tensor by a new one.
    ///
    /// # Errors
    /// If it is a leaf that requires a gradient.
    #[inline]
    pub(crate) fn is_rewritten(&self, op: &'static str, others: &[&Self]) -> Result<bool> {
        if self.node.is_none() && others.iter().all(|x| x.node.is_none()) || !is_recording() {
            return Ok(false);
        }
        if self.node.as_ref().is_some_and(|node| node.is_leaf()) {
            let message = "a leaf that needs a gradient cannot be changed in place: do it in no_grad".into();
            return Err(TensorOpError::Argument { op, message }.into());
        }
        Ok(true)
    }

    /// Replaces the values, keeping the node.
    pub(crate) fn set_values(&mut self, values: Self) {
        let node = self.node.take();
        *self = values;
        self.node = node;
    }

    /// Calls `hook` with the complete gradient of this tensor in a backward pass; the result of the hook replaces the
    /// gradient (`torch.Tensor.register_hook`).
    ///
    /// # Errors
    /// If this tensor requires no gradient.
    pub fn register_hook(&self, hook: impl Fn(&Self) -> Result<Option<Self>> + Send + Sync + 'static) -> Result<()> {
        match &self.node {
            Some(node) => {
                node.add_hook(Arc::new(hook));
                Ok(())
            }
            None => {
                let message = "the tensor does not require a gradient: call requires_grad_(true) first".into();
                Err(TensorOpError::Argument { op: "register_hook", message }.into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
