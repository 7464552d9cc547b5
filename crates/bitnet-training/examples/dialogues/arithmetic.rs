//! Sums and differences of numbers below 100, products of numbers up to 10.
//!
//! One pair of numbers in ten is held out of sums and differences. The products are a table that is memorized: there, a
//! way to ask is held out.

use super::{Random, Talk, Turn};

const ADD: [&str; 11] = [
    "{a}+{b}",
    "Calculate {a} + {b}.",
    "What do {a} and {b} make?",
    "What is {a} + {b}?",
    "{a} + {b}",
    "What is {a} plus {b}?",
    "How much is {a} + {b}?",
    "Please add {a} and {b}.",
    "{a} plus {b}?",
    "Can you add {a} and {b}?",
    "{a} + {b} = ?",
];
const SUBTRACT: [&str; 8] = [
    "{a}-{b}",
    "What is {a} - {b}?",
    "{a} - {b}",
    "What is {a} minus {b}?",
    "How much is {a} - {b}?",
    "Please take {b} from {a}.",
    "{a} minus {b}?",
    "{a} - {b} = ?",
];
const MULTIPLY: [&str; 9] = [
    "{a}*{b}",
    "{a} x {b}",
    "What is {a} * {b}?",
    "{a} * {b}",
    "What is {a} times {b}?",
    "How much is {a} * {b}?",
    "Please multiply {a} by {b}.",
    "{a} times {b}?",
    "{a} * {b} = ?",
];
const MORE: [&str; 7] = [
    "And {b} more?",
    "Add {b} to that.",
    "Plus {b}?",
    "Now add {b}.",
    "And plus {b}?",
    "Add {b}.",
    "And now {b} more.",
];
const TOO_HARD: &str = "That is too hard for me: I only know numbers below 100.";

fn ask(random: &mut Random, forms: &[&str], a: u32, b: u32) -> String {
    random.pick(forms).replace("{a}", &a.to_string()).replace("{b}", &b.to_string())
}

/// From 0 to `last`; small ones come more often.
fn number(random: &mut Random, last: u32) -> u32 {
    let last = if random.one_in(4) { last.min(10) } else { last };
    random.below(last as usize + 1) as u32
}

/// A number with three or four digits.
fn large(random: &mut Random) -> u32 {
    let end = if random.one_in(4) { 10_000 } else { 1000 };
    100 + random.below(end - 100) as u32
}

fn sum(question: String, a: u32, b: u32) -> Turn {
    Turn::new("addition", question, format!("{a} + {b} = {}.", a + b)).of_case(format!("{a} {b}"))
}

pub(crate) fn addition(random: &mut Random, talk: &mut Talk) -> Turn {
    let (a, b) = (number(random, 99), number(random, 99));
    talk.number = Some(a + b);
    sum(ask(random, &ADD, a, b), a, b)
}

pub(crate) fn subtraction(random: &mut Random, talk: &mut Talk) -> Turn {
    let a = number(random, 99);
    let b = number(random, a);
    talk.number = Some(a - b);
    let question = ask(random, &SUBTRACT, a, b);
    Turn::new("subtraction", question, format!("{a} - {b} = {}.", a - b)).of_case(format!("{a} {b}"))
}

pub(crate) fn multiplication(random: &mut Random, talk: &mut Talk) -> Turn {
    let (a, b) = (random.below(11) as u32, random.below(11) as u32);
    talk.number = Some(a * b);
    let question = ask(random, &MULTIPLY, a, b);
    let case = question.clone();
    Turn::new("multiplication", question, format!("{a} * {b} = {}.", a * b)).of_case(case)
}

/// Goes on from the last result; asks for a sum where there is none to go on from.
pub(crate) fn one_more(random: &mut Random, talk: &mut Talk) -> Turn {
    let Some(a) = talk.number else { return addition(random, talk) };
    let b = number(random, 20);
    if a >= 100 {
        return Turn::new("too hard", ask(random, &MORE, a, b), TOO_HARD);
    }
    talk.number = Some(a + b);
    sum(ask(random, &MORE, a, b), a, b)
}

/// What is beyond the model.
pub(crate) fn too_hard(random: &mut Random, _talk: &mut Talk) -> Turn {
    let (a, b) = (large(random), if random.one_in(2) { number(random, 99) } else { large(random) });
    let (a, b) = if random.one_in(3) { (b, a) } else { (a, b) };
    let question = match random.one_in(2) {
        true => ask(random, &ADD, a, b),
        false => ask(random, &SUBTRACT, a.max(b), a.min(b)),
    };
    let case = question.clone();
    Turn::new("too hard", question, TOO_HARD).of_case(case)
}
