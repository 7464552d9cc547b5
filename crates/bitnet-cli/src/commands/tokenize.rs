//! `bitnet tokenize`: a tokenizer from text, and text as tokens.

use crate::args::ThreadArgs;
use crate::error::{CliError, Result};
use crate::overwrite::OverwriteArgs;
use crate::progress::Progress;
use crate::{load, output};
use bitnet::model::tokenizer::Tokenizer;
use bitnet::training::config::TokenizerKind;
use bitnet::training::data::{TokenFile, expand};
use bitnet::training::tokenize::{NewTokenizer, TextPart, encode_texts, make};
use bitnet::training::{self};
use clap::ValueEnum;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet tokenize book.txt --train bpe --vocab-size 4096 --special '<|endoftext|>' --tokenizer tok --output book.tokens
  bitnet tokenize more.txt --tokenizer tok/tokenizer.json --output more.tokens
  bitnet tokenize chats.jsonl --tokenizer model --output chats.tokens

A tokenizer that is made here is a tokenizer.json that transformers reads too. The tokenizer's end token, if it has one, \
follows each document.")]
pub struct TokenizeArgs {
    /// Texts (UTF-8), each a document or several; .jsonl with a `text` or the `messages` of a chat in each line; either as .gz
    /// or .zst
    #[arg(value_name = "TEXT", required = true)]
    texts: Vec<PathBuf>,
    /// Make a tokenizer from the texts first
    #[arg(long, value_name = "KIND", value_enum)]
    train: Option<Kind>,
    /// Tokens of a bpe vocabulary, special ones included
    #[arg(long, value_name = "N", required_if_eq("train", "bpe"), value_parser = clap::value_parser!(u32).range(256..=1 << 24))]
    vocab_size: Option<u32>,
    /// A special token to add; the first ends a document (may be given more than once)
    #[arg(long, value_name = "TOKEN", requires = "train", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    special: Vec<String>,
    /// The tokenizer: a tokenizer.json or its directory; with --train, the directory to write it to
    #[arg(long, value_name = "PATH")]
    tokenizer: PathBuf,
    /// Token file to write
    #[arg(long, short, value_name = "FILE", required_unless_present = "train")]
    output: Option<PathBuf>,
    /// A string that ends a document within a text, and is left out
    #[arg(long, value_name = "STRING", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    document_end: Option<String>,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    overwrite: OverwriteArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Each character is a token
    Char,
    /// Each byte is a token
    Bytes,
    /// Byte-level byte-pair encoding
    Bpe,
}

pub fn run(args: TokenizeArgs) -> Result<()> {
    if let Some(out) = &args.output {
        refuse_text(out)?;
        args.overwrite.check_file(out)?;
    }
    if let Some(kind) = args.train {
        args.overwrite.check_file(&args.tokenizer.join("tokenizer.json"))?;
        train(&args, kind)?;
    }
    let Some(out) = &args.output else { return Ok(()) };
    let tokenizer = Tokenizer::from_file(&load::local(&args.tokenizer)?)?;
    let mut progress = Progress::new("tokenizing");
    let mark = args.document_end.as_deref();
    let texts = files(&args.texts)?.iter().map(|path| TextPart::whole(path)).collect::<Result<Vec<_>, _>>()?;
    let count = encode_texts(&texts, &tokenizer, out, mark, args.threads.count(), &mut report(&mut progress))?;
    drop(progress);
    let bytes: u64 = texts.iter().filter_map(|text| text.path.metadata().ok()).map(|data| data.len()).sum();
    let each = bytes as f64 / count.max(1) as f64;
    output::note(&format!(
        "wrote {}: {}, {each:.2} bytes of text each",
        out.display(),
        output::counted(count, "token")
    ));
    Ok(())
}

/// The files that the arguments name, as patterns too.
fn files(texts: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let files = texts.iter().map(|text| expand(text)).collect::<Result<Vec<_>, _>>()?;
    Ok(files.concat())
}

fn train(args: &TokenizeArgs, kind: Kind) -> Result<()> {
    if kind != Kind::Bpe && args.vocab_size.is_some() {
        return Err(CliError::refused("--vocab-size is for --train bpe: the text gives the others their size"));
    }
    let new = NewTokenizer {
        kind: match kind {
            Kind::Char => TokenizerKind::Char,
            Kind::Bytes => TokenizerKind::Bytes,
            Kind::Bpe => TokenizerKind::Bpe,
        },
        vocab_size: args.vocab_size.unwrap_or_default() as usize,
        special: args.special.clone(),
        document_end: args.document_end.clone(),
    };
    let folder = &args.tokenizer;
    if folder.is_file() {
        let folder = folder.display();
        return Err(CliError::refused(format!("{folder} is a file: --train writes a tokenizer to a directory")));
    }
    let mut progress = Progress::new("learning");
    let made = make(&files(&args.texts)?, &new, &mut report(&mut progress))?;
    drop(progress);
    std::fs::create_dir_all(folder).map_err(|source| CliError::File { path: folder.clone(), source })?;
    made.save(folder)?;
    output::note(&format!("wrote {}: {} tokens", folder.join("tokenizer.json").display(), made.vocab_size));
    Ok(())
}

/// What has another content than tokens is not written over.
fn refuse_text(out: &Path) -> Result<()> {
    match out.is_file() && out.metadata().is_ok_and(|data| data.len() > 0) && !TokenFile::is_one(out)? {
        true => {
            Err(CliError::refused(format!("{} is there and is no token file: write to another path", out.display())))
        }
        false => Ok(()),
    }
}

fn report(progress: &mut Progress) -> impl FnMut(u64, u64) -> training::Result<()> + Send {
    |done, total| {
        // In units that fit 32 bits.
        progress.update((done >> 10) as usize, (total >> 10) as usize);
        Ok(())
    }
}
