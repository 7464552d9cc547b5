use super::*;

const EXAMPLE: &str = include_str!("example.toml");

fn error(text: &str) -> String {
    Config::parse(text, "run.toml").unwrap_err().to_string()
}

/// The example with a line replaced.
fn with(old: &str, new: &str) -> String {
    assert!(EXAMPLE.contains(old), "{old}");
    EXAMPLE.replacen(old, new, 1)
}

fn line_of(text: &str, needle: &str) -> usize {
    1 + text.lines().position(|l| l.contains(needle)).unwrap()
}

#[test]
fn the_example_is_read_and_survives_being_written() {
    let config = Config::parse(EXAMPLE, "run.toml").unwrap();
    assert_eq!(config.model.kv_heads, 4);
    assert_eq!(config.quantization, QuantizationConfig::default());
    assert_eq!(config.schedule.kind, ScheduleKind::TwoStage);
    assert_eq!(Config::parse(&config.to_toml().unwrap(), "written").unwrap(), config);
}

/// Each commented key of the example, uncommented, is what it says: the default.
#[test]
fn the_defaults_that_the_example_shows_are_those() {
    let config = Config::parse(EXAMPLE, "run.toml").unwrap();
    for (i, line) in EXAMPLE.lines().enumerate().skip(1) {
        // Sections that are optional as a whole are indented.
        let Some(entry) = line.strip_prefix("# ").filter(|entry| entry.contains(" = ") && !entry.starts_with(' '))
        else {
            continue;
        };
        let text: Vec<&str> = EXAMPLE.lines().enumerate().map(|(j, l)| if i == j { entry } else { l }).collect();
        let key = entry.split(' ').next().unwrap();
        // Not defaults, but examples of what has none.
        if entry.contains("4096") || key == "document_end" {
            continue;
        }
        let mut read = Config::parse(&text.join("\n"), "run.toml").unwrap();
        match key {
            "vocab_size" => assert_eq!(read.model.vocab_size.take(), Some(65)),
            "sub_norm" => assert_eq!(read.quantization.sub_norm.take(), Some(true)),
            "context" => assert_eq!(read.data.context.take(), Some(64)),
            "init_std" => {
                let (shown, meant) = (read.model.init_std.take().unwrap(), config.model.initial_deviation());
                assert!((shown / meant - 1.).abs() < 0.01, "{shown} {meant}");
            }
            "switch_at" => assert_eq!(read.schedule.switch_at.take(), Some(config.schedule.switch_share())),
            "stage_one_end" => {
                assert_eq!(read.schedule.stage_one_end.take(), Some(config.schedule.stage_one_end_rate()))
            }
            "stage_two" => assert_eq!(read.schedule.stage_two.take(), Some(config.schedule.stage_two_rate())),
            _ => {}
        }
        assert_eq!(read, config, "{entry}");
    }
}

#[test]
fn a_misspelt_key_is_named_with_its_line_and_the_right_one() {
    let text = with("hidden_size = 128", "hiden_size = 128");
    let message = error(&text);
    let line = line_of(&text, "hiden_size");
    assert!(message.starts_with(&format!("run.toml:{line}: hiden_size: there is no such key")), "{message}");
    assert!(message.contains("did you mean hidden_size?"), "{message}");
    let text = with("[schedule]", "[shedule]");
    assert!(error(&text).starts_with(&format!("run.toml:{}: shedule: there is no such", line_of(&text, "[shedule]"))));
}

#[test]
fn a_value_of_another_type_is_named() {
    for (old, new, key) in [
        ("layers = 4", "layers = \"four\"", "layers"),
        ("# weights = \"absmean\"", "weights = \"int8\" #", "weights"),
        ("# estimator = \"standard\"", "estimator = \"none\" #", "estimator"),
        ("kind = \"char\"", "kind = \"word\"", "kind"),
        ("steps = 2000", "steps = -1", "steps"),
        ("batch = 12", "batch = 1.5", "batch"),
        ("# betas = [0.9, 0.95]", "betas = [0.9]", "betas"),
        ("# enabled = true", "enabled = 1", "enabled"),
    ] {
        let text = with(old, new);
        let message = error(&text);
        let line = line_of(&text, new);
        assert!(message.starts_with(&format!("run.toml:{line}: {key}: ")), "{new}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_missing_key_or_section_is_named() {
    let text = with("steps = 2000", "");
    let message = error(&text);
    assert!(
        message.starts_with(&format!("run.toml:{}: steps: it is missing", line_of(&text, "[training]"))),
        "{message}"
    );
    let text = EXAMPLE.split("[training]").next().unwrap();
    let message = error(text);
    assert!(message.contains("training: it is missing"), "{message}");
    assert!(error("[model\n").starts_with("run.toml:1: "), "{}", error("[model\n"));
}

#[test]
fn values_that_cannot_be_are_named() {
    for (old, new, key, says) in [
        ("heads = 4", "heads = 5", "model.heads", "do not divide hidden_size 128"),
        ("heads = 4", "heads = 128", "model.heads", "even width"),
        ("# kv_heads = 4", "kv_heads = 3", "model.kv_heads", "does not divide"),
        ("layers = 4", "layers = 0", "model.layers", "more than 0"),
        ("# dropout = 0.0", "dropout = 1.0", "model.dropout", "from 0 to below 1"),
        ("# rope_theta = 10000.0", "rope_theta = inf", "model.rope_theta", "finite"),
        ("kind = \"char\"", "kind = \"bpe\"", "tokenizer.vocab_size", "number of tokens"),
        ("# vocab_size = 4096", "vocab_size = 4096", "tokenizer.vocab_size", "remove it"),
        ("train = [\"input.txt\"]", "train = []", "data.train", "at least one"),
        ("# weights = []", "weights = [1, 2]", "data.weights", "2 weights for the 1 entries"),
        ("# weights = []", "weights = [0]", "data.weights", "0 is not more than 0"),
        ("validation_fraction = 0.1", "validation_fraction = nan", "data.validation_fraction", "NaN is not from"),
        ("# context = 64", "context = 65", "data.context", "context of 64"),
        ("# packing = \"stream\"", "packing = \"packed\"", "data.order", "shuffled"),
        ("batch = 12", "batch = 0", "training.batch", "more than 0"),
        ("warmup = 100", "warmup = 2001", "schedule.warmup", "more than the run's 2000"),
        ("kind = \"two-stage\"", "kind = \"linear\"\nstage_two = 1e-4", "schedule.stage_two", "remove it"),
        ("# betas = [0.9, 0.95]", "betas = [0.9, 1.0]", "optimizer.betas", "below 1"),
        ("learning_rate = 1.5e-3", "learning_rate = 0.0", "schedule.learning_rate", "at least"),
        ("validation_fraction = 0.1", "seed = 3 #", "", ""),
    ] {
        let text = with(old, new);
        if key.is_empty() {
            Config::parse(&text, "run.toml").unwrap();
            continue;
        }
        let message = error(&text);
        assert!(message.contains(&format!(": {key}: ")) && message.contains(says), "{new}: {message}");
        // The line of the key, or of its section where the key is absent.
        let name = key.rsplit('.').next().unwrap();
        let written = new.contains(name);
        let section = format!("[{}]", key.split('.').next().unwrap());
        let from = line_of(&text, &section);
        let line =
            if written { from + text.lines().skip(from).position(|l| l.starts_with(name)).unwrap() + 1 } else { from };
        assert!(message.starts_with(&format!("run.toml:{line}: ")), "{new}: {message} (not {line})");
    }
}

#[test]
fn a_model_to_go_on_from_has_its_own_sizes_and_tokenizer() {
    let start = EXAMPLE.find("[quantization]").unwrap();
    let rest = EXAMPLE[start..].replacen("kind = \"char\"", "", 1);
    let text = format!("[model]\ninit = \"hf\"\n{rest}");
    let config = Config::parse(&text, "run.toml").unwrap();
    assert_eq!(config.model.init.as_deref(), Some(Path::new("hf")));
    let message = error(&text.replacen("init = \"hf\"", "init = \"hf\"\nheads = 4", 1));
    assert!(message.starts_with("run.toml:3: model.heads: the model of init has its own"), "{message}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let message = Config::load("no/such/run.toml").unwrap_err().to_string();
    assert!(message.starts_with("no/such/run.toml: "), "{message}");
}

#[test]
fn the_number_of_updates_is_changed_and_nothing_else() {
    let source = ConfigSource::new(EXAMPLE, "run.toml");
    let longer = source.with_steps(3000).unwrap();
    assert_eq!(longer.text(), EXAMPLE.replace("steps = 2000  ", "steps = 3000  "));
    // A warm-up of more updates than there are would be refused.
    let shorter = Config::from_source(&source.with_steps(40).unwrap()).unwrap();
    assert_eq!((shorter.training.steps, shorter.schedule.warmup), (40, 2));
    let message = Config::from_source(&source.with_steps(0).unwrap()).unwrap_err().to_string();
    assert!(message.contains("training.steps"), "{message}");
}
