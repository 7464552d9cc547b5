//! Every pre-tokenizer that GGUF names (`tokenizer_data/make_pre_goldens.py`), and what the files beside a `tokenizer.json` change, as
//! transformers 5.24 does.

use std::path::{Path, PathBuf};

use bitnet_model::tokenizer::{GgufVocab, ParseSpecial, Tokenizer};
use serde_json::{Value, json};

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// A vocabulary of that kind.
fn vocab(golden: &Value, kind: &Value, name: &str) -> GgufVocab {
    let part = &golden[kind["vocabulary"].as_str().unwrap()];
    let tokens = strings(&part["tokens"]);
    let token_types = tokens.iter().map(|token| if token.starts_with("<0x") { 6 } else { 1 }).collect();
    let model = if name == "gemma4" { "gemma4" } else { "gpt2" };
    GgufVocab {
        model: model.into(),
        pre: Some(name.into()),
        tokens,
        token_types,
        merges: strings(&part["merges"]),
        ..GgufVocab::default()
    }
}

#[test]
fn every_pre_tokenizer_cuts_as_its_expressions_say() {
    let golden: Value = serde_json::from_str(include_str!("tokenizer_data/pre.golden.json")).unwrap();
    let text = golden["text"].as_str().unwrap();
    let mut names = 0;
    for kind in golden["kinds"].as_array().unwrap() {
        for name in strings(&kind["names"]) {
            let tokenizer = Tokenizer::from_gguf(&vocab(&golden, kind, &name)).unwrap();
            // Only Gemma 4 and Granite take a run of newlines that is a token whole.
            if name != "sarvam-moe" {
                let got = tokenizer.encode_with(text, false, ParseSpecial::No).unwrap();
                assert_eq!(got, ids(&kind["ids"]), "{name}");
            }
            // Writing looks for the kind among all: once for each.
            if kind["vocabulary"] == "byte_level" && kind["names"][0] == *name {
                assert_eq!(tokenizer.decode(&ids(&kind["ids"])).unwrap(), text, "{name}");
                let written = tokenizer.to_gguf(tokenizer.vocab_size()).unwrap();
                let again = Tokenizer::from_gguf(&written).unwrap();
                assert_eq!(
                    again.encode(text, false).unwrap(),
                    ids(&kind["ids"]),
                    "{name} written as {:?}",
                    written.pre
                );
            }
            names += 1;
        }
    }
    assert!(names > 85, "{names}");
}

#[test]
fn bytes_that_are_no_utf8_decode_to_replacement_characters() {
    let golden: Value = serde_json::from_str(include_str!("tokenizer_data/pre.golden.json")).unwrap();
    let kind = &golden["kinds"][0];
    let tokenizer = Tokenizer::from_gguf(&vocab(&golden, kind, "gpt-2")).unwrap();
    let bytes: Vec<u32> = ["ÿ", "a", "Ã"].map(|token| tokenizer.token_id(token).unwrap()).to_vec();
    assert_eq!(tokenizer.decode(&bytes).unwrap(), "\u{fffd}a\u{fffd}");
}

/// Gemma 4's vocabulary goes back to what it was.
#[test]
fn gemma4_survives_writing() {
    let golden: Value = serde_json::from_str(include_str!("tokenizer_data/pre.golden.json")).unwrap();
    let kind = golden["kinds"].as_array().unwrap().iter().find(|kind| kind["names"][0] == "gemma4").unwrap();
    let tokenizer = Tokenizer::from_gguf(&vocab(&golden, kind, "gemma4")).unwrap();
    let again = Tokenizer::from_gguf(&tokenizer.to_gguf(tokenizer.vocab_size()).unwrap()).unwrap();
    assert_eq!(again.encode(golden["text"].as_str().unwrap(), false).unwrap(), ids(&kind["ids"]));
}

fn data(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizer_data").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bitnet-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, value: &Value) -> &Self {
        std::fs::write(self.0.join(name), value.to_string()).unwrap();
        self
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn a_lone_add_bos_token_does_not_take_the_begin_token_away() {
    let folder = Folder::new("add-bos");
    folder.write("tokenizer.json", &data("llama3.tokenizer.json"));
    let expected = Tokenizer::from_file(folder.path()).unwrap().encode("Hello world", true).unwrap();
    for config in [json!({"add_bos_token": false}), json!({"add_eos_token": false}), json!({"add_eos_token": true})] {
        folder.write("tokenizer_config.json", &config);
        let tokenizer = Tokenizer::from_file(folder.path()).unwrap();
        assert_eq!(tokenizer.encode("Hello world", true).unwrap(), expected, "{config}");
        assert_eq!(expected[0], tokenizer.token_id("<|begin_of_text|>").unwrap());
    }
}

#[test]
fn tokens_that_only_the_files_beside_it_name_are_added() {
    let folder = Folder::new("added");
    folder.write("tokenizer.json", &data("llama3.tokenizer.json"));
    let plain = Tokenizer::from_file(folder.path()).unwrap();
    let next = plain.vocab_size() as u32;
    let flags = |special: bool, lstrip: bool| json!({"special": special, "lstrip": lstrip, "rstrip": false, "normalized": !special, "single_word": false});
    let token = |content: &str, special: bool, lstrip: bool| {
        let mut token = flags(special, lstrip);
        token["content"] = content.into();
        token
    };
    // The ids follow the vocabulary, whatever is stated; a named token comes after those.
    let decoder = json!({"900": token("<call>", true, false), "901": token("userword", false, false)});
    folder.write(
        "tokenizer_config.json",
        &json!({"added_tokens_decoder": decoder, "pad_token": "[PAD]", "eos_token": "<|eot_id|>"}),
    );
    let tokenizer = Tokenizer::from_file(folder.path()).unwrap();
    assert_eq!(["<call>", "userword", "[PAD]"].map(|t| tokenizer.token_id(t)), [next, next + 1, next + 2].map(Some));
    assert_eq!(tokenizer.special().pad, Some(next + 2));
    let spaced = [plain.encode("a ", false).unwrap(), vec![next], plain.encode(" b", false).unwrap()].concat();
    assert_eq!(tokenizer.encode("a <call> b", false).unwrap(), spaced);
    let plainly = tokenizer.encode_with("a <call> b", false, ParseSpecial::No).unwrap();
    assert_eq!(plainly, plain.encode("a <call> b", false).unwrap());
    assert_eq!(tokenizer.decode(&[next, next + 1]).unwrap(), "userword");

    // A token that tokenizer.json has too takes the properties that tokenizer_config.json gives it.
    let eot = plain.token_id("<|eot_id|>").unwrap();
    folder.write(
        "tokenizer_config.json",
        &json!({"added_tokens_decoder": {eot.to_string(): token("<|eot_id|>", true, true)}}),
    );
    let tokenizer = Tokenizer::from_file(folder.path()).unwrap();
    let stripped = [plain.encode("a", false).unwrap(), vec![eot]].concat();
    assert_eq!(tokenizer.encode("a <|eot_id|>", false).unwrap(), stripped);
    assert!(tokenizer.lost_in_gguf(tokenizer.vocab_size())[0].contains("<|eot_id|>"));

    // As older versions wrote them.
    folder.write("tokenizer_config.json", &json!({}));
    folder
        .write("added_tokens.json", &json!({"<old>": 777}))
        .write("special_tokens_map.json", &json!({"pad_token": "<old>"}));
    let tokenizer = Tokenizer::from_file(folder.path()).unwrap();
    assert_eq!((tokenizer.token_id("<old>"), tokenizer.special().pad), (Some(next), Some(next)));
}

#[test]
fn post_processors_and_decoders_of_every_form() {
    let mut llama3 = data("llama3.tokenizer.json");
    let plain = Tokenizer::from_json(llama3.to_string().as_bytes()).unwrap().encode("Hello world", false).unwrap();
    for kind in ["RobertaProcessing", "BertProcessing"] {
        llama3["post_processor"] = json!({"type": kind, "cls": ["<|begin_of_text|>", 600], "sep": ["<|end_of_text|>", 601],
            "trim_offsets": true, "add_prefix_space": true});
        let tokenizer = Tokenizer::from_json(llama3.to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.encode("Hello world", true).unwrap(), [&[600][..], &plain, &[601]].concat());
    }
    let golden = data("sentencepiece.golden.json");
    let mut spm = data("sentencepiece.tokenizer.json");
    let (replace, strip) = (
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
    );
    let (fallback, fuse) = (json!({"type": "ByteFallback"}), json!({"type": "Fuse"}));
    for order in [
        [&fallback, &fuse, &replace, &strip],
        [&replace, &fallback, &fuse, &strip],
        [&fallback, &replace, &fuse, &strip],
    ] {
        spm["decoder"] = json!({"type": "Sequence", "decoders": order});
        let tokenizer = Tokenizer::from_json(spm.to_string().as_bytes()).unwrap();
        let text = "Hello £ 🙂";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, true).unwrap()).unwrap(), text);
    }
    spm["decoder"] = json!({"type": "Sequence", "decoders": [strip, fallback, fuse, replace]});
    assert!(Tokenizer::from_json(spm.to_string().as_bytes()).is_err(), "a space would go from every token");
    assert!(golden["vocab"]["tokens"].is_array());
}

/// Llama 2's runs of spaces have one score: their merges are mixed in transformers' order.
#[test]
fn pieces_of_one_score_survive_tokenizer_json() {
    let pieces = ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁▁", "▁▁▁", "▁▁▁▁", "▁▁▁▁▁▁", "▁a"];
    let mut scores: Vec<f32> = (0..pieces.len()).map(|i| -(i as f32)).collect();
    scores[7..11].fill(-1e9);
    let vocab = GgufVocab {
        model: "llama".into(),
        tokens: pieces.iter().map(|p| (*p).to_owned()).collect(),
        scores,
        token_types: [2, 3, 3].into_iter().chain([1; 9]).collect(),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        ..GgufVocab::default()
    };
    let folder = Folder::new("ties");
    let original = Tokenizer::from_gguf(&vocab).unwrap();
    original.save_json(folder.path().join("tokenizer.json")).unwrap();
    let json = Tokenizer::from_file(folder.path()).unwrap();
    let back = Tokenizer::from_gguf(&json.to_gguf(json.vocab_size()).unwrap()).unwrap();
    for spaces in 0..16 {
        let text = format!("ab{}a", " ".repeat(spaces));
        assert_eq!(back.encode(&text, true).unwrap(), original.encode(&text, true).unwrap(), "{text:?}");
    }
    let model: Value = serde_json::from_slice(&std::fs::read(folder.path().join("tokenizer.json")).unwrap()).unwrap();
    // `generate_merges` of transformers 5.24 on this vocabulary.
    let expected = json!([
        ["a", "b"],
        ["▁", "a"],
        ["▁▁▁▁", "▁▁"],
        ["▁▁▁", "▁▁▁"],
        ["▁▁▁", "▁"],
        ["▁▁", "▁▁▁▁"],
        ["▁▁", "▁▁"],
        ["▁▁", "▁"],
        ["▁", "▁▁▁"],
        ["▁", "▁▁"],
        ["▁", "▁"]
    ]);
    assert_eq!(model["model"]["merges"], expected);
}

#[test]
fn spellings_and_bytes_that_occur_twice_are_read() {
    let tokens = ["<unk>", "<s>", "</s>", "<0x0a>", "<0x0A>", "<0x0A>", "a", "<d>", "<d>"];
    let mut vocab = GgufVocab {
        model: "llama".into(),
        tokens: tokens.iter().map(|t| (*t).to_owned()).collect(),
        scores: vec![0.0; 9],
        token_types: vec![2, 3, 3, 6, 6, 6, 1, 3, 3],
        add_space_prefix: Some(false),
        ..GgufVocab::default()
    };
    let tokenizer = Tokenizer::from_gguf(&vocab).unwrap();
    assert_eq!(tokenizer.encode("a\n<d>", false).unwrap(), [6, 5, 8]);
    assert_eq!(tokenizer.decode(&[6, 3, 4, 5]).unwrap(), "a\n\n\n");
    assert_eq!((tokenizer.token_text(7), tokenizer.token_text(4)), (Some("<d>".into()), Some("<0x0A>".into())));
    assert!(tokenizer.warnings()[0].contains("tokens 4 and 5 are both"), "{:?}", tokenizer.warnings());
    assert!(tokenizer.lost_in_json()[0].contains("(2 such)"), "{:?}", tokenizer.lost_in_json());
    assert_eq!(tokenizer.to_gguf(9).unwrap().tokens, vocab.tokens);
    // Byte-level too.
    (vocab.model, vocab.pre, vocab.scores) = ("gpt2".into(), Some("gpt-2".into()), Vec::new());
    vocab.token_types[3..6].fill(1);
    let tokenizer = Tokenizer::from_gguf(&vocab).unwrap();
    assert_eq!(tokenizer.encode("a<d>", false).unwrap(), [6, 8]);
    assert_eq!(tokenizer.to_gguf(9).unwrap().tokens, vocab.tokens);
}

#[test]
fn unigram_equals_hugging_face_and_llama_cpp() {
    let golden = data("unigram.golden.json");
    for name in ["t5", "stripped"] {
        let tokenizer = Tokenizer::from_json(golden[name]["tokenizer"].to_string().as_bytes()).unwrap();
        for case in golden[name]["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids"]), "{name} {text:?}");
            assert_eq!(
                tokenizer.decode(&ids(&case["ids"])).unwrap(),
                case["decoded"].as_str().unwrap(),
                "{name} {text:?}"
            );
        }
        // A special token in a text that is only text is no token.
        let end = tokenizer.token_id("</s>").unwrap();
        assert!(!tokenizer.encode_with("a </s>", false, ParseSpecial::No).unwrap().contains(&end));
    }
    // The same vocabulary in GGUF, and back in a tokenizer.json.
    let folder = Folder::new("unigram");
    folder.write("tokenizer_config.json", &json!({"eos_token": "</s>", "unk_token": "<unk>"}));
    let read =
        |name: &str| Tokenizer::from_file(folder.write("tokenizer.json", &golden[name]["tokenizer"]).path()).unwrap();
    let vocab = read("t5").to_gguf(320).unwrap();
    assert_eq!((vocab.model.as_str(), vocab.eos, vocab.add_eos, vocab.unk), ("t5", Some(1), Some(true), Some(2)));
    let error = read("stripped").to_gguf(320).unwrap_err().to_string();
    assert!(error.contains("cannot express the step Nmt"), "{error}");
    let from_gguf = Tokenizer::from_gguf(&vocab).unwrap();
    from_gguf.save_json(folder.path().join("tokenizer.json")).unwrap();
    let again = Tokenizer::from_file(folder.path()).unwrap();
    for case in golden["t5"]["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(from_gguf.encode(text, true).unwrap(), ids(&case["llama_cpp"]), "{text:?}");
        assert_eq!(again.encode(text, true).unwrap(), ids(&case["llama_cpp"]), "{text:?}");
    }
    let mut stripped = golden["stripped"]["tokenizer"].clone();
    stripped["model"]["vocab"][5][1] = json!(f64::MAX * 2.);
    assert!(Tokenizer::from_json(stripped.to_string().as_bytes()).is_err());
}
