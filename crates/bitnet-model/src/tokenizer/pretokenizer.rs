//! The pre-tokenizers that GGUF names: how a text is split before bytes are merged.
//!
//! Names and expressions are those of llama.cpp (`llama-vocab.cpp`), which took them from the
//! models' `tokenizer.json`; where it rewrote one for its own regex engine, the original is used here.

use serde_json::{Value, json};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

use super::error::{Result, TokenizerError};

/// A pre-tokenizer with all its names; the first is the one written.
#[derive(Debug)]
pub(crate) struct Kind {
    pub names: &'static [&'static str],
    /// Applied in order; matches and the text between them become pieces.
    patterns: &'static [&'static str],
    /// Whether a piece that is a token is taken whole, without merging.
    pub ignore_merges: bool,
    /// Whether a begin token is added by default.
    pub add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_V3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

pub(crate) const KINDS: [Kind; 10] = [
    Kind {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "granite-docling",
        ],
        patterns: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Kind {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    Kind { names: &["smaug-bpe", "dbrx", "chatglm-bpe"], patterns: &[LLAMA3], ignore_merges: false, add_bos: false },
    Kind {
        names: &["qwen2", "stablelm2", "deepseek-r1-qwen", "hunyuan", "megrez", "solar-open", "grok-2"],
        patterns: &[QWEN2],
        ignore_merges: false,
        add_bos: false,
    },
    Kind {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        patterns: &[r"\p{N}", GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Kind {
        names: &["falcon"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    Kind { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    Kind { names: &["gpt-4o", "llama4", "kanana2"], patterns: &[GPT4O], ignore_merges: false, add_bos: false },
    Kind {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        patterns: &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK_V3],
        ignore_merges: false,
        add_bos: false,
    },
    Kind {
        names: &["default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
];

impl Kind {
    /// The kind with this name.
    pub(crate) fn named(name: &str) -> Result<&'static Self> {
        (KINDS.iter().find(|k| k.names.contains(&name))).ok_or_else(|| {
            let known: Vec<&str> = KINDS.iter().flat_map(|k| k.names).copied().collect();
            TokenizerError::Unsupported(format!(
                "pre-tokenizer {name:?} (tokenizer.ggml.pre); known are {}",
                known.join(", ")
            ))
        })
    }

    /// As the `pre_tokenizer` of a `tokenizer.json`.
    pub(crate) fn to_json(&self) -> Value {
        let byte_level = |use_regex: bool| {
            json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex
            })
        };
        // GPT-2's expression is built into ByteLevel, which is how such files are usually written.
        if self.patterns == [GPT2] {
            return byte_level(true);
        }
        let split = |p: &&str| {
            json!({
                "type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": false
            })
        };
        let steps: Vec<Value> = self.patterns.iter().map(split).chain([byte_level(false)]).collect();
        json!({"type": "Sequence", "pretokenizers": steps})
    }

    /// The kinds that split every text as this pre-tokenizer does, judged by [`probe`].
    pub(crate) fn equal_to(pre_tokenizer: Option<&PreTokenizerWrapper>) -> Result<Vec<&'static Self>> {
        let Some(pre_tokenizer) = pre_tokenizer else {
            return Ok(Vec::new());
        };
        let invalid = |e: String| TokenizerError::invalid("pre_tokenizer", e);
        let cut = |pre: &PreTokenizerWrapper, text: &str| {
            let mut cut = PreTokenizedString::from(text);
            pre.pre_tokenize(&mut cut).map_err(|e| invalid(e.to_string()))?;
            let parts = cut.get_splits(OffsetReferential::Normalized, OffsetType::None);
            Ok(parts.into_iter().map(|(part, _, _)| part.to_owned()).collect::<Vec<String>>())
        };
        let mut left = Vec::new();
        for kind in &KINDS {
            let pre = serde_json::from_value(kind.to_json()).map_err(|e| invalid(e.to_string()))?;
            left.push((kind, pre));
        }
        for text in probe() {
            let wanted = cut(pre_tokenizer, &text)?;
            left.retain(|(_, pre)| cut(pre, &text).is_ok_and(|parts| parts == wanted));
        }
        Ok(left.into_iter().map(|(kind, _)| kind).collect())
    }
}

/// Texts that distinguish pre-tokenizers: contractions, runs of digits, of spaces and of newlines,
/// and every assigned block of the Basic Multilingual Plane (and emoji) beside letters, digits,
/// punctuation and spaces.
fn probe() -> Vec<String> {
    let mut texts: Vec<String> = [
        "I'm we'll THEY'VE it'S don'T o'clock 'round ''s'' l'homme can'tX",
        "1 12 123 1234 12345 123456 1234567 3.14 1,234,567 a1b22c333d4444 x²³ ½ Ⅻ ١٢٣٤ 10km",
        " a  b   c    d\ta\t\tb \t c\u{a0}d\u{3000}e  \u{2003} end   ",
        "a\nb\n\nc\n\n\nd\r\ne\r\n\r\nf \n g  \n  h\n  \ni \r j\u{2028}k\u{85}l\u{b}m\n",
        "(a) [b] {c} <d> a+b=c; x->y, a.b... ..., !!\n?!/\n\n #include <stdio.h>\n// x_y __init__ $5 ^~|` \"q\" -- --- =======",
        "HelloWorld camelCase ABCdef ÀÉîõü ΑΒγδ Привет мир नमस्ते สวัสดี 你好，世界。こんにちは カタカナ 한국어 עברית العربية",
        "e\u{301}a\u{308}\u{323} \u{301}x 👍🏽 👩‍👩‍👧‍👦🇩🇪 ✅✅ a\u{200b}b\u{feff}c ſ 'ſ K",
    ]
    .map(str::to_owned)
    .into();
    let planes = (0x20..0xD7A4u32).step_by(7).chain(0xF900..0xFFFD).chain((0x1F300..0x1FAFF).step_by(13));
    let all = (0x20..0x3000u32).chain(planes);
    for block in all.filter_map(char::from_u32).collect::<Vec<_>>().chunks(256) {
        texts.push(block.iter().flat_map(|c| ['a', *c, 'b', '1', *c, ' ', *c, *c, '.', *c, '\n']).collect());
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_told_apart_from_the_others() {
        for kind in &KINDS {
            let pre: PreTokenizerWrapper = serde_json::from_value(kind.to_json()).unwrap();
            let equal = Kind::equal_to(Some(&pre)).unwrap();
            assert!(equal.iter().all(|k| k.patterns == kind.patterns), "{:?}", kind.names);
            assert!(equal.iter().any(|k| k.names == kind.names), "{:?}", kind.names);
        }
    }

    #[test]
    fn names_are_unique_and_an_unknown_one_is_refused() {
        let mut names: Vec<&str> = KINDS.iter().flat_map(|k| k.names).copied().collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        let error = Kind::named("viking").unwrap_err().to_string();
        assert!(error.contains("viking") && error.contains("llama-bpe"), "{error}");
    }
}
