//! Files of tokens: written as a stream, read through a mapping.
//!
//! | bytes, little endian | |
//! |---|---|
//! | 8 | `BNTOKENS` |
//! | 4, 4 | version 1, or 2 with marks; bytes of a token, 2 or 4 |
//! | 4, 4 | size of the vocabulary; the token that ends a document, `u32::MAX` for none |
//! | 8 | fingerprint of the tokenizer |
//! | count x 2 or 4 | the tokens |
//! | 8 | count |
//! | 4 | CRC-32C of the 32 bytes at the start and the 8 before |
//! | 4 | `END.` |
//!
//! In version 2 a token has 4 bytes, of which bit 31 says that it is no target (a question in a chat) and bit 30 that it ends
//! its document. What ends the file is written last, so that a file cut short has no end.

use super::IGNORED;
use crate::crc32c::crc32c;
use crate::error::{Result, TrainingError};
use bitnet_core::serialize::output::AtomicFile;
use bitnet_core::{BitNetError, MappedFile};
use std::ops::Range;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"BNTOKENS";
const END: &[u8; 4] = b"END.";
const PLAIN: u32 = 1;
const MARKED: u32 = 2;
/// Of a token of a marked file: it is no target.
const UNCOUNTED: u32 = 1 << 31;
/// It is the last of its document.
const ENDS: u32 = 1 << 30;
const HEADER: usize = 32;
const FOOTER: usize = 16;

/// A token file to be written. It appears under its name when [`finish`](Self::finish) has been called.
#[derive(Debug)]
pub struct TokenWriter {
    file: AtomicFile,
    header: [u8; HEADER],
    path: PathBuf,
    vocab_size: usize,
    marked: bool,
    wide: bool,
    count: u64,
}

impl TokenWriter {
    /// Starts a file of tokens below `vocab_size`, of 2 bytes each if that is enough. `fingerprint` is that of the
    /// tokenizer , `document_end` the token that ends a document.
    ///
    /// # Errors
    /// When the folder cannot be written to, or the vocabulary exceeds 30 bits.
    pub fn create(path: &Path, vocab_size: usize, document_end: Option<u32>, fingerprint: u64) -> Result<Self> {
        Self::create_as(PLAIN, path, vocab_size, document_end, fingerprint)
    }

    /// The same for documents of which not every token is a target, such as chats: see [`put_document`](Self::put_document).
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_marked(path: &Path, vocab_size: usize, document_end: Option<u32>, fingerprint: u64) -> Result<Self> {
        Self::create_as(MARKED, path, vocab_size, document_end, fingerprint)
    }

    fn create_as(
        version: u32,
        path: &Path,
        vocab_size: usize,
        document_end: Option<u32>,
        fingerprint: u64,
    ) -> Result<Self> {
        let fits = u32::try_from(vocab_size).ok().filter(|&v| v < ENDS);
        let vocab = fits.ok_or_else(|| {
            TrainingError::Invalid(format!("a vocabulary of {vocab_size} tokens is more than a token file can number"))
        })?;
        let wide = vocab_size > 1 << 16 || version == MARKED;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        let fields = [version, if wide { 4 } else { 2 }, vocab, document_end.unwrap_or(u32::MAX)];
        for (to, field) in header[8..].chunks_exact_mut(4).zip(fields) {
            to.copy_from_slice(&field.to_le_bytes());
        }
        header[24..].copy_from_slice(&fingerprint.to_le_bytes());
        let mut file = AtomicFile::create(path).map_err(BitNetError::from)?;
        file.put(&header).map_err(BitNetError::from)?;
        Ok(Self { file, header, path: path.to_owned(), vocab_size, marked: version == MARKED, wide, count: 0 })
    }

    /// Appends tokens, all of them targets.
    ///
    /// # Errors
    /// When one is outside the vocabulary, or the disk is full.
    pub fn put(&mut self, tokens: &[u32]) -> Result<()> {
        tokens.iter().try_for_each(|&token| self.put_one(token, 0))
    }

    /// Appends a document, in a file with marks; `counted` says which of its tokens are targets.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Panics
    /// When the file has no marks, or `counted` is of another length.
    pub fn put_document(&mut self, tokens: &[u32], counted: &[bool]) -> Result<()> {
        assert!(self.marked, "a file without marks");
        assert_eq!(tokens.len(), counted.len(), "tokens, and whether each counts");
        let last = tokens.len().saturating_sub(1);
        for (i, (&token, counts)) in tokens.iter().zip(counted).enumerate() {
            let marks = if *counts { 0 } else { UNCOUNTED } | if i == last { ENDS } else { 0 };
            self.put_one(token, marks)?;
        }
        Ok(())
    }

    fn put_one(&mut self, token: u32, marks: u32) -> Result<()> {
        if token as usize >= self.vocab_size {
            let problem = format!("token {token} is outside the vocabulary of {}", self.vocab_size);
            return Err(TrainingError::data(&self.path, problem));
        }
        let bytes = (token | marks).to_le_bytes();
        self.file.put(&bytes[..if self.wide { 4 } else { 2 }]).map_err(BitNetError::from)?;
        self.count += 1;
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
    marked: bool,
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
        if ![PLAIN, MARKED].contains(&version) {
            return refuse(&format!(
                "this token file is of version {version}, but this program reads {PLAIN} and {MARKED}: write it again \
                 with `bitnet tokenize`"
            ));
        }
        let end = map.len() - FOOTER;
        let bytes = (end - HEADER) as u64;
        let sum = crc32c(&[&map[..HEADER], &map[end..end + 8]].concat());
        let whole = &map[end + 12..] == END && field(end + 8) == sum;
        let marked = version == MARKED;
        let fits = matches!((width, marked), (2, false) | (4, _)) && long(end).checked_mul(width as u64) == Some(bytes);
        if !whole || !fits {
            return refuse(cut);
        }
        let document_end = Some(field(20)).filter(|&token| token != u32::MAX);
        let (vocab_size, fingerprint) = (field(16) as usize, long(24));
        Ok(Self { marked, wide: width == 4, count: bytes as usize / width, vocab_size, document_end, fingerprint, map })
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
        self.read_as(range, out, |token, _| token)
    }

    /// Appends the tokens of a range as targets: [`IGNORED`] where they are none.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_targets(&self, range: Range<usize>, out: &mut Vec<i64>) -> Result<()> {
        self.read_as(range, out, |token, marks| if marks & UNCOUNTED == 0 { token } else { IGNORED })
    }

    fn read_as(&self, range: Range<usize>, out: &mut Vec<i64>, each: impl Fn(i64, u32) -> i64) -> Result<()> {
        if range.start > range.end || range.end > self.count {
            let problem = format!("tokens {range:?} were asked for, but it holds {}", self.count);
            return Err(TrainingError::data(self.path(), problem));
        }
        let start = range.start;
        let mask = if self.marked { ENDS - 1 } else { u32::MAX };
        for (i, raw) in self.raw(range).enumerate() {
            let token = raw & mask;
            if token as usize >= self.vocab_size {
                let problem = format!(
                    "token {token} at place {} is outside the vocabulary of {}: the file is damaged, write it again \
                     with `bitnet tokenize`",
                    start + i,
                    self.vocab_size
                );
                return Err(TrainingError::data(self.path(), problem));
            }
            out.push(each(token.into(), raw & !mask));
        }
        Ok(())
    }

    /// Whether some tokens are no targets.
    pub fn has_uncounted(&self) -> bool {
        self.marked && self.raw(0..self.count).any(|raw| raw & UNCOUNTED != 0)
    }

    /// Calls `each` with the place after each document that ends in a range.
    pub(crate) fn document_ends(&self, range: Range<usize>, mut each: impl FnMut(usize)) {
        let start = range.start;
        let ends = |raw: u32| if self.marked { raw & ENDS != 0 } else { Some(raw) == self.document_end };
        self.raw(range).enumerate().filter(|(_, raw)| ends(*raw)).for_each(|(i, _)| each(start + i + 1));
    }

    /// Tokens of a range within the file, with their marks.
    fn raw(&self, range: Range<usize>) -> impl Iterator<Item = u32> {
        let width = if self.wide { 4 } else { 2 };
        let bytes = &self.map[HEADER + width * range.start..HEADER + width * range.end];
        bytes.chunks_exact(width).map(|b| match b {
            [a, b] => u32::from(u16::from_le_bytes([*a, *b])),
            _ => u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        })
    }
}
