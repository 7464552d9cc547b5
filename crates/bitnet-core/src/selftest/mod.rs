//! Cases of every operation, for comparing a device with another: by the conformance suite, and by `bitnet selftest` on a user's
//! machine.

mod inference;
mod primitives;
mod training;

use crate::backend::{
    ActivationRule, AdamStep, BinaryOp, CausalShape, CompareOp, DeltaGates, DeltaShape, Distribution, GateActivation,
    KvPages, KvPagesMut, KvRows, QuantizedActivations, ReduceOp, SampleRow, SampleRows, ScanOp, ScatterOp, StateRows,
    TensorMut, TensorRef, TernarySource, UnaryOp, summed,
};
use crate::device::Isa;
use crate::{BitNetDType, BitNetError, BitNetTensor, Device, Layout, Result, TensorOpError, TensorShape};
use half::f16;

/// An operation with operands of fixed values.
pub struct Case {
    /// What it does.
    pub name: String,
    /// Largest difference of two devices, relative to the largest value.
    pub bound: f32,
    body: Box<Body>,
}

type Body = dyn Fn(&Device) -> Result<Vec<f32>>;

impl Case {
    /// Its results on a device, which may lack a dtype that the case needs
    /// ([`BitNetError::Unsupported`]).
    pub fn run(&self, device: &Device) -> Result<Vec<f32>> {
        (self.body)(device)
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} within {:e}", self.name, self.bound)
    }
}

/// All cases; together they run every operation.
pub fn cases() -> Vec<Case> {
    let mut cases = Cases(Vec::new());
    primitives::all(&mut cases);
    inference::all(&mut cases);
    training::all(&mut cases);
    cases.0
}

/// Largest difference of results from the expected ones, relative to the largest of these; infinite for another number of them
/// or a NaN.
pub fn difference(got: &[f32], expected: &[f32]) -> f32 {
    if got.len() != expected.len() {
        return f32::INFINITY;
    }
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let apart = |(g, e): (&f32, &f32)| if g == e { 0. } else { (g - e).abs() / largest };
    got.iter().zip(expected).map(apart).fold(0., |m, d| {
        if d <= m {
            m
        } else if d.is_nan() {
            f32::INFINITY
        } else {
            d
        }
    })
}

/// An error unless the devices and instruction sets that the environment asks for are present: `BITNET_REQUIRE_DEVICES` such as
/// `cuda:0,vulkan`, `BITNET_REQUIRE_ISA` such as `avx512`. For test machines, where absence must not pass in silence.
pub fn require() -> Result<()> {
    let asked = |name: &str| std::env::var(name).unwrap_or_default();
    let words = |list: &str| -> Vec<String> {
        list.split(',').map(|word| word.trim().to_string()).filter(|word| !word.is_empty()).collect()
    };
    for device in words(&asked("BITNET_REQUIRE_DEVICES")) {
        Device::named(&device)?;
    }
    let present = Isa::available();
    for isa in words(&asked("BITNET_REQUIRE_ISA")) {
        if !present.iter().any(|known| known.name() == isa) {
            let known: Vec<_> = present.iter().map(|isa| isa.name()).collect();
            let message = format!("BITNET_REQUIRE_ISA asks for {isa}; this CPU has {}", known.join(", "));
            return Err(BitNetError::NoDevice(message));
        }
    }
    Ok(())
}

struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, name: impl Into<String>, bound: f32, body: impl Fn(&Device) -> Result<Vec<f32>> + 'static) {
        self.0.push(Case { name: name.into(), bound, body: Box::new(body) });
    }
}

/// Numbers between -1 and 1, the same for equal seeds.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.
    };
    (0..count).map(|_| next()).collect()
}

fn tensor(device: &Device, dims: &[usize], seed: u64) -> Result<BitNetTensor> {
    BitNetTensor::from_slice(&noise(dims.iter().product(), seed), dims, device)
}

fn out(device: &Device, dims: &[usize]) -> Result<BitNetTensor> {
    BitNetTensor::empty(dims, BitNetDType::F32, device)
}
