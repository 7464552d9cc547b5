//! Records, chats and compressed files.

use super::*;
use crate::config::TokenizerKind;
use crate::data::{IGNORED, TokenFile};
use crate::error::TrainingError;
use bitnet_model::tokenizer::Tokenizer;
use std::path::PathBuf;
use tempfile::TempDir;

const LINES: &str = "{\"text\": \"to be\"}\n{\"text\": \"or not\"}\n";
/// [`LINES`] by `gzip` and by `zstd -19`, which put a checksum at the end.
const GZIP: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 86, 42, 73, 173, 40, 81, 178, 82, 80, 42, 201, 87, 72, 74, 85, 170, 229, 170,
    134, 139, 228, 23, 41, 228, 229, 151, 0, 133, 0, 229, 23, 121, 254, 37, 0, 0, 0,
];
const ZSTD: &[u8] = &[
    40, 181, 47, 253, 36, 37, 13, 1, 0, 216, 123, 34, 116, 101, 120, 116, 34, 58, 32, 34, 116, 111, 32, 98, 101, 34,
    125, 10, 111, 114, 32, 110, 111, 116, 34, 125, 10, 1, 0, 106, 155, 97, 24, 77, 124, 11,
];
const CHAT: &str = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}"#;
const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}\
                        <|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}";

fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A token for each byte, then `<|end|>` (256), `<|user|>` (257) and `<|assistant|>` (258).
fn tokenizer(folder: &TempDir, template: Option<&str>) -> Tokenizer {
    let special = ["<|end|>", "<|user|>", "<|assistant|>"].map(str::to_owned).to_vec();
    let new = NewTokenizer { kind: TokenizerKind::Bytes, vocab_size: 0, special, document_end: None };
    make(&[] as &[PathBuf], &new, &mut |_, _| Ok(())).unwrap().save(folder.path()).unwrap();
    if let Some(template) = template {
        write(folder, "chat_template.jinja", template);
    }
    Tokenizer::from_file(folder.path()).unwrap()
}

fn encode(path: &std::path::Path, tokenizer: &Tokenizer) -> Result<TokenFile> {
    let out = path.with_extension("tokens");
    encode_texts(&[TextPart::whole(path)?], tokenizer, &out, None, 2, &mut |_, _| Ok(()))?;
    TokenFile::open(out)
}

fn bytes(text: &str) -> Vec<i64> {
    text.bytes().map(i64::from).collect()
}

fn refusal(result: Result<TokenFile>) -> String {
    let error: TrainingError = result.unwrap_err();
    error.to_string()
}

#[test]
fn compressed_files_are_read_as_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(&folder, None);
    let expected = [bytes("to be"), vec![256], bytes("or not"), vec![256]].concat();
    let twice = [ZSTD, ZSTD].concat();
    for (name, content, times) in [
        ("a.jsonl", LINES.as_bytes(), 1),
        ("a.jsonl.gz", GZIP, 1),
        ("a.jsonl.zst", ZSTD, 1),
        ("b.jsonl.zst", &twice, 2),
    ] {
        let file = encode(&write(&folder, name, content), &tokenizer).unwrap();
        let mut read = Vec::new();
        file.read(0..file.len(), &mut read).unwrap();
        assert_eq!(read, expected.repeat(times), "{name}");
        assert!(!file.has_uncounted());
        assert!(TextPart::whole(&folder.path().join(name)).unwrap().bytes == (0..times as u64 * LINES.len() as u64));
    }
    // By the first bytes, whatever the name: the lines are then a text.
    let file = encode(&write(&folder, "text", GZIP), &tokenizer).unwrap();
    assert_eq!(file.len(), LINES.len() + 1);
    let damaged = write(&folder, "cut.txt.gz", &GZIP[..30]);
    assert!(refusal(encode(&damaged, &tokenizer)).contains("cut.txt.gz"));
}

#[test]
fn only_what_the_assistant_says_is_a_target_in_a_chat() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(&folder, Some(TEMPLATE));
    let lines = format!("{CHAT}\n\n{{\"text\": \"free\"}}\n{CHAT}\n");
    let path = write(&folder, "chats.jsonl", lines);
    assert!(holds_chats(std::slice::from_ref(&path)).unwrap());
    let file = encode(&path, &tokenizer).unwrap();
    let chat = [vec![257], bytes("Hi"), vec![256, 258], bytes("Yo"), vec![256]].concat();
    let text = [bytes("free"), vec![256]].concat();
    let (mut tokens, mut targets, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    file.read(0..file.len(), &mut tokens).unwrap();
    file.read_targets(0..file.len(), &mut targets).unwrap();
    file.document_ends(0..file.len(), |end| ends.push(end));
    assert_eq!(tokens, [chat.clone(), text.clone(), chat.clone()].concat());
    let said = [vec![IGNORED; 5], bytes("Yo"), vec![256]].concat();
    assert_eq!(targets, [said.clone(), text, said].concat());
    // The end of a message, which is the end token too, does not end a chat.
    assert_eq!(ends, [8, 13, 21]);
    assert!(file.has_uncounted());
}

#[test]
fn a_chat_is_never_learned_as_raw_text() {
    let folder = tempfile::tempdir().unwrap();
    let bare = tokenizer(&folder, None);
    let path = write(&folder, "chats.jsonl", CHAT);
    assert!(refusal(encode(&path, &bare)).contains("no chat template"));
    for name in ["chats.txt", "chats.json"] {
        assert!(refusal(encode(&write(&folder, name, format!("[\n{CHAT}]")), &bare)).contains("name the file .jsonl"));
    }
    let templated = tokenizer(&folder, Some(TEMPLATE));
    for (line, says) in [
        ("{\"prompt\": 1}", "record 2: it has neither a string `text` nor a list `messages`"),
        ("{\"messages\": [{\"role\": \"user\"}]}", "record 2: a message has no string `content`"),
        ("{\"text\":", "record 2: this is no JSON"),
        ("{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", "a chat without an answer"),
    ] {
        let path = write(&folder, "bad.jsonl", format!("{CHAT}\n{line}\n"));
        let message = refusal(encode(&path, &templated));
        assert!(message.contains(says) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn a_split_does_not_cut_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..10).map(|i| format!("{{\"text\": \"{i}\"}}\n")).collect();
    let path = write(&folder, "a.jsonl", &lines);
    for (fraction, first) in [(0.0, 10), (0.1, 9), (0.12, 9), (0.5, 5), (0.55, 5), (1.0, 0)] {
        let (a, b) = TextPart::split(&path, fraction, None).unwrap();
        assert_eq!((a.bytes, b.bytes), (0..first * 14, first * 14..140), "{fraction}");
    }
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_table_says_what_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(&folder, None);
    let message = refusal(encode(&write(&folder, "a.parquet", "PAR1...PAR1"), &tokenizer));
    assert!(message.contains("--features parquet"), "{message}");
}

#[cfg(feature = "parquet")]
#[test]
fn a_table_is_read_by_its_rows() {
    use ::parquet::data_type::{ByteArray, ByteArrayType};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(&folder, Some(TEMPLATE));
    /// Definition and repetition levels of the values of a column.
    type Levels<'a> = Option<(&'a [i16], &'a [i16])>;
    let table = |name: &str, schema: &str, columns: &[(&[&str], Levels)]| {
        let path = folder.path().join(name);
        let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for (values, levels) in columns {
            let values: Vec<ByteArray> = values.iter().map(|v| ByteArray::from(*v)).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let levels = levels.unzip();
            column.typed::<ByteArrayType>().write_batch(&values, levels.0, levels.1).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        path
    };
    let text = "message m { required binary id (UTF8); required binary text (UTF8); }";
    let path = table("a.parquet", text, &[(&["1", "2"], None), (&["to be", "or not"], None)]);
    let file = encode(&path, &tokenizer).unwrap();
    let mut tokens = Vec::new();
    file.read(0..file.len(), &mut tokens).unwrap();
    assert_eq!(tokens, [bytes("to be"), vec![256], bytes("or not"), vec![256]].concat());
    assert_eq!(TextPart::split(&path, 0.5, None).unwrap().1.bytes, 1..2);
    let (_, last) = TextPart::split(&path, 0.5, None).unwrap();
    let out = folder.path().join("last.tokens");
    assert_eq!(encode_texts(&[last], &tokenizer, &out, None, 1, &mut |_, _| Ok(())).unwrap(), 7);

    let chats = "message m { required group messages (LIST) { repeated group list { required group element {
                 required binary role (UTF8); required binary content (UTF8); } } } }";
    let levels: Levels = Some((&[1, 1], &[0, 1]));
    let path = table("b.parquet", chats, &[(&["user", "assistant"], levels), (&["Hi", "Yo"], levels)]);
    assert!(holds_chats(std::slice::from_ref(&path)).unwrap());
    let file = encode(&path, &tokenizer).unwrap();
    let mut targets = Vec::new();
    file.read_targets(0..file.len(), &mut targets).unwrap();
    assert_eq!(targets, [vec![IGNORED; 5], bytes("Yo"), vec![256]].concat());
}
