//! A scope in which operations choose their dtype by a policy, as `torch.autocast`.

use super::{Precision, PrecisionPolicy};
use crate::{BitNetDType, BitNetTensor, Result};
use BitNetDType::{BF16, F16, F32};
use std::borrow::Cow;
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Operations that compute in, and return, the policy's `compute` dtype.
pub const PRODUCTS: [&str; 6] = ["matmul", "mm", "bmm", "mv", "dot", "scaled_dot_product_attention"];

/// Operations sensitive to narrow floats: they compute in, and return, the policy's `accumulation` dtype.
pub const SENSITIVE: [&str; 17] = [
    "softmax",
    "log_softmax",
    "softplus",
    "layer_norm",
    "rms_norm",
    "cross_entropy",
    "mse_loss",
    "kl_div",
    "sum",
    "mean",
    "prod",
    "var",
    "std",
    "norm",
    "logsumexp",
    "cumsum",
    "cumprod",
];

/// Open scopes on all threads: without any, an operation costs one relaxed load.
static OPEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Without a destructor, so that operations of other thread-locals' destructors find it; empty when no scope is open.
    static SCOPES: RefCell<ManuallyDrop<Vec<Scope>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

struct Scope {
    policy: Rc<PrecisionPolicy>,
    precision: Precision,
}

/// Closes a scope on drop, also in a panic.
struct Guard;

impl Guard {
    fn open(scope: Scope) -> Self {
        SCOPES.with_borrow_mut(|scopes| scopes.push(scope));
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        SCOPES.with_borrow_mut(|scopes| {
            scopes.pop();
            if scopes.is_empty() {
                **scopes = Vec::new();
            }
        });
    }
}

/// Runs `f` with the dtypes of `policy` on this thread. f32, f16 and bf16 operands are cast; f64, integers and packed
/// weights are unchanged.
///
/// | operations | dtype |
/// |---|---|
/// | [`PRODUCTS`]: matrix products, attention | `compute` |
/// | [`SENSITIVE`]: reductions, scans, softmax, norms, losses | `accumulation` |
/// | all others | that of their operands, promoted |
///
/// ```
/// use bitnet_core::mixed_precision::{PrecisionPolicy, autocast};
/// use bitnet_core::{BitNetDType::{BF16, F32}, BitNetTensor, Device};
/// let x = BitNetTensor::ones(&[2, 4], BF16, &Device::cpu())?;
/// let y = autocast(&PrecisionPolicy::mixed(BF16)?, || x.softmax(-1))?;
/// assert_eq!(y.dtype(), F32);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
pub fn autocast<R>(policy: &PrecisionPolicy, f: impl FnOnce() -> R) -> R {
    let _guard = Guard::open(Scope { precision: policy.of(""), policy: Rc::new(policy.clone()) });
    f()
}

/// Runs `f` as the layer `name`, with the precision that the scope's policy sets for it. Outside of a scope it only
/// runs `f`.
pub fn in_layer<R>(name: &str, f: impl FnOnce() -> R) -> R {
    let policy = SCOPES.with_borrow(|scopes| scopes.last().map(|scope| scope.policy.clone()));
    let _guard = policy.map(|policy| Guard::open(Scope { precision: policy.of(name), policy }));
    f()
}

/// The dtype in which `op` computes operands of `dtype`; it differs only inside [`autocast`].
#[inline]
pub fn compute_dtype(op: &str, dtype: BitNetDType) -> BitNetDType {
    if OPEN.load(Ordering::Relaxed) == 0 { dtype } else { scope_dtype(op, dtype) }
}

#[cold]
fn scope_dtype(op: &str, dtype: BitNetDType) -> BitNetDType {
    let precision = SCOPES.with_borrow(|scopes| scopes.last().map(|scope| scope.precision));
    match precision {
        Some(precision) if matches!(dtype, F32 | F16 | BF16) => {
            if PRODUCTS.contains(&op) {
                precision.compute
            } else if SENSITIVE.contains(&op) {
                precision.accumulation
            } else {
                dtype
            }
        }
        _ => dtype,
    }
}

/// An operand of `op` in the dtype of the scope.
pub(crate) fn operand<'a>(op: &str, x: &'a BitNetTensor) -> Result<Cow<'a, BitNetTensor>> {
    let dtype = compute_dtype(op, x.dtype());
    Ok(if dtype == x.dtype() { Cow::Borrowed(x) } else { Cow::Owned(x.to_dtype(dtype)?) })
}

/// Optional operands of `op` in the dtype of the scope.
pub(crate) fn operands<'a, const N: usize>(
    op: &str,
    all: [Option<&'a BitNetTensor>; N],
) -> Result<[Option<Cow<'a, BitNetTensor>>; N]> {
    let mut out = [const { None }; N];
    for (out, x) in out.iter_mut().zip(all) {
        *out = x.map(|x| operand(op, x)).transpose()?;
    }
    Ok(out)
}
