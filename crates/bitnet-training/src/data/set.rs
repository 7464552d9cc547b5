//! Token files as one stream.

use super::tokens::TokenFile;
use crate::error::{Result, TrainingError};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Token files one after the other, or a part of that. Clones share the files.
#[derive(Debug, Clone)]
pub struct TokenSet {
    files: Arc<Vec<TokenFile>>,
    /// Of the stream of all files.
    range: Range<usize>,
}

impl TokenSet {
    /// Opens files of one tokenizer.
    ///
    /// # Errors
    /// When one cannot be opened, they are of different tokenizers, or there is none.
    pub fn open(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let files = paths.iter().map(TokenFile::open).collect::<Result<Vec<_>>>()?;
        let Some(first) = files.first() else {
            return Err(TrainingError::Invalid("no token file was named".into()));
        };
        let kind = |f: &TokenFile| (f.vocab_size(), f.fingerprint(), f.document_end());
        if let Some(other) = files.iter().find(|f| kind(f) != kind(first)) {
            let first = first.path().display();
            let problem = format!("another tokenizer made this file than {first}: write them with one");
            return Err(TrainingError::data(other.path(), problem));
        }
        let len = files.iter().try_fold(0usize, |sum, f| sum.checked_add(f.len()));
        let len = len.ok_or_else(|| TrainingError::Invalid("the token files are longer than memory".into()))?;
        Ok(Self { files: Arc::new(files), range: 0..len })
    }

    /// Refuses files that another tokenizer made than the one of this vocabulary and fingerprint.
    ///
    /// # Errors
    /// When it is another.
    pub fn check_tokenizer(&self, vocab_size: usize, fingerprint: u64) -> Result<()> {
        let file = &self.files[0];
        if (file.vocab_size(), file.fingerprint()) == (vocab_size, fingerprint) {
            return Ok(());
        }
        let own = file.vocab_size();
        let problem = format!(
            "these tokens are of another tokenizer ({own} tokens; the one at hand has {vocab_size}): write them again \
             with `bitnet tokenize` and the tokenizer of this run"
        );
        Err(TrainingError::data(file.path(), problem))
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Size of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.files[0].vocab_size()
    }

    /// The token that ends a document.
    pub fn document_end(&self) -> Option<u32> {
        self.files[0].document_end()
    }

    /// The first file, for errors.
    pub fn path(&self) -> &Path {
        self.files[0].path()
    }

    /// All but the last `fraction`, and that.
    ///
    /// # Panics
    /// When the fraction is not from 0 to 1.
    pub fn split(&self, fraction: f64) -> (Self, Self) {
        assert!((0.0..=1.0).contains(&fraction), "a fraction is from 0 to 1");
        let at = self.range.start + (self.len() as f64 * (1.0 - fraction)) as usize;
        let part = |range| Self { files: self.files.clone(), range };
        (part(self.range.start..at), part(at..self.range.end))
    }

    /// Appends the tokens of a range to `out`.
    ///
    /// # Errors
    /// When the range leaves the stream, or a file is damaged.
    pub fn read(&self, range: Range<usize>, out: &mut Vec<i64>) -> Result<()> {
        self.check(&range)?;
        self.parts(range).try_for_each(|(file, part, _)| file.read(part, out))
    }

    /// Appends the tokens of a range as targets: [`IGNORED`](super::IGNORED) where they are none.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_targets(&self, range: Range<usize>, out: &mut Vec<i64>) -> Result<()> {
        self.check(&range)?;
        self.parts(range).try_for_each(|(file, part, _)| file.read_targets(part, out))
    }

    /// The first file of which some tokens are no targets.
    pub fn uncounted(&self) -> Option<&Path> {
        self.files.iter().find(|file| file.has_uncounted()).map(TokenFile::path)
    }

    fn check(&self, range: &Range<usize>) -> Result<()> {
        if range.start > range.end || range.end > self.len() {
            let problem = format!("tokens {range:?} were asked for, but there are {}", self.len());
            return Err(TrainingError::data(self.path(), problem));
        }
        Ok(())
    }

    /// The files that hold some of a range: what of each, and where that is in the set.
    fn parts(&self, range: Range<usize>) -> impl Iterator<Item = (&TokenFile, Range<usize>, usize)> {
        let first = self.range.start;
        let wanted = first + range.start..first + range.end;
        let mut start = 0;
        self.files.iter().filter_map(move |file| {
            let end = start + file.len();
            let (from, to) = (wanted.start.max(start), wanted.end.min(end));
            let part = (from < to).then(|| (file, from - start..to - start, from - first));
            start = end;
            part
        })
    }

    /// The documents: each ends with the token that does that, or where a file ends.
    pub fn documents(&self) -> Vec<Range<usize>> {
        let (mut documents, mut start) = (Vec::new(), 0);
        for (file, part, place) in self.parts(0..self.len()) {
            let first = part.start;
            let last = place + part.len();
            let mut close = |end: usize| {
                if start < end {
                    documents.push(start..end);
                    start = end;
                }
            };
            file.document_ends(part, |end| close(place + end - first));
            close(last);
        }
        documents
    }
}
