//! `bitnet chat`: a conversation.

use crate::args::{self, CacheArgs, DeviceArgs, LoraArgs, ModelArgs, SamplingArgs, StopArgs, TemplateArgs};
use crate::error::{CliError, Result};
use crate::{interrupt, load, output, text};
use bitnet::inference::{FinishReason, GenerateOptions, Session, generate};
use bitnet::model::chat_template::{ChatTemplate, Conversation, Ending};
use bitnet::model::checkpoint::Checkpoint;
use bitnet::model::tokenizer::{ParseSpecial, Tokenizer};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{BufRead, ErrorKind, IsTerminal, Read, StdinLock, stdin};
use std::ops::ControlFlow;
use std::path::PathBuf;

const COMMANDS: &str = "\
/reset  forget the conversation
/help   this list
/exit   end (also Ctrl-D)
Ctrl-C ends an answer and keeps the conversation.";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet chat                                 with the small chat model of this repository
  bitnet chat --model bitnet-2b4t.gguf
  bitnet chat --model bitnet-2b4t.gguf --system \"Answer in one sentence.\"
  bitnet chat --model bitnet-2b4t.gguf --messages chat.json

In the conversation: /reset forgets it, /help lists commands, /exit or Ctrl-D ends it, Ctrl-C ends an answer.")]
pub struct ChatArgs {
    /// System message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// File with a conversation as JSON to go on with; a last message of the user is answered first
    #[arg(long, value_name = "FILE", conflicts_with = "system")]
    messages: Option<PathBuf>,
    /// Most tokens of an answer; -1 goes on to the end of the answer or of the context
    #[arg(long, short = 'n', value_name = "N", default_value = "-1", allow_negative_numbers = true,
          value_parser = args::token_limit)]
    max_tokens: usize,
    #[command(flatten)]
    stop: StopArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

pub fn run(args: ChatArgs) -> Result<()> {
    args.sampling.check()?;
    let start = match (&args.messages, &args.system) {
        (Some(file), _) => text::read_messages(file)?,
        (None, system) => {
            let mut start = Conversation::default();
            system.iter().for_each(|text| start.push("system", text));
            start
        }
    };
    let path = load::chat_path(&args.model)?;
    let checkpoint = load::adapt(load::open(&path, &args.model.read)?, &args.lora, false)?;
    let sampling = args.sampling.sampling(checkpoint.sampling(), Some(checkpoint.tokenizer()?))?;
    let options = GenerateOptions { max_tokens: args.max_tokens, sampling, stop: args.stop.stop };
    let tokenizer = checkpoint.tokenizer()?;
    let template = args.template.load(tokenizer, &path)?;
    let context = args.cache.context(checkpoint.weights().config().max_positions)?;
    let model = load::model(checkpoint.weights(), &args.device.device()?)?;
    let session = Session::with_kv_type(model, context, args.cache.kv_type)?;
    let mut chat = Chat { checkpoint: &checkpoint, tokenizer, template, session, options, messages: start.clone() };

    interrupt::catch()?;
    let mut input = Input::new()?;
    if start.roles().last().is_some_and(|role| role != "system" && role != "assistant") {
        chat.answer()?;
    }
    while let Some(line) = input.line()? {
        match line.trim() {
            "" => {}
            "/exit" => break,
            "/help" => output::error_line("", COMMANDS),
            "/reset" => {
                chat.messages = start.clone();
                output::note("The conversation is forgotten.");
            }
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                output::error_line("", &format!("There is no {command}.\n{COMMANDS}"));
            }
            _ => {
                chat.messages.push("user", &line);
                chat.answer()?;
            }
        }
    }
    Ok(())
}

struct Chat<'a> {
    checkpoint: &'a Checkpoint,
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    session: Session,
    options: GenerateOptions,
    messages: Conversation,
}

impl Chat<'_> {
    /// The tokens of the conversation, which ends with a message of the user; their number if that alone is too long. Where room
    /// for an answer is lacking, the oldest turns are dropped, for good; the system message stays.
    fn prompt(&mut self) -> Result<Result<Vec<u32>, usize>> {
        let context = self.session.capacity();
        // A quarter of the context, or all that may be answered.
        let answer = self.options.max_tokens.min(context / 4).max(1);
        let mut messages = self.messages.clone();
        let mut roles: Vec<String> = messages.roles().collect();
        let system = roles.iter().take_while(|role| *role == "system").count();
        let mut turns = 0;
        loop {
            let prompt = self.template.render_conversation(&messages, Ending::Prompt)?;
            let tokens = self.tokenizer.encode_with(&prompt, false, ParseSpecial::Yes)?;
            let last = roles.len() - system == 1;
            let fits = tokens.len().saturating_add(answer) <= context;
            if fits || last && tokens.len() < context {
                match turns {
                    0 => {}
                    1 => output::note("(context full: the oldest turn is forgotten)"),
                    _ => output::note(&format!("(context full: the oldest {turns} turns are forgotten)")),
                }
                self.messages = messages;
                return Ok(Ok(tokens));
            }
            if last {
                return Ok(Err(tokens.len()));
            }
            // A turn: a message of the user and its answer.
            turns += 1;
            let next = roles.iter().skip(system + 1).position(|role| role == "user");
            for _ in 0..next.map_or(roles.len() - system - 1, |others| others + 1) {
                messages.remove(system);
                roles.remove(system);
            }
        }
    }

    /// Prints the model's answer to the last message and adds it to the conversation, also if it was interrupted. The session has the
    /// conversation so far in its cache and processes only the new tokens.
    fn answer(&mut self) -> Result<()> {
        let context = self.session.capacity();
        let tokens = match self.prompt()? {
            Ok(tokens) => tokens,
            Err(tokens) => {
                let last = self.messages.roles().len() - 1;
                self.messages.remove(last);
                let line = format!(
                    "This message does not fit: the conversation has {tokens} tokens, the context {context}. Say less."
                );
                output::error_line("", &line);
                return Ok(());
            }
        };
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
        self.checkpoint.check_unchanged()?;
        output::line("")?;
        match answer.finish {
            FinishReason::ContextFull => {
                output::note(&format!("(cut off: the context of {context} tokens is full)"));
            }
            FinishReason::Interrupted => output::note("(interrupted)"),
            _ => {}
        }
        self.messages.push("assistant", &answer.text);
        // The next answer has another seed; the first seed still determines the conversation.
        self.options.sampling.seed = self.options.sampling.seed.wrapping_add(1);
        Ok(())
    }
}

/// Lines of the user: with line editing on a terminal, else from standard input.
enum Input {
    Terminal(Box<DefaultEditor>),
    Lines(StdinLock<'static>),
}

/// Bytes of a line; more are no message.
const LONGEST_LINE: u64 = 1 << 20;

impl Input {
    fn new() -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self::Lines(stdin().lock()));
        }
        output::note("/help lists commands; Ctrl-D ends.");
        Ok(Self::Terminal(Box::new(DefaultEditor::new().map_err(failed)?)))
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> Result<Option<String>> {
        let editor = match self {
            Self::Lines(lines) => return next_line(lines),
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
                Err(ReadlineError::Io(e)) if e.kind() == ErrorKind::InvalidData => skipped("is not UTF-8"),
                Err(ReadlineError::Eof) => return Ok(None),
                Err(e) => return Err(failed(e)),
            }
        }
    }
}

/// The next line that can be a message. One that is not UTF-8 or has no end is passed over, saying so.
fn next_line(lines: &mut impl BufRead) -> Result<Option<String>> {
    let mut skipping = false;
    loop {
        let mut line = Vec::new();
        let read = Read::take(&mut *lines, LONGEST_LINE).read_until(b'\n', &mut line);
        if read.map_err(|e| failed(e.into()))? == 0 {
            return Ok(None);
        }
        let whole = line.ends_with(b"\n") || (line.len() as u64) < LONGEST_LINE;
        match String::from_utf8(line) {
            _ if skipping => skipping = !whole,
            // The end of the line is not part of the message.
            Ok(line) if whole => return Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned())),
            Err(_) if whole => skipped("is not UTF-8"),
            _ => {
                skipped("is longer than a megabyte");
                skipping = true;
            }
        }
    }
}

fn skipped(why: &str) {
    output::error_line("", &format!("This line {why}: it is left out."));
}

fn failed(error: ReadlineError) -> CliError {
    CliError::refused(format!("cannot read the input: {error}"))
}
