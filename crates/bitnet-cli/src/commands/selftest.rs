//! `bitnet selftest`: a device checked against the CPU, as a report to paste.

use crate::error::{CliError, Result};
use crate::output;
use bitnet::core::device::{Isa, cpu_capabilities};
use bitnet::core::selftest::{self, Case};
use bitnet::core::{AttentionOptions, BitNetDType, BitNetError, BitNetTensor, Device, DeviceCapabilities, Generator};
use bitnet::inference::{Model, Session};
use bitnet::model::Config;
use bitnet::model::checkpoint::RandomWeights;
use bitnet::model::config::{Architecture, Block, HiddenAct, QuantizationConfig, RopeConfig, RopeScaling};
use bitnet::quant::{ActivationBuffer, ActivationRule, PackedBitLinear, TernaryCodes};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time of each speed test.
const TIME: Duration = Duration::from_millis(200);
/// Largest difference of logits: an 8-bit activation at a rounding boundary may fall the other way.
const LOGITS: f32 = 2e-2;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet selftest
  bitnet selftest --device cuda:0 --json

The CPU is checked against its own scalar kernels, any other device against the CPU. Ends with status 1 where a result \
differs. BITNET_REQUIRE_DEVICES=cuda:0,.. and BITNET_REQUIRE_ISA=avx512,.. make it an error that one is absent.")]
pub struct SelftestArgs {
    /// The device: cpu, cuda:0, metal:0, vulkan:0 or mlx
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: SelftestArgs) -> Result<()> {
    selftest::require()?;
    cpu_capabilities()?;
    let device = Device::named(&args.device)?;
    let reference = if device == Device::cpu() { Device::cpu_with_isa(Isa::Scalar, 1)? } else { Device::cpu() };
    let report = Report {
        outcomes: selftest::cases().iter().map(|case| compare(case, &device, &reference)).collect(),
        logits: difference_of_logits(&device, &reference)?,
        speeds: speeds(&device)?,
        transfer: transfer(&device)?,
        device,
        reference,
    };
    if args.json {
        output::json(&report.json())?
    } else {
        output::text(&report.text())?
    }
    if report.agrees() { Ok(()) } else { Err(CliError::refused("this device gives wrong results: do not use it")) }
}

/// What became of a case.
enum Outcome {
    Agrees,
    /// The device says that it lacks what the case needs.
    Lacks(String),
    Differs(String),
}

fn compare(case: &Case, device: &Device, reference: &Device) -> Outcome {
    let expected = match case.run(reference) {
        Ok(expected) => expected,
        Err(error) => return Outcome::Differs(format!("{} on {}: {error}", case.name, reference.kernel())),
    };
    match case.run(device) {
        Ok(got) => match selftest::difference(&got, &expected) {
            difference if difference <= case.bound => Outcome::Agrees,
            difference => Outcome::Differs(format!("{}: {difference:.1e}, at most {:.0e}", case.name, case.bound)),
        },
        Err(BitNetError::Unsupported { dtype, .. }) if !device.has(dtype) => Outcome::Lacks(dtype.to_string()),
        Err(error) => Outcome::Differs(format!("{}: {error}", case.name)),
    }
}

/// Largest difference of the logits of a small model of random weights over a prompt and a few tokens after it.
fn difference_of_logits(device: &Device, reference: &Device) -> Result<f32> {
    let weights = RandomWeights::new(config(), 0);
    let logits = |device: &Device| -> Result<Vec<f32>> {
        let mut session = Session::new(Arc::new(Model::load(&weights, device, |_, _| {})?), 48)?;
        let tokens: Vec<u32> = (0..40).map(|i| i * 37 % 512).collect();
        let mut all = session.feed(&tokens[..32])?.to_vec();
        for token in &tokens[32..] {
            all.extend_from_slice(session.feed(std::slice::from_ref(token))?);
        }
        Ok(all)
    };
    Ok(selftest::difference(&logits(device)?, &logits(reference)?))
}

fn config() -> Config {
    Config {
        architecture: Architecture::BitNet,
        block: Block { inner_norms: true, ..Block::default() },
        hidden_size: 256,
        intermediate_size: 512,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab_size: 512,
        max_positions: 64,
        norm_eps: 1e-5,
        rope: RopeConfig { theta: 10_000., scaling: RopeScaling::None },
        hidden_act: HiddenAct::Relu2,
        tied: true,
        bos: None,
        eos: Vec::new(),
        quantization: Some(QuantizationConfig::default()),
        activations: ActivationRule::Token,
    }
}

/// A speed test: 10^9 operations or bytes a second.
struct Speed {
    name: &'static str,
    unit: &'static str,
    device: f64,
    /// With one thread of the CPU.
    cpu: f64,
}

/// Each test on the device and on one thread of the CPU.
fn speeds(device: &Device) -> Result<Vec<Speed>> {
    let one = Device::cpu_with_threads(1);
    let on = |device| {
        Ok::<_, CliError>([matmul(device)?, quantize(device)?, ternary(device)?, attention(device)?, add(device)?])
    };
    let (here, cpu) = (on(device)?, on(&one)?);
    let names = [
        ("matmul, f32 512 x 512 x 512", "GFLOP/s"),
        ("quantize activations, 128 x 2560", "GB/s"),
        ("ternary layer, 2560 x 2560, 1 token", "GOP/s"),
        ("attention, 8 heads, 256 tokens", "GFLOP/s"),
        ("add, 4 M of f32", "GB/s"),
    ];
    let speed = |(((name, unit), device), cpu)| Speed { name, unit, device, cpu };
    Ok(names.into_iter().zip(here).zip(cpu).map(speed).collect())
}

/// 10^9 units of `work` a second, that many in each call of `operation`.
fn rate(device: &Device, work: usize, mut operation: impl FnMut() -> Result<()>) -> Result<f64> {
    operation()?;
    device.synchronize()?;
    let (start, mut calls) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        operation()?;
        device.synchronize()?;
        calls += 1;
    }
    Ok((work * calls) as f64 / start.elapsed().as_secs_f64() / 1e9)
}

fn random(device: &Device, dims: &[usize]) -> Result<BitNetTensor> {
    Ok(BitNetTensor::randn(dims, BitNetDType::F32, device, &mut Generator::new(1))?)
}

fn matmul(device: &Device) -> Result<f64> {
    const N: usize = 512;
    let (a, b) = (random(device, &[N, N])?, random(device, &[N, N])?);
    rate(device, 2 * N * N * N, || Ok(a.matmul(&b).map(drop)?))
}

fn quantize(device: &Device) -> Result<f64> {
    let x = random(device, &[128, 2560])?;
    let mut buffer = ActivationBuffer::new(ActivationRule::Token, 128, 2560, device)?;
    rate(device, 128 * 2560 * 5, || Ok(buffer.quantize(x.as_ref())?))
}

fn ternary(device: &Device) -> Result<f64> {
    const N: usize = 2560;
    let weights: Vec<i8> = (0..N * N).map(|i| (i * i % 3) as i8 - 1).collect();
    let codes = TernaryCodes::from_weights(N, N, &weights).expect("-1, 0 and 1");
    let layer = PackedBitLinear::new(&codes, &1f32.into(), None, device)?;
    let (x, mut buffer) = (random(device, &[1, N])?, ActivationBuffer::new(ActivationRule::Token, 1, N, device)?);
    let mut out = BitNetTensor::empty(&[1, N], BitNetDType::F32, device)?;
    rate(device, 2 * N * N, || Ok(layer.forward(x.as_ref(), &mut buffer, device, out.as_mut()?)?))
}

fn attention(device: &Device) -> Result<f64> {
    let x = random(device, &[8, 256, 64])?;
    let options = AttentionOptions { causal: true, ..Default::default() };
    rate(device, 8 * 4 * 256 * 256 * 64 / 2, || Ok(x.scaled_dot_product_attention(&x, &x, &options).map(drop)?))
}

fn add(device: &Device) -> Result<f64> {
    const N: usize = 4 << 20;
    let (a, b, mut out) = (random(device, &[N])?, random(device, &[N])?, random(device, &[N])?);
    rate(device, 12 * N, || Ok(a.add_into(&b, &mut out)?))
}

/// GB/s to the device and back.
fn transfer(device: &Device) -> Result<[f64; 2]> {
    const BYTES: usize = 16 << 20;
    let mut bytes = vec![1; BYTES];
    let mut storage = device.upload(&bytes)?;
    let to = rate(device, BYTES, || Ok(device.write(&mut storage, 0, &bytes)?))?;
    Ok([to, rate(device, BYTES, || Ok(device.download(&storage, 0, &mut bytes)?))?])
}

struct Report {
    device: Device,
    reference: Device,
    outcomes: Vec<Outcome>,
    logits: f32,
    speeds: Vec<Speed>,
    transfer: [f64; 2],
}

impl Report {
    fn agrees(&self) -> bool {
        self.logits <= LOGITS && !self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Differs(_)))
    }

    fn agreeing(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Agrees)).count()
    }

    fn differing(&self) -> Vec<&str> {
        let all = self.outcomes.iter();
        all.filter_map(|outcome| if let Outcome::Differs(text) = outcome { Some(text.as_str()) } else { None })
            .collect()
    }

    /// The dtypes that the device lacks, for which cases were skipped.
    fn lacking(&self) -> Vec<&str> {
        let all = self.outcomes.iter();
        let lacks =
            all.filter_map(|outcome| if let Outcome::Lacks(dtype) = outcome { Some(dtype.as_str()) } else { None });
        let mut names: Vec<_> = lacks.collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn text(&self) -> String {
        let found = DeviceCapabilities::for_device(&self.device);
        let mut rows = vec![
            ("bitnet", env!("CARGO_PKG_VERSION").to_string()),
            ("device", format!("{}, {}", self.device.kernel(), found.model.unwrap_or_else(|| found.name.clone()))),
            ("checked against", self.reference.kernel()),
            ("operations", format!("{} of {} cases agree", self.agreeing(), self.outcomes.len())),
        ];
        let lacking = self.lacking();
        if !lacking.is_empty() {
            let skipped = self.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Lacks(_))).count();
            rows.push(("not there", format!("{}: {} skipped", lacking.join(", "), output::counted(skipped, "case"))));
        }
        rows.extend(self.differing().into_iter().map(|text| ("WRONG", text.to_string())));
        let verdict = if self.logits <= LOGITS { "agree" } else { "WRONG" };
        rows.push(("small model", format!("logits differ by {:.1e} of the largest: {verdict}", self.logits)));
        for speed in &self.speeds {
            let Speed { name, unit, device, cpu } = speed;
            rows.push((name, format!("{device:.1} {unit}, {:.1} times one thread of the CPU", device / cpu)));
        }
        rows.push(("transfer", format!("{:.1} GB/s to the device, {:.1} back", self.transfer[0], self.transfer[1])));
        let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
        output::columns(&rows, "ll")
    }

    fn json(&self) -> Value {
        let speed = |s: &Speed| json!({ "test": s.name, "unit": s.unit, "device": s.device, "one_cpu_thread": s.cpu });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "device": self.device.kernel(),
            "checked_against": self.reference.kernel(),
            "agrees": self.agrees(),
            "cases": self.outcomes.len(),
            "agreeing": self.agreeing(),
            "differing": self.differing(),
            "lacking": self.lacking(),
            "logits_difference": self.logits,
            "speeds": self.speeds.iter().map(speed).collect::<Vec<_>>(),
            "transfer_gb_per_second": { "to": self.transfer[0], "back": self.transfer[1] },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_result_is_named() {
        let cpu = Device::cpu();
        let mut case = selftest::cases().remove(0);
        assert!(matches!(compare(&case, &cpu, &cpu), Outcome::Agrees));
        case.bound = -1.;
        let Outcome::Differs(text) = compare(&case, &cpu, &cpu) else { panic!("a difference of 0 is above -1") };
        assert_eq!(text, format!("{}: 0.0e0, at most -1e0", case.name));
    }
}
