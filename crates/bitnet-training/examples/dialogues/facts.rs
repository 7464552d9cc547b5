//! Questions on this project, answered from its README.

use super::{Random, Talk, Turn};

/// What comes before a question; the rest of it then begins with a small letter.
const LEADS: [&str; 8] = ["", "", "", "Tell me: ", "I have a question: ", "Please, ", "Do you know: ", "By the way, "];

/// Ways to ask, and the answer.
const FACTS: &[(&[&str], &str)] = &[
    (
        &["What is bitnet-rust?", "What is this project?", "What does this project do?", "What is this program for?"],
        "bitnet-rust is a program in Rust that trains, fine-tunes, packs and runs ternary neural networks.",
    ),
    (
        &["What does ternary mean?", "What is a ternary network?", "What are ternary weights?"],
        "Ternary means that each weight is -1, 0 or 1.",
    ),
    (
        &["What does 1.58-bit mean?", "Why 1.58 bits?", "Where do the 1.58 bits come from?"],
        "A weight with three values holds the logarithm of 3 to the base 2, which is 1.58 bits.",
    ),
    (
        &["How do I start a chat?", "How do I chat?", "What starts a conversation?"],
        "Run bitnet chat. In a clone it takes the small chat model.",
    ),
    (
        &["How do I generate text?", "How do I continue a text?", "How do I make it write?"],
        "Run bitnet generate with the beginning of a text.",
    ),
    (
        &["How do I train a model?", "How do I train my own model?", "How does training start?"],
        "Run bitnet train configs/tree.toml. It needs nothing but the clone.",
    ),
    (
        &["How do I export a model?", "How do I export a run?", "How do I pack a trained model?"],
        "Run bitnet export with the run, a file to write, and a form such as i2_s or tq2_0.",
    ),
    (
        &["How do I fine-tune a model?", "How does fine-tuning work?", "How do I make a dense model ternary?"],
        "Run bitnet finetune with a model, the data and a directory for the run.",
    ),
    (
        &[
            "How do I quantize a model without training?",
            "How do I quantize a model?",
            "Can I quantize without training?",
        ],
        "Run bitnet quantize with a dense model and the file to write.",
    ),
    (
        &["How do I convert a checkpoint?", "How do I convert a model?", "How do I make a GGUF file?"],
        "Run bitnet convert with the checkpoint, a file to write and the type.",
    ),
    (
        &["How do I measure perplexity?", "How good is my model?", "How do I evaluate a model?"],
        "Run bitnet perplexity with a model and a text.",
    ),
    (
        &["How do I inspect a checkpoint?", "What is in a checkpoint?", "How do I look into a file?"],
        "Run bitnet inspect with the path of the checkpoint.",
    ),
    (
        &["How do I measure the speed?", "How fast is it?", "How do I run a benchmark?"],
        "Run bitnet bench. It shows the speed beside the limits of the machine.",
    ),
    (
        &["Which Rust do I need?", "Which version of Rust do I need?", "What Rust does it need?"],
        "You need Rust 1.95 or newer.",
    ),
    (&["What is the licence?", "Which licence does it have?", "Is it free software?"], "It has the MIT licence."),
    (
        &["Does it need Python?", "Do I need Python?", "Is there a C library?"],
        "No. It is one binary, without a C library and without Python.",
    ),
    (
        &["Does it need a GPU?", "Do I need a graphics card?", "What hardware do I need?"],
        "It needs no GPU. It runs on any x86-64 or ARM CPU.",
    ),
    (
        &["Which files does it read?", "What models can it read?", "Which checkpoints are read?"],
        "It reads Hugging Face directories and GGUF files.",
    ),
    (
        &["Which GGUF types does it write?", "What does it write?", "Which types can be written?"],
        "It writes I2_S, TQ1_0 and TQ2_0.",
    ),
    (
        &["Which instruction sets does it use?", "Which kernels are there?", "Does it use AVX-512?"],
        "It has kernels for SSE4.1, AVX2, AVX-512 and NEON, and chooses one at run time.",
    ),
    (
        &["Does it support CUDA?", "Does it support Metal?", "Can it use my GPU?"],
        "Not yet. There is a trait for devices, but only the CPU is there.",
    ),
    (&["How do I run the tests?", "How do I test it?", "Where are the tests?"], "Run cargo test --workspace."),
    (
        &["Where are the guides?", "Where is the documentation?", "Is there a guide?"],
        "The guides are in the folder docs.",
    ),
    (
        &["How is the code organized?", "Where is the architecture described?", "What are the layers of the code?"],
        "The layers of the code are described in ARCHITECTURE.md.",
    ),
    (
        &["How do I choose the instruction set?", "What is BITNET_ISA?", "How do I force AVX2?"],
        "BITNET_ISA caps the instruction set, for example BITNET_ISA=avx2.",
    ),
    (&["What is I2_S?", "What does I2_S mean?"], "I2_S is a GGUF type with 2 bits a weight and one scale a tensor."),
    (&["What is TQ2_0?", "What does TQ2_0 mean?"], "TQ2_0 is a GGUF type of llama.cpp with 2.06 bits a weight."),
    (&["What is TQ1_0?", "What does TQ1_0 mean?"], "TQ1_0 is a GGUF type of llama.cpp with 1.69 bits a weight."),
    (
        &["What is the Shakespeare model?", "What is shakespeare.gguf?", "Which model writes verse?"],
        "It is a model of 5 million parameters in the folder models. It writes verse.",
    ),
    (
        &["How do I resume a run?", "How do I go on with a run?", "How do I resume training?"],
        "Run bitnet train --resume with the directory of the run.",
    ),
    (
        &["How do I stop a run?", "How do I stop training?", "What does Ctrl-C do?"],
        "Press Ctrl-C. The run ends with a checkpoint.",
    ),
    (
        &["What is distillation?", "How do I distil a model?", "Can it learn from a teacher?"],
        "In distillation a student learns from a teacher. Run bitnet distill.",
    ),
    (
        &["What is LoRA?", "How do I train adapters?", "Are there adapters?"],
        "LoRA trains two thin matrices for each layer. Run bitnet finetune with --lora.",
    ),
    (
        &["How do I make a tokenizer?", "What makes a tokenizer?", "How do I tokenize a text?"],
        "Run bitnet tokenize with a text.",
    ),
    (
        &["Can transformers read the exports?", "Can llama.cpp read the files?", "Who reads the exports?"],
        "transformers and llama.cpp read what it writes.",
    ),
    (
        &["How do I install it?", "How do I install bitnet?", "How do I build it?"],
        "Run cargo install --path crates/bitnet-cli.",
    ),
    (
        &["What can you do?", "What are you able to do?", "What do you know?", "Can you help me?"],
        "I can do small sums, tell short stories and answer questions about bitnet-rust.",
    ),
    (
        &["How large are you?", "How big are you?", "How many parameters do you have?"],
        "I have about 3 million parameters. That is very small.",
    ),
    (
        &["Are you clever?", "Do you know everything?", "Can I trust you?"],
        "I am very small and know only a few things. Do not trust me with more.",
    ),
    (
        &["Who made you?", "How were you trained?", "Where do you come from?", "What are you?"],
        "I am a small ternary model. bitnet-rust trained me on dialogues that a program made.",
    ),
];

pub(crate) fn fact(random: &mut Random, _talk: &mut Talk) -> Turn {
    let (questions, answer) = random.pick(FACTS);
    let (lead, question) = (*random.pick(&LEADS), *random.pick(questions));
    let question = match lead.is_empty() {
        true => question.to_owned(),
        false => format!("{lead}{}{}", question[..1].to_lowercase(), &question[1..]),
    };
    // A question by itself is always learned: what is held out is a lead before it.
    let turn = Turn::new("project", question.clone(), *answer);
    if lead.is_empty() { turn } else { turn.of_case(question) }
}
