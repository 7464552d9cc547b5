//! Conversations as JSON, templates by name, tokens of a prompt, and models in several files.

use super::*;
use bitnet::model::gguf::{Gguf, GgufWriter, Value};

#[test]
fn a_conversation_is_shown_as_the_model_sees_it() {
    let Some(model) = prompts::chat_model("conversation-shown") else { return };
    let shown = |more: &[&str]| stdout(&[&["template", "--model", str(&model)], more].concat());
    assert_eq!(shown(&["Who art thou?"]), "USER:\nWho art thou?\nROMEO:\n");
    let dir = folder("conversation-files");
    let file = dir.join("chat.json");
    let messages = r#"[{"role": "user", "content": "Hark"}, {"role": "tool", "content": "thunder", "name": "sky"}]"#;
    fs::write(&file, messages).unwrap();
    assert_eq!(shown(&["--messages", str(&file)]), "USER:\nHark\nTOOL:\nthunder\nROMEO:\n");

    let template = dir.join("own.jinja");
    let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}\
                  {% if add_generation_prompt %}<assistant>{% if enable_thinking %}hm{% endif %}{% endif %}";
    fs::write(&template, source).unwrap();
    let own = [
        "--chat-template",
        str(&template),
        "--template-kwargs",
        r#"{"enable_thinking": true, "tools": [{"b": 1, "a": 2}]}"#,
    ];
    assert_eq!(shown(&[&["Hi"], &own[..]].concat()), "<user>Hi[{\"b\": 1, \"a\": 2}]<assistant>hm\n");
    assert_eq!(shown(&[&["Hi", "--whole"], &own[..2]].concat()), "<user>Hi\n");

    // A last message of the assistant is continued, with its white space.
    let prefilled = r#"{"messages": [{"role": "user", "content": "A colour"}, {"role": "assistant", "content": "It is "}], "tools": []}"#;
    fs::write(&file, prefilled).unwrap();
    assert_eq!(shown(&[&["--messages", str(&file)], &own[..2]].concat()), "<user>A colour<assistant>It is \n");
    let args = [
        "generate",
        "--model",
        str(&model),
        "--messages",
        str(&file),
        own[0],
        own[1],
        "-n",
        "2",
        "--temp",
        "0",
        "--json",
    ];
    assert_eq!(json(&args)["prompt"], "<user>A colour<assistant>It is ");

    refused(&["template", "--model", str(&model)], &["TEXT"]);
    refused(&["template", "x", "--model", str(&model), "--template-kwargs", "7"], &["JSON object"]);
    refused(&["template", "x", "--model", str(&model), "--chat-template", "none.jinja"], &["none.jinja"]);
    refused(&["generate", "x", "--model", str(&model), "--template-kwargs", "{}"], &["--messages"]);
    fs::write(&file, "{}").unwrap();
    refused(&["template", "--model", str(&model), "--messages", str(&file)], &["chat.json", "no list of messages"]);
}

#[test]
fn a_chat_goes_on_with_the_conversation_of_a_file() {
    let Some(model) = prompts::chat_model("conversation-goes-on") else { return };
    let file = folder("conversation-goes-on-file").join("chat.json");
    let messages = r#"{"messages": [{"role": "system", "content": "Verse"}, {"role": "user", "content": "Hark"}]}"#;
    fs::write(&file, messages).unwrap();
    let chat = |more: &[&str], lines: &str| {
        let args = [&["chat", "--model", str(&model), "--temp", "0", "-n", "8", "--quiet"], more].concat();
        success(&args, run_with(program(&args), lines.as_bytes()))
    };
    // Its last message is answered as if it had been said, and what is said next follows.
    let said = chat(&["--system", "Verse"], "Hark\nWho goes there?\n");
    assert_eq!(chat(&["--messages", str(&file)], "Who goes there?\n"), said);
    // /reset goes back to the file.
    let first = chat(&["--messages", str(&file)], "");
    assert!(said.starts_with(&first) && first.len() < said.len(), "{first:?} {said:?}");
    let again = chat(&["--messages", str(&file)], "/reset\nWho goes there?\n");
    let both = r#"[{"role": "system", "content": "Verse"}, {"role": "user", "content": "Hark"},
                   {"role": "user", "content": "Who goes there?"}]"#;
    fs::write(&file, both).unwrap();
    assert_eq!(again, first + &chat(&["--messages", str(&file)], ""));
    refused(&["chat", "--messages", str(&file), "--system", "x"], &["--messages", "--system"]);
}

/// Text from a guess says so wherever it is made.
#[test]
fn a_guessed_block_order_is_said() {
    let model = golden("gguf/bitnet-b1.58-i2_s.gguf");
    let out = folder("guessed-order").join("out.npy");
    for (more, warns) in [(&[][..], true), (&["--i2s-order", "x86"], false), (&["--quiet"], false)] {
        let args = ["logits", "--model", str(&model), "--tokens", "1,2", "-o", str(&out), "--force"];
        let args = [&args[..], more].concat();
        let output = run_with(program(&args), b"");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        success(&args, output);
        assert_eq!(stderr.contains("warning: ") && stderr.contains("--i2s-order arm"), warns, "{more:?}: {stderr}");
    }
}

#[test]
fn the_tokens_of_a_prompt_are_listed() {
    let Some(model) = text::model() else { return };
    let value = json(&["inspect", str(&model), "--tokenize", "To be", "--json"]);
    let ids = value["ids"].as_array().unwrap();
    assert!(!ids.is_empty() && value["pieces"].as_array().unwrap().len() == ids.len(), "{value}");
    let lines = stdout(&["inspect", str(&model), "--tokenize", "To be"]);
    assert_eq!(lines.lines().count(), ids.len());
    for (line, id) in lines.lines().zip(ids) {
        assert!(line.trim_start().starts_with(&id.to_string()), "{line}");
    }
}

/// Writes a GGUF file as `gguf-split` does: `first` tensors in the first file, the others in two more.
fn split(model: &Path, dir: &Path, first: usize) -> [PathBuf; 3] {
    let bytes = fs::read(model).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    let (all, half) = (gguf.tensors.len(), first + (gguf.tensors.len() - first) / 2);
    let parts = [0..first, first..half, half..all];
    let paths = [1, 2, 3].map(|number| dir.join(format!("m-{number:05}-of-00003.gguf")));
    for (number, (path, range)) in paths.iter().zip(parts).enumerate() {
        let mut metadata = if number == 0 { gguf.metadata.clone() } else { Default::default() };
        metadata.insert("split.no", Value::U16(number as u16));
        metadata.insert("split.count", Value::U16(3));
        metadata.insert("split.tensors.count", Value::I32(all as i32));
        let mut writer = GgufWriter::new(metadata);
        let tensors = &gguf.tensors[range];
        tensors.iter().for_each(|t| writer.add(&t.name, t.ty, &t.shape).unwrap());
        let data = |name: &str| gguf.find(name).unwrap().data(&bytes).to_vec();
        writer.write(path, |t, sink| sink.put(&data(&t.name)).map_err(bitnet::model::ModelError::from)).unwrap();
    }
    paths
}

#[test]
fn a_split_model_is_opened_by_its_first_file() {
    let Some(model) = text::model() else { return };
    let generate = |model: &Path| {
        json(&["generate", "ROMEO:", "-m", str(model), "--temp", "0", "-n", "4", "--json"])["tokens"].clone()
    };
    let expected = generate(&model);
    for first in [0, 3] {
        let dir = folder(&format!("split-{first}"));
        let parts = split(&model, &dir, first);
        assert_eq!(generate(&parts[0]), expected, "{first} tensors in the first");
        refused(&["inspect", str(&parts[1])], &["part 2 of 3", "m-00001-of-00003.gguf"]);
        let other = dir.join("renamed.gguf");
        fs::rename(&parts[0], &other).unwrap();
        refused(&["inspect", str(&other)], &["first of 3 files", "-00001-of-00003.gguf"]);
        fs::rename(&other, &parts[0]).unwrap();
        fs::copy(&parts[1], &parts[2]).unwrap();
        refused(&["inspect", str(&parts[0])], &["file 3 of 3 says that it is another"]);
        fs::remove_file(&parts[2]).unwrap();
        refused(&["inspect", str(&parts[0])], &["m-00003-of-00003.gguf"]);
    }
}

#[test]
fn the_model_says_how_it_is_sampled_unless_a_flag_does() {
    let Some(model) = text::model() else { return };
    let dir = folder("sampling-defaults");
    stdout(&["convert", str(&model), str(&dir), "--to", "hf"]);
    let generate = |more: &[&str]| {
        let args = ["generate", "ROMEO:", "-m", str(&dir), "-n", "12", "--seed", "5", "--json"];
        json(&[&args[..], more].concat())["tokens"].clone()
    };
    let (greedy, random) =
        (generate(&["--temp", "0"]), generate(&["--temp", "1.5", "--top-k", "50", "--repeat-penalty", "1.3"]));
    assert_ne!(greedy, random);
    fs::write(dir.join("generation_config.json"), r#"{"do_sample": false, "temperature": 0.6}"#).unwrap();
    assert_eq!(generate(&[]), greedy);
    let config = r#"{"do_sample": true, "temperature": 1.5, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.3}"#;
    fs::write(dir.join("generation_config.json"), config).unwrap();
    assert_eq!(generate(&[]), random);
    assert_eq!(generate(&["--temp", "0", "--repeat-penalty", "1"]), greedy);
}

fn notes(model: &Path) -> String {
    json(&["inspect", str(model), "--json"])["notes"].to_string()
}

/// An index may name the wrong file.
#[test]
fn a_tensor_in_another_shard_is_found() {
    let source = super::golden("llama-online-sharded");
    let dir = copy_of(&source, "odd-shard");
    let index = dir.join("model.safetensors.index.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    value["weight_map"]["model.norm.weight"] = "model-00001-of-00003.safetensors".into();
    value["weight_map"]["model.embed_tokens.weight"] = "model-00002-of-00003.safetensors".into();
    fs::write(&index, value.to_string()).unwrap();
    golden::check(&dir, &source.join("golden.safetensors"), &[]);
    assert!(notes(&dir).contains("the index names the wrong file for model."), "{}", notes(&dir));
}

/// A base model is saved without `model.` before its names.
#[test]
fn names_without_the_name_of_the_model_are_read() {
    let source = super::golden("qwen2");
    let dir = copy_of(&source, "bare-names");
    let file = dir.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap().replace("\"model.", "\"");
    bytes[8..8 + length].copy_from_slice(format!("{header:<length$}").as_bytes());
    fs::write(&file, bytes).unwrap();
    golden::check(&dir, &source.join("golden.safetensors"), &[]);
}

#[test]
fn biases_that_the_configuration_does_not_announce_are_noted() {
    let source = super::golden("llama-bias-online");
    let announced = "does not say attention_bias";
    assert!(!notes(&source).contains(announced), "{}", notes(&source));
    let dir = copy_of(&source, "odd-bias");
    let config = fs::read_to_string(dir.join("config.json")).unwrap();
    fs::write(dir.join("config.json"), config.replace("\"attention_bias\": true", "\"attention_bias\": false"))
        .unwrap();
    assert!(notes(&dir).contains(announced), "{}", notes(&dir));
}
