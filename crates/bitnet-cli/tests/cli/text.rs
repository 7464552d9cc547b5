//! Commands that make or read text, with the small model in the tree, or the shared one that it was made from.

use super::*;
use std::io::Read;

/// The shared Shakespeare checkpoint; says so where it is absent.
fn shared() -> Option<PathBuf> {
    let path = repository().join("../shared/models/shakespeare-hf-offline");
    let found = path.is_dir().then_some(path);
    if found.is_none() {
        eprintln!("skipped: ../shared/models/shakespeare-hf-offline is absent");
    }
    found
}

/// A small model that writes text.
pub(super) fn model() -> Option<PathBuf> {
    let gguf = Some(repository().join("models/shakespeare.gguf")).filter(|path| path.exists());
    gguf.or_else(shared)
}

#[test]
fn the_model_in_the_tree_is_the_default() {
    if !repository().join("models").is_dir() {
        return eprintln!("skipped: no models folder");
    }
    let args = ["generate", "ROMEO:", "-n", "4", "--json"];
    let mut command = program(&args);
    command.current_dir(repository().join("crates"));
    let value: serde_json::Value = serde_json::from_str(&success(&args, run_with(command, b""))).unwrap();
    assert_eq!(value["tokens"].as_array().unwrap().len(), 4);
}

#[test]
fn chat_in_a_clone_takes_the_chat_model() {
    if !repository().join("models").is_dir() {
        return eprintln!("skipped: no models folder");
    }
    let args = ["chat", "--temperature", "0"];
    let mut command = program(&args);
    command.current_dir(repository().join("crates"));
    let text = success(&args, run_with(command, b"My name is Anna.\nWhat is 37 + 45?\nWhat is my name?\n"));
    assert_eq!(text, "Nice to meet you, Anna.\n37 + 45 = 82.\nYour name is Anna.\n");
}

#[test]
fn generate_streams_text_and_tells_the_speed() {
    let Some(model) = model() else { return };
    let args = ["generate", "ROMEO:", "--model", str(&model), "-n", "8", "--seed", "1"];
    let output = run_with(program(&args), b"");
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let text = success(&args, output);
    assert!(text.len() > 8 && text.ends_with('\n'), "{text:?}");
    assert!(stderr.starts_with("prompt: ") && stderr.contains("tokens/s; decode: 8 tokens"), "{stderr}");
    assert!(stderr.contains("seed 1") && stderr.lines().count() == 1, "{stderr}");
    assert_eq!(stdout(&args), text, "equal seeds");
}

#[test]
fn generate_for_machines() {
    let Some(model) = model() else { return };
    let args = ["generate", "-", "--model", str(&model), "-n", "8", "--temperature", "0", "--json"];
    let value: serde_json::Value =
        serde_json::from_str(&success(&args, run_with(program(&args), "ROMEO:\nO, é".as_bytes()))).unwrap();
    assert_eq!(value["prompt"], "ROMEO:\nO, é");
    assert_eq!(value["tokens"].as_array().unwrap().len(), 8);
    assert_eq!(value["finish_reason"], "max_tokens");
    assert!(value["text"].is_string() && value["seed"].is_u64() && value["prompt_tokens"].is_u64());
    assert!(value["prompt_tokens_per_second"].as_f64().unwrap() > 0.);
    assert!(value["decode_tokens_per_second"].as_f64().unwrap() > 0.);
}

#[test]
fn a_forbidden_token_is_not_chosen() {
    let Some(model) = model() else { return };
    let first = |flags: &[&str]| {
        let mut args = vec!["generate", "ROMEO:", "--model", str(&model), "--temperature", "0", "-n", "1", "--json"];
        args.extend(flags);
        json(&args)["tokens"][0].as_u64().unwrap()
    };
    let likeliest = first(&[]);
    assert_ne!(first(&["--logit-bias", &format!("{likeliest}=-inf")]), likeliest);
    assert_eq!(first(&["--logit-bias", "7=-1", "--logit-bias", "9=1000"]), 9);
}

#[test]
fn stop_strings_and_the_end_of_the_context() {
    let Some(model) = model() else { return };
    let generate = |flags: &[&str]| {
        let mut args = vec!["generate", "ROMEO:", "--model", str(&model), "--temperature", "0", "--json"];
        args.extend(flags);
        json(&args)
    };
    let whole = generate(&["-n", "30"]);
    let text = whole["text"].as_str().unwrap();
    let stop: String = text.chars().skip(10).take(4).collect();
    let cut = generate(&["-n", "30", "--stop", &stop]);
    assert_eq!(cut["finish_reason"], "stop_string");
    assert_eq!(cut["text"].as_str().unwrap(), &text[..text.find(&stop).unwrap()]);
    let full = generate(&["-n", "100000"]);
    assert!(["context_full", "end_of_text"].contains(&full["finish_reason"].as_str().unwrap()), "{full}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let Some(model) = model() else { return };
    let mut child = program(&["generate", "ROMEO:", "--model", str(&model), "-n", "100"]).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !stderr.contains("error"), "{}: {stderr}", output.status);
}

#[test]
fn a_prompt_longer_than_the_context() {
    let Some(model) = model() else { return };
    let args = ["generate", "-", "--model", str(&model)];
    let prompt = "To be, or not to be. ".repeat(2000);
    check_refused(&args, run_with(program(&args), prompt.as_bytes()), &["context", "shorten the prompt"]);
}

#[test]
fn perplexity_and_what_it_refuses() {
    let Some(model) = model() else { return };
    let folder = folder("perplexity");
    let file = folder.join("text.txt");
    fs::write(&file, "But, soft! what light through yonder window breaks?\n".repeat(20)).unwrap();
    let args = ["perplexity", "--model", str(&model), "--file", str(&file), "--window", "16"];
    let value = json(&[&args[..], &["--max-windows", "3", "--json"]].concat());
    assert_eq!((&value["windows"], &value["tokens"]), (&3.into(), &48.into()));
    let nll = value["mean_nll"].as_f64().unwrap();
    assert!((value["perplexity"].as_f64().unwrap() / nll.exp() - 1.).abs() < 1e-9);
    assert!(value["bits_per_byte"].as_f64().unwrap() > 0.);
    assert!(stdout(&args).starts_with("perplexity"));

    let refuse = |flags: &[&str], words: &[&str]| {
        refused(&[&["perplexity", "--model", str(&model)], flags].concat(), words);
    };
    refuse(&["--file", str(&file), "--window", "99999"], &["--window 99999", "context"]);
    refuse(&["--file", str(&folder.join("absent"))], &["absent"]);
    fs::write(&file, "short").unwrap();
    refuse(&["--file", str(&file)], &["longer text"]);
    fs::write(&file, "").unwrap();
    refuse(&["--file", str(&file)], &["longer text"]);
    fs::write(&file, b"\xff").unwrap();
    refuse(&["--file", str(&file)], &["not UTF-8"]);
}

#[test]
fn the_golden_text_and_likelihood() {
    let Some(dir) = shared() else { return };
    let golden: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("golden.json")).unwrap()).unwrap();
    let prompt = golden["prompt"].as_str().unwrap();
    let args = ["generate", prompt, "--model", str(&dir), "--temperature", "0", "-n", "48", "--json"];
    let text = json(&args)["text"].as_str().unwrap().to_string();
    assert_eq!(format!("{prompt}{text}"), golden["greedy_text"].as_str().unwrap());

    let whole = fs::read_to_string(dir.join("../../data/tinyshakespeare/input.txt")).unwrap();
    assert!(whole.is_ascii());
    let file = folder("validation").join("text.txt");
    fs::write(&file, &whole[whole.len() * 9 / 10..]).unwrap();
    let value = json(&["perplexity", "--model", str(&dir), "--file", str(&file), "--max-windows", "40", "--json"]);
    let expected = golden["mean_nll_first_40_windows_of_256"].as_f64().unwrap();
    assert!((value["mean_nll"].as_f64().unwrap() - expected).abs() <= 1e-3, "{value}, expected {expected}");
}

#[test]
fn a_conversation() {
    let Some(dir) = shared() else { return };
    refused(&["chat", "--model", str(&dir)], &["no chat template", "bitnet generate"]);

    let dir = copy_of(&dir, "chat");
    let template = "{% for m in messages %}{{ m.role | upper }}:\n{{ m.content }}\n{% endfor %}ROMEO:\n";
    fs::write(dir.join("chat_template.jinja"), template).unwrap();
    let args = ["chat", "--model", str(&dir), "--system", "Speak.", "-n", "5", "--seed", "3"];
    let output =
        run_with(program(&args), b"Who art thou?\n/help\n\n/dance\nWhence?\n/reset\nWho art thou?\n/exit\nnever\n");
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let answers = success(&args, output);
    assert!(answers.trim().lines().count() >= 3, "{answers}");
    for word in ["/reset", "no /dance", "forgotten"] {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
    // A message that does not fit is not part of the conversation, which goes on.
    let long = format!("{}\nWho art thou?\n", "words ".repeat(500));
    let output = run_with(program(&args), long.as_bytes());
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not fit: the conversation has"));
    assert!(!success(&args, output).trim().is_empty());
}
