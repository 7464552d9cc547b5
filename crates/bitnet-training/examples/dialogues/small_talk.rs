//! Greetings, names, and questions that a small model must not pretend to know.

use super::{Random, Talk, Turn};

const NAMES: [&str; 40] = [
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Mary", "Noah",
    "Olga", "Paul", "Quinn", "Rosa", "Sam", "Tina", "Uma", "Victor", "Wendy", "Xenia", "Yuri", "Zoe", "Alice", "Bob",
    "Carl", "Dora", "Eric", "Fiona", "George", "Helen", "Ivan", "Julia", "Karl", "Lucy", "Max", "Nina",
];
const GREETINGS: [&str; 8] =
    ["Hello", "Hi", "Hey", "Hello there", "Hi there", "Good morning", "Good evening", "Good afternoon"];
const INTRODUCTIONS: [&str; 6] =
    ["I am {n}.", "My name is {n}.", "I'm {n}.", "{n} here.", "Call me {n}.", "You can call me {n}."];
const HOW: [&str; 8] = [
    "How are you?",
    "How are you today?",
    "How do you do?",
    "How is it going?",
    "What's up?",
    "How's it going?",
    "Are you well?",
    "Hey, what's up?",
];
const REMARKS: [&str; 14] = [
    "Ok.",
    "Okay.",
    "Good.",
    "Great!",
    "Nice.",
    "Cool!",
    "I see.",
    "Yes.",
    "No.",
    "Well done!",
    "That is right.",
    "Very good.",
    "Interesting.",
    "Wow!",
];
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

/// Questions about anything; `{x}` is a thing.
const TOPICS: [&str; 48] = [
    "What is {x}?",
    "What is a {x}?",
    "What is the {x}?",
    "Who is {x}?",
    "Where is {x}?",
    "What does {x} mean?",
    "Can you tell me about {x}?",
    "Do you like {x}?",
    "How old is {x}?",
    "How far is the {x}?",
    "Why is the {x} so big?",
    "Who made the {x}?",
    "How do I cook {x}?",
    "How do I buy a {x}?",
    "When was {x} built?",
    "How many people live in {x}?",
    "What is the capital of {x}?",
    "Who wrote {x}?",
    "Explain {x}.",
    "Translate {x} into German.",
    "What is the weather like in {x}?",
    "Write a poem about {x}.",
    "Can you draw a {x}?",
    "Which {x} is the best?",
    "How does a {x} work?",
    "Where can I buy {x}?",
    "Is {x} good for me?",
    "What did {x} say?",
    "Who won the match yesterday?",
    "What is the weather like?",
    "Can you sing a song?",
    "What time is it?",
    "What day is it?",
    "What is the meaning of life?",
    "Which film should I watch?",
    "What should I eat today?",
    "Why is the sky blue?",
    "What is the news?",
    "How old are you?",
    "Where do you live?",
    "Can you write code?",
    "Do you speak French?",
    "Are you human?",
    "Do you have feelings?",
    "Tell me a joke.",
    "What is love?",
    "Can you play chess?",
    "How do planes fly?",
];
const THINGS: [&str; 48] = [
    "France",
    "Rome",
    "China",
    "Hamlet",
    "gold",
    "rice",
    "Einstein",
    "the moon",
    "music",
    "Berlin",
    "America",
    "Africa",
    "Paris",
    "London",
    "Japan",
    "Mozart",
    "Goethe",
    "Python",
    "Java",
    "Linux",
    "Windows",
    "the internet",
    "physics",
    "chemistry",
    "football",
    "water",
    "fire",
    "electricity",
    "bread",
    "cheese",
    "tea",
    "coffee",
    "house",
    "car",
    "river",
    "mountain",
    "ocean",
    "planet",
    "sun",
    "phone",
    "book",
    "bicycle",
    "camera",
    "black hole",
    "dinosaur",
    "volcano",
    "bridge",
    "tower",
];
const UNKNOWN: &str =
    "I do not know that. I can do small sums, tell short stories and answer questions about bitnet-rust.";

/// A system message, half of them with a name for the model.
pub(crate) fn system(random: &mut Random, talk: &mut Talk) -> String {
    if random.one_in(2) {
        return (*random.pick(&PLAIN_SYSTEM)).to_owned();
    }
    let name = name(random);
    let text = random.pick(&SYSTEM).replace("{n}", &name);
    talk.name = Some(name);
    text
}

/// Mostly a name that is known; now and then a made-up one.
fn name(random: &mut Random) -> String {
    if !random.one_in(3) {
        return (*random.pick(&NAMES)).to_owned();
    }
    let word = random.word();
    format!("{}{}", word[..1].to_uppercase(), &word[1..])
}

/// A question may have a name in small letters; the answer does not.
fn given(random: &mut Random, text: &str, name: &str) -> String {
    let text = text.replace("{n}", name);
    if random.one_in(5) { text.to_lowercase() } else { text }
}

pub(crate) fn greeting(random: &mut Random, talk: &mut Talk) -> Turn {
    let end = talk.user.as_ref().map_or(String::new(), |name| format!(", {name}"));
    match random.below(7) {
        6 => Turn::new("greeting", *random.pick(&REMARKS), "What else can I do for you?"),
        0 => Turn::new("greeting", *random.pick(&HOW), "I am well, thank you. What can I do for you?"),
        1 => Turn::new("greeting", *random.pick(&THANKS), format!("You are welcome{end}.")),
        2 => Turn::new("greeting", *random.pick(&FAREWELLS), format!("Goodbye{end}!")),
        3 => {
            let hello = *random.pick(&GREETINGS);
            let answer = format!("{hello}{end}! How can I help you?");
            Turn::new("greeting", format!("{hello}{}", random.pick(&["!", ".", ""])), answer)
        }
        _ => {
            let (hello, name) = (*random.pick(&GREETINGS), name(random));
            talk.user = Some(name.clone());
            let introduction = *random.pick(&INTRODUCTIONS);
            let question = format!("{hello}! {}", given(random, introduction, &name));
            let case = question.to_lowercase();
            Turn::new("greeting", question, format!("{hello}, {name}! How can I help you?")).of_case(case)
        }
    }
}

/// Names given and asked for.
pub(crate) fn names(random: &mut Random, talk: &mut Talk) -> Turn {
    match (random.below(3), talk.user.clone()) {
        (0, Some(name)) => Turn::new("name", *random.pick(&WHO_AM_I), format!("Your name is {name}.")),
        (0, None) => Turn::new("name", *random.pick(&WHO_AM_I), "You have not told me your name."),
        (1, _) => {
            let answer = match &talk.name {
                Some(name) => format!("My name is {name}."),
                None => "I am the small chat model of bitnet-rust.".to_owned(),
            };
            Turn::new("name", *random.pick(&WHO_ARE_YOU), answer)
        }
        _ => {
            let name = name(random);
            talk.user = Some(name.clone());
            let introduction = *random.pick(&INTRODUCTIONS);
            let question = given(random, introduction, &name);
            let case = question.to_lowercase();
            Turn::new("name", question, format!("Nice to meet you, {name}.")).of_case(case)
        }
    }
}

pub(crate) fn unknown(random: &mut Random, _talk: &mut Talk) -> Turn {
    let thing = if random.one_in(3) { random.word() } else { (*random.pick(&THINGS)).to_owned() };
    let question = random.pick(&TOPICS).replace("{x}", &thing).replace("a the ", "the ").replace("the the ", "the ");
    // A question without a thing is always learned.
    if !question.contains(&thing) {
        return Turn::new("unknown", question, UNKNOWN);
    }
    let case = question.clone();
    Turn::new("unknown", question, UNKNOWN).of_case(case)
}

/// As people type: now and then without capital letters, apostrophes or the mark at the end, or with more words around.
pub(crate) fn typed(random: &mut Random, text: &str) -> String {
    let mut text = text.to_owned();
    if random.one_in(8) && text.starts_with("What is ") {
        text = text.replacen("What is ", if random.one_in(2) { "What's " } else { "whats " }, 1);
    }
    if random.one_in(4) {
        text.truncate(text.trim_end_matches(['?', '.', '!']).len());
    }
    if random.one_in(12) {
        text = format!("{} {text}", random.pick(&["Please:", "Ok,", "And", "So,", "Well,", "Now:", "Hey,"]));
    }
    // A name is written as it is to be repeated.
    if random.one_in(4) && !["I am", "I'm", "My name", "Call me", "call me", " here"].iter().any(|by| text.contains(by))
    {
        text = text.to_lowercase();
    }
    text
}
