//! Optimizers.
//!
//! A [`Rule`] holds the formulas of SGD, Adam, AdamW, Lion or Muon; a [`Group`] gives a rule, a learning rate and a weight
//! decay to the parameters whose names match; [`GroupedOptimizer`] keeps the state of each parameter. So
//! "no weight decay on norms" is two groups of one rule, and "Muon for hidden matrices, AdamW for the rest" two of two.
//!
//! ```
//! use bitnet_core::{BitNetTensor, Device};
//! use bitnet_training::optim::{Group, GroupedOptimizer, Optimizer, Rule, Update};
//! let groups = vec![Group::new(Rule::adamw(), 1e-3).matching(&["*norm*"]), Group::new(Rule::adamw(), 1e-3).decayed(0.1)];
//! let mut optimizer = GroupedOptimizer::new(groups)?;
//! let mut weight = BitNetTensor::from_slice(&[1f32, -1.], &[2], &Device::cpu())?;
//! let gradient = BitNetTensor::from_slice(&[0.5f32, -0.5], &[2], &Device::cpu())?;
//! optimizer.update(vec![Update { name: "up.weight".into(), parameter: &mut weight, gradient }])?;
//! // Less the decay 1e-3 * 0.1, and a step of the learning rate against the gradient's sign.
//! assert!((weight.to_vec::<f32>()?[0] - (0.9999 - 1e-3)).abs() < 1e-6);
//! # Ok::<(), bitnet_training::TrainingError>(())
//! ```

mod blocks;
mod configured;
mod ema;
mod gradients;
mod group;
mod muon;
mod rule;

pub use blocks::BlockQuantized;
pub use ema::Ema;
pub use gradients::{clip_grad_norm, grad_norm, scale_grad};
pub use group::{Group, Precision};
pub use muon::{MuonScale, newton_schulz};
pub use rule::Rule;

use crate::{Result, TrainingError};
use bitnet_core::autograd::no_grad;
use bitnet_core::serialize::TensorMap;
use bitnet_core::{BitNetDType, BitNetTensor};
use indexmap::IndexMap;
use indexmap::map::Entry;
use rule::{RATES, Rates};

/// What changes parameters by their gradients.
pub trait Optimizer: Send {
    /// One update of the parameters given, each by its gradient, which nothing records.
    fn update(&mut self, updates: Vec<Update<'_>>) -> Result<()>;

    /// One update of the parameters that have a gradient; the others stay.
    fn step(&mut self, parameters: Vec<(String, &mut BitNetTensor)>) -> Result<()> {
        let with_gradient = parameters.into_iter().filter_map(|(name, parameter)| {
            let gradient = parameter.grad()?;
            Some(Update { name, parameter, gradient })
        });
        self.update(with_gradient.collect())
    }

    /// Number of groups.
    fn groups(&self) -> usize;

    /// Learning rate of a group.
    ///
    /// # Panics
    /// Where there is no such group.
    fn learning_rate(&self, group: usize) -> f64;

    /// Sets the learning rate of a group.
    ///
    /// # Panics
    /// Where there is no such group.
    fn set_learning_rate(&mut self, group: usize, learning_rate: f64);

    /// Weight decay of a group.
    ///
    /// # Panics
    /// Where there is no such group.
    fn weight_decay(&self, group: usize) -> f64;

    /// Sets the weight decay of a group.
    ///
    /// # Panics
    /// Where there is no such group.
    fn set_weight_decay(&mut self, group: usize, weight_decay: f64);

    /// Everything a resumed run needs. Tensors share their storage with the optimizer until one of them is written.
    fn state(&self) -> Result<OptimizerState>;

    /// Goes on from a state: the updates that follow are those that would have followed there, bit for bit.
    fn load_state(&mut self, state: OptimizerState) -> Result<()>;
}

/// A parameter and the gradient that is to change it.
pub struct Update<'a> {
    /// Name, as in a state dict.
    pub name: String,
    /// The parameter, `F32` or `F64`.
    pub parameter: &'a mut BitNetTensor,
    /// Its gradient, of its shape.
    pub gradient: BitNetTensor,
}

/// The state of an optimizer.
#[derive(Debug, Clone, Default)]
pub struct OptimizerState {
    /// Updates made.
    pub step: u64,
    /// Named after the parameter: `model.norm.weight.exp_avg`, and `.step`, its number of updates.
    pub tensors: TensorMap,
}

/// The state of one parameter.
#[derive(Debug)]
struct Slot {
    step: u64,
    moments: Moments,
    /// [`Rule::rates`] of the last update, `[RATES]` in the dtype of the parameter and on its device; none after a load.
    rates: Option<BitNetTensor>,
}

/// The tensors of a rule's state, in the order of [`Rule::moments`].
#[derive(Debug)]
enum Moments {
    Full(Vec<BitNetTensor>),
    Blocks(Vec<BlockQuantized>),
}

/// The optimizer of [`Group`]s: each parameter belongs to the first group that matches its name.
#[derive(Debug)]
pub struct GroupedOptimizer {
    groups: Vec<Group>,
    step: u64,
    slots: IndexMap<String, Slot>,
}

impl GroupedOptimizer {
    /// An optimizer without state.
    ///
    /// # Errors
    /// Where a number of a rule or group is out of range.
    pub fn new(groups: Vec<Group>) -> Result<Self> {
        groups.iter().try_for_each(Group::check)?;
        Ok(Self { groups, step: 0, slots: IndexMap::new() })
    }

    /// The groups.
    pub fn group_list(&self) -> &[Group] {
        &self.groups
    }

    /// The group of a parameter.
    fn group(&self, name: &str) -> Result<&Group> {
        let found = self.groups.iter().find(|group| group.contains(name));
        found.ok_or_else(|| TrainingError::NoGroup { parameter: name.to_owned() })
    }

    /// Counts an update of every parameter that has had one, and writes what changes from update to update to the device:
    /// before [`apply`](Self::apply), or before a recorded one is replayed.
    pub fn advance(&mut self) -> Result<()> {
        self.step += 1;
        let names: Vec<String> = self.slots.keys().cloned().collect();
        names.iter().try_for_each(|name| self.advance_one(name))
    }

    /// The update that was counted last, by operations of the device alone, so that it can be recorded: parameters and
    /// moments are written in place unless something shares their storage, as a [`state`](Optimizer::state) does.
    ///
    /// # Errors
    /// As [`update`](Optimizer::update), or where a parameter has had no update before.
    pub fn apply(&mut self, updates: Vec<Update<'_>>) -> Result<()> {
        no_grad(|| updates.into_iter().try_for_each(|update| self.change(update)))
    }

    /// Makes the state of a parameter that has none, and checks that an update fits it.
    fn prepare(&mut self, Update { name, parameter, gradient }: &Update) -> Result<()> {
        let group = self.group(name)?.clone();
        if !matches!(parameter.dtype(), BitNetDType::F32 | BitNetDType::F64) {
            return Err(TrainingError::ParameterDType { parameter: name.clone(), dtype: parameter.dtype() });
        }
        if gradient.dims() != parameter.dims() {
            let (got, needed) = (Box::new(*gradient.shape()), Box::new(*parameter.shape()));
            return Err(TrainingError::GradientShape { parameter: name.clone(), got, needed });
        }
        let slot = match self.slots.entry(name.clone()) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(free) => {
                free.insert(Slot { step: 0, moments: Moments::new(&group, parameter)?, rates: None })
            }
        };
        slot.moments.match_parameter(name, parameter)?;
        let (dtype, device) = (parameter.dtype(), parameter.device());
        if slot.rates.as_ref().is_none_or(|rates| rates.dtype() != dtype || rates.device() != device) {
            slot.rates = Some(BitNetTensor::zeros(&[RATES], dtype, device)?);
        }
        Ok(())
    }

    /// Counts an update of a parameter.
    fn advance_one(&mut self, name: &str) -> Result<()> {
        let Group { rule, learning_rate, weight_decay, .. } = *self.group(name)?;
        let Some(slot) = self.slots.get_mut(name) else { return Ok(()) };
        slot.step += 1;
        let Some(rates) = &mut slot.rates else { return Ok(()) };
        let values = rule.rates(learning_rate, weight_decay, slot.step, slot.moments.dims());
        match rates.dtype() {
            BitNetDType::F64 => rates.write_slice(&values)?,
            _ => rates.write_slice(&values.map(|x| x as f32))?,
        }
        Ok(())
    }

    /// The update of a parameter that was counted.
    fn change(&mut self, Update { name, parameter, gradient }: Update) -> Result<()> {
        let Group { rule, weight_decay, .. } = *self.group(&name)?;
        let gradient = gradient.to_dtype(parameter.dtype())?;
        let slot = self.slots.get_mut(&name);
        let Some(Slot { moments, rates: Some(rates), .. }) = slot else {
            return Err(TrainingError::OptimizerState { tensor: name, problem: "is missing: update it once before" });
        };
        let rates = Rates { values: rates, decays: weight_decay != 0., parameter: &name };
        let trained = parameter.requires_grad();
        match moments {
            Moments::Full(moments) => rule.apply(parameter, &gradient, moments, rates)?,
            Moments::Blocks(blocks) => {
                let full = |blocks: &BlockQuantized| blocks.dequantize(parameter.dtype());
                let mut moments = blocks.iter().map(full).collect::<Result<Vec<_>>>()?;
                rule.apply(parameter, &gradient, &mut moments, rates)?;
                for (blocks, moment) in blocks.iter_mut().zip(&moments) {
                    blocks.set(moment)?;
                }
            }
        }
        // One whose storage somebody shares is given storage of its own, and is then a new leaf.
        parameter.requires_grad_(trained)?;
        Ok(())
    }
}

impl Optimizer for GroupedOptimizer {
    fn update(&mut self, updates: Vec<Update<'_>>) -> Result<()> {
        no_grad(|| {
            updates.iter().try_for_each(|update| self.prepare(update))?;
            self.step += 1;
            updates.iter().try_for_each(|update| self.advance_one(&update.name))?;
            self.apply(updates)
        })
    }

    fn groups(&self) -> usize {
        self.groups.len()
    }

    fn learning_rate(&self, group: usize) -> f64 {
        self.groups[group].learning_rate
    }

    fn set_learning_rate(&mut self, group: usize, learning_rate: f64) {
        self.groups[group].learning_rate = learning_rate;
    }

    fn weight_decay(&self, group: usize) -> f64 {
        self.groups[group].weight_decay
    }

    fn set_weight_decay(&mut self, group: usize, weight_decay: f64) {
        self.groups[group].weight_decay = weight_decay;
    }

    fn state(&self) -> Result<OptimizerState> {
        let mut tensors = TensorMap::new();
        for (parameter, slot) in &self.slots {
            let step = BitNetTensor::from_slice(&[slot.step as i64], &[], &bitnet_core::Device::cpu())?;
            tensors.insert(format!("{parameter}{STEP}"), step);
            let names = self.group(parameter)?.rule.moments();
            match &slot.moments {
                Moments::Full(moments) => {
                    for ((name, _), moment) in names.iter().zip(moments) {
                        tensors.insert(format!("{parameter}.{name}"), moment.clone());
                    }
                }
                Moments::Blocks(blocks) => {
                    for ((name, _), blocks) in names.iter().zip(blocks) {
                        let parts = [(CODES, blocks.codes()), (SCALES, blocks.scales())];
                        tensors
                            .extend(parts.map(|(part, tensor)| (format!("{parameter}.{name}{part}"), tensor.clone())));
                    }
                }
            }
        }
        Ok(OptimizerState { step: self.step, tensors })
    }

    fn load_state(&mut self, mut state: OptimizerState) -> Result<()> {
        let parameters: Vec<String> =
            state.tensors.keys().filter_map(|name| name.strip_suffix(STEP)).map(str::to_owned).collect();
        let mut slots = IndexMap::new();
        for parameter in parameters {
            let rule = self.group(&parameter)?.rule;
            let mut take = |name: String| {
                let found = state.tensors.shift_remove(&name);
                found.ok_or(TrainingError::OptimizerState { tensor: name, problem: "is missing" })
            };
            let step = take(format!("{parameter}{STEP}"))?.item::<i64>()? as u64;
            let (mut full, mut blocks) = (Vec::new(), Vec::new());
            for &(name, signed) in rule.moments() {
                let name = format!("{parameter}.{name}");
                if let Ok(codes) = take(format!("{name}{CODES}")) {
                    let scales = take(format!("{name}{SCALES}"))?;
                    blocks.push(BlockQuantized::from_parts(codes, scales, signed)?);
                } else {
                    full.push(take(name)?);
                }
            }
            let moments = match (full.len(), blocks.len()) {
                (_, 0) => Moments::Full(full),
                (0, _) => Moments::Blocks(blocks),
                _ => return Err(TrainingError::OptimizerState { tensor: parameter, problem: "is in part of 8 bits" }),
            };
            slots.insert(parameter, Slot { step, moments, rates: None });
        }
        if let Some(tensor) = state.tensors.keys().next() {
            let problem = "is of another optimizer: take the rule and the groups that the run began with";
            return Err(TrainingError::OptimizerState { tensor: tensor.clone(), problem });
        }
        (self.step, self.slots) = (state.step, slots);
        Ok(())
    }
}

const STEP: &str = ".step";
const CODES: &str = ".codes";
const SCALES: &str = ".scales";

impl Moments {
    fn new(group: &Group, parameter: &BitNetTensor) -> Result<Self> {
        let names = group.rule.moments();
        if group.precision == Precision::EightBit && parameter.elements() >= group::SMALLEST_EIGHT_BIT {
            let zero = BitNetTensor::zeros(parameter.dims(), parameter.dtype(), parameter.device())?;
            let blocks = names.iter().map(|&(_, signed)| BlockQuantized::quantize(&zero, signed));
            return Ok(Self::Blocks(blocks.collect::<Result<_>>()?));
        }
        let zeros = |_: &_| BitNetTensor::zeros(parameter.dims(), parameter.dtype(), parameter.device());
        Ok(Self::Full(names.iter().map(zeros).collect::<Result<_, _>>()?))
    }

    /// Those of the parameter; none where there are no moments, whose rule asks for none.
    fn dims(&self) -> &[usize] {
        match self {
            Self::Full(moments) => moments.first().map_or(&[], |moment| moment.dims()),
            Self::Blocks(blocks) => blocks.first().map_or(&[], |blocks| blocks.codes().dims()),
        }
    }

    /// Brings them to the device of their parameter; an error where it is of another shape, as after a load it may be.
    fn match_parameter(&mut self, name: &str, parameter: &BitNetTensor) -> Result<()> {
        let (dims, dtype, device) = (parameter.dims(), parameter.dtype(), parameter.device());
        let fits = match self {
            Self::Full(moments) => moments.iter().all(|moment| moment.dims() == dims && moment.dtype() == dtype),
            Self::Blocks(blocks) => blocks.iter().all(|blocks| blocks.codes().dims() == dims),
        };
        if !fits {
            let problem = "was of another shape or dtype";
            return Err(TrainingError::OptimizerState { tensor: name.to_owned(), problem });
        }
        match self {
            Self::Full(moments) => {
                for moment in moments.iter_mut().filter(|moment| moment.device() != device) {
                    *moment = moment.to_device(device)?;
                }
            }
            Self::Blocks(blocks) => {
                for blocks in blocks.iter_mut().filter(|blocks| blocks.codes().device() != device) {
                    *blocks = blocks.to_device(device)?;
                }
            }
        }
        Ok(())
    }
}
