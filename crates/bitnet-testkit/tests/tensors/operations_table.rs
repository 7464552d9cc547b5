//! `docs/operations.md` matches the code: every public method of `BitNetTensor` is in its tables, and dtypes, devices
//! and copies are measured by running the golden cases.
//!
//! `BITNET_UPDATE=1 cargo test -p bitnet-testkit --test tensors operations_table` regenerates the tables.

use crate::calls::{self, Args};
use crate::cases::{self, Case, Group, Input};
use crate::gradients::{self, Kind};
use crate::methods::{self, Method, Section};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Result};
use bitnet_testkit::reference_device;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const START: &str =
    "<!-- The tables: written by `BITNET_UPDATE=1 cargo test -p bitnet-testkit --test tensors operations_table`. -->\n";

/// Methods and their PyTorch names, made by `golden/make_torch_names.py`.
const TORCH: &str = include_str!("../../golden/torch_names.txt");

/// Measured support of an operation by the golden cases.
#[derive(Default)]
struct Support {
    /// For each device the dtypes of the first tensor for which a call succeeded.
    dtypes: [BTreeSet<&'static str>; 2],
    /// Calls whose results all share the storage of an operand, and all calls.
    views: usize,
    calls: usize,
    /// Outcomes of recorded calls of floats.
    gradients: BTreeSet<Kind>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn groups() -> Vec<Group> {
    let folder = bitnet_testkit::golden::folder().join("tensors");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter_map(|file| Some(file.strip_suffix(".json.gz")?.to_owned())).collect();
    names.sort();
    names.iter().map(|name| Group::read(name)).collect()
}

/// Tensors among the inputs.
fn tensors(inputs: &[Input]) -> Vec<&BitNetTensor> {
    let mut tensors = Vec::new();
    for input in inputs {
        match input {
            Input::Tensor(tensor) => tensors.push(tensor),
            Input::List(list) => tensors.extend(list),
            Input::Scalar(_) => {}
        }
    }
    tensors
}

/// The dtype that a case counts for: that of its first tensor that is not a mask, or the requested one.
fn shown(case: &Case, inputs: &[Input]) -> Option<BitNetDType> {
    let mask = usize::from(case.op == "where_");
    let first = tensors(inputs).get(mask).map(|t| t.dtype());
    first.or_else(|| case.attrs["dtype"].as_str().map(cases::dtype))
}

/// The inputs with elements of `from` cast to `to`.
fn cast(inputs: &[Input], from: BitNetDType, to: BitNetDType) -> Result<Vec<Input>> {
    let tensor = |x: &BitNetTensor| if x.dtype() == from { x.to_dtype(to) } else { Ok(x.clone()) };
    let one = |input: &Input| match input {
        Input::Tensor(x) => tensor(x).map(Input::Tensor),
        Input::List(list) => list.iter().map(tensor).collect::<Result<_>>().map(Input::List),
        Input::Scalar(scalar) => Ok(Input::Scalar(*scalar)),
    };
    inputs.iter().map(one).collect()
}

/// Calls every golden case that must succeed, then tries the dtypes that no case of an operation has.
fn observe() -> BTreeMap<String, Support> {
    let mut seen: BTreeMap<String, Support> = BTreeMap::new();
    let devices = [Device::cpu(), reference_device()];
    let groups = groups();
    for group in &groups {
        for case in group.cases.iter().filter(|case| case.outputs.is_some()) {
            for (place, device) in devices.iter().enumerate() {
                let inputs = group.inputs(case, device).unwrap();
                let Some(Ok(results)) = calls::call(&case.op, &Args::new(case, &inputs, device)) else { continue };
                let seen = seen.entry(case.op.clone()).or_default();
                if place == 0 {
                    seen.gradients.extend(gradients::kind(case, &inputs));
                }
                seen.dtypes[place].extend(shown(case, &inputs).map(BitNetDType::name));
                let operands = tensors(&inputs);
                // An empty tensor has no bytes to copy.
                if results.iter().all(|result| result.elements() > 0) && !operands.is_empty() {
                    seen.calls += 1;
                    let shares = |result: &BitNetTensor| operands.iter().any(|x| x.shares_storage(result));
                    seen.views += usize::from(results.iter().all(shares));
                }
            }
        }
    }
    let mut tries: BTreeMap<(&str, &str, usize), usize> = BTreeMap::new();
    for group in &groups {
        for case in group.cases.iter().filter(|case| case.outputs.is_some()) {
            let Some(seen) = seen.get_mut(&case.op) else { continue };
            for (place, device) in devices.iter().enumerate() {
                let inputs = group.inputs(case, device).unwrap();
                let Some(from) = shown(case, &inputs) else { continue };
                for to in BitNetDType::ALL.into_iter().filter(|d| !d.is_packed()) {
                    let tries = tries.entry((&case.op, to.name(), place)).or_default();
                    if seen.dtypes[place].contains(to.name()) || *tries == TRIES {
                        continue;
                    }
                    *tries += 1;
                    let Ok(inputs) = cast(&inputs, from, to) else { continue };
                    if shown(case, &inputs) == Some(to)
                        && let Some(Ok(_)) = calls::call(&case.op, &Args::new(case, &inputs, device))
                    {
                        seen.dtypes[place].insert(to.name());
                    }
                }
            }
        }
    }
    seen
}

/// An operation that refuses a dtype this many times does not support it.
const TRIES: usize = 20;

impl Support {
    fn devices(&self) -> String {
        let [cpu, reference] = &self.dtypes;
        match (cpu == reference, cpu.difference(reference).next(), reference.is_empty()) {
            (true, ..) => "all".into(),
            (_, _, true) => "cpu".into(),
            (_, Some(_), _) => format!("all; only the cpu: {}", names(&(cpu - reference))),
            _ => format!("all; not the cpu: {}", names(&(reference - cpu))),
        }
    }

    fn gradient(&self, op: &str) -> &'static str {
        use Kind::*;
        if gradients::PARTLY.contains(&op) {
            return "yes; some refused";
        }
        let [differentiable, refused] = [Differentiable, Refused].map(|kind| self.gradients.contains(&kind));
        match (differentiable, refused) {
            (true, false) => "yes",
            (true, true) => "yes; some refused",
            (false, true) => "refused",
            (false, false) if self.gradients.is_empty() => "",
            (false, false) => "constant",
        }
    }

    fn copies(&self) -> &'static str {
        match self.views {
            _ if self.calls == 0 => "",
            0 => "new",
            views if views == self.calls => "view",
            _ => "view where it can be",
        }
    }
}

/// A set of dtypes in words.
fn names(dtypes: &BTreeSet<&'static str>) -> String {
    const FLOATS: [&str; 4] = ["f64", "f32", "f16", "bf16"];
    const INTEGERS: [&str; 8] = ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"];
    let mut rest = dtypes.clone();
    let mut words: Vec<String> = Vec::new();
    for (word, members) in [("floats", &FLOATS[..]), ("integers", &INTEGERS[..])] {
        if members.iter().all(|name| rest.contains(name)) {
            rest.retain(|name| !members.contains(name));
            words.push(word.into());
        }
    }
    words.extend(rest.iter().map(|name| name.to_string()));
    match words.join(", ").as_str() {
        "floats, integers, bool" => "all".into(),
        words => words.into(),
    }
}

/// The other forms of a method: in place and into a tensor.
const FORMS: [&str; 2] = ["_", "_into"];

/// The tables of all sections.
fn tables(sections: &[Section], seen: &BTreeMap<String, Support>) -> String {
    let all: BTreeSet<&str> = sections.iter().flat_map(|s| &s.methods).map(|m| m.name.as_str()).collect();
    let is_form = |name: &str| FORMS.iter().any(|form| name.strip_suffix(form).is_some_and(|base| all.contains(base)));
    let torch: BTreeMap<&str, &str> = TORCH.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut text = START.to_owned();
    for section in sections {
        let rows: Vec<&Method> = section.methods.iter().filter(|m| !is_form(&m.name)).collect();
        text += &format!("\n## {}\n\n`{}`\n\n", section.title, section.file);
        text += "| method | PyTorch | other forms | dtypes | devices | gradient | result | what it gives |\n|---|---|---|---|---|---|---|---|\n";
        for method in rows {
            let forms = FORMS.iter().map(|form| format!("{}{form}", method.name)).filter(|f| all.contains(f.as_str()));
            let forms: Vec<String> = forms.map(|form| format!("`{form}`")).collect();
            let (dtypes, devices, gradient, copies) = seen.get(&method.name).map_or_else(Default::default, |seen| {
                (
                    names(&(&seen.dtypes[0] | &seen.dtypes[1])),
                    seen.devices(),
                    seen.gradient(&method.name),
                    seen.copies(),
                )
            });
            let copies = if method.mutates { "in place" } else { copies };
            let torch = torch.get(method.name.as_str()).copied().or(method.torch.as_deref());
            let torch = torch.map_or_else(String::new, |name| format!("`{name}`"));
            let summary = method.summary.replace('|', "\\|");
            let name = format!("`{}`", method.name);
            let cells = [name, torch, forms.join(" "), dtypes, devices, gradient.into(), copies.into(), summary];
            text += &format!("| {} |\n", cells.join(" | "));
        }
    }
    text
}

#[test]
fn the_table_says_what_the_code_does() {
    let sections = methods::sections(&folder().join("crates/bitnet-core/src"));
    let seen = observe();
    let path = folder().join("docs/operations.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (front, written) = document.split_at(document.find(START).expect("the line above the tables"));
    let tables = tables(&sections, &seen);
    if std::env::var_os("BITNET_UPDATE").is_some() {
        std::fs::write(&path, format!("{front}{tables}")).unwrap();
        return;
    }
    let [old, new] = [written, &tables].map(|text| text.lines().collect::<BTreeSet<_>>());
    let lines = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| (a - b).into_iter().collect::<Vec<_>>().join("\n");
    assert!(
        written == tables,
        "docs/operations.md is out of date; BITNET_UPDATE=1 writes it anew\nonly there:\n{}\nonly in the code:\n{}",
        lines(&old, &new),
        lines(&new, &old),
    );
}

/// The parser finds known methods in each form in which they are written.
#[test]
fn methods_are_found() {
    let sections = methods::sections(&folder().join("crates/bitnet-core/src"));
    let find = |name: &str| {
        let mut all = sections.iter().flat_map(|s| s.methods.iter());
        all.find(|m| m.name == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    for name in ["reshape", "cat", "exp", "exp_", "exp_into", "add_into", "eq", "sum", "to_dtype", "clamp_", "zeros"] {
        assert!(!find(name).summary.is_empty(), "{name}");
    }
    assert_eq!(find("add").torch.as_deref(), Some("torch.add"));
    assert_eq!(find("exp").summary, "`e^x`");
    assert!(find("fill_").mutates && !find("full").mutates);
}
