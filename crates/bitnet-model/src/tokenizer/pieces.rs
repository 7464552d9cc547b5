//! The bytes of each token, for decoding.

use std::collections::HashMap;
use std::sync::OnceLock;

/// What a token is; the numbers are those of `tokenizer.ggml.token_type` in GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum TokenKind {
    /// An ordinary piece of text.
    Normal = 1,
    /// Replaces text that the vocabulary cannot express.
    Unknown = 2,
    /// A special token such as `<|eot_id|>`: never text, recognised in a prompt only on request.
    Control = 3,
    /// A token added by hand that is text and always recognised.
    UserDefined = 4,
    /// An unused id (padding of the vocabulary).
    Unused = 5,
    /// One raw byte (`<0x0A>`).
    Byte = 6,
}

impl TokenKind {
    /// The kind with this GGUF number; 0 ("undefined") counts as normal.
    pub fn from_gguf(number: i32) -> Option<Self> {
        Some(match number {
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Whether decoding skips it by default.
    pub fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// How the text of a token encodes its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// GPT-2: each character of the token is one byte.
    ByteLevel,
    /// SentencePiece: UTF-8 with `▁` for a space, `<0x0A>` for a byte.
    SentencePiece,
}

/// The bytes and the kind of every id, in one buffer.
#[derive(Debug, Clone)]
pub(crate) struct Pieces {
    bytes: Vec<u8>,
    /// `ends[id]` is one past the last byte of `id`; it starts where `id - 1` ends.
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
}

impl Pieces {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), kinds: Vec::new() }
    }

    /// Appends the next id. Added tokens are spelled as they are written.
    pub(crate) fn push(&mut self, text: &str, kind: TokenKind, spelling: Spelling) {
        match (kind, spelling) {
            (TokenKind::Unused, _) => {}
            (TokenKind::Byte, _) if byte_token(text).is_some() => {
                self.bytes.extend(byte_token(text));
            }
            (TokenKind::Normal, Spelling::ByteLevel) => {
                let start = self.bytes.len();
                let table = byte_of_char();
                for c in text.chars() {
                    match table.get(&c) {
                        Some(&b) => self.bytes.push(b),
                        // One foreign character makes the whole token literal.
                        None => {
                            self.bytes.truncate(start);
                            self.bytes.extend_from_slice(text.as_bytes());
                            break;
                        }
                    }
                }
            }
            (_, Spelling::ByteLevel) => self.bytes.extend_from_slice(text.as_bytes()),
            (_, Spelling::SentencePiece) => {
                let mut parts = text.split('▁');
                self.bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
                for part in parts {
                    self.bytes.push(b' ');
                    self.bytes.extend_from_slice(part.as_bytes());
                }
            }
        }
        self.ends.push(self.bytes.len() as u32);
        self.kinds.push(kind);
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn kinds(&self) -> &[TokenKind] {
        &self.kinds
    }

    pub(crate) fn get(&self, id: u32) -> Option<(&[u8], TokenKind)> {
        let i = id as usize;
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        Some((&self.bytes[start..end], self.kinds[i]))
    }
}

/// The byte of `<0x0A>`, if `text` is such a token.
pub(crate) fn byte_token(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

/// GPT-2's alphabet: printable Latin-1 bytes are themselves, the 68 others are U+0100 and up, in order.
fn byte_of_char() -> &'static HashMap<char, u8> {
    static TABLE: OnceLock<HashMap<char, u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = HashMap::with_capacity(256);
        let mut next = 0x100u32;
        for b in 0..=255u8 {
            let printable = matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let code = if printable {
                u32::from(b)
            } else {
                next += 1;
                next - 1
            };
            table.extend(char::from_u32(code).map(|c| (c, b)));
        }
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_alphabet_is_a_bijection() {
        let table = byte_of_char();
        assert_eq!(table.len(), 256);
        assert_eq!(table[&'Ġ'], b' ');
        assert_eq!(table[&'Ċ'], b'\n');
        assert_eq!(table[&'A'], b'A');
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xff>"), Some(255));
        for bad in ["<0x>", "<0x1>", "<0x+1>", "0x0A", "<0x0AB>", "<0xé>"] {
            assert_eq!(byte_token(bad), None, "{bad}");
        }
    }
}
