//! Every operation, dtype and corner case compared with PyTorch and NumPy: the golden cases on the CPU with each
//! instruction set and on both reference devices. Prints how many cases each operation and dtype had.

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
use bitnet_testkit::{queue_device, reference_device};
use calls::Args;
use cases::{Case, Group, Input};
use std::collections::{BTreeMap, BTreeSet};

/// Operations that the reference devices lack: they return `Unsupported`.
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
    let others = [("reference", reference_device()), ("queue", queue_device())];
    cpus.chain(others.map(|(name, device)| (name.to_string(), device))).collect()
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

/// Why a case does not show what it should.
enum Fault {
    /// The device has no such operation for this dtype.
    Unsupported(BitNetDType),
    Wrong(String),
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

/// An error of the call or the reading of results that `what` names.
fn fault(what: &str) -> impl Fn(BitNetError) -> Fault {
    move |error| match error {
        BitNetError::Unsupported { dtype, .. } => Fault::Unsupported(dtype),
        error => Fault::Wrong(format!("{what}: {error}")),
    }
}

/// The inputs of a case; indices, which are `I64` there, as `I32` for a device without it.
fn inputs(group: &Group, case: &Case, device: &Device) -> bitnet_core::Result<Vec<Input>> {
    let mut inputs = group.inputs(case, device)?;
    let indexed = ["index", "neural"].contains(&group.name.as_str()) && counted_dtype(case, &inputs) != "i64";
    if indexed && !device.has(BitNetDType::I64) {
        for (input, host) in inputs.iter_mut().zip(group.inputs(case, &Device::cpu())?).skip(1) {
            if let Input::Tensor(x) = host
                && x.dtype() == BitNetDType::I64
            {
                *input = Input::Tensor(x.to_dtype(BitNetDType::I32)?.to_device(device)?);
            }
        }
    }
    Ok(inputs)
}

/// Runs one case on a device: the dtype it counts for.
fn check(group: &Group, case: &Case, device: &Device) -> Result<&'static str, Fault> {
    let inputs = inputs(group, case, device).map_err(fault("the input cannot be made"))?;
    let args = Args::new(case, &inputs, device);
    let dtype = counted_dtype(case, &inputs);
    let called = calls::call(&case.op, &args).ok_or_else(|| "no such operation".to_string())?;
    // An error of a queue comes when it is waited for.
    let got = called.and_then(|got| device.synchronize().map(|()| got)).map_err(fault("error"));
    let got = match (got, &case.outputs) {
        (Err(Fault::Wrong(_)), None) => return Ok(dtype),
        (Ok(got), None) => {
            return Err(format!("an error is due, got {:?} {}", got[0].dims(), got[0].dtype()).into());
        }
        (got, _) => got?,
    };
    results(group, case, &got)?;
    other_forms(group, case, &args, &got)?;
    Ok(dtype)
}

fn results(group: &Group, case: &Case, got: &[BitNetTensor]) -> Result<(), Fault> {
    let expected = case.outputs.as_ref().expect("outputs");
    if got.len() != expected.len() {
        return Err(format!("{} results, expected {}", got.len(), expected.len()).into());
    }
    for (i, (got, (data, dims))) in got.iter().zip(expected).enumerate() {
        let bytes = got.to_bytes().map_err(fault("a result cannot be read"))?;
        if let Some(difference) = agree::difference(got, &bytes, &group.data[*data], dims, case.tolerance) {
            return Err(format!("result {i}: {difference}").into());
        }
    }
    Ok(())
}

/// The in-place and `_into` forms: the same result to the last bit, other tensors that share the storage unchanged.
fn other_forms(group: &Group, case: &Case, args: &Args, got: &[BitNetTensor]) -> Result<(), Fault> {
    let ([Input::Tensor(first), ..], [result]) = (args.inputs, got) else { return Ok(()) };
    let bytes = |t: &BitNetTensor| t.to_bytes().map_err(fault("cannot be read"));
    let expected = bytes(result)?;
    if first.dims() == result.dims() && first.dtype() == result.dtype() {
        let before = bytes(first)?;
        // Once sharing its storage, once alone and contiguous.
        for mut x in [first.clone(), first.copy().map_err(fault("copy"))?] {
            match calls::call_in_place(&case.op, args, &mut x) {
                None => break,
                Some(Err(e)) => return Err(fault("in place")(e)),
                Some(Ok(())) if bytes(&x)? != expected => {
                    results(group, case, &[x])?;
                    return Err("in place: within the tolerance, but not what it is out of place".to_string().into());
                }
                Some(Ok(())) => {}
            }
        }
        if bytes(first)? != before {
            return Err("in place changed a tensor that shares the storage".to_string().into());
        }
    }
    let mut out = BitNetTensor::empty(result.dims(), result.dtype(), args.device).map_err(fault("empty"))?;
    match calls::call_into(&case.op, args, &mut out) {
        Some(Err(e)) => return Err(fault("into")(e)),
        Some(Ok(())) if bytes(&out)? != expected => {
            return Err("into: not what it is out of place".to_string().into());
        }
        _ => {}
    }
    Ok(())
}

/// Runs a group everywhere and fails with the first wrong cases of each operation; on a device that lacks dtypes at least
/// `least` cases must run.
fn run(name: &str, least: usize) {
    let group = Group::read(name);
    let mut wrong: BTreeMap<(String, String), (usize, Vec<String>)> = BTreeMap::new();
    let mut counts: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut lacking = BTreeSet::new();
    let devices = devices();
    for (number, (device_name, device)) in devices.iter().enumerate() {
        let (mut right, mut skipped) = (0, 0);
        for (i, case) in group.cases.iter().enumerate() {
            if NOT_YET.contains(&case.op.as_str()) {
                continue;
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&group, case, device)))
                .unwrap_or_else(|_| Err(Fault::Wrong("panicked".into())));
            let why = match outcome {
                Ok(dtype) => {
                    right += 1;
                    if number == 0 {
                        *counts.entry(&case.op).or_default().entry(dtype).or_default() += 1;
                    }
                    continue;
                }
                Err(Fault::Unsupported(dtype)) if !device.has(dtype) => {
                    skipped += 1;
                    continue;
                }
                Err(Fault::Unsupported(_)) if !device.is_host() && HOST_ONLY.contains(&&*case.op) => {
                    lacking.insert(&*case.op);
                    continue;
                }
                Err(Fault::Unsupported(dtype)) => format!("not supported for {dtype}"),
                Err(Fault::Wrong(why)) => why,
            };
            let entry = wrong.entry((case.op.clone(), device_name.clone())).or_default();
            entry.0 += 1;
            entry.1.push(format!("{}#{i} {}: {why}", group.name, case.describe()));
        }
        println!("{name} on {device_name}: {right} cases right, {skipped} of a dtype that it lacks");
        if skipped > 0 && right < least {
            let why = format!("{right} cases ran, {least} are due");
            wrong.insert(("all".into(), device_name.clone()), (skipped, vec![why]));
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
    ($($name:ident $least:literal),*) => { $(#[test] fn $name() { run(stringify!($name), $least); })* };
}
groups!(
    elementwise 1750,
    binary 1000,
    compare 450,
    promotion 1250,
    reduce 2200,
    scan 250,
    index 950,
    shape 1350,
    sort 1100,
    linalg 450,
    neural 480
);

#[test]
fn nothing_is_missing() {
    assert!(NOT_YET.is_empty(), "not written yet: {NOT_YET:?}");
}
