//! The chat model in the tree answers what it was not trained on: `models/chat-held-out.jsonl`, at temperature 0.

use bitnet_core::Device;
use bitnet_inference::{GenerateOptions, Model, Sampling, Session, generate};
use bitnet_model::chat_template::{ChatMessage, ChatTemplate};
use bitnet_model::checkpoint::{Checkpoint, OpenOptions};
use bitnet_model::tokenizer::ParseSpecial;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Whether a text is one alternative of each part in order, with a space between.
fn is_right(text: &str, parts: &[Value]) -> bool {
    let Some((first, rest)) = parts.split_first() else { return false };
    first.as_array().unwrap().iter().filter_map(|part| text.strip_prefix(part.as_str().unwrap())).any(
        |after| match rest.is_empty() {
            true => after.is_empty(),
            false => after.strip_prefix(' ').is_some_and(|after| is_right(after, rest)),
        },
    )
}

#[test]
fn the_chat_model_answers_held_out_questions_nine_times_in_ten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let checkpoint = Checkpoint::open(&folder.join("chat.gguf"), &OpenOptions::default()).unwrap();
    let model = Arc::new(Model::load(checkpoint.weights(), &Device::cpu(), |_, _| ()).unwrap());
    let tokenizer = checkpoint.tokenizer().unwrap();
    let template = ChatTemplate::of(tokenizer).unwrap().unwrap();
    let mut session = Session::new(model, checkpoint.weights().config().max_positions).unwrap();
    let options = GenerateOptions { max_tokens: 150, sampling: Sampling::greedy(), stop: Vec::new() };

    let mut kinds: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let held_out = std::fs::read_to_string(folder.join("chat-held-out.jsonl")).unwrap();
    for line in held_out.lines() {
        let dialogue: Value = serde_json::from_str(line).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let messages = dialogue["messages"].as_array().unwrap().iter();
        let mut messages: Vec<_> = messages.map(|m| ChatMessage::new(text(&m["role"]), text(&m["content"]))).collect();
        messages.pop();
        let prompt = template.render(&messages, true).unwrap();
        let tokens = tokenizer.encode_with(&prompt, false, ParseSpecial::Yes).unwrap();
        let answer = generate(&mut session, tokenizer, &tokens, &options, |_| ControlFlow::Continue(())).unwrap().text;
        let right = is_right(&answer, dialogue["accept"].as_array().unwrap());
        if !right {
            println!("{:?}: {answer:?}", messages.last().unwrap().content);
        }
        let (rights, all) = kinds.entry(text(&dialogue["kind"])).or_default();
        *rights += u32::from(right);
        *all += 1;
    }
    let mut total = (0, 0);
    for (kind, (right, all)) in &kinds {
        println!("{kind:15} {right:3} of {all}");
        total = (total.0 + right, total.1 + all);
    }
    println!("{:15} {:3} of {}", "all", total.0, total.1);
    assert!(total.1 >= 200 && total.0 * 10 >= total.1 * 9, "{} of {}", total.0, total.1);
}
