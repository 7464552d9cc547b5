//! Writes the dialogues that `models/chat.gguf` learned from, always the same ones:
//!
//! ```sh
//! cargo run --release -p bitnet-training --example dialogues -- data/chat
//! ```
//!
//! | | |
//! |---|---|
//! | `train.jsonl` | dialogues to train on |
//! | `held-out.jsonl` | dialogues whose last question is never asked in the others, with every answer that is right |
//! | `words.txt` | their words without digits, to make a tokenizer from: it then has a token for each digit |

mod arithmetic;
mod facts;
mod random;
mod small_talk;
mod stories;

use random::Random;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const DIALOGUES: usize = 30_000;
const HELD_OUT_EACH: usize = 25;
/// Tokens of a dialogue, about: it fits a context of 512, and leaves little of it empty.
const FULL: usize = 430;

/// A question and the answers that are right.
pub(crate) struct Turn {
    /// Such as `addition`.
    pub(crate) kind: &'static str,
    pub(crate) question: String,
    /// Parts of the answer in order, each with its alternatives.
    pub(crate) answer: Vec<Vec<String>>,
    /// What tells this question from all others of its kind, if some of them are held out.
    pub(crate) case: Option<String>,
}

impl Turn {
    /// A question with a single right answer.
    pub(crate) fn new(kind: &'static str, question: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { kind, question: question.into(), answer: vec![vec![answer.into()]], case: None }
    }

    pub(crate) fn of_case(mut self, case: impl Into<String>) -> Self {
        self.case = Some(case.into());
        self
    }

    /// Whether it is kept out of the dialogues to train on.
    fn is_held_out(&self) -> bool {
        self.case.as_ref().is_some_and(|case| random::hash(&format!("{} {case}", self.kind)).is_multiple_of(10))
    }
}

/// What was said so far, as far as later turns depend on it.
#[derive(Default, Clone)]
pub(crate) struct Talk {
    /// What the user is called.
    pub(crate) user: Option<String>,
    /// What the system message calls the model.
    pub(crate) name: Option<String>,
    /// The last result.
    pub(crate) number: Option<u32>,
}

const KINDS: [fn(&mut Random, &mut Talk) -> Turn; 10] = [
    arithmetic::addition,
    arithmetic::subtraction,
    arithmetic::multiplication,
    arithmetic::one_more,
    arithmetic::too_hard,
    facts::fact,
    stories::story,
    small_talk::greeting,
    small_talk::names,
    small_talk::unknown,
];
/// How often each is drawn; dialogues about sums only draw the first five.
const SHARES: [u32; 10] = [30, 24, 10, 12, 8, 26, 14, 10, 14, 14];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name the directory to write to")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let mut random = Random::new(1);
    let (mut train, mut words) = (String::new(), String::new());
    for i in 0..DIALOGUES {
        let messages = dialogue(&mut random, None);
        if i < 2000 {
            let texts = messages.iter().filter_map(|m| m["content"].as_str());
            texts.for_each(|text| writeln!(words, "{}", text.replace(|c: char| c.is_ascii_digit(), "")).unwrap_or(()));
        }
        writeln!(train, "{}", json!({ "messages": messages }))?;
    }
    std::fs::write(folder.join("train.jsonl"), train)?;
    std::fs::write(folder.join("words.txt"), words)?;

    let mut held_out = String::new();
    let mut counts = BTreeMap::new();
    for draw in KINDS {
        for _ in 0..HELD_OUT_EACH {
            let last = loop {
                let mut talk = Talk::default();
                let turn = draw(&mut random, &mut talk);
                if turn.is_held_out() {
                    break turn;
                }
            };
            *counts.entry(last.kind).or_insert(0) += 1;
            let (kind, accept) = (last.kind, last.answer.clone());
            let messages = dialogue(&mut random, Some(last));
            writeln!(held_out, "{}", json!({ "kind": kind, "messages": messages, "accept": accept }))?;
        }
    }
    std::fs::write(folder.join("held-out.jsonl"), held_out)?;
    println!("{DIALOGUES} dialogues; held out: {counts:?}");
    Ok(())
}

/// Messages of a dialogue; with `last`, it ends with that.
fn dialogue(random: &mut Random, last: Option<Turn>) -> Vec<Value> {
    let mut talk = Talk::default();
    let mut messages = Vec::new();
    if random.one_in(3) {
        messages.push(json!({ "role": "system", "content": small_talk::system(random, &mut talk) }));
    }
    let sums_only = random.one_in(3);
    let (turns, full) = match last {
        Some(_) => (random.below(4), FULL / 2),
        None => (usize::MAX, FULL),
    };
    let mut length = 0;
    while messages.len() / 2 < turns && length < full {
        let turn = loop {
            let shares = if sums_only { &SHARES[..5] } else { &SHARES[..] };
            // What a question that is dropped would have said was not said.
            let mut next = talk.clone();
            let turn = KINDS[random.weighted(shares)](random, &mut next);
            if !turn.is_held_out() {
                talk = next;
                break turn;
            }
        };
        length += add(random, turn, &mut messages);
    }
    if let Some(turn) = last {
        add(random, turn, &mut messages);
    }
    messages
}

/// Adds a turn, its answer drawn from the right ones; gives its length in tokens, about.
fn add(random: &mut Random, turn: Turn, messages: &mut Vec<Value>) -> usize {
    let answer: String = turn.answer.iter().map(|part| random.pick(part).as_str()).collect::<Vec<_>>().join(" ");
    let question = small_talk::typed(random, &turn.question);
    // A digit or a mark is a token, words are mostly one or two.
    let tokens = |text: &str| {
        text.split(' ').map(|word| 1 + word.len() / 4).sum::<usize>()
            + text.chars().filter(|c| !c.is_alphabetic() && *c != ' ').count()
    };
    let length = tokens(&question) + tokens(&answer) + 4;
    messages.push(json!({ "role": "user", "content": question }));
    messages.push(json!({ "role": "assistant", "content": answer }));
    length
}
