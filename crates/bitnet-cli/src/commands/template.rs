//! `bitnet template`: what a conversation becomes.

use crate::args::{ModelArgs, TemplateArgs};
use crate::error::{CliError, Result};
use crate::{load, output, text};
use bitnet::model::chat_template::Ending;
use bitnet::model::tokenizer::ParseSpecial;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet template --model bitnet-2b4t.gguf \"Who are you?\"
  bitnet template --model hf-folder --messages chat.json --template-kwargs '{\"enable_thinking\": false}'
  bitnet template --model hf-folder --messages chat.json --json | jq .ids

The messages are a JSON list of objects with `role` and `content`, tool calls and whatever else the template reads, or an object \
with this list as `messages` and with `tools` and other variables. The text ends with the start of an answer; a last message \
of the assistant is left open, to be continued.")]
pub struct TemplateCommandArgs {
    /// A message of the user
    #[arg(value_name = "TEXT", allow_hyphen_values = true, required_unless_present = "messages")]
    text: Option<String>,
    /// File with the messages as JSON; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    messages: Option<PathBuf>,
    /// End with the last message, as a whole conversation does
    #[arg(long)]
    whole: bool,
    /// Print one JSON object: the text and the ids of its tokens
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    template: TemplateArgs,
}

pub fn run(args: TemplateCommandArgs) -> Result<()> {
    let path = load::chat_path(&args.model)?;
    let checkpoint = load::open(&path, &args.model.read)?;
    let tokenizer = checkpoint.tokenizer()?;
    let template = args.template.load(tokenizer, &path)?;
    let conversation = match (&args.messages, args.text) {
        (Some(file), _) => text::read_messages(file)?,
        (None, Some(text)) => text::one_message(&text)?,
        (None, None) => return Err(CliError::refused("no message: give a text, or --messages FILE")),
    };
    let ending = if args.whole { Ending::Whole } else { conversation.ending() };
    let rendered = template.render_conversation(&conversation, ending)?;
    if args.json {
        let ids = tokenizer.encode_with(&rendered, false, ParseSpecial::Yes)?;
        return output::json(&json!({ "text": rendered, "ids": ids }));
    }
    output::line(&rendered)
}
