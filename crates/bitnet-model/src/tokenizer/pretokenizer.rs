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
    /// Whether tokens are spelled in UTF-8 with `▁` for a space, as SentencePiece does, not in GPT-2's alphabet.
    pub raw: bool,
}

/// English contractions, in any case.
macro_rules! contractions {
    () => {
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    };
}
/// White space up to its last newlines, then all but the last space, then the rest.
macro_rules! spaces {
    () => {
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    };
}
/// The alternatives of Llama 3: letters after at most one other character, `digits`, symbols with the newlines after them.
macro_rules! llama3 {
    ($digits:literal) => {
        concat!(r"[^\r\n\p{L}\p{N}]?\p{L}+|", $digits, r"| ?[^\s\p{L}\p{N}]+[\r\n]*", spaces!())
    };
}
/// Capitals and then small letters, with what `after` allows behind them; `digits`; symbols with newlines and slashes.
macro_rules! cased {
    ($after:expr, $digits:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            $after,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            $after,
            "|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*",
            spaces!()
        )
    };
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(contractions!(), "|", llama3!(r"\p{N}{1,3}"));
const QWEN2: &str = concat!(contractions!(), "|", llama3!(r"\p{N}"));
const QWEN35: &str =
    concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", spaces!());
const GPT4O: &str = cased!(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}");
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const LINES: &str = r"[^\n]+|[\n]+";
const CHINESE: &str = "[一-龥぀-ゟ゠-ヿ]+";
const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"##,
    spaces!()
);

const fn kind(names: &'static [&'static str], patterns: &'static [&'static str]) -> Kind {
    Kind { names, patterns, ignore_merges: false, add_bos: false, raw: false }
}

impl Kind {
    const fn ignore_merges(self) -> Self {
        Self { ignore_merges: true, ..self }
    }

    const fn add_bos(self) -> Self {
        Self { add_bos: true, ..self }
    }

    const fn raw(self) -> Self {
        Self { raw: true, ..self }
    }
}

/// Every kind of llama.cpp (28 November 2026), by expressions.
#[rustfmt::skip]
pub(crate) const KINDS: &[Kind] = &[
    kind(&["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "exaone4", "gigachat", "a.x-4.0", "mellum", "modern-bert",
        "granite-docling", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe"], &[GPT2]),
    kind(&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"], &[LLAMA3])
        .ignore_merges().add_bos(),
    kind(&["smaug-bpe", "dbrx", "chatglm-bpe"], &[LLAMA3]),
    kind(&["glm4", "glm5"], &[LLAMA3]).ignore_merges(),
    kind(&["jais-2"], &[concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
        r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)",
        r"|\s{1,2}(?!\S)|\s{1}")]),
    kind(&["minicpm5"], &[r"\p{N}{1,3}", concat!(contractions!(), "|", llama3!(r"\p{N}+"))]).ignore_merges(),
    kind(&["qwen2", "stablelm2", "deepseek-r1-qwen", "hunyuan", "megrez", "solar-open", "grok-2", "kormo", "f2llmv2",
        // Their expression is another one for the same pieces.
        "bailingmoe", "bailingmoe2", "llada-moe"], &[QWEN2]),
    kind(&["qwen35"], &[QWEN35]),
    kind(&["ufakzeka"], &[llama3!(r"\p{N}")]),
    kind(&["laguna"], &[LINES, QWEN2]),
    kind(&["seed-coder"], &[concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+", spaces!())]),
    kind(&["exaone-moe"], &[concat!(contractions!(),
        r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+")]),
    kind(&["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"], &[r"\p{N}", GPT2]),
    kind(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    kind(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    kind(&["tekken"], &[cased!("", r"\p{N}")]).ignore_merges().add_bos(),
    kind(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    kind(&["granite-embed-multi-97m"], &[GPT4O]).ignore_merges(),
    kind(&["tiny_aya", "cohere2moe"], &[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O]),
    kind(&["youtu"], &[r"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
        cased!(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}")]).ignore_merges(),
    kind(&["kimi-k2"], &[concat!(r"[\p{Han}]+",
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+", contractions!(), "?",
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*", contractions!(), "?",
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*", spaces!())]),
    kind(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], &[r"\p{N}{1,3}", CHINESE, DEEPSEEK_V3]),
    kind(&["spark2_5"], &[r"\p{N}{1,3}", CHINESE, concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]"##,
        r"|\s+(?!\S)|\s+"), r"\p{N}"]),
    kind(&["afmoe"], &[r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
        "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+", DEEPSEEK_V3]),
    kind(&["deepseek-llm"], &[r"[\r\n]", DEEPSEEK_LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", "[一-龥ࠀ-一가-퟿]+", r"\p{N}+"]),
    kind(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"]),
    kind(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    kind(&["viking"], &[BLOOM, r"\p{N}"]),
    kind(&["superbpe"], &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"]),
    kind(&["chameleon"], &["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]", GPT2]).add_bos(),
    kind(&["gemma4", "granite-embed-multi-311m", "sarvam-moe"], &[LINES]).raw(),
    kind(&["whitespace"], &[r"\S+"]).raw(),
];

/// The letters that deepseek-llm's expression lists, those of scripts with case.
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";

impl Kind {
    /// The kind with this name.
    pub(crate) fn named(name: &str) -> Result<&'static Self> {
        (KINDS.iter().find(|k| k.names.contains(&name))).ok_or_else(|| {
            let known: Vec<&str> = KINDS.iter().flat_map(|k| k.names).copied().collect();
            TokenizerError::Unsupported(format!(
                "pre-tokenizer {name:?} (tokenizer.ggml.pre) is not one of llama.cpp's; known are {}",
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
        let steps = self.patterns.iter().map(split).chain((!self.raw).then(|| byte_level(false)));
        json!({"type": "Sequence", "pretokenizers": steps.collect::<Vec<Value>>()})
    }

    /// As the `normalizer` of a `tokenizer.json`.
    pub(crate) fn normalizer_json(&self) -> Value {
        match self.patterns == [LINES] {
            true => json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
            false => Value::Null,
        }
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
        for kind in KINDS.iter().filter(|kind| !kind.raw) {
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
        " a  b   c    d  1   22    333\ta\t\tb \t c\u{a0}d\u{3000}e  \u{2003} end   ",
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
        for kind in KINDS.iter().filter(|kind| !kind.raw) {
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
        let error = Kind::named("vikings").unwrap_err().to_string();
        assert!(error.contains("vikings") && error.contains("llama-bpe"), "{error}");
    }
}
