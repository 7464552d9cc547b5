//! Checks of the values of a configuration.

use super::{Config, Order, Packing, ScheduleKind, TokenizerKind};

type Problem = (Vec<&'static str>, String);
type Checked = Result<(), Problem>;

/// Names the key at fault, says what is wrong and what to do.
pub(super) fn check(config: &Config) -> Checked {
    model(config)?;
    tokenizer(config)?;
    data(config)?;
    rates(config)?;
    training(config)
}

fn refuse(path: &[&'static str], problem: impl Into<String>) -> Checked {
    Err((path.to_vec(), problem.into()))
}

fn positive(section: &'static str, entries: &[(&'static str, usize)]) -> Checked {
    match entries.iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => refuse(&[section, key], "it must be given, and more than 0"),
        None => Ok(()),
    }
}

/// Each within its range, which NaN never is.
fn within(section: &'static str, entries: &[(&'static str, f64, std::ops::Range<f64>)]) -> Checked {
    match entries.iter().find(|(_, value, range)| !range.contains(value)) {
        Some((key, value, range)) if range.end == f64::INFINITY => {
            refuse(&[section, key], format!("{value} is not a finite number of at least {}", range.start))
        }
        Some((key, value, range)) => {
            refuse(&[section, key], format!("{value} is not from {} to below {}", range.start, range.end))
        }
        None => Ok(()),
    }
}

fn model(config: &Config) -> Checked {
    let m = &config.model;
    let sizes = [
        ("hidden_size", m.hidden_size),
        ("intermediate_size", m.intermediate_size),
        ("layers", m.layers),
        ("heads", m.heads),
        ("context", m.context),
    ];
    if m.init.is_some() {
        if config.quantization.sub_norm == Some(false) {
            return refuse(&["quantization", "sub_norm"], "the model of init keeps the norms that it has: remove it");
        }
        let kv_heads = [("kv_heads", m.kv_heads)];
        return match sizes.iter().chain(&kv_heads).find(|(_, value)| *value != 0) {
            Some((key, _)) => refuse(&["model", key], "the model of init has its own: remove it"),
            None => Ok(()),
        };
    }
    positive("model", &sizes)?;
    if !m.hidden_size.is_multiple_of(m.heads) {
        return refuse(
            &["model", "heads"],
            format!("{} heads do not divide hidden_size {}: choose a divisor of it", m.heads, m.hidden_size),
        );
    }
    if !(m.hidden_size / m.heads).is_multiple_of(2) {
        let width = m.hidden_size / m.heads;
        return refuse(
            &["model", "heads"],
            format!("a head would be {width} wide, but rotary positions need an even width"),
        );
    }
    if m.kv_heads != 0 && !m.heads.is_multiple_of(m.kv_heads) {
        return refuse(
            &["model", "kv_heads"],
            format!("{} does not divide the {} heads: choose a divisor of them", m.kv_heads, m.heads),
        );
    }
    if m.vocab_size == Some(0) {
        return refuse(&["model", "vocab_size"], "it must be more than 0; leave it out for the tokenizer's");
    }
    within(
        "model",
        &[
            ("norm_eps", m.norm_eps, f64::MIN_POSITIVE..1.0),
            ("rope_theta", m.rope_theta, 1.0..f64::INFINITY),
            ("dropout", m.dropout, 0.0..1.0),
            ("init_std", m.initial_deviation(), 0.0..f64::INFINITY),
        ],
    )
}

fn tokenizer(config: &Config) -> Checked {
    let t = &config.tokenizer;
    match (&t.path, t.kind) {
        (None, None) if config.model.init.is_none() => {
            refuse(&["tokenizer"], "give path = \"tokenizer.json\", or kind = \"char\", \"bytes\" or \"bpe\"")
        }
        (Some(_), Some(_)) => refuse(&["tokenizer", "kind"], "the tokenizer of path is used: remove one of the two"),
        (None, Some(_)) if config.model.init.is_some() => {
            refuse(&["tokenizer", "kind"], "the model of init knows its own tokenizer: remove it")
        }
        (_, Some(TokenizerKind::Bpe)) => match t.vocab_size {
            None => refuse(&["tokenizer", "vocab_size"], "give the number of tokens, such as 4096"),
            Some(size) if size < 256 + t.special.len() || size > 1 << 24 => refuse(
                &["tokenizer", "vocab_size"],
                format!("{size} is not from 256 bytes and {} special tokens to 2^24", t.special.len()),
            ),
            Some(_) => Ok(()),
        },
        _ if t.vocab_size.is_some() => {
            refuse(&["tokenizer", "vocab_size"], "only kind = \"bpe\" has a size to choose: remove it")
        }
        (_, None) if !t.special.is_empty() => {
            refuse(&["tokenizer", "special"], "a tokenizer that exists has its own: remove it")
        }
        _ => match t.special.iter().any(String::is_empty) {
            true => refuse(&["tokenizer", "special"], "a special token must not be empty"),
            false => Ok(()),
        },
    }
}

fn data(config: &Config) -> Checked {
    let d = &config.data;
    if d.train.is_empty() {
        return refuse(&["data", "train"], "name at least one text or token file");
    }
    if !d.weights.is_empty() && d.weights.len() != d.train.len() {
        let problem =
            format!("{} weights for the {} entries of train: give one for each", d.weights.len(), d.train.len());
        return refuse(&["data", "weights"], problem);
    }
    if let Some(weight) = d.weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
        return refuse(
            &["data", "weights"],
            format!("{weight} is not more than 0: remove the entry, or give its share"),
        );
    }
    if let Some(fraction) = d.validation_fraction {
        if !d.validation.is_empty() {
            return refuse(&["data", "validation_fraction"], "validation files are given: remove one of the two");
        }
        within("data", &[("validation_fraction", fraction, f64::MIN_POSITIVE..1.0)])?;
    }
    match d.context {
        Some(0) => return refuse(&["data", "context"], "it must be more than 0; leave it out for the model's"),
        Some(context) if config.model.init.is_none() && context > config.model.context => {
            return refuse(
                &["data", "context"],
                format!("rows of {context} tokens do not fit the model's context of {}", config.model.context),
            );
        }
        _ => {}
    }
    if d.packing != Packing::Stream && d.order == Order::Random {
        return refuse(
            &["data", "order"],
            "rows of whole documents start where documents do: choose \"shuffled\" or \"sequential\"",
        );
    }
    match d.document_end.as_deref() {
        Some("") => refuse(&["data", "document_end"], "it must not be empty; leave it out for one document a file"),
        _ => Ok(()),
    }
}

fn rates(config: &Config) -> Checked {
    let (s, o) = (&config.schedule, &config.optimizer);
    let most = f64::INFINITY;
    within(
        "schedule",
        &[
            ("learning_rate", s.learning_rate, f64::MIN_POSITIVE..most),
            ("end", s.end, 0.0..most),
            ("switch_at", s.switch_share(), f64::MIN_POSITIVE..1.0),
            ("stage_one_end", s.stage_one_end_rate(), 0.0..most),
            ("stage_two", s.stage_two_rate(), 0.0..most),
            ("stage_two_weight_decay", s.stage_two_weight_decay, 0.0..most),
        ],
    )?;
    if s.warmup > config.training.steps {
        return refuse(
            &["schedule", "warmup"],
            format!("{} updates are more than the run's {}", s.warmup, config.training.steps),
        );
    }
    if s.switch_at.is_some() && !matches!(s.kind, ScheduleKind::TwoStage | ScheduleKind::Wsd) {
        return refuse(&["schedule", "switch_at"], "only kind = \"two-stage\" and \"wsd\" have two parts: remove it");
    }
    if s.kind != ScheduleKind::TwoStage {
        let given = [("stage_one_end", s.stage_one_end.is_some()), ("stage_two", s.stage_two.is_some())];
        if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
            return refuse(&["schedule", key], "only kind = \"two-stage\" has stages: remove it");
        }
    }
    let q = &config.quantization;
    let least = f64::MIN_POSITIVE;
    within("quantization", &[("clip_limit", q.clip_limit, least..most), ("steepness", q.steepness, least..most)])?;
    if let Some(beta) = o.betas.iter().find(|beta| !(0.0..1.0).contains(*beta)) {
        return refuse(&["optimizer", "betas"], format!("{beta} is not from 0 to below 1"));
    }
    within(
        "optimizer",
        &[("eps", o.eps, 0.0..most), ("weight_decay", o.weight_decay, 0.0..most), ("momentum", o.momentum, 0.0..1.0)],
    )
}

fn training(config: &Config) -> Checked {
    let t = &config.training;
    let (steps, most) = (usize::try_from(t.steps).unwrap_or(usize::MAX), f64::INFINITY);
    let log_every = usize::try_from(t.log_every).unwrap_or(usize::MAX);
    let entries = [
        ("steps", steps),
        ("batch", t.batch),
        ("accumulate", t.accumulate),
        ("keep", t.keep),
        ("log_every", log_every),
    ];
    positive("training", &entries)?;
    let evaluates = !config.data.validation.is_empty() || config.data.validation_fraction.is_some();
    if t.patience > 0 && !(evaluates && t.eval_every > 0) {
        return refuse(
            &["training", "patience"],
            "stopping early needs evaluations: give data.validation or data.validation_fraction, and eval_every",
        );
    }
    within("training", &[("clip", t.clip, 0.0..most), ("ema", t.ema, 0.0..1.0)])
}
