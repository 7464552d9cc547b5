//! Nodes of the tape.

use crate::{BitNetDType, BitNetTensor, Device, Result, TensorOpError, TensorShape};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Computes the gradients of the operands from that of the result.
pub(super) type Backward = Arc<dyn Fn(&BitNetTensor) -> Result<Vec<Option<BitNetTensor>>> + Send + Sync>;
pub(super) type Hook = Arc<dyn Fn(&BitNetTensor) -> Result<Option<BitNetTensor>> + Send + Sync>;

/// A leaf, or the result of a recorded operation.
pub(crate) struct Node {
    /// Numbers increase: operands have smaller ones than results.
    pub(super) id: u64,
    pub(super) op: &'static str,
    leaf: bool,
    shape: TensorShape,
    dtype: BitNetDType,
    device: Device,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` for an operand without gradient.
    operands: Vec<Option<Arc<Node>>>,
    /// `None` for leaves and freed nodes.
    backward: Option<Backward>,
    grad: Option<BitNetTensor>,
    keeps_grad: bool,
    hooks: Vec<Hook>,
}

impl Node {
    pub fn leaf(of: &BitNetTensor) -> Arc<Self> {
        Arc::new(Self::new("leaf", true, of, State { keeps_grad: true, ..State::default() }))
    }

    /// `backward` may keep the node it is given, which owns it.
    pub fn inner(
        op: &'static str,
        inputs: &[&BitNetTensor],
        out: &BitNetTensor,
        backward: impl FnOnce(&Weak<Self>) -> Backward,
    ) -> Arc<Self> {
        let operands = inputs.iter().map(|x| x.node.clone()).collect();
        Arc::new_cyclic(|node| {
            Self::new(op, false, out, State { operands, backward: Some(backward(node)), ..State::default() })
        })
    }

    fn new(op: &'static str, leaf: bool, of: &BitNetTensor, state: State) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (shape, dtype, device) = (*of.shape(), of.dtype(), of.device().clone());
        Self { id, op, leaf, shape, dtype, device, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state consistent: it is only replaced as a whole.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn is_leaf(&self) -> bool {
        self.leaf
    }

    pub fn grad(&self) -> Option<BitNetTensor> {
        self.state().grad.clone()
    }

    pub fn set_grad(&self, grad: Option<BitNetTensor>) {
        self.state().grad = grad;
    }

    pub fn take_grad(&self) -> Option<BitNetTensor> {
        self.state().grad.take()
    }

    pub fn retain_grad(&self) {
        self.state().keeps_grad = true;
    }

    pub fn keeps_grad(&self) -> bool {
        self.state().keeps_grad
    }

    pub fn add_hook(&self, hook: Hook) {
        self.state().hooks.push(hook);
    }

    pub fn hooks(&self) -> Vec<Hook> {
        self.state().hooks.clone()
    }

    /// The derivative and the operands; `free` removes them from the node.
    pub fn derivative(&self, free: bool) -> Option<(Backward, Vec<Option<Arc<Node>>>)> {
        let mut state = self.state();
        if free {
            let operands = std::mem::take(&mut state.operands);
            return Some((state.backward.take()?, operands));
        }
        Some((state.backward.clone()?, state.operands.clone()))
    }

    /// An error unless `grad` can be the gradient of this tensor.
    pub fn check(&self, op: &'static str, grad: &BitNetTensor) -> Result<()> {
        if *grad.shape() != self.shape {
            let needed = format!("{}, that of the tensor", self.shape);
            return Err(TensorOpError::Shape { op, what: "the gradient", got: *grad.shape(), needed }.into());
        }
        if grad.dtype() != self.dtype {
            let (got, needed) = (grad.dtype(), self.dtype);
            return Err(TensorOpError::DType { op, what: "the gradient", got, needed }.into());
        }
        if *grad.device() != self.device {
            let (left, right) = (self.device.name(), grad.device().name());
            return Err(TensorOpError::Device { op, left, right }.into());
        }
        Ok(())
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.op, self.id)
    }
}

/// A long chain of operations is dropped in a loop: recursive drops would overflow the stack.
impl Drop for Node {
    fn drop(&mut self) {
        let mut open = Vec::new();
        let take = |state: &mut State, open: &mut Vec<Arc<Node>>| {
            open.extend(state.operands.drain(..).flatten());
            // After the operands, which it may hold too.
            state.backward = None;
        };
        take(self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()), &mut open);
        while let Some(node) = open.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                take(node.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()), &mut open);
            }
        }
    }
}
