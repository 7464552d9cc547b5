//! `tokenizer.json`: what is accepted encodes and decodes any text, and is written and read again.
#![no_main]

use bitnet_model::tokenizer::{ParseSpecial, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json(file) else { return };
    for text in ["", "Hello wörld 123\n\n <s>\u{0}🙂", "  ▁<0x41>'s"] {
        for parse in [ParseSpecial::No, ParseSpecial::Yes] {
            if let Ok(ids) = tokenizer.encode_with(text, true, parse) {
                tokenizer.decode(&ids).expect("its own ids");
            }
        }
    }
    if let Ok(vocab) = tokenizer.to_gguf(tokenizer.vocab_size()) {
        Tokenizer::from_gguf(&vocab).expect("what it wrote");
    }
});
