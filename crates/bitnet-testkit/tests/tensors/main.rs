//! Every operation, dtype and corner case compared with PyTorch and NumPy: the golden cases on the CPU with each
//! instruction set and on the reference device. Prints how many cases each operation and dtype had.

mod agree;
mod calls;
mod cases;
mod gradients;
mod indices;
mod linear;
mod methods;
mod networks;
mod operations_table;
mod reductions;
mod searches;
mod views;

use bitnet_core::{BitNetDType, BitNetError, BitNetTensor, Device};
use bitnet_kernels::Isa;
use bitnet_testkit::reference_device;
use calls::Args;
use cases::{Case, Group, Input};
use std::collections::{BTreeMap, BTreeSet};

/// Operations that the reference device lacks: it returns `Unsupported`.
const HOST_ONLY: &[&str] = &[
    "cholesky",
    "cond",
    "det",
    "eig",
    "eigh",
    "inv",
    "lstsq",
    "lu",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
];

/// Operations that are not written yet.
const NOT_YET: &[&str] = &[];

fn devices() -> Vec<(String, Device)> {
    let cpus = Isa::available().into_iter().map(|isa| (format!("cpu {isa}"), Device::cpu_with_isa(isa, 2).unwrap()));
    cpus.chain([("reference".to_string(), reference_device())]).collect()
}

/// The dtype that a case counts for: that of its first tensor that is not a mask.
fn counted_dtype(case: &Case, inputs: &[Input]) -> &'static str {
    let tensors = inputs.iter().filter_map(|input| match input {
        Input::Tensor(t) => Some(t.dtype()),
        Input::List(list) => list.first().map(BitNetTensor::dtype),
        Input::Scalar(_) => None,
    });
    let masks_last = tensors.reduce(|first, next| if first == BitNetDType::Bool { next } else { first });
    let created = || case.attrs["dtype"].as_str().map(cases::dtype);
    masks_last.or_else(created).map_or("none", BitNetDType::name)
}

/// Runs one case on a device: the dtype it counts for, or what is wrong; `None` if the device lacks the operation.
fn check(group: &Group, case: &Case, device: &Device) -> Result<Option<&'static str>, String> {
    let inputs = group.inputs(case, device).map_err(|e| format!("the input cannot be made: {e}"))?;
    let args = Args::new(case, &inputs, device);
    let dtype = counted_dtype(case, &inputs);
    let Some(got) = calls::call(&case.op, &args) else {
        return Err("no such operation".into());
    };
    let got = match (got, &case.outputs) {
        (Err(BitNetError::Unsupported { .. }), _) => return Ok(None),
        (Err(_), None) => return Ok(Some(dtype)),
        (Err(e), Some(_)) => return Err(format!("error: {e}")),
        (Ok(got), None) => return Err(format!("an error is due, got {:?} {}", got[0].dims(), got[0].dtype())),
        (Ok(got), Some(_)) => got,
    };
    results(group, case, &got)?;
    other_forms(group, case, &args, &got)?;
    Ok(Some(dtype))
}

fn results(group: &Group, case: &Case, got: &[BitNetTensor]) -> Result<(), String> {
    let expected = case.outputs.as_ref().expect("outputs");
    if got.len() != expected.len() {
        return Err(format!("{} results, expected {}", got.len(), expected.len()));
    }
    for (i, (got, (data, dims))) in got.iter().zip(expected).enumerate() {
        if let Some(difference) = agree::difference(got, &group.data[*data], dims, case.tolerance) {
            return Err(format!("result {i}: {difference}"));
        }
    }
    Ok(())
}

/// The in-place and `_into` forms: the same result to the last bit, other tensors that share the storage unchanged.
fn other_forms(group: &Group, case: &Case, args: &Args, got: &[BitNetTensor]) -> Result<(), String> {
    let ([Input::Tensor(first), ..], [result]) = (args.inputs, got) else { return Ok(()) };
    let bytes = |t: &BitNetTensor| t.to_bytes().map_err(|e| e.to_string());
    let expected = bytes(result)?;
    if first.dims() == result.dims() && first.dtype() == result.dtype() {
        let before = bytes(first)?;
        // Once sharing its storage, once alone and contiguous.
        for mut x in [first.clone(), first.copy().map_err(|e| e.to_string())?] {
            match calls::call_in_place(&case.op, args, &mut x) {
                None => break,
                Some(Err(e)) => return Err(format!("in place: {e}")),
                Some(Ok(())) if bytes(&x)? != expected => {
                    results(group, case, &[x]).map_err(|e| format!("in place: {e}"))?;
                    return Err("in place: within the tolerance, but not what it is out of place".into());
                }
                Some(Ok(())) => {}
            }
        }
        if bytes(first)? != before {
            return Err("in place changed a tensor that shares the storage".into());
        }
    }
    let mut out = BitNetTensor::empty(result.dims(), result.dtype(), args.device).map_err(|e| e.to_string())?;
    match calls::call_into(&case.op, args, &mut out) {
        Some(Err(e)) => return Err(format!("into: {e}")),
        Some(Ok(())) if bytes(&out)? != expected => return Err("into: not what it is out of place".into()),
        _ => {}
    }
    Ok(())
}

/// Runs a group everywhere and fails with the first wrong cases of each operation.
fn run(name: &str) {
    let group = Group::read(name);
    let mut wrong: BTreeMap<(String, String), (usize, Vec<String>)> = BTreeMap::new();
    let mut counts: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut lacking = BTreeSet::new();
    let devices = devices();
    for (number, (device_name, device)) in devices.iter().enumerate() {
        for (i, case) in group.cases.iter().enumerate() {
            if NOT_YET.contains(&case.op.as_str()) {
                continue;
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&group, case, device)))
                .unwrap_or_else(|_| Err("panicked".into()));
            match outcome {
                Ok(Some(dtype)) if number == 0 => *counts.entry(&case.op).or_default().entry(dtype).or_default() += 1,
                Ok(Some(_)) => {}
                Ok(None) if !device.is_host() && HOST_ONLY.contains(&&*case.op) => _ = lacking.insert(&*case.op),
                outcome => {
                    let why = outcome.err().unwrap_or_else(|| "not supported".into());
                    let entry = wrong.entry((case.op.clone(), device_name.clone())).or_default();
                    entry.0 += 1;
                    entry.1.push(format!("{}#{i} {}: {why}", group.name, case.describe()));
                }
            }
        }
    }
    println!("{name}: {} cases on {} devices", group.cases.len(), devices.len());
    for (op, dtypes) in &counts {
        let each: Vec<_> = dtypes.iter().map(|(dtype, n)| format!("{dtype} {n}")).collect();
        println!("  {op:28} {}", each.join(", "));
    }
    let mut report = String::new();
    let mut last = "";
    for ((op, device), (count, messages)) in &wrong {
        report += &format!("{op} on {device}: {count} cases\n");
        // Those of the first device are enough.
        for message in messages.iter().take(if op == last { 1 } else { 5 }) {
            report += &format!("    {message}\n");
        }
        last = op;
    }
    assert!(wrong.is_empty(), "{name}: wrong cases\n{report}");
    let named = HOST_ONLY.iter().copied().filter(|op| counts.contains_key(op)).collect();
    assert_eq!(lacking, named, "{name}: what the reference device lacks is not what HOST_ONLY says");
}

macro_rules! groups {
    ($($name:ident),*) => { $(#[test] fn $name() { run(stringify!($name)); })* };
}
groups!(elementwise, binary, compare, promotion, reduce, scan, index, shape, sort, linalg, neural);

#[test]
fn nothing_is_missing() {
    assert!(NOT_YET.is_empty(), "not written yet: {NOT_YET:?}");
}
