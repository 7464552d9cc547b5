//! Chat templates compared with transformers (`chat_template_data/make_goldens.py`), and malicious ones.

use std::time::{Duration, Instant};

use bitnet_model::chat_template::{ChatMessage, ChatTemplate, Conversation, Ending};
use serde_json::Value;

#[test]
fn rendered_text_equals_transformers() {
    let golden: Value = serde_json::from_str(include_str!("chat_template_data/goldens.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 70);
    for case in cases {
        let (name, title) = (case["template"].as_str().unwrap(), case["conversation"].as_str().unwrap());
        let template =
            ChatTemplate::new(golden["templates"][name].as_str().unwrap(), Some("<s>"), Some("</s>")).unwrap();
        let messages: Vec<ChatMessage> = (golden["conversations"][title].as_array().unwrap().iter())
            .map(|m| ChatMessage::new(m[0].as_str().unwrap(), m[1].as_str().unwrap()))
            .collect();
        let got = template.render(&messages, case["add_generation_prompt"].as_bool().unwrap());
        match case["error"].as_str() {
            None => assert_eq!(got.unwrap(), case["text"].as_str().unwrap(), "{name}, {title}"),
            Some(error) => {
                let got = got.unwrap_err().to_string();
                assert!(got.contains(error), "{name}, {title}: {got:?} does not say {error:?}");
            }
        }
    }
}

/// Templates of eleven families, with tools and without, messages of every form, prefilled answers and variables.
#[test]
fn families_render_as_in_transformers() {
    let text = include_str!("chat_template_data/goldens.json");
    let golden: Value = serde_json::from_str(text).unwrap();
    // Maps in the order of the file, which this parser may not keep.
    let ordered: Ordered = serde_json::from_str(text).unwrap();
    let cases = golden["families"].as_array().unwrap();
    assert!(cases.len() >= 250);
    for case in cases {
        let [name, talk, ending] = ["template", "talk", "ending"].map(|key| case[key].as_str().unwrap());
        let template =
            ChatTemplate::new(golden["templates"][name].as_str().unwrap(), Some("<s>"), Some("</s>")).unwrap();
        let template = template.with_variables(&case["variables"].to_string()).unwrap();
        let tools = if case["tools"] == true { ordered.tools.get() } else { "null" };
        let conversation = format!("{{\"messages\": {}, \"tools\": {tools}}}", ordered.talks[talk].get());
        let conversation = Conversation::from_json(&conversation).unwrap();
        let ending = match ending {
            "whole" => Ending::Whole,
            "prompt" => Ending::Prompt,
            _ => {
                assert_eq!(conversation.ending(), Ending::Continued);
                Ending::Continued
            }
        };
        let got = template.render_conversation(&conversation, ending);
        // A loop over none is an error in Python; here it is one over nothing.
        if (name, talk) == ("minicpm", "called") {
            continue;
        }
        match case["error"].as_str() {
            None => assert_eq!(got.unwrap(), case["text"].as_str().unwrap(), "{name}, {talk}, {case}"),
            Some(error) => {
                let got = got.expect_err(&format!("{name}, {talk} is refused by transformers")).to_string();
                assert!(got.contains(error), "{name}, {talk}: {got:?} does not say {error:?}");
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Ordered<'a> {
    #[serde(borrow)]
    tools: &'a serde_json::value::RawValue,
    #[serde(borrow)]
    talks: std::collections::HashMap<String, &'a serde_json::value::RawValue>,
}

fn refuse(source: &str) -> String {
    let user = [ChatMessage::new("user", "hi")];
    let start = Instant::now();
    let result = ChatTemplate::new(source, None, None).and_then(|t| t.render(&user, true));
    assert!(start.elapsed() < Duration::from_secs(30), "{source}");
    result.map(|text| text.len()).unwrap_err().to_string()
}

#[test]
fn hostile_templates_end_with_an_error() {
    let endless = "{% for a in range(90000) %}{% for b in range(90000) %}{% set x = a * b %}{% endfor %}{% endfor %}";
    assert!(refuse(endless).contains("does not end"));
    let loud = "{% set s = 'x' * 100000 %}{% for a in range(90000) %}{{ s }}{% endfor %}";
    assert!(refuse(loud).contains("16 MiB"));
    assert!(refuse("{{ 'x' * 100000000000 }}").contains("too large"));
    assert!(refuse("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").contains("recursion"));
    let deep = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
    refuse(&format!("{{{{ {deep} }}}}"));
    let blocks = "{% if true %}".repeat(20_000);
    refuse(&blocks);
}

#[test]
fn mistakes_name_their_line() {
    assert!(refuse("a\nb {% for x in messages %}").contains("line 2"));
    assert!(refuse("\n\n{{ messages[0].content.nonsense() }}").contains("line 3"));
    assert!(refuse("{{ raise_exception('no tools here') }}").contains("no tools here"));
    assert!(refuse("{% include 'other' %}").contains("other"));
    assert!(refuse("{{ messages | nofilter }}").contains("nofilter"));
}

#[test]
fn absent_tokens_print_as_nothing() {
    let template = ChatTemplate::new("{{ bos_token }}|{{ messages[0].content }}|{{ eos_token }}", None, None).unwrap();
    assert_eq!(template.render(&[ChatMessage::new("user", "hi")], false).unwrap(), "|hi|");
}
