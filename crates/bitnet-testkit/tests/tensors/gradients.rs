//! The gradient of every operation: golden cases of floats are called again in f64 with other numbers, and their
//! gradients are compared with central differences. An operation is differentiable, constant, or refused with an error;
//! the last two are listed, so that none is forgotten.

use crate::calls::{self, Args};
use crate::cases::{Case, Group, Input};
use bitnet_core::autograd::{gradients, no_grad};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Operations that take floats and give results that do not depend on their values, or not as floats.
const CONSTANT: &[&str] = &["full_like", "ones_like", "zeros_like"];

/// Operations that say that they are not differentiable: `lu` of matrices that are not square, `svd` with full
/// matrices.
const REFUSED: &[&str] = &["eig", "lu", "svd", "unique"];

/// Those of them that are differentiable elsewhere, which `tests/gradients_linalg.rs` of bitnet-core shows.
pub const PARTLY: &[&str] = &["lu", "svd"];

/// Cases of an operation.
const CASES: usize = 24;
/// Elements of an operand at most.
const ELEMENTS: usize = 120;
/// Half the distance between the points of a difference.
const STEP: f64 = 1e-5;
/// Of a difference, relative to it or absolute.
const TOLERANCE: f64 = 1e-6;

/// Numbers between 0.25 and 0.95, no two equal, in the domain of every function.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        0.25 + 0.7 * (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn tensor(&mut self, dims: &[usize]) -> BitNetTensor {
        let values: Vec<f64> = (0..dims.iter().product()).map(|_| self.next()).collect();
        BitNetTensor::from_slice(&values, dims, &Device::cpu()).unwrap()
    }
}

/// The result of an operation (leaves cannot be changed in place); where `turned`, a transposed view.
fn recorded(leaf: &BitNetTensor, turned: bool) -> BitNetTensor {
    let x = leaf.mul(1.).unwrap();
    if !turned {
        return x;
    }
    let axes: Vec<isize> = (0..x.rank() as isize).rev().collect();
    x.permute(&axes).unwrap().contiguous().unwrap().permute(&axes).unwrap()
}

/// The inputs of a case with each float tensor replaced by the next of `floats`.
fn replaced(inputs: &[Input], floats: &[BitNetTensor]) -> Vec<Input> {
    let mut floats = floats.iter();
    let mut tensor = |x: &BitNetTensor| match x.dtype().is_float() {
        true => floats.next().expect("as many floats").clone(),
        false => x.clone(),
    };
    let one = |input: &Input| match input {
        Input::Tensor(x) => Input::Tensor(tensor(x)),
        Input::List(list) => Input::List(list.iter().map(&mut tensor).collect()),
        Input::Scalar(scalar) => Input::Scalar(*scalar),
    };
    inputs.iter().map(one).collect()
}

fn floats(inputs: &[Input]) -> Vec<&BitNetTensor> {
    let all = inputs.iter().flat_map(|input| match input {
        Input::Tensor(x) => vec![x],
        Input::List(list) => list.iter().collect(),
        Input::Scalar(_) => Vec::new(),
    });
    all.filter(|x| x.dtype().is_float()).collect()
}

/// The outcome of a case.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Differentiable,
    Constant,
    Refused,
}

/// The outcome of a call whose float inputs are recorded; `None` without floats, and if the call is an error.
pub fn kind(case: &Case, inputs: &[Input]) -> Option<Kind> {
    let operand = |x: &&BitNetTensor| {
        let mut leaf = x.detach();
        leaf.requires_grad_(true).unwrap();
        recorded(&leaf, false)
    };
    let operands: Vec<BitNetTensor> = floats(inputs).iter().map(operand).collect();
    match results(case, inputs, &operands)? {
        Ok(_) if operands.is_empty() => None,
        Ok(results) if results.iter().any(BitNetTensor::requires_grad) => Some(Kind::Differentiable),
        Ok(_) => Some(Kind::Constant),
        Err(e) => e.to_string().contains("not differentiable").then_some(Kind::Refused),
    }
}

fn results(case: &Case, inputs: &[Input], values: &[BitNetTensor]) -> Option<Result<Vec<BitNetTensor>>> {
    let (inputs, cpu) = (replaced(inputs, values), Device::cpu());
    calls::call(&case.op, &Args::new(case, &inputs, &cpu))
}

/// The sum of all float results, each element times its own factor.
fn weighed(results: &[BitNetTensor]) -> Result<Option<BitNetTensor>> {
    let mut numbers = Numbers(99);
    let mut sum: Option<BitNetTensor> = None;
    for x in results.iter().filter(|x| x.dtype().is_float() && x.elements() > 0) {
        let part = x.to_dtype(BitNetDType::F64)?.mul(&numbers.tensor(x.dims()))?.sum(.., false)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&part)?,
            None => part,
        });
    }
    Ok(sum)
}

/// Matrices and what they are transposed, added.
fn mirrored(x: &BitNetTensor) -> BitNetTensor {
    x.add(&x.transpose(-2, -1).unwrap()).unwrap()
}

/// Calls a case; `None` if it takes no floats or not these.
fn check(case: &Case, inputs: &[Input], numbers: &mut Numbers) -> Option<Kind> {
    let operands = floats(inputs);
    if operands.is_empty() || operands.iter().any(|x| x.elements() == 0 || x.elements() > ELEMENTS) {
        return None;
    }
    let mut values: Vec<BitNetTensor> = operands.iter().map(|x| numbers.tensor(x.dims())).collect();
    let square = matches!(values[0].dims(), [.., m, n] if m == n);
    if square && ["cond", "det", "inv", "matrix_power", "slogdet", "solve"].contains(&case.op.as_str()) {
        // Far from singular.
        let n = values[0].shape().last();
        values[0].add_(&BitNetTensor::eye(n, BitNetDType::F64, &Device::cpu()).unwrap().mul(2.).unwrap()).unwrap();
    }
    let symmetric = ["cholesky", "eigh"].contains(&case.op.as_str());
    if symmetric {
        // Only one triangle is read; positive definite.
        let n = values[0].shape().last();
        let shift = BitNetTensor::eye(n, BitNetDType::F64, &Device::cpu()).unwrap().mul(2 * n).unwrap();
        values[0] = mirrored(&values[0]).add(&shift).unwrap();
    }
    let mut leaves: Vec<BitNetTensor> = values.iter().map(BitNetTensor::detach).collect();
    for leaf in &mut leaves {
        leaf.requires_grad_(true).unwrap();
    }
    let turned = numbers.next() > 0.6;
    let operands: Vec<BitNetTensor> = leaves.iter().map(|x| recorded(x, turned)).collect();
    let plain = results(case, inputs, &operands.iter().map(BitNetTensor::detach).collect::<Vec<_>>())?.ok()?;
    let outputs = match results(case, inputs, &operands)? {
        Err(e) if e.to_string().contains("not differentiable") => return Some(Kind::Refused),
        outputs => outputs.unwrap_or_else(|e| panic!("{}: {e}", case.describe())),
    };
    for (a, b) in plain.iter().zip(&outputs) {
        assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap(), "{}: recorded or not", case.describe());
    }
    let sum = weighed(&outputs).unwrap()?;
    let no_spread =
        case.op == "std" && outputs[0].eq(0.).unwrap().any(.., false).unwrap().to_bools().unwrap() == [true];
    if !sum.item::<f64>().unwrap().is_finite() || no_spread {
        return None;
    }
    if !sum.requires_grad() {
        return Some(Kind::Constant);
    }
    if outputs.iter().any(|x| x.dtype().is_float() && x.dtype() != BitNetDType::F64) {
        // Rounded to a narrower dtype: differences are meaningless.
        return None;
    }
    let found = gradients(&[&sum], &leaves.iter().collect::<Vec<_>>(), false)
        .unwrap_or_else(|e| panic!("{}: {e}", case.describe()));
    for (place, (gradient, value)) in found.iter().zip(&values).enumerate() {
        let mut direction = numbers.tensor(value.dims()).sub(0.6).unwrap();
        if symmetric {
            direction = mirrored(&direction);
        }
        let at = |step: f64| {
            let mut moved = values.clone();
            moved[place] = value.add(&direction.mul(step).unwrap()).unwrap();
            let results = results(case, inputs, &moved).unwrap().unwrap();
            no_grad(|| weighed(&results)).unwrap().unwrap().item::<f64>().unwrap()
        };
        let expected = (at(STEP) - at(-STEP)) / (2. * STEP);
        let got = match gradient {
            Some(gradient) => gradient.mul(&direction).unwrap().sum(.., false).unwrap().item::<f64>().unwrap(),
            None => 0.,
        };
        let bound = TOLERANCE * expected.abs().max(1.);
        assert!((got - expected).abs() <= bound, "{}: operand {place}: {got}, {expected} expected", case.describe());
    }
    Some(Kind::Differentiable)
}

#[test]
fn every_operation_has_its_gradient_or_says_that_it_has_none() {
    let mut seen: BTreeMap<String, (BTreeSet<Kind>, usize)> = BTreeMap::new();
    let mut faults = Vec::new();
    let folder = bitnet_testkit::golden::folder().join("tensors");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_suffix(".json.gz")?.to_owned()))
        .collect();
    names.sort();
    let mut numbers = Numbers(7);
    for group in names.iter().map(|name| Group::read(name)) {
        for case in group.cases.iter().filter(|case| case.outputs.is_some()) {
            if seen.get(&case.op).is_some_and(|(_, count)| *count == CASES) {
                continue;
            }
            let inputs = group.inputs(case, &Device::cpu()).unwrap();
            match catch_unwind(AssertUnwindSafe(|| check(case, &inputs, &mut numbers))) {
                Ok(Some(kind)) => {
                    let entry = seen.entry(case.op.clone()).or_default();
                    entry.0.insert(kind);
                    entry.1 += 1;
                }
                Ok(None) => {}
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
                    faults.push(format!("{}: {}", case.op, text.unwrap_or_default()));
                }
            }
        }
    }
    faults.sort();
    faults.dedup_by_key(|fault| fault.split(':').next().unwrap_or_default().to_owned());
    assert!(faults.is_empty(), "{} operations: {}", faults.len(), faults.join("\n"));
    let of = |kind: Kind| -> Vec<&str> {
        let whole = |kinds: &BTreeSet<Kind>| kinds.contains(&kind) && (kind != Kind::Constant || kinds.len() == 1);
        seen.iter().filter(|(_, (kinds, _))| whole(kinds)).map(|(op, _)| op.as_str()).collect()
    };
    assert_eq!(of(Kind::Constant), CONSTANT, "constant");
    assert_eq!(of(Kind::Refused), REFUSED, "refused");
    let differentiable = of(Kind::Differentiable);
    let calls: usize = seen.values().map(|(_, count)| count).sum();
    println!("{calls} calls; {} operations with a gradient: {}", differentiable.len(), differentiable.join(" "));
    assert!(differentiable.len() > 100, "{}", differentiable.len());
}
