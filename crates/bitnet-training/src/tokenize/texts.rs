//! Text files in pieces, so that memory stays small however long they are.

use super::OnProgress;
use super::source::{self, Form, Reader, Record, Records};
use crate::error::{Result, TrainingError};
use std::io::{BufRead, BufReader, Read, Take};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A text file, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub struct TextPart {
    /// The file.
    pub path: PathBuf,
    /// Which of its bytes, decompressed; both ends are at the border of a character, or of a record. Of a table, which rows.
    pub bytes: Range<u64>,
}

impl TextPart {
    /// A whole file.
    ///
    /// # Errors
    /// When there is none, or it is a directory.
    pub fn whole(path: &Path) -> Result<Self> {
        let data = std::fs::metadata(path).map_err(|e| TrainingError::io(path, e))?;
        if data.is_dir() {
            return Err(TrainingError::data(path, "this is a directory: name text files"));
        }
        let end = match source::form(path)? {
            Form::Parquet => source::rows(path)?,
            Form::Text | Form::Lines => source::length(path)?,
        };
        Ok(Self { path: path.to_owned(), bytes: 0..end })
    }

    /// All of a file but the last `fraction` of its bytes (or rows), and that. Neither a `document_end` nor a record is cut in
    /// two.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When the fraction is not from 0 to 1.
    pub fn split(path: &Path, fraction: f64, document_end: Option<&str>) -> Result<(Self, Self)> {
        assert!((0.0..=1.0).contains(&fraction), "a fraction is from 0 to 1");
        let Self { path: name, bytes } = Self::whole(path)?;
        let wanted = (bytes.end as f64 * (1.0 - fraction)) as u64;
        let at = match source::form(path)? {
            Form::Parquet => wanted,
            Form::Lines if wanted == 0 => 0,
            Form::Lines => {
                // After the line that reaches over the byte before.
                let mut rest = Vec::new();
                let mut reader = BufReader::new(source::open(path, wanted - 1)?);
                let count = reader.read_until(b'\n', &mut rest).map_err(|e| TrainingError::io(path, e))?;
                wanted - 1 + count as u64
            }
            Form::Text => border(path, wanted, document_end)?,
        };
        Ok((Self { path: name.clone(), bytes: 0..at }, Self { path: name, bytes: at..bytes.end }))
    }
}

/// The place near `wanted` that is within neither a character nor a mark.
fn border(path: &Path, wanted: u64, document_end: Option<&str>) -> Result<u64> {
    // As much around the place as a character or a mark may reach over it.
    let mark = document_end.unwrap_or_default().as_bytes();
    let around = mark.len().max(4) as u64;
    let start = wanted.saturating_sub(around);
    let mut near = Vec::new();
    let reader = source::open(path, start)?;
    reader.take(2 * around).read_to_end(&mut near).map_err(|e| TrainingError::io(path, e))?;
    let wanted = (wanted - start) as usize;
    let mut at = wanted;
    while near.get(at).is_some_and(|byte| byte & 0xc0 == 0x80) {
        at += 1;
    }
    if let Some(first) = document_end.and_then(|_| find(&near, mark))
        && (first + 1..first + mark.len()).contains(&wanted)
    {
        at = first + mark.len();
    }
    Ok(start + at as u64)
}

/// A part of a document.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    pub content: Record,
    /// Whether the document ends here.
    pub ends: bool,
}

impl Piece {
    /// Its texts: one, or those of the messages of a chat.
    pub fn texts(&self) -> Vec<&str> {
        match &self.content {
            Record::Text(text) => vec![text],
            Record::Chat(messages) => messages.iter().map(|message| message.content.as_str()).collect(),
        }
    }

    /// Bytes of text.
    pub fn len(&self) -> usize {
        self.texts().iter().map(|text| text.len()).sum()
    }
}

/// A file that is being read.
enum Open {
    Text(Take<Reader>),
    Records(Records),
}

/// Reads UTF-8 files piece by piece; a record is a piece.
///
/// Pieces end where tokenizers cut anyway: after a newline, or else before a space, between two characters that are not
/// white. Only where there is neither for [`LONGEST`] bytes is the cut somewhere else.
pub(super) struct Texts<'a> {
    /// What is to be read, the next one last.
    parts: Vec<TextPart>,
    document_end: Option<&'a str>,
    /// Bytes after which a piece may end.
    least: usize,
    file: Option<(Open, PathBuf)>,
    /// Read and not given yet.
    buffer: Vec<u8>,
    /// Of the file, where the buffer starts.
    start: u64,
    done: u64,
    total: u64,
    on_progress: OnProgress<'a>,
}

const PART: usize = 1 << 20;
const LONGEST: usize = 64 << 20;

impl<'a> Texts<'a> {
    /// `least` is the length from which on pieces are cut.
    pub fn open(parts: &[TextPart], document_end: Option<&'a str>, least: usize, on_progress: OnProgress<'a>) -> Self {
        let total = parts.iter().map(|part| part.bytes.end - part.bytes.start).sum();
        let parts = parts.iter().rev().cloned().collect();
        let (file, buffer) = (None, Vec::new());
        Self { parts, document_end, least, file, buffer, start: 0, done: 0, total, on_progress }
    }

    /// The next piece; `None` at the end of the last file. A file without text has none.
    pub fn next(&mut self) -> Result<Option<Piece>> {
        let mut wanted = self.least;
        loop {
            if self.file.is_none() {
                let Some(TextPart { path, bytes }) = self.parts.pop() else { return Ok(None) };
                let open = match source::form(&path)? {
                    Form::Text => Open::Text(source::open(&path, bytes.start)?.take(bytes.end - bytes.start)),
                    form => Open::Records(Records::open(&path, form, &bytes)?),
                };
                (self.file, self.start) = (Some((open, path)), bytes.start);
            }
            if let Some((Open::Records(records), path)) = &mut self.file {
                match records.next(path)? {
                    Some((content, taken)) => {
                        self.done += taken;
                        (self.on_progress)(self.done, self.total.max(self.done))?;
                        return Ok(Some(Piece { content, ends: true }));
                    }
                    None => self.file = None,
                }
                continue;
            }
            let at_end = self.fill(wanted)?;
            if let Some(mark) = self.document_end
                && let Some(at) = find(&self.buffer, mark.as_bytes())
            {
                return self.take(at, mark.len(), true).map(Some);
            }
            if at_end {
                if self.buffer.is_empty() {
                    self.file = None;
                    continue;
                }
                let piece = self.take(self.buffer.len(), 0, true)?;
                self.file = None;
                return Ok(Some(piece));
            }
            // The start of a mark may be at the end of the buffer.
            let limit = self.buffer.len() - self.document_end.map_or(0, |mark| mark.len().min(self.buffer.len()));
            match cut(&self.buffer[..limit], self.buffer.len() >= LONGEST.max(self.least)) {
                Some(at) => return self.take(at, 0, false).map(Some),
                None => wanted = self.buffer.len() + PART,
            }
        }
    }

    /// Reads on until the buffer has `wanted` bytes; whether the file ended.
    fn fill(&mut self, wanted: usize) -> Result<bool> {
        let Some((Open::Text(file), path)) = &mut self.file else { return Ok(true) };
        while self.buffer.len() < wanted {
            let from = self.buffer.len();
            let mut part = file.by_ref().take(PART as u64);
            let count = part.read_to_end(&mut self.buffer).map_err(|e| TrainingError::io(&*path, e))?;
            self.done += count as u64;
            (self.on_progress)(self.done, self.total.max(self.done))?;
            if self.buffer.len() == from {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first `len` bytes as text; `skip` more go.
    fn take(&mut self, len: usize, skip: usize, ends: bool) -> Result<Piece> {
        let rest = self.buffer.split_off(len + skip);
        let mut bytes = std::mem::replace(&mut self.buffer, rest);
        bytes.truncate(len);
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = self.start + e.utf8_error().valid_up_to() as u64;
            let path = self.file.as_ref().map(|(_, path)| path.as_path()).unwrap_or(Path::new(""));
            TrainingError::data(path, format!("it is not UTF-8 from byte {at} on: convert it first"))
        })?;
        self.start += (len + skip) as u64;
        Ok(Piece { content: Record::Text(text), ends })
    }
}

fn find(text: &[u8], mark: &[u8]) -> Option<usize> {
    let first = *mark.first()?;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|&b| b == first) {
        if text[from + at..].starts_with(mark) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The last good place to cut; with `anywhere`, at least between two characters.
fn cut(text: &[u8], anywhere: bool) -> Option<usize> {
    // Bytes above 127 may be part of white characters, so neither side is one.
    let solid = |at: usize| text.get(at).is_some_and(|b| b.is_ascii_graphic());
    let after_newline = (2..text.len()).rev().find(|&at| text[at - 1] == b'\n' && solid(at - 2) && solid(at));
    let before_space = || (1..text.len()).rev().find(|&at| text[at] == b' ' && solid(at - 1) && solid(at + 1));
    let between = || (1..text.len()).rev().find(|&at| text[at] & 0xc0 != 0x80);
    after_newline.or_else(before_space).or_else(|| if anywhere { between() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str, mark: Option<&str>, least: usize) -> Vec<Piece> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bitnet-texts-{}-{count}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let mut nothing = |_, _| Ok(());
        let mut texts = Texts::open(&[TextPart::whole(&path).unwrap()], mark, least, &mut nothing);
        let mut all = Vec::new();
        while let Some(piece) = texts.next().unwrap() {
            all.push(piece);
        }
        std::fs::remove_file(path).unwrap();
        all
    }

    #[test]
    fn pieces_are_cut_between_lines_and_make_up_the_text() {
        let line = "a line of some length, and more\n";
        let text = line.repeat(200_000);
        let all = pieces(&text, None, 1 << 20);
        assert!(all.len() > 3);
        assert!(all.iter().all(|p| p.texts()[0].ends_with('\n') && p.len() < 4 << 20));
        assert_eq!(all.iter().flat_map(Piece::texts).collect::<String>(), text);
        assert_eq!(all.iter().filter(|p| p.ends).count(), 1);
        assert_eq!(cut(b"no\n\nblank line\n  indent", false), Some(13 - 4));
        assert_eq!(cut("é\né".as_bytes(), false), None);
        assert_eq!(cut("éé".as_bytes(), true), Some(2));
    }

    #[test]
    fn marks_end_documents_wherever_parts_are_cut() {
        let one = |text: &str, ends| Piece { content: Record::Text(text.into()), ends };
        assert_eq!(pieces("a<E>b\n<E>", Some("<E>"), 1), [one("a", true), one("b\n", true)]);
        assert_eq!(pieces("", Some("<E>"), 1), []);
        // The mark on the border of two reads.
        for shift in 0..5 {
            let first = "x".repeat(PART - shift);
            let all = pieces(&format!("{first}<E>y"), Some("<E>"), PART);
            assert_eq!(all, [one(&first, true), one("y", true)]);
        }
    }

    #[test]
    fn invalid_utf8_is_reported_with_its_position() {
        let path = std::env::temp_dir().join(format!("bitnet-texts-bad-{}", std::process::id()));
        std::fs::write(&path, b"fine\xff").unwrap();
        let mut nothing = |_, _| Ok(());
        let whole = [TextPart::whole(&path).unwrap()];
        let message = Texts::open(&whole, None, 1, &mut nothing).next().unwrap_err().to_string();
        assert!(message.contains("not UTF-8 from byte 4 on"), "{message}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_split_cuts_neither_a_character_nor_a_mark() {
        let path = std::env::temp_dir().join(format!("bitnet-texts-split-{}", std::process::id()));
        let parts = |text: &str, fraction: f64, mark: Option<&str>| {
            std::fs::write(&path, text).unwrap();
            let (first, last) = TextPart::split(&path, fraction, mark).unwrap();
            assert_eq!((first.bytes.start, first.bytes.end, last.bytes.end), (0, last.bytes.start, text.len() as u64));
            let mut nothing = |_, _| Ok(());
            let mut texts = Texts::open(&[last], mark, 1 << 20, &mut nothing);
            let mut rest = String::new();
            while let Some(piece) = texts.next().unwrap() {
                rest.extend(piece.texts());
            }
            (text[..first.bytes.end as usize].to_owned(), rest)
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(parts("0123456789", 0.1, None), pair("012345678", "9"));
        assert_eq!(parts("0123456789", 1.0, None), pair("", "0123456789"));
        assert_eq!(parts("ab\u{20ac}cd", 0.5, None), pair("ab\u{20ac}", "cd"));
        for fraction in [0.4, 0.5, 0.6] {
            assert_eq!(parts("abc<E>defg", fraction, Some("<E>")), pair("abc<E>", "defg"));
        }
        assert_eq!(parts("abc<E>defg", 0.7, Some("<E>")), pair("abc", "defg"));
        std::fs::remove_file(path).unwrap();
    }
}
