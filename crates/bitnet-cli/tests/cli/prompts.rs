//! Where prompts come from, and how much of them.

use super::*;

/// A directory with the model in the tree and a chat template.
pub(super) fn chat_model(name: &str) -> Option<PathBuf> {
    let dir = folder(name);
    stdout(&["convert", str(&text::model()?), str(&dir), "--to", "hf"]);
    let template = "{% for m in messages %}{{ m.role | upper }}:\n{{ m.content }}\n{% endfor %}ROMEO:\n";
    fs::write(dir.join("chat_template.jinja"), template).unwrap();
    Some(dir)
}

fn generate(model: &Path, more: &[&str], stdin: &[u8]) -> serde_json::Value {
    let args = [&["generate", "--model", str(model), "--temp", "0", "-n", "2", "--json"], more].concat();
    serde_json::from_str(&success(&args, run_with(program(&args), stdin))).unwrap()
}

#[test]
fn a_prompt_comes_by_any_way() {
    let Some(model) = text::model() else { return };
    let file = folder("prompt-file").join("prompt.txt");
    fs::write(&file, "ROMEO:").unwrap();
    let expected = generate(&model, &["ROMEO:"], b"");
    assert_eq!(expected["prompt"], "ROMEO:");
    for (more, stdin) in [
        (&[][..], &b"ROMEO:"[..]),
        (&["-"], b"ROMEO:"),
        (&["-p", "ROMEO:"], b""),
        (&["--prompt", "ROMEO:"], b""),
        (&["-f", str(&file)], b""),
        (&["--file", "-"], b"ROMEO:"),
    ] {
        assert_eq!(generate(&model, more, stdin)["text"], expected["text"], "{more:?}");
    }
    for prompt in ["- a list", "-5", "--- rule", "-- a dash"] {
        assert_eq!(generate(&model, &[prompt], b"")["prompt"], prompt);
    }
    assert_eq!(generate(&model, &["--prompt", "--loud"], b"")["prompt"], "--loud");
    let value = generate(&model, &["x", "--presence-penalty", "-1", "--frequency-penalty", "0.5", "--seed", "-1"], b"");
    assert!(value["seed"].as_u64().unwrap() < 1 << 53);
}

#[test]
fn an_empty_prompt_is_the_begin_token() {
    let Some(model) = text::model() else { return };
    assert_eq!(generate(&model, &[""], b"")["prompt_tokens"], 1);
    assert_eq!(generate(&model, &[], b"")["prompt_tokens"], 1);
    let dir = folder("no-begin");
    stdout(&["convert", str(&model), str(&dir), "--to", "hf"]);
    for name in ["config.json", "tokenizer_config.json"] {
        let mut value: serde_json::Value = serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap();
        value.as_object_mut().unwrap().retain(|key, _| !key.starts_with("bos_"));
        fs::write(dir.join(name), value.to_string()).unwrap();
    }
    refused(&["generate", "", "--model", str(&dir)], &["prompt is empty", "no begin token"]);
}

#[test]
fn no_limit_goes_to_the_end() {
    let Some(model) = text::model() else { return };
    let value = json(&["generate", "ROMEO:", "--model", str(&model), "-n", "-1", "--json", "--temp", "0"]);
    assert!(["context_full", "end_of_text"].contains(&value["finish_reason"].as_str().unwrap()), "{value}");
    assert!(value["tokens"].as_array().unwrap().len() > 128);
}

/// Tokenizing takes a hundred times the size of the text: what cannot fit is refused by its size.
#[test]
fn standard_input_is_bounded_before_it_is_tokenized() {
    let Some(model) = text::model() else { return };
    let args = ["generate", "--model", str(&model)];
    let output = run_with(program(&args), "To be, or not to be. ".repeat(1 << 20).as_bytes());
    check_refused(&args, output, &["more than", "bytes", "shorten the prompt"]);
}

#[test]
fn perplexity_of_standard_input() {
    let Some(model) = text::model() else { return };
    let file = folder("perplexity-stdin").join("text.txt");
    let text = "But, soft! what light through yonder window breaks?\n".repeat(4000);
    fs::write(&file, &text).unwrap();
    let args = ["perplexity", "--model", str(&model), "--window", "16", "--max-windows", "2", "--json", "-f"];
    let by_file = stdout(&[&args[..], &[str(&file)]].concat());
    let by_stdin = run_with(program(&[&args[..], &["-"]].concat()), text.as_bytes());
    assert_eq!(success(&args, by_stdin), by_file);
}

#[test]
fn a_line_that_is_not_utf8_does_not_end_a_chat() {
    let Some(dir) = chat_model("chat-utf8") else { return };
    let args = ["chat", "--model", str(&dir), "-n", "3"];
    let output = run_with(program(&args), b"\xff\xfe\nWho art thou?\n");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("not UTF-8"), "{stderr}");
    assert!(!success(&args, output).trim().is_empty());
}

#[test]
fn a_long_conversation_forgets_its_oldest_turns() {
    let Some(dir) = chat_model("chat-long") else { return };
    let args = ["chat", "--model", str(&dir), "-n", "3", "--system", "Speak."];
    let message = "What light through yonder window breaks? ".repeat(8) + "\n";
    let output = run_with(program(&args), message.repeat(12).as_bytes());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("the oldest turn is forgotten"), "{stderr}");
    assert!(!stderr.contains("does not fit"), "{stderr}");
    assert!(success(&args, output).lines().count() >= 12);
}
