//! SentencePiece BPE: merges chosen by the score of the resulting piece.
//!
//! The algorithm of SentencePiece's `bpe_model.cc` and of llama.cpp: start from the characters,
//! merge the adjacent pair whose union is the piece of the highest score (the leftmost of equals)
//! until no union is a piece; what is then no piece is spelled in bytes. Hugging Face's BPE with
//! ranks derived from scores differs when two pairs with the same union overlap (`aaa` among
//! `aaaaa`), which is why this is not built on it.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use serde_json::{Value, json};
use tokenizers::Token;

use super::pieces::{TokenKind, byte_token};

/// Pieces with scores.
#[derive(Debug)]
pub(crate) struct SentencePiece {
    /// Text, score and kind of each id.
    tokens: Vec<(String, f32, TokenKind)>,
    ids: HashMap<String, u32>,
    bytes: [Option<u32>; 256],
    unknown: Option<u32>,
    /// Length of the longest piece in bytes: longer unions need no lookup.
    longest: usize,
}

/// A candidate merge; the heap gives the best score, then the leftmost.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of the union, to recognise candidates whose parts have changed since.
    len: usize,
    id: u32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.score.total_cmp(&other.score)).then_with(|| other.left.cmp(&self.left))
    }
}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Candidate {}

/// A run of the text in a doubly linked list; `len` 0 when merged into its left neighbour.
struct Symbol {
    start: usize,
    len: usize,
    prev: usize,
    next: usize,
    id: Option<u32>,
}

const NONE: usize = usize::MAX;

impl SentencePiece {
    /// `tokens`: text, score and kind of each id, scores numbers (the caller checked). Of equal texts the last is found, and of
    /// the tokens of a byte the one that is spelled in capitals, as in llama.cpp.
    pub(crate) fn new(tokens: Vec<(String, f32, TokenKind)>, unknown: Option<u32>) -> Self {
        let mut ids = HashMap::with_capacity(tokens.len());
        let mut bytes = [None; 256];
        let mut longest = 0;
        for (id, (text, _, kind)) in (0u32..).zip(&tokens) {
            ids.insert(text.clone(), id);
            longest = longest.max(text.len());
            if let (TokenKind::Byte, Some(b)) = (kind, byte_token(text)) {
                let first = bytes[b as usize].is_none();
                if first || *text == format!("<0x{b:02X}>") {
                    bytes[b as usize] = Some(id);
                }
            }
        }
        Self { tokens, ids, bytes, unknown, longest }
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn id_of(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    pub(crate) fn text_of(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(|t| t.0.as_str())
    }

    pub(crate) fn score_of(&self, id: u32) -> Option<f32> {
        self.tokens.get(id as usize).map(|t| t.1)
    }

    pub(crate) fn vocab(&self) -> HashMap<String, u32> {
        self.ids.clone()
    }

    /// The id of a piece that represents text: control, unknown, unused and byte tokens do not.
    fn piece(&self, text: &str) -> Option<(u32, f32)> {
        if text.len() > self.longest {
            return None;
        }
        let id = *self.ids.get(text)?;
        let (_, score, kind) = &self.tokens[id as usize];
        matches!(kind, TokenKind::Normal | TokenKind::UserDefined).then_some((id, *score))
    }

    /// Tokens of a text in which spaces are already `▁`.
    ///
    /// # Errors
    /// A character that is neither a piece nor spelled in byte tokens, when there is no unknown token.
    pub(crate) fn tokenize(&self, text: &str) -> Result<Vec<Token>, String> {
        let mut symbols: Vec<Symbol> = (text.char_indices().enumerate())
            .map(|(i, (start, c))| Symbol {
                start,
                len: c.len_utf8(),
                prev: i.wrapping_sub(1),
                next: i + 1,
                id: self.piece(&text[start..start + c.len_utf8()]).map(|p| p.0),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let candidate = |symbols: &[Symbol], left: usize, right: usize| {
            if left == NONE || right == NONE {
                return None;
            }
            let start = symbols[left].start;
            let len = symbols[left].len + symbols[right].len;
            let (id, score) = self.piece(&text[start..start + len])?;
            Some(Candidate { score, left, right, len, id })
        };
        let mut heap: BinaryHeap<Candidate> =
            (1..symbols.len()).filter_map(|right| candidate(&symbols, right - 1, right)).collect();
        while let Some(best) = heap.pop() {
            let (left, right) = (best.left, best.right);
            if symbols[left].len == 0 || symbols[right].len == 0 || symbols[left].len + symbols[right].len != best.len {
                continue;
            }
            symbols[left].len = best.len;
            symbols[left].id = Some(best.id);
            symbols[right].len = 0;
            let next = symbols[right].next;
            symbols[left].next = next;
            if next != NONE {
                symbols[next].prev = left;
            }
            heap.extend(candidate(&symbols, symbols[left].prev, left));
            heap.extend(candidate(&symbols, left, next));
        }
        self.spell(text, &symbols)
    }

    /// Ids of the remaining symbols, bytes for those that are not pieces.
    fn spell(&self, text: &str, symbols: &[Symbol]) -> Result<Vec<Token>, String> {
        let mut out: Vec<Token> = Vec::with_capacity(symbols.len() / 3 + 1);
        let mut push = |id: u32, range: (usize, usize)| {
            out.push(Token::new(id, text[range.0..range.1].to_owned(), range));
        };
        let mut after_unknown = false;
        for symbol in symbols.iter().filter(|s| s.len > 0) {
            let range = (symbol.start, symbol.start + symbol.len);
            if let Some(id) = symbol.id {
                push(id, range);
                after_unknown = false;
                continue;
            }
            let part = &text[range.0..range.1];
            let spelled: Option<Vec<u32>> = part.bytes().map(|b| self.bytes[b as usize]).collect();
            match (spelled, self.unknown) {
                (Some(ids), _) => {
                    ids.into_iter().for_each(|id| push(id, range));
                    after_unknown = false;
                }
                // One unknown token for a run of unknown characters.
                (None, Some(_)) if after_unknown => {}
                (None, Some(id)) => {
                    push(id, range);
                    after_unknown = true;
                }
                (None, None) => {
                    return Err(format!(
                        "{part:?} is not in the vocabulary, which has neither byte tokens nor an unknown token"
                    ));
                }
            }
        }
        Ok(out)
    }

    /// The same as a Hugging Face BPE model: each split of a piece into two pieces is a merge, better scores first, and of equal
    /// scores longer parts first, as transformers orders them. Equal to this model except for overlapping pairs with one union.
    pub(crate) fn to_bpe_json(&self) -> Value {
        let mut merges: Vec<(f32, &str, &str)> = Vec::new();
        for (text, score, kind) in &self.tokens {
            if !matches!(kind, TokenKind::Normal | TokenKind::UserDefined) {
                continue;
            }
            let splits = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
            let ids = |(left, right)| Some((self.piece(left)?.0, self.piece(right)?.0));
            let mut pairs: Vec<_> = splits.filter_map(|split| Some((ids(split)?, split))).collect();
            pairs.sort_unstable();
            merges.extend(pairs.into_iter().map(|(_, (left, right))| (*score, left, right)));
        }
        let lengths = |(_, left, right): &(f32, &str, &str)| (left.chars().count(), right.chars().count());
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| lengths(b).cmp(&lengths(a))));
        let merges: Vec<[&str; 2]> = merges.into_iter().map(|(_, left, right)| [left, right]).collect();
        json!({
            "type": "BPE", "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "unk_token": self.unknown.and_then(|id| self.text_of(id)),
            "fuse_unk": true, "byte_fallback": self.bytes.iter().any(Option::is_some), "ignore_merges": false,
            "vocab": self.ids, "merges": merges,
        })
    }
}
