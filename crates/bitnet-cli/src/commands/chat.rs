//! `bitnet chat`: a conversation.

use crate::args::{ModelArgs, SamplingArgs, StopArgs, ThreadArgs};
use crate::error::{CliError, Result};
use crate::{interrupt, load, output};
use bitnet::inference::{FinishReason, GenerateOptions, Session, generate};
use bitnet::model::chat_template::{ChatMessage, ChatTemplate};
use bitnet::model::tokenizer::{ParseSpecial, Tokenizer};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{IsTerminal, stdin};
use std::ops::ControlFlow;

const COMMANDS: &str = "\
/reset  forget the conversation
/help   this list
/exit   end (also Ctrl-D)
Ctrl-C ends an answer and keeps the conversation.";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet chat --model bitnet-2b4t.gguf
  bitnet chat --model bitnet-2b4t.gguf --system \"Answer in one sentence.\"

In the conversation: /reset forgets it, /help lists commands, /exit or Ctrl-D ends it, Ctrl-C ends an answer.")]
pub struct ChatArgs {
    /// What the model is told first
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of an answer [default: as many as the context holds]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    #[command(flatten)]
    stop: StopArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

pub fn run(args: ChatArgs) -> Result<()> {
    let options = GenerateOptions {
        max_tokens: args.max_tokens.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX),
        sampling: args.sampling.sampling()?,
        stop: args.stop.stop,
    };
    let path = load::path(&args.model)?;
    let checkpoint = load::open(&path, &args.model.read)?;
    let tokenizer = checkpoint.tokenizer()?;
    let template = ChatTemplate::of(tokenizer)?.ok_or_else(|| {
        let path = path.display();
        CliError::refused(format!("{path} has no chat template, so it is no model to talk to: use bitnet generate"))
    })?;
    let model = load::model(checkpoint.weights(), args.threads.count())?;
    let session = Session::new(model, checkpoint.weights().config().max_positions)?;
    let system = args.system.map(|text| ChatMessage::new("system", text));
    let mut chat = Chat { tokenizer, template, session, options, messages: Vec::from_iter(system.clone()) };

    interrupt::catch()?;
    let mut input = Input::new()?;
    while let Some(line) = input.line()? {
        match line.trim() {
            "" => {}
            "/exit" => break,
            "/help" => output::note(COMMANDS),
            "/reset" => {
                chat.messages = Vec::from_iter(system.clone());
                output::note("The conversation is forgotten.");
            }
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                output::note(&format!("There is no {command}.\n{COMMANDS}"));
            }
            _ => chat.answer(line)?,
        }
    }
    Ok(())
}

struct Chat<'a> {
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    session: Session,
    options: GenerateOptions,
    messages: Vec<ChatMessage>,
}

impl Chat<'_> {
    /// Prints the model's answer and keeps it, also if it was interrupted. The session knows the conversation so far and
    /// reads only what is new.
    fn answer(&mut self, message: String) -> Result<()> {
        self.messages.push(ChatMessage::new("user", message));
        let prompt = self.template.render(&self.messages, true)?;
        let tokens = self.tokenizer.encode_with(&prompt, false, ParseSpecial::Yes)?;
        let context = self.session.capacity();
        if tokens.len() >= context {
            self.messages.pop();
            output::note(&format!(
                "With this message the conversation has {} tokens; the context holds {context}. Say less, or /reset.",
                tokens.len()
            ));
            return Ok(());
        }
        interrupt::clear();
        let mut written = Ok(());
        let on_text = |text: &str| {
            written = output::text(text);
            match written.is_err() || interrupt::pressed() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let answer = generate(&mut self.session, self.tokenizer, &tokens, &self.options, on_text)?;
        interrupt::clear();
        written?;
        output::line("")?;
        match answer.finish {
            FinishReason::ContextFull => {
                output::note(&format!("The context of {context} tokens is full: /reset begins a new conversation."));
            }
            FinishReason::Interrupted => output::note("(interrupted)"),
            _ => {}
        }
        self.messages.push(ChatMessage::new("assistant", answer.text));
        // Another seed for another answer; still the same conversation for the same first seed.
        self.options.sampling.seed = self.options.sampling.seed.wrapping_add(1);
        Ok(())
    }
}

/// Lines of the user: edited on a terminal, else as they come.
enum Input {
    Terminal(Box<DefaultEditor>),
    Lines(std::io::Lines<std::io::StdinLock<'static>>),
}

impl Input {
    fn new() -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self::Lines(stdin().lines()));
        }
        output::note("/help lists commands; Ctrl-D ends.");
        Ok(Self::Terminal(Box::new(DefaultEditor::new().map_err(failed)?)))
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> Result<Option<String>> {
        let editor = match self {
            Self::Lines(lines) => return lines.next().transpose().map_err(|e| failed(e.into())),
            Self::Terminal(editor) => editor,
        };
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    editor.add_history_entry(&line).map_err(failed)?;
                    return Ok(Some(line));
                }
                // Ctrl-C clears the line.
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(None),
                Err(e) => return Err(failed(e)),
            }
        }
    }
}

fn failed(error: ReadlineError) -> CliError {
    CliError::refused(format!("cannot read the input: {error}"))
}
