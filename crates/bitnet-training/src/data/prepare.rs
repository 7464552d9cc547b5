//! From a configuration to tokens: what is text becomes a token file in the run's directory.

use super::files::expand;
use super::set::TokenSet;
use super::tokens::TokenFile;
use crate::config::{Config, TokenizerConfig};
use crate::error::{Result, TrainingError};
use crate::run_directory::{RunDirectory, TOKENIZER};
use crate::tokenize::{NewTokenizer, OnProgress, TextPart, encode_texts, fingerprint, make};
use bitnet_model::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// What a run reads.
#[derive(Debug)]
pub struct Prepared {
    /// The tokenizer of the model and of the data.
    pub tokenizer: Tokenizer,
    /// Tokens to train on, and how often rows come from each; a single set where no weights are given.
    pub train: Vec<(TokenSet, f64)>,
    /// Tokens to evaluate on.
    pub validation: Option<TokenSet>,
}

/// Makes or copies the tokenizer into the run's directory, writes texts as token files there, and opens them. What is there
/// already is used as it is, so that a run goes on with the tokens that it began with.
///
/// # Errors
/// When a file cannot be read or written, or token files are of another tokenizer.
pub fn prepare(config: &Config, run: &RunDirectory, on_progress: OnProgress) -> Result<Prepared> {
    let tokenizer = tokenizer(config, run, &mut *on_progress)?;
    let mut files = |what: &str, paths: &[PathBuf], part: Part| -> Result<Vec<Vec<PathBuf>>> {
        token_files(what, paths, part, config, &tokenizer, run, &mut *on_progress)
    };
    let open = |files: &[PathBuf]| -> Result<TokenSet> {
        let set = TokenSet::open(files)?;
        set.check_tokenizer(tokenizer.vocab_size(), fingerprint(&tokenizer))?;
        Ok(set)
    };
    let (texts, rest) = (&config.data.train, &config.data.validation);
    let weights = &config.data.weights;
    let sets = |files: &[Vec<PathBuf>]| -> Result<Vec<(TokenSet, f64)>> {
        match weights.is_empty() {
            true => Ok(vec![(open(&files.concat())?, 1.0)]),
            false => files.iter().zip(weights).map(|(files, weight)| Ok((open(files)?, *weight))).collect(),
        }
    };
    let (train, validation) = match config.data.validation_fraction {
        Some(fraction) => {
            // Texts are cut before they become tokens: then it is the same text for every tokenizer.
            let last = files("validation", texts, Part::Last(fraction))?;
            let first = files("train", texts, Part::AllBut(fraction))?;
            let made = run.path().join("data");
            match first.iter().flatten().find(|path| !path.starts_with(&made)) {
                None => (sets(&first)?, Some(open(&last.concat())?)),
                Some(_) if first == last && weights.is_empty() => {
                    let (train, validation) = open(&first.concat())?.split(fraction);
                    (vec![(train, 1.0)], Some(validation))
                }
                Some(path) => {
                    let problem = "data.validation_fraction divides texts or token files, not both, and no token files \
                                   that are mixed by weights: give data.validation";
                    return Err(TrainingError::data(path, problem));
                }
            }
        }
        None if rest.is_empty() => (sets(&files("train", texts, Part::Whole)?)?, None),
        None => {
            let train = sets(&files("train", texts, Part::Whole)?)?;
            (train, Some(open(&files("validation", rest, Part::Whole)?.concat())?))
        }
    };
    Ok(Prepared { tokenizer, train, validation })
}

/// What of a text is meant.
#[derive(Debug, Clone, Copy)]
enum Part {
    Whole,
    AllBut(f64),
    Last(f64),
}

fn tokenizer(config: &Config, run: &RunDirectory, on_progress: OnProgress) -> Result<Tokenizer> {
    let own = run.path().join(TOKENIZER[0]);
    if own.is_file() {
        return Ok(Tokenizer::from_file(&own)?);
    }
    let TokenizerConfig { path, kind, vocab_size, special } = &config.tokenizer;
    if let Some(kind) = *kind {
        let mut texts = Vec::new();
        for entry in &config.data.train {
            texts.extend(expand(entry)?);
        }
        for path in &texts {
            if TokenFile::is_one(path)? {
                let problem = "a tokenizer cannot be made from tokens: give tokenizer.path, the one that made them";
                return Err(TrainingError::data(path, problem));
            }
        }
        let (special, document_end) = (special.clone(), config.data.document_end.clone());
        let new = NewTokenizer { kind, vocab_size: vocab_size.unwrap_or(0), special, document_end };
        make(&texts, &new, on_progress)?.save(run.path())?;
        return Ok(Tokenizer::from_file(&own)?);
    }
    let Some(path) = path.as_ref().or(config.model.init.as_ref()) else {
        return Err(TrainingError::Invalid("no tokenizer is named: give tokenizer.path or tokenizer.kind".into()));
    };
    let tokenizer = Tokenizer::from_file(path)?;
    // The files as they are, so that what stands in them about roles and templates stays true.
    let folder = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(Path::new(".")) };
    let file = if path.is_dir() { path.join("tokenizer.json") } else { path.clone() };
    let copy = |from: &Path, name: &str| -> Result<()> {
        run.write(name, &std::fs::read(from).map_err(|e| TrainingError::io(from, e))?)
    };
    for name in &TOKENIZER[1..] {
        if folder.join(name).is_file() {
            copy(&folder.join(name), name)?;
        }
    }
    copy(&file, TOKENIZER[0])?;
    Ok(tokenizer)
}

/// The token files of each of some entries: those that it names, or what is written to `data/<what>-<number>.tokens` of a part of
/// each of its texts, with the fraction in the name, so that another one is other data.
fn token_files(
    what: &str,
    entries: &[PathBuf],
    part: Part,
    config: &Config,
    tokenizer: &Tokenizer,
    run: &RunDirectory,
    on_progress: OnProgress,
) -> Result<Vec<Vec<PathBuf>>> {
    let folder = run.path().join("data");
    let threads = match config.training.threads {
        0 => bitnet_core::device::available_threads(),
        threads => threads,
    };
    let fraction = match part {
        Part::Whole => String::new(),
        Part::AllBut(fraction) | Part::Last(fraction) => format!("-{fraction}"),
    };
    let mut files = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let file = folder.join(format!("{what}-{i}{fraction}.tokens"));
        if file.is_file() {
            files.push(vec![file]);
            continue;
        }
        let named = expand(entry)?;
        let tokens = named.iter().map(|path| TokenFile::is_one(path)).collect::<Result<Vec<_>>>()?;
        if tokens.iter().all(|is_one| *is_one) {
            files.push(named);
            continue;
        }
        if let Some(at) = tokens.iter().position(|is_one| *is_one) {
            let problem = format!("a token file among the texts of {}: name it by itself", entry.display());
            return Err(TrainingError::data(&named[at], problem));
        }
        std::fs::create_dir_all(&folder).map_err(|e| TrainingError::io(&folder, e))?;
        let mark = config.data.document_end.as_deref();
        let part = |path: &PathBuf| -> Result<TextPart> {
            match part {
                Part::Whole => TextPart::whole(path),
                Part::AllBut(fraction) => Ok(TextPart::split(path, fraction, mark)?.0),
                Part::Last(fraction) => Ok(TextPart::split(path, fraction, mark)?.1),
            }
        };
        let texts = named.iter().map(part).collect::<Result<Vec<_>>>()?;
        encode_texts(&texts, tokenizer, &file, mark, threads, &mut *on_progress)?;
        files.push(vec![file]);
    }
    Ok(files)
}
