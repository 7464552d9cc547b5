//! Inconsistent tokenizer files and vocabularies: an error that says what is wrong, never a panic.

use std::path::PathBuf;

use bitnet_model::chat_template::{ChatMessage, ChatTemplate};
use bitnet_model::tokenizer::{GgufVocab, ParseSpecial, StreamDecoder, StreamStart, Tokenizer};
use serde_json::{Value, json};

fn definition(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizer_data");
    serde_json::from_slice(&std::fs::read(path.join(format!("{name}.tokenizer.json"))).unwrap()).unwrap()
}

fn load(value: &Value) -> Result<Tokenizer, String> {
    Tokenizer::from_json(&serde_json::to_vec(value).unwrap()).map_err(|e| e.to_string())
}

/// A tokenizer can read what it writes.
fn exercise_writing(tokenizer: &Tokenizer) {
    if let Ok(vocab) = tokenizer.to_gguf(tokenizer.vocab_size() + 5) {
        Tokenizer::from_gguf(&vocab).unwrap();
    }
}

/// Every method of a tokenizer that takes outside data.
fn exercise(tokenizer: &Tokenizer) {
    for text in ["", " a", "Hello wörld 123\n\n <|eot_id|> <tool>\u{0}🙂", "▁▁<0x41>", "'s't  \u{301}"] {
        for parse in [ParseSpecial::No, ParseSpecial::Yes] {
            if let Ok(ids) = tokenizer.encode_with(text, true, parse) {
                tokenizer.decode(&ids).unwrap();
            }
        }
    }
    for id in (0..tokenizer.vocab_size() as u32 + 3).chain([u32::MAX]) {
        let known = (id as usize) < tokenizer.vocab_size();
        assert_eq!(tokenizer.decode(&[id]).is_ok(), known);
        assert_eq!(tokenizer.token_bytes(id).is_some(), known);
        assert!(known || tokenizer.token_text(id).is_none());
    }
}

#[test]
fn contradictions_in_tokenizer_json_are_named() {
    let gpt2 = definition("gpt2");
    load(&gpt2).unwrap();
    let with = |path: &str, value: Value| {
        let mut changed = gpt2.clone();
        *changed.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        load(&changed).unwrap_err()
    };
    let cases = [
        ("/model", Value::Null, "no model"),
        ("/model/type", json!("WordPiece"), "WordPiece"),
        ("/model/type", json!("Unigram"), "its vocabulary"),
        ("/model", json!({"type": "Unigram", "vocab": []}), "empty"),
        ("/model", json!({"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": 1}), "unk_id"),
        ("/model/vocab", json!({}), "empty"),
        ("/model/vocab", json!({"a": 0, "b": 0}), "id 0"),
        ("/model/vocab", json!({"a": 4_000_000_000u64}), "4000000000"),
        ("/model/vocab", json!({"a": -1}), "-1"),
        ("/model/vocab", json!({"a": "x"}), "\"a\""),
        ("/model/merges", json!([["a", "b"], ["nothing", "here"]]), "\"ab\""),
        ("/model/merges", json!([["a", "Ġzzzzzzzzzzzzzzzzzzzz"]]), "Ġzzz"),
        ("/model/merges", json!(["abc"]), "merge 0"),
        ("/model/merges", json!(7), "merges"),
        ("/model/continuing_subword_prefix", json!("##"), "continuing_subword_prefix"),
        ("/model/unk_token", json!("<none>"), "<none>"),
        ("/decoder", json!({"type": "WordPiece"}), "WordPiece"),
        ("/decoder", Value::Null, "decoder"),
        ("/pre_tokenizer", json!({"type": "Mecab"}), "Mecab"),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": false}),
            "tokenizer.json",
        ),
        // A number of bytes, a node that points at itself and beyond, and a leaf's value after the texts.
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AA=="}), "cut short"),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="}), "cut short"),
        (
            "/normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAEAAA="}),
            "points outside itself",
        ),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}), "points outside itself"),
        ("/post_processor", json!({"type": "RobertaProcessing", "sep": ["</s>", 70000], "cls": ["<s>", 0]}), "70000"),
        ("/post_processor", json!({"type": "BertProcessing", "sep": ["</s>"], "cls": []}), "template"),
        ("/added_tokens/3/id", json!(9999), "9999"),
        ("/added_tokens/0/content", json!(""), "empty"),
        ("/added_tokens", json!({}), "added_tokens"),
        ("/post_processor", json!({"type": "TemplateProcessing", "single": [], "special_tokens": {}}), "template"),
        (
            "/post_processor",
            json!({"type": "TemplateProcessing", "special_tokens": {"<s>": {"ids": [70000]}},
                   "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}),
            "70000",
        ),
    ];
    for (path, value, expected) in cases {
        let error = with(path, value);
        assert!(error.contains(expected), "{path}: {error:?} does not say {expected:?}");
    }
    for bytes in [&b""[..], b"{", b"[]", b"7", b"\xff\xfe", b"{\"model\": {\"type\": \"BPE\"}}"] {
        assert!(Tokenizer::from_json(bytes).is_err());
    }
    let deep = "[".repeat(100_000);
    assert!(Tokenizer::from_json(deep.as_bytes()).is_err());
    let error = Tokenizer::from_file("/nonexistent/tokenizer.json").unwrap_err().to_string();
    assert!(error.contains("/nonexistent/tokenizer.json"), "{error}");
}

fn small_gpt2() -> GgufVocab {
    let text = |t: &[&str]| t.iter().map(|t| t.to_string()).collect::<Vec<_>>();
    GgufVocab {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens: text(&["a", "b", "ab", "Ġ", "<|eot_id|>"]),
        token_types: vec![1, 1, 1, 1, 3],
        merges: text(&["a b"]),
        ..GgufVocab::default()
    }
}

fn small_llama() -> GgufVocab {
    let text = |t: &[&str]| t.iter().map(|t| t.to_string()).collect::<Vec<_>>();
    GgufVocab {
        model: "llama".into(),
        tokens: text(&["<unk>", "<s>", "</s>", "▁", "a", "aa", "aaa", "[PAD7]"]),
        scores: vec![0.0, 0.0, 0.0, -3.0, -4.0, -1.0, -2.0, 0.0],
        token_types: vec![2, 3, 3, 1, 1, 1, 1, 5],
        ..GgufVocab::default()
    }
}

#[test]
fn contradictions_in_a_gguf_vocabulary_are_named() {
    type Make = fn() -> GgufVocab;
    type Change = fn(&mut GgufVocab);
    let cases: [(Make, Change, &str); 16] = [
        (small_gpt2, |v| v.tokens.clear(), "empty"),
        (small_gpt2, |v| v.token_types.truncate(2), "token_type has 2 entries for 5 tokens"),
        (small_gpt2, |v| v.token_types[1] = 99, "99"),
        (small_gpt2, |v| v.scores = vec![0.0], "scores has 1 entries"),
        (small_gpt2, |v| v.merges[0] = "a x".into(), "\"x\""),
        (small_gpt2, |v| v.merges[0] = "b a".into(), "\"ba\""),
        (small_gpt2, |v| v.merges[0] = "ab".into(), "merge 0"),
        (small_gpt2, |v| v.merges[0] = String::new(), "merge 0"),
        (small_gpt2, |v| v.pre = Some("vikings".into()), "vikings"),
        (small_gpt2, |v| v.model = "bert".into(), "bert"),
        (small_gpt2, |v| v.eos = Some(5), "token id 5 is outside the vocabulary of 5 tokens"),
        (small_gpt2, |v| v.add_bos = Some(true), "begin or end token"),
        (small_llama, |v| v.scores.clear(), "scores"),
        (small_llama, |v| v.scores[3] = f32::NAN, "not a number"),
        (small_llama, |v| v.token_types[4] = 6, "byte"),
        (small_llama, |v| v.unk = Some(1 << 30), "1073741824"),
    ];
    for (make, change, expected) in cases {
        let mut vocab = make();
        exercise(&Tokenizer::from_gguf(&vocab).unwrap());
        change(&mut vocab);
        let error = Tokenizer::from_gguf(&vocab).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
    let tokenizer = Tokenizer::from_gguf(&small_gpt2()).unwrap();
    let error = tokenizer.to_gguf(3).unwrap_err().to_string();
    assert!(error.contains("4 tokens") && error.contains("3 rows"), "{error}");
    // An added token without a row is left out, and that is said.
    let written = tokenizer.to_gguf(4).unwrap();
    assert_eq!((written.tokens.len(), written.eot), (4, None));
    assert!(tokenizer.lost_in_gguf(4)[0].contains("no row"), "{:?}", tokenizer.lost_in_gguf(4));
    assert_eq!(tokenizer.lost_in_gguf(5), [""; 0]);
}

#[test]
fn kinds_of_tokens_are_honoured() {
    let tokenizer = Tokenizer::from_gguf(&small_llama()).unwrap();
    // The leftmost of equal unions; unknown text; control tokens only when parsed; unused ones never.
    assert_eq!(tokenizer.encode("aaaa", true).unwrap(), [1, 3, 5, 5]);
    assert_eq!(tokenizer.encode("axya", false).unwrap(), [3, 4, 0, 4]);
    assert_eq!(tokenizer.encode("a</s>a", false).unwrap(), [3, 4, 2, 3, 4]);
    assert_eq!(tokenizer.encode_with("</s>", false, ParseSpecial::No).unwrap(), [3, 0]);
    assert_eq!(tokenizer.encode("[PAD7]", false).unwrap(), [3, 0]);
    assert_eq!(tokenizer.decode(&[1, 3, 4, 7, 3, 4, 2]).unwrap(), "a a");
    assert_eq!(tokenizer.decode_with_special(&[1, 3, 4]).unwrap(), "<s> a");
    assert!(tokenizer.is_stop(2) && !tokenizer.is_stop(1));

    let gpt2 = Tokenizer::from_gguf(&small_gpt2()).unwrap();
    assert_eq!(gpt2.encode("ab<|eot_id|> a", true).unwrap(), [2, 4, 3, 0]);
    assert!(gpt2.is_stop(4));
    assert_eq!(gpt2.special().eot, Some(4));
}

#[test]
fn a_file_without_a_pre_tokenizer_name_is_read_and_reported() {
    let mut vocab = small_gpt2();
    vocab.pre = None;
    let tokenizer = Tokenizer::from_gguf(&vocab).unwrap();
    assert!(tokenizer.warnings()[0].contains("\"default\""), "{:?}", tokenizer.warnings());
    // The official BitNet 2B4T file: Llama 3's vocabulary, no name.
    vocab.tokens.push("<|begin_of_text|>".into());
    vocab.token_types.push(3);
    for i in vocab.tokens.len()..128_256 {
        vocab.tokens.push(format!("token{i}"));
        vocab.token_types.push(1);
    }
    let tokenizer = Tokenizer::from_gguf(&vocab).unwrap();
    assert!(tokenizer.warnings()[0].contains("\"llama-bpe\""), "{:?}", tokenizer.warnings());
}

/// Replaces a value at a random position by one of another kind.
fn mutate(value: &mut Value, random: &mut impl FnMut(usize) -> usize) {
    let odd =
        || json!([null, -1, 0, 1e300, "", "Ġ", "é", "\u{0}", [], {}, true, 4294967295u64, ["a", "b"], "BPE", 70000]);
    let stop = random(4) == 0;
    match value {
        Value::Array(list) if !list.is_empty() && !stop => {
            let at = random(list.len());
            mutate(&mut list[at], random);
        }
        Value::Object(map) if !map.is_empty() && !stop => {
            let at = random(map.len());
            let key = map.keys().nth(at).cloned().unwrap();
            if random(6) == 0 {
                let moved = map.remove(&key).unwrap();
                map.insert(["type", "a", "id", "Ġ"][random(4)].to_owned(), moved);
            } else {
                mutate(&mut map[&key], random);
            }
        }
        other => {
            let choices = odd();
            *other = choices[random(choices.as_array().unwrap().len())].clone();
        }
    }
}

#[test]
fn random_damage_never_panics() {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % n
    };
    // A short vocabulary, so that random damage is likely to matter.
    let mut bases = Vec::new();
    for vocab in [small_gpt2(), small_llama()] {
        let file = std::env::temp_dir().join(format!("bitnet-hostile-{}-{}.json", vocab.model, std::process::id()));
        Tokenizer::from_gguf(&vocab).unwrap().save_json(&file).unwrap();
        bases.push(serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap());
        std::fs::remove_file(&file).unwrap();
    }
    let mut accepted = 0;
    for round in 0..4000 {
        let mut value = bases[round % 2].clone();
        for _ in 0..=random(3) {
            mutate(&mut value, &mut random);
        }
        if let Ok(tokenizer) = load(&value) {
            accepted += 1;
            exercise(&tokenizer);
            // Identifying a byte-level pre-tokenizer is slow.
            if accepted % 20 == 0 {
                exercise_writing(&tokenizer);
            }
        }
    }
    assert!(accepted > 100, "{accepted}");
    for _ in 0..4000 {
        let mut vocab = if random(2) == 0 { small_gpt2() } else { small_llama() };
        for _ in 0..=random(3) {
            let n = vocab.tokens.len();
            match random(8) {
                0 => vocab.tokens[random(n)] = ["", " ", "a b", "<0x41>", "é", "▁a"][random(6)].into(),
                1 if !vocab.token_types.is_empty() => vocab.token_types[random(n)] = random(9) as i32 - 1,
                2 if !vocab.scores.is_empty() => {
                    vocab.scores[random(n)] = [f32::INFINITY, f32::NEG_INFINITY, -0.0, 9.0][random(4)];
                }
                3 => vocab.merges.push(["a b", " a", "  ", "é é", "a", "ab ab"][random(6)].into()),
                4 => vocab.bos = Some(random(12) as u32),
                5 => vocab.unk = Some(random(12) as u32),
                6 => vocab.add_eos = Some(true),
                _ => vocab.pre = [None, Some("default".into()), Some("llama-bpe".into())][random(3)].clone(),
            }
        }
        if let Ok(tokenizer) = Tokenizer::from_gguf(&vocab) {
            exercise(&tokenizer);
            if vocab.model == "llama" {
                exercise_writing(&tokenizer);
            }
        }
    }
}

#[test]
fn long_texts_take_time_in_proportion() {
    for name in ["llama3", "sentencepiece"] {
        let tokenizer = load(&definition(name)).unwrap();
        for text in [" ".repeat(300_000), "a".repeat(300_000), "a b1\n".repeat(60_000), "🙂".repeat(60_000)] {
            let ids = tokenizer.encode(&text, false).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{name}");
        }
        // A regex engine that gives up on the run of spaces would leave the rest uncut.
        let tail = tokenizer.encode("x hello world 1234567 don't", false).unwrap();
        let ids = tokenizer.encode(&(" ".repeat(2_000_000) + "x hello world 1234567 don't"), false).unwrap();
        assert!(ids.ends_with(&tail[2..]), "{name}");
    }
}

#[test]
fn a_stream_survives_unknown_ids() {
    let tokenizer = load(&definition("gpt2")).unwrap();
    let mut stream = StreamDecoder::new(StreamStart::Text);
    assert!(stream.push(&tokenizer, 1_000_000).is_err());
    let id = tokenizer.encode("a", false).unwrap()[0];
    assert_eq!(stream.push(&tokenizer, id).unwrap(), "a");
}

#[test]
fn files_beside_tokenizer_json_are_read() {
    let folder = std::env::temp_dir().join(format!("bitnet-siblings-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("tokenizer.json", &definition("gpt2").to_string());
    let plain = Tokenizer::from_file(&folder).unwrap();
    assert_eq!((plain.special().bos, plain.chat_template_source()), (None, None));
    assert!(ChatTemplate::of(&plain).unwrap().is_none());

    let config = json!({
        "bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|end_of_text|>"},
        "add_bos_token": true, "add_eos_token": false, // without effect where there is a tokenizer.json
        "chat_template": [{"name": "tool_use", "template": "no"},
                          {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}],
    });
    write("tokenizer_config.json", &config.to_string());
    let eot = plain.token_id("<|eot_id|>").unwrap();
    write("generation_config.json", &json!({"eos_token_id": [eot, 5, 123_456]}).to_string());
    let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let special = tokenizer.special().clone();
    assert_eq!(special.bos, tokenizer.token_id("<|begin_of_text|>"));
    assert_eq!(tokenizer.encode("", true).unwrap(), [] as [u32; 0]);
    let mut stops = vec![5, eot, special.eos.unwrap()];
    stops.sort_unstable();
    assert_eq!(special.stop, stops);
    assert!(tokenizer.warnings()[0].contains("123456"));
    let messages = [ChatMessage::new("user", "hi")];
    let render = |t: &Tokenizer| ChatTemplate::of(t).unwrap().unwrap().render(&messages, true).unwrap();
    assert_eq!(render(&tokenizer), "<|begin_of_text|>hi<|end_of_text|>");
    write("chat_template.jinja", "file {{ messages | length }}\n");
    assert_eq!(render(&Tokenizer::from_file(&folder).unwrap()), "file 1");

    for (name, text, expected) in [
        ("tokenizer_config.json", "{", "tokenizer_config.json"),
        ("generation_config.json", "\u{1}", "generation_config.json"),
    ] {
        let good = std::fs::read_to_string(folder.join(name)).unwrap();
        write(name, text);
        let error = Tokenizer::from_file(&folder).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        write(name, &good);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
