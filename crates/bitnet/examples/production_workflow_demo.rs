//! From a checkpoint to text: look at the file, load it once, serve several sequences, check the result.
//!
//! ```text
//! cargo run -p bitnet --example production_workflow_demo -- [MODEL]
//! ```

use bitnet::prelude::*;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let in_tree = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/shakespeare.gguf");
    let path = std::env::args().nth(1).map_or_else(in_tree, PathBuf::from);

    // Headers are read and checked first; a damaged file is an error that names what is wrong.
    let checkpoint = Checkpoint::open(&path, &OpenOptions::default())?;
    println!("{}, {}: {} tensors", checkpoint.name(), checkpoint.format(), checkpoint.tensors().len());

    let device = auto_select_device();
    let start = Instant::now();
    let model = Arc::new(Model::load(checkpoint.weights(), &device, |_, _| {})?);
    let tokenizer = checkpoint.tokenizer()?;
    let config = model.config();
    println!(
        "{} layers of width {}, loaded on {} in {:.2} s",
        config.layers,
        config.hidden_size,
        device.name(),
        start.elapsed().as_secs_f64()
    );

    // A session is one sequence; the model is shared. The same seed gives the same text.
    let options = GenerateOptions {
        max_tokens: 24,
        sampling: Sampling { seed: 7, ..Sampling::default() },
        stop: vec!["\n\n".into()],
    };
    let run = |prompt: &str| -> Result<(String, Generation), Box<dyn Error>> {
        let mut text = String::new();
        let prompt = tokenizer.encode(prompt, true)?;
        let mut session = Session::new(model.clone(), 256)?;
        let generation = generate(&mut session, tokenizer, &prompt, &options, |piece| {
            text.push_str(piece);
            ControlFlow::Continue(())
        })?;
        Ok((text, generation))
    };
    for prompt in ["ROMEO:", "JULIET:"] {
        let (text, generation) = run(prompt)?;
        println!("{prompt}{text:?}: {} tokens, {:?}", generation.tokens.len(), generation.finish);
        assert!(!generation.tokens.is_empty() && generation.tokens.len() <= 24);
        assert_eq!(run(prompt)?.0, text, "a seed gives the same text again");
    }

    // A prompt that does not fit is an error, not a truncated text.
    let long = tokenizer.encode(&"word ".repeat(300), true)?;
    let error = generate(&mut Session::new(model, 256)?, tokenizer, &long, &options, |_| ControlFlow::Continue(()));
    println!("a prompt of {} tokens: {}", long.len(), error.expect_err("the context holds 256"));
    Ok(())
}
