//! Commands about a model that need no text.

use super::*;

#[test]
fn inspect_tells_both_readers() {
    let dir = golden("bitnet-offline");
    let text = stdout(&["inspect", str(&dir)]);
    for word in ["format", "architecture", "parameters", "tensors", "memory", "no tokenizer"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let listed = stdout(&["inspect", str(&dir), "--tensors"]);
    assert!(listed.contains("model.embed_tokens.weight"), "{listed}");
    let value = json(&["inspect", str(&dir), "--json", "--tensors"]);
    assert_eq!(value["architecture"], "bitnet");
    assert_eq!(value["tokenizer"], serde_json::Value::Null);
    assert!(value["parameters"]["total"].as_u64() > value["parameters"]["blocks"].as_u64());
    assert!(value["memory"]["weight_bytes"].as_u64() > Some(0));
    let bytes = |v: &serde_json::Value| v["bytes"].as_u64().unwrap();
    let tensors = value["tensors"].as_array().unwrap();
    assert_eq!(tensors.iter().map(bytes).sum::<u64>(), value["tensor_bytes"].as_u64().unwrap());
}

#[test]
fn bench_has_the_agreed_keys() {
    let dir = golden("bitnet-offline");
    let value = json(&["bench", "--model", str(&dir), "-p", "4", "-n", "2", "-t", "1,2", "--json"]);
    let runs = value["runs"].as_array().unwrap();
    let names: Vec<_> =
        runs.iter().map(|run| (run["test"].as_str().unwrap(), run["threads"].as_u64().unwrap())).collect();
    assert_eq!(names, [("pp4", 1), ("tg2", 1), ("pp4", 2), ("tg2", 2)]);
    for run in runs {
        assert!(run["tokens_per_second"].as_f64().unwrap() > 0. && run["kernel"].is_string(), "{run}");
        assert!(run["fraction_of_limit"].as_f64().unwrap() > 0., "{run}");
    }
    for (limit, threads) in value["limits"].as_array().unwrap().iter().zip([1, 2]) {
        assert_eq!(limit["threads"], threads);
        assert!(limit["read_gb_per_second"].as_f64().unwrap() > 0.);
        assert!(limit["int8_gop_per_second"].as_f64().unwrap() > 0.);
    }
    if cfg!(unix) {
        // That of a tiny model, without the buffers of any probe.
        let peak = value["peak_rss_bytes"].as_u64().unwrap();
        assert!((1 << 20..64 << 20).contains(&peak), "{peak}");
    }
    let table = stdout(&["bench", "--model", str(&dir), "-p", "4", "-n", "2", "-t", "1"]);
    assert!(table.contains("tokens/s") && table.contains("pp4") && table.contains("peak memory"), "{table}");
}

#[test]
fn a_context_too_small_for_a_bench() {
    let dir = golden("bitnet-offline");
    refused(&["bench", "--model", str(&dir), "-p", "99999", "-t", "1"], &["-p 99999", "context"]);
    refused(&["bench", "--model", str(&dir), "-n", "99999", "-t", "1"], &["-n 99999", "context"]);
}

#[test]
fn convert_keeps_every_weight() {
    let folder = folder("convert");
    let source = golden("bitnet-offline");
    let copy = folder.join("copy");
    assert_eq!(stdout(&["convert", str(&source), str(&copy), "--to", "hf"]), "");
    let logits = |model: &Path| {
        let out = folder.join("logits.safetensors");
        stdout(&["logits", "--model", str(model), "--tokens", "1,2,3", "--output", str(&out), "--force"]);
        fs::read(&out).unwrap()
    };
    assert!(logits(&source) == logits(&copy));
}

/// An adapter as the model runs, by half, and merged into the weights.
#[test]
fn adapters_are_applied_and_merged() {
    let folder = folder("adapters");
    let (model, adapter) = (golden("qwen3"), golden("lora/qwen3"));
    let out = folder.join("logits.safetensors");
    let logits = |model: &Path, more: &[&str]| {
        let args = ["logits", "--model", str(model), "--tokens", "1,2,3,4", "--output", str(&out), "--force"];
        stdout(&[&args[..], more].concat());
        let bytes = fs::read(&out).unwrap();
        let file = bitnet::model::safetensors::Safetensors::parse(&bytes, "logits").unwrap();
        file.tensors().find(|info| info.name == "logits").unwrap().to_f32(&bytes).unwrap()
    };
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    let half = format!("{}=0.5", str(&adapter));
    let (plain, whole) = (logits(&model, &[]), logits(&model, &["--lora", str(&adapter)]));
    assert!(apart(&plain, &whole) > 0.1);
    assert!(apart(&whole, &logits(&model, &["--lora", &half, "--lora", &half])) < 1e-4);
    let merged = folder.join("merged");
    stdout(&["convert", str(&model), str(&merged), "--to", "hf", "--lora", str(&adapter)]);
    assert!(apart(&whole, &logits(&merged, &[])) < 1e-4);

    let (ternary, of_ternary) = (golden("mlx-bitnet"), golden("lora/bitnet-online-f32"));
    refused(
        &["logits", "--model", str(&model), "--tokens", "1", "-o", "x.npy", "--lora", str(&of_ternary)],
        &["has shape"],
    );
    refused(
        &["logits", "--model", str(&model), "--tokens", "1", "-o", "x.npy", "--lora", "a=b"],
        &["--lora", "number"],
    );
    let args = ["convert", str(&ternary), str(&merged), "--to", "hf", "--force", "--lora", str(&adapter)];
    refused(&args, &["has shape"]);
}

#[test]
fn convert_names_a_type_that_fits() {
    let out = folder("convert-refused").join("out.gguf");
    let source = golden("bitnet-offline");
    refused(&["convert", str(&source), str(&out), "--to", "tq2_0"], &["64", "--to hf"]);
    assert!(!out.exists());
}

/// A type is advised only if every layer fits it.
#[test]
fn a_refused_format_names_one_that_takes_the_whole_model() {
    use bitnet::model::checkpoint::{Checkpoint, OpenOptions, RandomWeights};
    use bitnet::model::convert::{Embeddings, Target, convert};
    let out = folder("convert-advice").join("out.gguf");
    for (intermediate, advice) in [(256, "use --to i2_s"), (200, "use --to hf")] {
        let checkpoint = Checkpoint::open(&golden("bitnet-offline"), &OpenOptions::default()).unwrap();
        let mut config = checkpoint.weights().config().clone();
        (config.hidden_size, config.intermediate_size, config.head_dim) = (384, intermediate, 96);
        let checkpoint = checkpoint.map_weights(|_| Box::new(RandomWeights::new(config, 0)));
        let refused = convert(&checkpoint, &out, Target::Tq2_0, Embeddings::F16, &mut |_, _| {}).unwrap_err();
        assert!(refused.to_string().contains(advice), "{refused}");
    }
}

#[test]
fn the_default_model_is_inspected() {
    if !repository().join("models").is_dir() {
        return eprintln!("skipped: no models folder");
    }
    let mut command = program(&["inspect"]);
    command.current_dir(repository().join("crates"));
    let text = success(&["inspect"], run_with(command, b""));
    assert!(text.starts_with("path") && text.contains(".gguf"), "{text}");
}

#[test]
fn a_safetensors_file_stands_for_its_directory() {
    let dir = golden("bitnet-offline");
    let file = dir.join("model.safetensors");
    let parameters = |path: &Path| json(&["inspect", str(path), "--json"])["parameters"].clone();
    assert_eq!(parameters(&dir), parameters(&file));
    let alone = folder("weights-alone").join("model.safetensors");
    fs::copy(&file, &alone).unwrap();
    refused(&["inspect", str(&alone)], &["config.json"]);
}

#[test]
fn training_from_a_file_says_what_it_needs() {
    let file = golden("gguf/bitnet-b1.58-i2_s.gguf");
    for command in ["finetune", "distill"] {
        let run = folder("from-a-file").join("run");
        let args = [command, str(&file), "--data", "text.txt", "--run", str(&run)];
        refused(&args, &["bitnet-b1.58-i2_s.gguf is a file", "Hugging Face directory", "bitnet convert"]);
        assert!(!run.exists());
    }
    let text = repository().join("LICENSE");
    let out = folder("from-a-file").join("out.tokens");
    refused(&["tokenize", str(&text), "--tokenizer", str(&file), "-o", str(&out)], &["GGUF", "tokenizer.json"]);
}

#[test]
fn more_threads_than_cores_are_not_started() {
    let out = folder("threads").join("out.npy");
    let model = golden("bitnet-offline");
    let args = ["logits", "--model", str(&model), "--tokens", "1", "-o", str(&out), "-t", "1000"];
    let output = run_with(program(&args), b"");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    success(&args, output);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!(stderr.contains(&format!("1000 threads on {cores} cores")), "{stderr}");
}
