//! Files of tokens: written as a stream, read through a mapping.
//!
//! | bytes, little endian | |
//! |---|---|
//! | 8 | `BNTOKENS` |
//! | 4, 4 | version 1; bytes of a token, 2 or 4 |
//! | 4, 4 | size of the vocabulary; the token that ends a document, `u32::MAX` for none |
//! | 8 | fingerprint of the tokenizer |
//! | count x 2 or 4 | the tokens |
//! | 8 | count |
//! | 4 | CRC-32C of the 32 bytes at the start and the 8 before |
//! | 4 | `END.` |
//!
//! What ends the file is written last, so that a file cut short has no end.

use crate::crc32c::crc32c;
use crate::error::{Result, TrainingError};
use bitnet_core::serialize::output::AtomicFile;
use bitnet_core::{BitNetError, MappedFile};
use std::ops::Range;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"BNTOKENS";
const END: &[u8; 4] = b"END.";
const VERSION: u32 = 1;
const HEADER: usize = 32;
const FOOTER: usize = 16;

/// A token file to be written. It appears under its name when [`finish`](Self::finish) has been called.
#[derive(Debug)]
pub struct TokenWriter {
    file: AtomicFile,
    header: [u8; HEADER],
    path: PathBuf,
    vocab_size: usize,
    wide: bool,
    count: u64,
}

impl TokenWriter {
    /// Starts a file of tokens below `vocab_size`, of 2 bytes each if that is enough. `fingerprint` is that of the
    /// tokenizer , `document_end` the token that ends a document.
    ///
    /// # Errors
    /// When the folder cannot be written to, or the vocabulary exceeds 32 bits.
    pub fn create(path: &Path, vocab_size: usize, document_end: Option<u32>, fingerprint: u64) -> Result<Self> {
        let fits = u32::try_from(vocab_size).ok().filter(|&v| v < u32::MAX);
        let vocab = fits.ok_or_else(|| {
            TrainingError::Invalid(format!("a vocabulary of {vocab_size} tokens is more than a token file can number"))
        })?;
        let wide = vocab_size > 1 << 16;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        let fields = [VERSION, if wide { 4 } else { 2 }, vocab, document_end.unwrap_or(u32::MAX)];
        for (to, field) in header[8..].chunks_exact_mut(4).zip(fields) {
            to.copy_from_slice(&field.to_le_bytes());
        }
        header[24..].copy_from_slice(&fingerprint.to_le_bytes());
        let mut file = AtomicFile::create(path).map_err(BitNetError::from)?;
        file.put(&header).map_err(BitNetError::from)?;
        Ok(Self { file, header, path: path.to_owned(), vocab_size, wide, count: 0 })
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// When one is outside the vocabulary, or the disk is full.
    pub fn put(&mut self, tokens: &[u32]) -> Result<()> {
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
            let problem = format!("token {token} is outside the vocabulary of {}", self.vocab_size);
            return Err(TrainingError::data(&self.path, problem));
        }
        for token in tokens {
            let bytes = token.to_le_bytes();
            self.file.put(&bytes[..if self.wide { 4 } else { 2 }]).map_err(BitNetError::from)?;
        }
        self.count += tokens.len() as u64;
        Ok(())
    }

    /// Tokens so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Makes the file appear under its name; gives the number of tokens.
    ///
    /// # Errors
    /// When the disk is full: then what stood there before still does.
    pub fn finish(mut self) -> Result<u64> {
        let count = self.count.to_le_bytes();
        let sum = crc32c(&[&self.header[..], &count].concat());
        let footer = [&count[..], &sum.to_le_bytes(), END].concat();
        self.file.put(&footer).map_err(BitNetError::from)?;
        self.file.commit().map_err(BitNetError::from)?;
        Ok(self.count)
    }
}

/// A token file, mapped: tokens are read from the disk as they are needed.
#[derive(Debug)]
pub struct TokenFile {
    map: MappedFile,
    wide: bool,
    count: usize,
    vocab_size: usize,
    document_end: Option<u32>,
    fingerprint: u64,
}

impl TokenFile {
    /// Whether a file starts as token files do.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_one(path: &Path) -> Result<bool> {
        use std::io::Read;
        let mut start = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| TrainingError::io(path, e))?;
        file.take(8).read_to_end(&mut start).map_err(|e| TrainingError::io(path, e))?;
        Ok(start == MAGIC)
    }

    /// Maps a file whose start, length and end agree.
    ///
    /// # Errors
    /// When it cannot be read, is no token file, of a later version, or cut short.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let map = MappedFile::open(path)?;
        let refuse = |problem: &str| Err(TrainingError::data(path, problem));
        if !map.starts_with(MAGIC) {
            return refuse("this is not a token file: make one from text with `bitnet tokenize`");
        }
        let cut = "this token file is cut short or damaged: write it again with `bitnet tokenize`";
        if map.len() < HEADER + FOOTER {
            return refuse(cut);
        }
        let field = |at: usize| u32::from_le_bytes([map[at], map[at + 1], map[at + 2], map[at + 3]]);
        let long = |at: usize| u64::from(field(at)) | u64::from(field(at + 4)) << 32;
        let (version, width) = (field(8), field(12) as usize);
        if version != VERSION {
            return refuse(&format!(
                "this token file is of version {version}, but this program reads {VERSION}: write it again with \
                 `bitnet tokenize`"
            ));
        }
        let end = map.len() - FOOTER;
        let bytes = (end - HEADER) as u64;
        let sum = crc32c(&[&map[..HEADER], &map[end..end + 8]].concat());
        let whole = &map[end + 12..] == END && field(end + 8) == sum;
        let fits = matches!(width, 2 | 4) && long(end).checked_mul(width as u64) == Some(bytes);
        if !whole || !fits {
            return refuse(cut);
        }
        let document_end = Some(field(20)).filter(|&token| token != u32::MAX);
        let (vocab_size, fingerprint) = (field(16) as usize, long(24));
        Ok(Self { wide: width == 4, count: bytes as usize / width, vocab_size, document_end, fingerprint, map })
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the vocabulary; every token is smaller.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a document.
    pub fn document_end(&self) -> Option<u32> {
        self.document_end
    }

    /// That of the tokenizer that made it.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// Appends the tokens of a range to `out`.
    ///
    /// # Errors
    /// When the range leaves the file, or a token the vocabulary: then the file is damaged.
    pub fn read(&self, range: Range<usize>, out: &mut Vec<i64>) -> Result<()> {
        if range.start > range.end || range.end > self.count {
            let problem = format!("tokens {range:?} were asked for, but it holds {}", self.count);
            return Err(TrainingError::data(self.path(), problem));
        }
        let from = out.len();
        match self.wide {
            true => {
                let bytes = &self.map[HEADER + 4 * range.start..HEADER + 4 * range.end];
                out.extend(bytes.as_chunks().0.iter().map(|b| i64::from(u32::from_le_bytes(*b))));
            }
            false => {
                let bytes = &self.map[HEADER + 2 * range.start..HEADER + 2 * range.end];
                out.extend(bytes.as_chunks().0.iter().map(|b| i64::from(u16::from_le_bytes(*b))));
            }
        }
        match out[from..].iter().position(|&token| token >= self.vocab_size as i64) {
            None => Ok(()),
            Some(at) => {
                let problem = format!(
                    "token {} at place {} is outside the vocabulary of {}: the file is damaged, write it again with \
                     `bitnet tokenize`",
                    out[from + at],
                    range.start + at,
                    self.vocab_size
                );
                Err(TrainingError::data(self.path(), problem))
            }
        }
    }
}
