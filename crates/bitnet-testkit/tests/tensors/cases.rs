//! The golden cases: `golden/tensors/*.json.gz`, in the format described in `golden/tensor_cases/common.py`.

use bitnet_core::{BitNetDType, BitNetTensor, Device, Result, Scalar};
use flate2::read::GzDecoder;
use serde_json::Value;
use std::io::Read;

/// A file of cases.
pub struct Group {
    pub name: String,
    pub data: Vec<Data>,
    pub cases: Vec<Case>,
}

/// The elements of a tensor: a pattern that repeats.
pub struct Data {
    pub dtype: BitNetDType,
    pattern: Vec<u8>,
    count: usize,
}

/// One call and its expected results.
pub struct Case {
    pub op: String,
    pub attrs: Value,
    inputs: Vec<Value>,
    /// Data and shape of each output; `None` if an error is expected.
    pub outputs: Option<Vec<(usize, Vec<usize>)>>,
    pub tolerance: Tolerance,
}

/// Tolerance of an element.
#[derive(Clone, Copy)]
pub struct Tolerance {
    /// Units in the last place of the dtype.
    pub ulps: f64,
    /// Or this absolute difference.
    pub absolute: f64,
    /// Whether the sign of zero counts.
    pub zeros: bool,
}

/// The arguments of a call.
pub enum Input {
    Tensor(BitNetTensor),
    Scalar(Scalar),
    List(Vec<BitNetTensor>),
}

impl Group {
    pub fn read(name: &str) -> Self {
        let path = bitnet_testkit::golden::folder().join(format!("tensors/{name}.json.gz"));
        let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut text = String::new();
        GzDecoder::new(file).read_to_string(&mut text).expect("golden data is gzip");
        let json: Value = serde_json::from_str(&text).expect("golden data is JSON");
        let list = |key: &str| json[key].as_array().expect("a list").iter();
        Self {
            name: name.into(),
            data: list("data").map(Data::read).collect(),
            cases: list("cases").map(Case::read).collect(),
        }
    }

    /// The inputs of a case as tensors of a device.
    pub fn inputs(&self, case: &Case, device: &Device) -> Result<Vec<Input>> {
        case.inputs.iter().map(|input| self.input(input, device)).collect()
    }

    fn input(&self, input: &Value, device: &Device) -> Result<Input> {
        if let Some(list) = input["l"].as_array() {
            let tensors = list.iter().map(|t| self.tensor(t, device)).collect::<Result<_>>()?;
            return Ok(Input::List(tensors));
        }
        if input["d"].is_null() {
            return Ok(Input::Scalar(scalar(input)));
        }
        self.tensor(input, device).map(Input::Tensor)
    }

    fn tensor(&self, input: &Value, device: &Device) -> Result<BitNetTensor> {
        let data = &self.data[number(&input["d"]) as usize];
        let storage = BitNetTensor::from_bytes(&data.bytes(), &sizes(&input["s"]), data.dtype, device)?;
        let steps = input["v"].as_array().map_or(&[][..], Vec::as_slice);
        steps.iter().try_fold(storage, |x, step| view(&x, step))
    }
}

impl Data {
    fn read(json: &Value) -> Self {
        let hex = json["x"].as_str().expect("hex").as_bytes();
        let digit = |c: u8| (c as char).to_digit(16).expect("a hex digit") as u8;
        Self {
            dtype: dtype(json["t"].as_str().expect("a dtype")),
            pattern: hex.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect(),
            count: number(&json["n"]) as usize,
        }
    }

    /// All elements, little-endian.
    pub fn bytes(&self) -> Vec<u8> {
        self.pattern.iter().copied().cycle().take(self.count * self.dtype.block().1).collect()
    }
}

impl Case {
    fn read(json: &Value) -> Self {
        let output = |o: &Value| (number(&o["d"]) as usize, sizes(&o["s"]));
        let part = |i: usize| json["t"][i].as_f64().unwrap_or(0.);
        Self {
            op: json["op"].as_str().expect("an operation").into(),
            attrs: json["a"].clone(),
            inputs: json["i"].as_array().expect("inputs").clone(),
            outputs: json["o"].as_array().map(|list| list.iter().map(output).collect()),
            tolerance: Tolerance { ulps: part(0), absolute: part(1), zeros: part(2) != 0. },
        }
    }

    /// Operation, attributes and inputs in readable form.
    pub fn describe(&self) -> String {
        let inputs: Vec<_> = self.inputs.iter().map(Value::to_string).collect();
        format!("{} {} of {}", self.op, self.attrs, inputs.join(", "))
    }
}

pub fn dtype(name: &str) -> BitNetDType {
    *BitNetDType::ALL.iter().find(|d| d.name() == name).unwrap_or_else(|| panic!("no dtype {name}"))
}

pub fn number(json: &Value) -> isize {
    json.as_i64().unwrap_or_else(|| panic!("{json} is not a whole number")) as isize
}

pub fn numbers(json: &Value) -> Vec<isize> {
    json.as_array().unwrap_or_else(|| panic!("{json} is not a list")).iter().map(number).collect()
}

pub fn sizes(json: &Value) -> Vec<usize> {
    numbers(json).into_iter().map(|n| n as usize).collect()
}

fn scalar(json: &Value) -> Scalar {
    let value = &json["c"];
    match json["k"].as_str().expect("a kind of scalar") {
        "bool" => Scalar::Bool(value.as_bool().expect("a bool")),
        "int" => Scalar::Int(number(value) as i64),
        _ => {
            Scalar::Float(value.as_f64().unwrap_or_else(|| value.as_str().expect("a float").parse().expect("a float")))
        }
    }
}

/// One step from a storage to the view of it that a case takes.
fn view(x: &BitNetTensor, step: &Value) -> Result<BitNetTensor> {
    let at = |i: usize| number(&step[i]);
    match step[0].as_str().expect("a view") {
        "permute" => x.permute(&numbers(&step[1])),
        "slice" => x.slice(at(1), at(2), at(3), at(4)),
        "narrow" => x.narrow(at(1), at(2) as usize, at(3) as usize),
        "flip" => x.flip(&numbers(&step[1])),
        "expand" => x.expand(&sizes(&step[1])),
        "unfold" => x.unfold(at(1), at(2) as usize, at(3) as usize),
        "unsqueeze" => x.unsqueeze(at(1)),
        "select" => x.select(at(1), at(2)),
        "diagonal" => x.diagonal(at(1), at(2), at(3)),
        other => panic!("no view {other}"),
    }
}
