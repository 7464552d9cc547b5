//! Stories of four sentences about the heroes that are asked for.

use super::{Random, Talk, Turn};

const HEROES: [&str; 72] = [
    "fox",
    "bear",
    "mouse",
    "hare",
    "frog",
    "duck",
    "wolf",
    "cat",
    "dog",
    "goat",
    "horse",
    "crow",
    "robin",
    "hen",
    "pig",
    "cow",
    "lamb",
    "swan",
    "snail",
    "bee",
    "deer",
    "mole",
    "goose",
    "lion",
    "dragon",
    "robot",
    "king",
    "queen",
    "princess",
    "prince",
    "girl",
    "boy",
    "witch",
    "giant",
    "tree",
    "cloud",
    "star",
    "fish",
    "whale",
    "shark",
    "tiger",
    "monkey",
    "elephant",
    "owl",
    "eagle",
    "ant",
    "otter",
    "hedgehog",
    "rabbit",
    "squirrel",
    "bird",
    "sailor",
    "farmer",
    "baker",
    "teacher",
    "doctor",
    "child",
    "wizard",
    "knight",
    "ghost",
    "train",
    "car",
    "computer",
    "model",
    "penguin",
    "turtle",
    "spider",
    "snake",
    "sheep",
    "donkey",
    "camel",
    "butterfly",
];
const ASK: [&str; 10] = [
    "Tell me a story about {a}.",
    "Can you tell me a story about {a}?",
    "Please write a short story about {a}.",
    "I would like a story about {a}.",
    "Write a story about {a}.",
    "Do you know a story about {a}?",
    "A story about {a}, please.",
    "story about {a}",
    "Tell a story of {a}.",
    "Tell me about {a} in a story.",
];
const FIRST: [&str; 6] = [
    "Once there was a small {a} who lived by a river.",
    "Once upon a time a young {a} lived at the edge of a wood.",
    "There was once {one} who had never seen the sea.",
    "Long ago an old {a} lived under a hill.",
    "In a quiet valley there lived a merry {a}.",
    "Behind a mill, in a garden, there lived {one}.",
];
const SECOND: [&str; 6] = [
    "One morning the {a} found a golden key in the grass.",
    "One evening the {a} heard a song from far away.",
    "One day the {a} lost the way in the snow.",
    "One night the {a} saw a light between the trees.",
    "One day a great storm came, and the {a} had no roof.",
    "In autumn the {a} found more apples than it could eat.",
];
const ALONE: [&str; 5] = [
    "The {a} was afraid at first, but went on step by step.",
    "The {a} thought about it for a long time.",
    "Nobody was there to help, so the {a} had to be brave.",
    "The {a} laughed and told the wind about it.",
    "The {a} sat down on a stone and waited.",
];
const TOGETHER: [&str; 5] = [
    "Then {the b} came by and asked what had happened.",
    "Then {the b} came along, and the two became friends.",
    "Luckily {the b} knew what to do.",
    "In the wood {the b} was waiting with warm soup.",
    "There {the b} sat and smiled.",
];
const LAST: [&str; 5] = [
    "In the end all was well, and the {a} slept until noon.",
    "From that day on the {a} was never alone again.",
    "The {a} went home happy, and that is the end of the story.",
    "And if the {a} has not moved away, it lives there still.",
    "So the {a} learned that a friend is worth more than gold.",
];

fn one(hero: &str) -> String {
    let article = if hero.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {hero}")
}

/// Mostly one that is known; now and then a made-up one.
fn hero(random: &mut Random) -> String {
    if random.one_in(4) { random.word() } else { (*random.pick(&HEROES)).to_owned() }
}

pub(crate) fn story(random: &mut Random, _talk: &mut Talk) -> Turn {
    let hero = &hero(random);
    let friend = random.one_in(3).then(|| self::hero(random)).filter(|friend| friend != hero);
    let who = match &friend {
        Some(friend) => format!("{} and {}", one(hero), one(friend)),
        None => one(hero),
    };
    let third = match &friend {
        Some(friend) => told(&TOGETHER, hero, friend),
        None => told(&ALONE, hero, ""),
    };
    let question = random.pick(&ASK).replace("{a}", &who);
    let answer = vec![told(&FIRST, hero, ""), told(&SECOND, hero, ""), third, told(&LAST, hero, "")];
    let case = question.clone();
    Turn { kind: "story", question, answer, case: Some(case) }
}

fn told(sentences: &[&str], hero: &str, friend: &str) -> Vec<String> {
    sentences
        .iter()
        .map(|s| s.replace("{one}", &one(hero)).replace("{a}", hero).replace("{the b}", &format!("the {friend}")))
        .collect()
}
