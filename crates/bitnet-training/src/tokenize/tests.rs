use super::*;
use crate::config::TokenizerKind;
use crate::data::TokenFile;
use crate::error::TrainingError;
use bitnet_model::tokenizer::{ParseSpecial, Tokenizer};
use std::path::{Path, PathBuf};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bitnet-tokenize-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn make(&self, kind: TokenizerKind, text: &str, vocab_size: usize, special: &[&str]) -> Tokenizer {
        let path = self.write("text", text);
        let special = special.iter().map(|s| (*s).to_owned()).collect();
        let new = NewTokenizer { kind, vocab_size, special, document_end: None };
        let made = make(&[path], &new, &mut |_, _| Ok(())).unwrap();
        made.save(&self.0).unwrap();
        let tokenizer = Tokenizer::from_file(&self.0).unwrap();
        assert_eq!(tokenizer.vocab_size(), made.vocab_size);
        tokenizer
    }

    fn encode(&self, text: &str, tokenizer: &Tokenizer, mark: Option<&str>) -> Result<Vec<i64>> {
        let (path, out) = (self.write("encoded", text), self.0.join("tokens"));
        let count = encode_texts(&[TextPart::whole(path.as_ref())?], tokenizer, &out, mark, 2, &mut |_, _| Ok(()))?;
        let file = TokenFile::open(&out)?;
        assert_eq!((file.len() as u64, file.fingerprint()), (count, fingerprint(tokenizer)));
        let mut tokens = Vec::new();
        file.read(0..file.len(), &mut tokens)?;
        Ok(tokens)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Some prose with every kind of character, longer than a piece.
fn prose() -> String {
    let line = "The quick brown fox's 12 jumps — “naïve”, 日本語, 🦀!\n\n\tindented  twice\nnext line 345\n";
    let words = ["wolf", "seven", "kids", "mill", "golden", "forest's", "99"];
    let lines = (0..30_000usize).map(|i| format!("{} {}\n", words[i % 7], words[i / 7 % 7]));
    let mut text = line.to_owned();
    lines.enumerate().for_each(|(i, l)| text += if i % 50 == 0 { line } else { &l });
    text.repeat(4)
}

#[test]
fn characters_are_tokens_in_their_order_also_those_of_several_bytes() {
    let folder = Folder::new("char");
    let tokenizer = folder.make(TokenizerKind::Char, "née “🦀”\n", 0, &["<|end|>"]);
    // newline, space, e, n; the bytes of the others and what lies between.
    for c in ["\n", " ", "e", "n", "é", "“", "”", "🦀"] {
        let ids = tokenizer.encode(c, false).unwrap();
        assert_eq!(ids.len(), 1, "{c:?}");
        assert_eq!(tokenizer.token_bytes(ids[0]).unwrap(), c.as_bytes());
    }
    assert_eq!(tokenizer.encode("\n en", false).unwrap(), [0, 1, 2, 3]);
    assert_eq!(tokenizer.special().eos, Some(tokenizer.vocab_size() as u32 - 1));
    let text = "“née” 🦀\n\n n";
    let ids = tokenizer.encode(text, false).unwrap();
    assert_eq!(ids.len(), text.chars().count());
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    let message = folder.encode("nein", &tokenizer, None).unwrap_err().to_string();
    assert!(message.contains("no token for 'i' (U+0069)"), "{message}");
    // Two of its three bytes are known.
    assert!(folder.encode("\u{2010}", &tokenizer, None).is_err());
}

#[test]
fn bytes_are_numbered_as_they_are() {
    let folder = Folder::new("bytes");
    let tokenizer = folder.make(TokenizerKind::Bytes, "", 0, &[]);
    let text = "Zoë 🦀\0\n";
    let ids = tokenizer.encode(text, false).unwrap();
    assert_eq!(ids, text.bytes().map(u32::from).collect::<Vec<_>>());
    assert_eq!(tokenizer.vocab_size(), 256);
}

#[test]
fn pairs_are_learned_alike_each_time_and_give_back_the_text() {
    let folder = Folder::new("bpe");
    let text: String = prose().lines().take(5000).map(|l| format!("{l}\n")).collect();
    let tokenizer = folder.make(TokenizerKind::Bpe, &text, 320, &["<|endoftext|>"]);
    let json = std::fs::read(folder.0.join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.vocab_size(), 320);
    let ids = tokenizer.encode(&text, false).unwrap();
    assert!(ids.len() * 2 < text.len(), "{} tokens of {} bytes", ids.len(), text.len());
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert_eq!(tokenizer.encode("a<|endoftext|>", false).unwrap().last(), Some(&319));
    folder.make(TokenizerKind::Bpe, &text, 320, &["<|endoftext|>"]);
    assert_eq!(std::fs::read(folder.0.join("tokenizer.json")).unwrap(), json);
}

/// What is encoded in pieces by threads is what the whole text would be.
#[test]
fn a_token_file_holds_the_tokens_of_the_whole_text() {
    let folder = Folder::new("pieces");
    let text = prose();
    assert!(text.len() > 1 << 20);
    let tokenizer = folder.make(TokenizerKind::Bpe, &text[..30_000], 400, &["<|endoftext|>"]);
    let mut whole: Vec<i64> =
        tokenizer.encode_with(&text, false, ParseSpecial::No).unwrap().into_iter().map(i64::from).collect();
    let end = tokenizer.special().eos.unwrap();
    whole.push(end.into());
    let pieces = folder.encode(&text, &tokenizer, None).unwrap();
    let differs = pieces.iter().zip(&whole).position(|(a, b)| a != b);
    assert_eq!((differs, pieces.len()), (None, whole.len()));
    // Marks end documents and are no text; special tokens in the text are text.
    let marked = folder.encode("one<E>two <|endoftext|><E>", &tokenizer, Some("<E>")).unwrap();
    let parts = ["one", "two <|endoftext|>"].map(|part| tokenizer.encode_with(part, false, ParseSpecial::No).unwrap());
    let expected: Vec<i64> = parts.iter().flat_map(|p| p.iter().copied().chain([end])).map(i64::from).collect();
    assert_eq!(marked, expected);
}

/// The peer's tokenizer, whose file is in the shared folder.
#[test]
fn a_tokenizer_from_elsewhere_is_used_as_it_is() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let (model, text) = (shared.join("models/shakespeare-hf-online"), shared.join("data/tinyshakespeare/input.txt"));
    if !model.exists() || !text.exists() {
        eprintln!("skipped: ../shared is absent");
        return;
    }
    let folder = Folder::new("peer");
    let tokenizer = Tokenizer::from_file(&model).unwrap();
    let text = std::fs::read_to_string(text).unwrap();
    let mut tokens = folder.encode(&text, &tokenizer, None).unwrap();
    if let Some(eos) = tokenizer.special().eos {
        assert_eq!(tokens.pop(), Some(i64::from(eos)));
    }
    let whole = tokenizer.encode_with(&text, false, ParseSpecial::No).unwrap();
    assert!(tokens.iter().zip(&whole).all(|(a, b)| *a == i64::from(*b)) && tokens.len() == whole.len());
    // nanoGPT's character vocabulary: 65 characters in their order.
    let chars = folder.make(TokenizerKind::Char, &text, 0, &[]);
    assert_eq!(chars.vocab_size(), 65);
    assert_eq!(folder.encode("First", &chars, None).unwrap(), [18, 47, 56, 57, 58]);
}

#[test]
fn an_impossible_tokenizer_is_refused_with_a_reason() {
    let folder = Folder::new("bad");
    let make = |kind, text: &str, vocab_size, special: &[&str]| {
        let special = special.iter().map(|s| (*s).to_owned()).collect();
        let new = NewTokenizer { kind, vocab_size, special, document_end: None };
        super::make(&[folder.write("text", text)], &new, &mut |_, _| Ok(())).unwrap_err().to_string()
    };
    assert!(make(TokenizerKind::Char, "", 0, &[]).contains("no character"));
    assert!(make(TokenizerKind::Bpe, "text", 256, &["<end>"]).contains("no room for 256 bytes and 1 special"));
    assert!(make(TokenizerKind::Char, "ab", 0, &["a"]).contains("\"a\" is a token already"));
    let new = NewTokenizer { kind: TokenizerKind::Bpe, vocab_size: 300, special: vec![], document_end: None };
    let message = super::make(&[folder.0.join("absent")], &new, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(message.contains("absent"), "{message}");
    // Whoever watches may stop the work; nothing is left under the name.
    let path = folder.write("long", &prose());
    let tokenizer = folder.make(TokenizerKind::Bytes, "", 0, &[]);
    let out = folder.0.join("stopped");
    let mut stop = |_, _| Err(TrainingError::Invalid("stopped".into()));
    let message = encode_texts(&[TextPart::whole(path.as_ref()).unwrap()], &tokenizer, &out, None, 1, &mut stop)
        .unwrap_err()
        .to_string();
    assert_eq!(message, "stopped");
    assert!(!out.exists());
}
