//! Greetings, names, and questions that a small model must not pretend to know.

use super::{Random, Talk, Turn};

const NAMES: [&str; 40] = [
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Mary", "Noah",
    "Olga", "Paul", "Quinn", "Rosa", "Sam", "Tina", "Uma", "Victor", "Wendy", "Xenia", "Yuri", "Zoe", "Alice", "Bob",
    "Carl", "Dora", "Eric", "Fiona", "George", "Helen", "Ivan", "Julia", "Karl", "Lucy", "Max", "Nina",
];
const GREETINGS: [&str; 8] =
    ["Hello", "Hi", "Hey", "Hello there", "Hi there", "Good morning", "Good evening", "Good afternoon"];
const INTRODUCTIONS: [&str; 4] = ["I am {n}.", "My name is {n}.", "I'm {n}.", "{n} here."];
const HOW: [&str; 4] = ["How are you?", "How are you today?", "How do you do?", "How is it going?"];
const THANKS: [&str; 6] =
    ["Thank you!", "Thanks!", "Thank you very much.", "Great, thanks.", "Thanks a lot!", "Many thanks."];
const FAREWELLS: [&str; 6] = ["Goodbye!", "Bye!", "See you later!", "Good night!", "Bye bye!", "I have to go now."];
const WHO_AM_I: [&str; 5] =
    ["What is my name?", "Do you remember my name?", "What am I called?", "Who am I?", "Do you know my name?"];
const WHO_ARE_YOU: [&str; 5] =
    ["What is your name?", "What are you called?", "Who are you?", "Do you have a name?", "May I ask your name?"];
const SYSTEM: [&str; 4] =
    ["Your name is {n}.", "You are {n}.", "You are {n}, a helpful assistant.", "You are called {n}."];
const PLAIN_SYSTEM: [&str; 3] =
    ["You are a helpful assistant.", "Answer the questions of the user.", "You are a small and honest model."];

/// What comes before a question, as well as nothing.
const LEADS: [&str; 6] = ["", "", "Tell me: ", "One question. ", "Please tell me. ", "I wonder. "];
const TOPICS: [&str; 30] = [
    "What is the capital of France?",
    "Who won the match yesterday?",
    "What is the weather like?",
    "How old is the moon?",
    "Who wrote Hamlet?",
    "What is the price of gold?",
    "Can you sing a song?",
    "How do I cook rice?",
    "Who is the president?",
    "What time is it?",
    "How far is the sun?",
    "What is the meaning of life?",
    "Can you book a flight?",
    "Which film should I watch?",
    "How do I grow tomatoes?",
    "What is a black hole?",
    "Who discovered America?",
    "How deep is the ocean?",
    "Can you translate this into German?",
    "What should I eat today?",
    "How do planes fly?",
    "Which car is the best?",
    "What did Einstein say?",
    "Why is the sky blue?",
    "How many people live in China?",
    "When was Rome built?",
    "Can you draw a picture?",
    "How do I fix my bike?",
    "What is the news?",
    "Where can I buy shoes?",
];
const UNKNOWN: &str =
    "I do not know that. I can do small sums, tell short stories and answer questions about bitnet-rust.";

/// A system message, half of them with a name for the model.
pub(crate) fn system(random: &mut Random, talk: &mut Talk) -> String {
    if random.one_in(2) {
        return (*random.pick(&PLAIN_SYSTEM)).to_owned();
    }
    let name = *random.pick(&NAMES);
    talk.name = Some(name);
    random.pick(&SYSTEM).replace("{n}", name)
}

pub(crate) fn greeting(random: &mut Random, talk: &mut Talk) -> Turn {
    let end = talk.user.map_or(String::new(), |name| format!(", {name}"));
    match random.below(6) {
        0 => Turn::new("greeting", *random.pick(&HOW), "I am well, thank you. What can I do for you?"),
        1 => Turn::new("greeting", *random.pick(&THANKS), format!("You are welcome{end}.")),
        2 => Turn::new("greeting", *random.pick(&FAREWELLS), format!("Goodbye{end}!")),
        3 => {
            let hello = *random.pick(&GREETINGS);
            let answer = format!("{hello}{end}! How can I help you?");
            Turn::new("greeting", format!("{hello}{}", random.pick(&["!", ".", ""])), answer)
        }
        _ => {
            let (hello, name) = (*random.pick(&GREETINGS), *random.pick(&NAMES));
            talk.user = Some(name);
            let question = format!("{hello}! {}", random.pick(&INTRODUCTIONS).replace("{n}", name));
            let case = question.clone();
            Turn::new("greeting", question, format!("{hello}, {name}! How can I help you?")).of_case(case)
        }
    }
}

/// Names given and asked for.
pub(crate) fn names(random: &mut Random, talk: &mut Talk) -> Turn {
    match (random.below(3), talk.user) {
        (0, Some(name)) => Turn::new("name", *random.pick(&WHO_AM_I), format!("Your name is {name}.")),
        (0, None) => Turn::new("name", *random.pick(&WHO_AM_I), "You have not told me your name."),
        (1, _) => {
            let answer = match talk.name {
                Some(name) => format!("My name is {name}."),
                None => "I am the small chat model of bitnet-rust.".to_owned(),
            };
            Turn::new("name", *random.pick(&WHO_ARE_YOU), answer)
        }
        _ => {
            let name = *random.pick(&NAMES);
            talk.user = Some(name);
            let question = random.pick(&INTRODUCTIONS).replace("{n}", name);
            let case = question.clone();
            Turn::new("name", question, format!("Nice to meet you, {name}.")).of_case(case)
        }
    }
}

pub(crate) fn unknown(random: &mut Random, _talk: &mut Talk) -> Turn {
    let question = format!("{}{}", random.pick(&LEADS), random.pick(&TOPICS));
    let case = question.clone();
    Turn::new("unknown", question, UNKNOWN).of_case(case)
}

/// As people type: now and then without capital letters or the mark at the end.
pub(crate) fn typed(random: &mut Random, text: &str) -> String {
    let mut text = text.to_owned();
    if random.one_in(5) {
        text.truncate(text.trim_end_matches(['?', '.', '!']).len());
    }
    if random.one_in(5) && !NAMES.iter().any(|name| text.contains(name)) {
        text = text.to_lowercase();
    }
    text
}
