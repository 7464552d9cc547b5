//! Export of a trained model: master weights as a Hugging Face directory, and packed ternary files.

use crate::fingerprint::fingerprint;
use crate::lora::{self, Lora};
use crate::model::{ComputeOptions, Transformer, parameter_shapes};
use crate::run_directory::{MODEL_CONFIG, Resumed, RunDirectory};
use crate::trainer::{Progress, quantizer, weights};
use crate::{Result, TrainingError};
use bitnet_core::serialize::TensorMap;
use bitnet_core::serialize::output::AtomicFile;
use bitnet_core::serialize::safetensors::{SafetensorsFile, save};
use bitnet_core::{BitNetDType, BitNetError, BitNetTensor, Device};
use bitnet_model::checkpoint::{Checkpoint, OpenOptions};
use bitnet_model::config::{Architecture, Config, LinearClass, QuantizationConfig};
use bitnet_model::convert::{Embeddings, Target, convert, write_tokenizer};
use bitnet_model::safetensors::Shards;
use bitnet_model::tokenizer::Tokenizer;
use bitnet_quant::ActivationRule;
use bitnet_quant::formats::hf;
use bitnet_quant::quantizers::Quantizer;
use std::fs;
use std::path::{Path, PathBuf};

/// What a directory calls the configuration of a model, as Hugging Face has it.
pub const CONFIG: &str = MODEL_CONFIG;

/// A model with its latent weights: all that a file needs.
#[derive(Debug)]
pub struct Masters {
    /// Its shape; linear layers are quantized online where it says so.
    pub config: Config,
    /// Every parameter by its name in a Hugging Face checkpoint.
    pub tensors: TensorMap,
    /// How the matrices of its blocks are quantized, if they are.
    pub quantizer: Quantizer,
    /// What its tokens mean.
    pub tokenizer: Option<Tokenizer>,
}

/// Which checkpoint of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Latest,
    /// The one with the least validation loss.
    Best,
    /// That of so many updates.
    Step(u64),
    /// The mean of the weights of so many of the newest.
    Average(usize),
}

/// The quantization of a model in training: weights and inputs of all linear layers but the head, online.
pub fn online() -> QuantizationConfig {
    let not_converted = Some(vec!["lm_head".to_owned()]);
    QuantizationConfig { class: LinearClass::Online, inner_norm_eps: None, not_converted }
}

impl Masters {
    /// The weights of a run; gives the number of updates they have had, too. The run may go on meanwhile, and nothing is
    /// written.
    ///
    /// # Errors
    /// When the run has no such checkpoint, or the base of its adapters is not the one that they were trained on.
    pub fn from_run(path: &Path, which: Which) -> Result<(Self, u64)> {
        let run = RunDirectory::open_to_read(path)?;
        let cpu = Device::cpu();
        let missing = |what: &str| TrainingError::run(path, format!("there is no {what} checkpoint yet"));
        let resumed = match which {
            Which::Latest => latest(&run)?.ok_or_else(|| missing("whole"))?,
            Which::Best => run.best(&cpu)?.ok_or_else(|| missing("best"))?,
            Which::Step(step) => run.load(step, &cpu)?,
            Which::Average(count) => return averaged(&run, count),
        };
        Self::from_checkpoint(&run, resumed)
    }

    /// The weights of a checkpoint, as the configuration and the tokenizer that are in it say.
    fn from_checkpoint(run: &RunDirectory, resumed: Resumed) -> Result<(Self, u64)> {
        let Resumed { step, checkpoint, path, .. } = resumed;
        // Checkpoints of earlier versions have these files in the directory of the run only.
        let folder = if path.join(CONFIG).is_file() { path.as_path() } else { run.path() };
        let (config, tokenizer) = (read_config(&folder.join(CONFIG))?, tokenizer(folder)?);
        let mut tensors = weights(&checkpoint);
        let quantizer = quantizer(&checkpoint)?.into();
        if lora::are_adapters(&tensors) {
            let progress = Progress::of(step, &checkpoint)?;
            tensors = merged(&run.config()?, &config, &progress, tensors)?;
        }
        Ok((Self { config, tensors, quantizer, tokenizer }, step))
    }

    /// The weights of a Hugging Face directory: those of a dense model, or master weights that are quantized online.
    ///
    /// # Errors
    /// When it is packed, has layers that training does not know (biases, norms inside linear layers), or is incomplete.
    pub fn from_hugging_face(folder: &Path, device: &Device) -> Result<Self> {
        let mut config = read_config(&folder.join(CONFIG))?;
        let refuse = |problem: &str| Err(TrainingError::data(folder, problem));
        if let Some(quantization) = &config.quantization {
            if quantization.class != LinearClass::Online {
                return refuse("its weights are packed: take the checkpoint with master weights (often named -bf16)");
            }
            if quantization.inner_norm_eps.is_some() {
                return refuse("its linear layers have norms of their own (use_rms_norm), which are not trained here");
            }
            config.quantization = Some(online());
        }
        let files = Shards::find(folder).map_err(|e| TrainingError::data(folder, e.to_string()))?.paths(folder);
        let files = files.iter().map(SafetensorsFile::open).collect::<Result<Vec<_>, _>>()?;
        let mut tensors = TensorMap::new();
        for file in &files {
            for info in file.header().tensors() {
                if !info.name.ends_with(".rotary_emb.inv_freq") {
                    let tensor = file.tensor(&info.name, device)?;
                    tensors.insert(renamed(&info.name), tensor);
                }
            }
        }
        // A tied checkpoint may store its head all the same; transformers uses it when it differs.
        if let Some(head) = tensors.get("lm_head.weight").filter(|_| config.tied) {
            let same = tensors.get("model.embed_tokens.weight").map(|table| table.equal(head)).transpose()?;
            if same == Some(true) {
                tensors.shift_remove("lm_head.weight");
            } else {
                config.tied = false;
            }
        }
        let bad = tensors.iter().find(|(_, tensor)| !tensor.dtype().is_float());
        if let Some((name, tensor)) = bad {
            return refuse(&format!("{name} is {}: master weights are floats", tensor.dtype()));
        }
        Ok(Self { config, tensors, quantizer: Quantizer::AbsMean, tokenizer: tokenizer(folder)? })
    }

    /// The same model made ready for training: quantized online if that is enabled, and with norms before the output
    /// projections where `sub_norm` asks for them (SubLN; Wu et al. 2025, BitNet Distillation). Their weights are 1.
    ///
    /// # Errors
    /// When the shape of the model has no place for such norms.
    pub fn prepared(mut self, quantization: &crate::config::QuantizationConfig) -> Result<Self> {
        self.config.quantization = quantization.enabled.then(online);
        if quantization.sub_norm == Some(true) && !self.config.block.inner_norms {
            self.config.architecture = Architecture::BitNet;
            self.config.block.inner_norms = true;
            self.config.validate()?;
            let device = self.tensors.values().next().map_or_else(Device::cpu, |x| x.device().clone());
            for (name, dims) in parameter_shapes(&self.config) {
                if name.ends_with("_sub_norm.weight") && !self.tensors.contains_key(&name) {
                    self.tensors.insert(name, BitNetTensor::ones(&dims, BitNetDType::F32, &device)?);
                }
            }
        }
        Ok(self)
    }

    /// The model, to be trained.
    ///
    /// # Errors
    /// When a tensor is missing, left over or of another shape.
    pub fn into_model(self, options: ComputeOptions) -> Result<Transformer> {
        Transformer::from_parameters(self.config, options, self.tensors)
    }

    /// Writes a Hugging Face directory with the weights as they are, f32 (`AutoBitLinear`, online, where quantized): what
    /// transformers and [`from_hugging_face`](Self::from_hugging_face) read.
    ///
    /// # Errors
    /// When a file cannot be written, the configuration last, or the quantizer is not absmean, by which all who read such a
    /// directory quantize.
    pub fn write_hugging_face(&self, out: &Path) -> Result<()> {
        if self.config.quantization.is_some() && self.quantizer != Quantizer::AbsMean {
            let problem = "master weights are quantized by absmean where they are read, but these were trained with";
            let instead = "write packed weights instead (hf, i2_s, tq1_0 or tq2_0)";
            return Err(TrainingError::Invalid(format!("{problem} {:?}: {instead}", self.quantizer)));
        }
        self.write(out, &self.config, self.checked()?)
    }

    /// Every parameter in f32, in order.
    fn checked(&self) -> Result<TensorMap> {
        let mut tensors = TensorMap::new();
        for (name, dims) in parameter_shapes(&self.config) {
            let tensor = self.tensors.get(&name).ok_or_else(|| TrainingError::MissingTensor { name: name.clone() })?;
            if tensor.dims() != dims {
                return Err(TrainingError::TensorShape { name, got: tensor.dims().to_vec(), needed: dims });
            }
            tensors.insert(name, tensor.detach().to_dtype(BitNetDType::F32)?);
        }
        Ok(tensors)
    }

    fn write(&self, out: &Path, config: &Config, tensors: TensorMap) -> Result<()> {
        fs::create_dir_all(out).map_err(|e| TrainingError::io(out, e))?;
        save(out.join("model.safetensors"), &tensors, &[("format", "pt")])?;
        if let Some(tokenizer) = &self.tokenizer {
            write_tokenizer(tokenizer, out)?;
        }
        write_config(config, &out.join(CONFIG))
    }

    /// Writes packed weights: a GGUF file, or a directory for [`Target::HuggingFace`]; see [`convert`].
    ///
    /// # Errors
    /// As [`convert`], and when a copy cannot be written beside `out` or a weight is not finite.
    pub fn write_packed(
        &self,
        out: &Path,
        target: Target,
        embeddings: Embeddings,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let Some(quantization) = &self.config.quantization else {
            let problem = "the model is not quantized: only its master weights can be written";
            return Err(TrainingError::Invalid(problem.into()));
        };
        // Codes and scales as training computes them: nobody quantizes anew on the way.
        let mut tensors = self.checked()?;
        let blocks = parameter_shapes(&self.config).into_iter().filter(|(name, _)| name.starts_with("model.layers."));
        for (name, dims) in blocks {
            let &[rows, cols] = &dims[..] else { continue };
            let ternary = self.quantizer.ternarize(&tensors[&name].to_vec::<f32>()?, rows, cols);
            let (codes, scale) = ternary.map_err(|e| TrainingError::Invalid(format!("{name}: {e}")))?;
            let (bytes, cpu) = (hf::encode(&codes), Device::cpu());
            tensors.insert(format!("{name}_scale"), BitNetTensor::from_slice(&[scale], &[1], &cpu)?);
            tensors[&name] = BitNetTensor::from_slice(&bytes, &[rows.div_ceil(4), cols], &cpu)?;
        }
        let quantization = QuantizationConfig { class: LinearClass::Offline, ..quantization.clone() };
        let config = Config { quantization: Some(quantization), ..self.config.clone() };
        let temporary = Temporary::beside(out)?;
        // A checkpoint has the name of its directory, and a GGUF file that of its checkpoint.
        let folder = temporary.0.join(out.file_stem().unwrap_or_default());
        self.write(&folder, &config, tensors)?;
        let checkpoint = Checkpoint::open(&folder, &OpenOptions::default())?;
        Ok(convert(&checkpoint, out, target, embeddings, progress)?)
    }
}

/// Writes `config.json` of a model in training, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_config(config: &Config, path: &Path) -> Result<()> {
    let mut value = config.to_json()?;
    if config.quantization.is_some() {
        // As training rounds them.
        value["bitnet_activations"] = ActivationRule::Token.name().into();
    }
    value["dtype"] = "float32".into();
    let text = serde_json::to_string_pretty(&value).map_err(|e| TrainingError::Invalid(e.to_string()))?;
    let mut file = AtomicFile::create(path).map_err(BitNetError::from)?;
    file.put((text + "\n").as_bytes()).and_then(|()| file.commit()).map_err(BitNetError::from)?;
    Ok(())
}

/// The newest checkpoint; a run that goes on may remove it while it is read, after it has written another.
fn latest(run: &RunDirectory) -> Result<Option<Resumed>> {
    let cpu = Device::cpu();
    run.latest(&cpu).or_else(|_| run.latest(&cpu))
}

/// The mean of the weights of the newest checkpoints (of adapters, when they are in the weights).
fn averaged(run: &RunDirectory, count: usize) -> Result<(Masters, u64)> {
    let steps = run.steps()?;
    if count == 0 || steps.len() < count {
        let problem = format!(
            "{count} checkpoints were asked for, but the run has {}: training.keep says how many stay",
            steps.len()
        );
        return Err(TrainingError::run(run.path(), problem));
    }
    let mut sum: Option<Masters> = None;
    for &step in &steps[steps.len() - count..] {
        let (next, _) = Masters::from_checkpoint(run, run.load(step, &Device::cpu())?)?;
        let Some(sum) = &mut sum else {
            sum = Some(next);
            continue;
        };
        if next.config != sum.config || next.quantizer != sum.quantizer {
            let problem = format!("the checkpoint of step {step} is of another model than the one before it");
            return Err(TrainingError::run(run.path(), problem));
        }
        for (name, tensor) in &mut sum.tensors {
            let other = next.tensors.get(name).ok_or_else(|| TrainingError::MissingTensor { name: name.clone() })?;
            *tensor = tensor.add(other)?;
        }
    }
    let mut mean = sum.ok_or_else(|| TrainingError::run(run.path(), "there is no checkpoint yet"))?;
    for tensor in mean.tensors.values_mut() {
        *tensor = tensor.div(count as f64)?;
    }
    Ok((mean, steps[steps.len() - 1]))
}

/// The weights of the model that a run began with, with its adapters in them.
fn merged(config: &crate::Config, shape: &Config, progress: &Progress, adapters: TensorMap) -> Result<TensorMap> {
    let lora = progress.lora.as_ref().or(config.lora.as_ref());
    let (Some(folder), Some(lora)) = (&config.model.init, lora) else {
        return Err(TrainingError::Invalid(
            "the run has adapters, but its config.toml no [lora] and model.init".into(),
        ));
    };
    let masters = Masters::from_hugging_face(folder, &Device::cpu())?.prepared(&config.quantization)?;
    let base = masters.into_model(ComputeOptions::default())?;
    let trained_on = progress.fixed_model;
    if base.config() != shape || trained_on.is_some_and(|before| !fingerprint(&base).is_ok_and(|now| now == before)) {
        let problem = "it is not the model that the adapters of the run were trained on: put that one back";
        return Err(TrainingError::run(folder, problem));
    }
    let merged = Lora::from_adapters(base, lora.alpha / lora.rank as f64, adapters)?.merged()?;
    Ok(merged.tensors().iter().map(|(name, x)| (name.clone(), x.detach())).collect())
}

/// Reads a `config.json`.
pub(crate) fn read_config(path: &Path) -> Result<Config> {
    let text = fs::read_to_string(path).map_err(|e| TrainingError::io(path, e))?;
    Config::from_json(&text).map_err(|e| TrainingError::data(path, e.to_string()))
}

pub(crate) fn tokenizer(folder: &Path) -> Result<Option<Tokenizer>> {
    let there = folder.join("tokenizer.json").is_file();
    let read = || Tokenizer::from_file(folder).map_err(|e| TrainingError::data(folder, e.to_string()));
    there.then(read).transpose()
}

/// The name of transformers' own classes for one of 1bitLLM's.
fn renamed(name: &str) -> String {
    name.replace(".inner_attn_ln.", ".attn_sub_norm.").replace(".ffn_layernorm.", ".ffn_sub_norm.")
}

/// A directory that goes when this does.
struct Temporary(PathBuf);

impl Temporary {
    /// A new one in the directory of `out`.
    fn beside(out: &Path) -> Result<Self> {
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let path = out.with_file_name(format!(".{name}.{}.master", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| TrainingError::io(&path, e))?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing depends on it: a leftover is only untidy.
        let _ = fs::remove_dir_all(&self.0);
    }
}
