//! The backward pass: from gradients of results to gradients of leaves.

use super::node::Node;
use super::{no_grad, with_recording};
use crate::{BitNetTensor, Result, TensorOpError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Options of a backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackwardOptions {
    /// Keeps the tape for another pass; otherwise each node is freed after use.
    pub retain_graph: bool,
    /// Records the pass itself, so that gradients can be differentiated; also keeps the tape.
    pub create_graph: bool,
}

impl BitNetTensor {
    /// Adds the derivative of this scalar by each leaf to the leaf's gradient, and frees the tape.
    ///
    /// # Errors
    /// If it has more than one element (see [`backward_with`](Self::backward_with)), was not recorded, or its tape was
    /// freed by an earlier pass.
    pub fn backward(&self) -> Result<()> {
        self.backward_with(None, BackwardOptions::default())
    }

    /// [`backward`](Self::backward) from the gradient `grad` of this tensor, 1 unless given.
    pub fn backward_with(&self, grad: Option<&Self>, options: BackwardOptions) -> Result<()> {
        let seed = seed(self, grad)?;
        let mut store = |node: &Arc<Node>, grad: BitNetTensor| {
            if node.keeps_grad() {
                let sum = match node.take_grad() {
                    Some(old) => sum(old, &grad, options.create_graph)?,
                    None => grad,
                };
                node.set_grad(Some(if options.create_graph { sum } else { sum.detach() }));
            }
            Ok(())
        };
        run(vec![seed], options, &mut store)
    }
}

/// The derivatives of the sum of all `outputs` by `inputs`, `None` for an input that no output depends on; gradients
/// stored in leaves are unchanged (`torch.autograd.grad`). The tape is kept.
///
/// ```
/// use bitnet_core::{BitNetTensor, Device, autograd};
/// let mut x = BitNetTensor::from_slice(&[3f64], &[1], &Device::cpu())?;
/// x.requires_grad_(true)?;
/// let y = x.mul(&x)?.mul(&x)?;
/// let first = autograd::gradients(&[&y], &[&x], true)?.remove(0).unwrap();
/// let second = autograd::gradients(&[&first], &[&x], false)?.remove(0).unwrap();
/// assert_eq!((first.to_vec::<f64>()?, second.to_vec::<f64>()?), (vec![27.], vec![18.]));
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
pub fn gradients(
    outputs: &[&BitNetTensor],
    inputs: &[&BitNetTensor],
    create_graph: bool,
) -> Result<Vec<Option<BitNetTensor>>> {
    let one = |out: &&BitNetTensor| seed(out, Some(&no_grad(|| out.ones_like())?));
    let seeds = outputs.iter().map(one).collect::<Result<_>>()?;
    let mut found: BTreeMap<u64, BitNetTensor> = BTreeMap::new();
    let mut ids = Vec::new();
    for input in inputs {
        let node =
            input.node.as_ref().ok_or_else(|| argument("gradients", "an input does not require a gradient".into()))?;
        ids.push(node.id);
    }
    let mut store = |node: &Arc<Node>, grad: BitNetTensor| {
        if ids.contains(&node.id) {
            found.insert(node.id, grad);
        }
        Ok(())
    };
    run(seeds, BackwardOptions { retain_graph: true, create_graph }, &mut store)?;
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

fn argument(op: &'static str, message: String) -> crate::BitNetError {
    TensorOpError::Argument { op, message }.into()
}

fn seed(out: &BitNetTensor, grad: Option<&BitNetTensor>) -> Result<(Arc<Node>, BitNetTensor)> {
    const OP: &str = "backward";
    let Some(node) = &out.node else {
        let message = "nothing was recorded: no operand has requires_grad_(true), or it was made under no_grad";
        return Err(argument(OP, message.into()));
    };
    let grad = match grad {
        Some(grad) => grad.clone(),
        None if out.elements() == 1 => no_grad(|| out.ones_like())?,
        None => {
            let needed = "one element: reduce it, or give its gradient to backward_with()".into();
            return Err(TensorOpError::Shape { op: OP, what: "the tensor", got: *out.shape(), needed }.into());
        }
    };
    node.check(OP, &grad)?;
    Ok((node.clone(), grad))
}

fn sum(mut a: BitNetTensor, b: &BitNetTensor, recorded: bool) -> Result<BitNetTensor> {
    if recorded {
        return a.add(b);
    }
    no_grad(|| a.add_(b).map(|_| ()))?;
    Ok(a)
}

/// Nodes whose gradient is not propagated yet, by number.
type Open = BTreeMap<u64, (Arc<Node>, BitNetTensor)>;

/// Walks the tape from `seeds`, latest operation first, and calls `store` with every complete gradient.
fn run(
    seeds: Vec<(Arc<Node>, BitNetTensor)>,
    options: BackwardOptions,
    store: &mut dyn FnMut(&Arc<Node>, BitNetTensor) -> Result<()>,
) -> Result<()> {
    let recorded = options.create_graph;
    let free = !(options.retain_graph || recorded);
    let mut open = Open::new();
    let give = |open: &mut Open, node: Arc<Node>, grad: BitNetTensor| -> Result<()> {
        let grad = match open.remove(&node.id) {
            Some((_, old)) => sum(old, &grad, recorded)?,
            None => grad,
        };
        open.insert(node.id, (node, grad));
        Ok(())
    };
    for (node, grad) in seeds {
        give(&mut open, node, grad)?;
    }
    with_recording(recorded, || {
        while let Some((_, (node, mut grad))) = open.pop_last() {
            for hook in node.hooks() {
                if let Some(other) = hook(&grad)? {
                    node.check("hook", &other)?;
                    grad = other;
                }
            }
            if node.is_leaf() {
                store(&node, grad)?;
                continue;
            }
            let Some((backward, operands)) = node.derivative(free) else {
                let message =
                    format!("the tape of {} was freed by an earlier backward pass: use retain_graph", node.op);
                return Err(argument("backward", message));
            };
            let gradients = backward(&grad)?;
            store(&node, grad)?;
            if gradients.len() != operands.len() {
                let message = format!("its derivative gave {} gradients of {}", gradients.len(), operands.len());
                return Err(argument(node.op, message));
            }
            for (operand, gradient) in operands.into_iter().zip(gradients) {
                if let (Some(operand), Some(gradient)) = (operand, gradient) {
                    operand.check(node.op, &gradient)?;
                    give(&mut open, operand, gradient)?;
                }
            }
        }
        Ok(())
    })
}
