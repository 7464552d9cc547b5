//! Files that texts are read from: as they are, compressed, or with a text or a chat in each record.

use crate::error::{Result, TrainingError};
use bitnet_model::chat_template::ChatMessage;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// What a file holds once it is decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Text.
    Text,
    /// A JSON object a line.
    Lines,
    /// A table with columns `text` or `messages`.
    Parquet,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Text(String),
    Chat(Vec<ChatMessage>),
}

/// Bytes after decompression.
pub(super) type Reader = Box<dyn Read + Send>;

#[derive(Clone, Copy, PartialEq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What a file is, by its first bytes and its name without `.gz` and `.zst`.
///
/// # Errors
/// When it cannot be read, or is a chat under the name of a text: it would be learned with its braces.
pub(super) fn form(path: &Path) -> Result<Form> {
    let mut start = Vec::new();
    open(path, 0)?.take(4096).read_to_end(&mut start).map_err(|e| TrainingError::io(path, e))?;
    if start.starts_with(b"PAR1") {
        return Ok(Form::Parquet);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    if name.ends_with(".jsonl") || name.ends_with(".ndjson") {
        return Ok(Form::Lines);
    }
    let start = String::from_utf8_lossy(&start);
    let object = start.trim_start().trim_start_matches('[').trim_start().starts_with('{');
    if object && ["\"messages\"", "\"role\"", "\"content\""].iter().all(|key| start.contains(key)) {
        let problem = "this looks like chats: write one JSON object a line and name the file .jsonl";
        return Err(TrainingError::data(path, problem));
    }
    Ok(Form::Text)
}

/// Opens a file from a place in its decompressed bytes on.
pub(super) fn open(path: &Path, from: u64) -> Result<Reader> {
    let io = |e| TrainingError::io(path, e);
    let mut file = File::open(path).map_err(io)?;
    let mut reader: Reader = match compression(&mut file).map_err(io)? {
        Compression::None => {
            file.seek(SeekFrom::Start(from)).map_err(io)?;
            return Ok(Box::new(file));
        }
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        Compression::Zstd => Box::new(Frames { input: Some(BufReader::new(file)), frame: None }),
    };
    std::io::copy(&mut reader.by_ref().take(from), &mut std::io::sink()).map_err(io)?;
    Ok(reader)
}

/// Bytes of a file after decompression.
pub(super) fn length(path: &Path) -> Result<u64> {
    let io = |e| TrainingError::io(path, e);
    let mut file = File::open(path).map_err(io)?;
    match compression(&mut file).map_err(io)? {
        Compression::None => Ok(file.metadata().map_err(io)?.len()),
        _ => std::io::copy(&mut open(path, 0)?, &mut std::io::sink()).map_err(io),
    }
}

/// By the first bytes; the file is then at its start again.
fn compression(file: &mut File) -> std::io::Result<Compression> {
    let mut start = Vec::new();
    file.by_ref().take(4).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(match start[..] {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    })
}

type Frame = ruzstd::decoding::StreamingDecoder<BufReader<File>, ruzstd::decoding::FrameDecoder>;

/// The frames of a Zstandard file, one after the other.
struct Frames {
    /// Where the next frame begins, between two.
    input: Option<BufReader<File>>,
    frame: Option<Frame>,
}

impl Read for Frames {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let count = frame.read(out)?;
                if count > 0 || out.is_empty() {
                    return Ok(count);
                }
                self.input = self.frame.take().map(Frame::into_inner);
            }
            let Some(mut input) = self.input.take() else { return Ok(0) };
            if input.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.frame = Some(Frame::new(input).map_err(std::io::Error::other)?);
        }
    }
}

/// The text or the chat of a JSON object.
///
/// # Errors
/// What is missing or of another type.
pub(super) fn record(value: &Value) -> Result<Record, String> {
    match (&value["messages"], &value["text"]) {
        (Value::Array(messages), _) if !messages.is_empty() => {
            messages.iter().map(message).collect::<Result<_, _>>().map(Record::Chat)
        }
        (_, Value::String(text)) => Ok(Record::Text(text.clone())),
        _ => Err("it has neither a string `text` nor a list `messages`".to_owned()),
    }
}

/// `content` may be a list of parts, of which those of text are one text.
fn message(value: &Value) -> Result<ChatMessage, String> {
    let role = value["role"].as_str().ok_or("a message has no string `role`")?;
    let content = match &value["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let text = |part: &Value| part["text"].as_str().map(str::to_owned);
            parts.iter().map(text).collect::<Option<String>>().ok_or("a part of a message's `content` is no text")?
        }
        _ => return Err("a message has no string `content`".to_owned()),
    };
    Ok(ChatMessage::new(role, content))
}

/// The records of a file whose form is not text.
pub(super) enum Records {
    Lines {
        reader: BufReader<std::io::Take<Reader>>,
        line: u64,
    },
    #[cfg(feature = "parquet")]
    Rows(super::parquet::Rows),
}

impl Records {
    /// Those of a part of a file: bytes of lines, or rows of a table.
    pub fn open(path: &Path, form: Form, part: &std::ops::Range<u64>) -> Result<Self> {
        if form == Form::Parquet {
            #[cfg(feature = "parquet")]
            return Ok(Self::Rows(super::parquet::Rows::open(path, part)?));
            #[cfg(not(feature = "parquet"))]
            return Err(without_parquet(path));
        }
        let reader = open(path, part.start)?.take(part.end - part.start);
        Ok(Self::Lines { reader: BufReader::with_capacity(1 << 16, reader), line: 0 })
    }

    /// The next record and the bytes or rows that it took.
    pub fn next(&mut self, path: &Path) -> Result<Option<(Record, u64)>> {
        match self {
            Self::Lines { reader, line } => {
                let mut text = Vec::new();
                let mut taken = 0;
                loop {
                    text.clear();
                    let count = reader.read_until(b'\n', &mut text).map_err(|e| TrainingError::io(path, e))?;
                    if count == 0 {
                        return Ok(None);
                    }
                    *line += 1;
                    taken += count as u64;
                    if !text.trim_ascii().is_empty() {
                        break;
                    }
                }
                let place = |problem: String| TrainingError::data(path, format!("record {line}: {problem}"));
                let value = serde_json::from_slice(&text).map_err(|e| place(format!("this is no JSON: {e}")))?;
                Ok(Some((record(&value).map_err(place)?, taken)))
            }
            #[cfg(feature = "parquet")]
            Self::Rows(rows) => rows.next(path),
        }
    }
}

#[cfg(feature = "parquet")]
pub(super) use super::parquet::count as rows;

/// Rows of a table.
#[cfg(not(feature = "parquet"))]
pub(super) fn rows(path: &Path) -> Result<u64> {
    Err(without_parquet(path))
}

#[cfg(not(feature = "parquet"))]
fn without_parquet(path: &Path) -> TrainingError {
    let problem = "this is a Parquet file, which this build does not read: build it with --features parquet, or write \
                   the table as .jsonl";
    TrainingError::data(path, problem)
}
