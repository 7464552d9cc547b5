//! A chat template, a zero byte, and a conversation as JSON: rendering ends, with a text or a message of one line.
#![no_main]

use bitnet_model::chat_template::{ChatTemplate, Conversation, Ending};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (source, json) = input.split_once('\0').unwrap_or((input, r#"[{"role": "user", "content": "hi"}]"#));
    let Ok(template) = ChatTemplate::new(source, Some("<s>"), None) else { return };
    let Ok(conversation) = Conversation::from_json(json) else { return };
    for ending in [Ending::Whole, Ending::Prompt, Ending::Continued] {
        let _ = template.render_conversation(&conversation, ending).map_err(|e| e.to_string());
    }
});
