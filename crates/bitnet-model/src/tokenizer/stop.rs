//! Stop strings in streamed text.

/// Passes text through until one of its stop strings appears.
///
/// Text that may begin a stop string is withheld until that is decided, so that no part of a stop
/// string is returned, however the text is split. If several stop strings match, the one that
/// completes first wins (the longest of those that end together).
#[derive(Debug, Clone, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    out: String,
    stopped: Option<usize>,
}

impl StopMatcher {
    /// A matcher for these strings. Empty ones are ignored: they would stop before the first token.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            stops: stops.into_iter().map(Into::into).filter(|s: &String| !s.is_empty()).collect(),
            ..Self::default()
        }
    }

    /// Takes the next piece of text and returns the text that is safe to print (often empty).
    /// After a stop string nothing more is returned.
    pub fn push(&mut self, text: &str) -> &str {
        self.out.clear();
        if self.stopped.is_some() {
            return &self.out;
        }
        self.held.push_str(text);
        let first = (self.stops.iter().enumerate())
            .filter_map(|(i, stop)| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at, i)))
            .min();
        if let Some((_, at, i)) = first {
            self.stopped = Some(i);
            self.out.push_str(&self.held[..at]);
            self.held.clear();
            return &self.out;
        }
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        let undecided = (self.held.char_indices().map(|(at, _)| at))
            .filter(|&at| at >= from)
            .find(|&at| self.stops.iter().any(|s| s.starts_with(&self.held[at..])))
            .unwrap_or(self.held.len());
        self.out.push_str(&self.held[..undecided]);
        self.held.drain(..undecided);
        &self.out
    }

    /// The stop string that was found.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.map(|i| self.stops[i].as_str())
    }

    /// The end of the text without a stop string: returns the withheld text.
    pub fn finish(&mut self) -> &str {
        self.out.clear();
        self.out.push_str(&self.held);
        self.held.clear();
        &self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole output for `text` in pieces of `n` characters.
    fn run(stops: &[&str], text: &str, n: usize) -> (String, Option<String>) {
        let mut matcher = StopMatcher::new(stops.iter().copied());
        let chars: Vec<char> = text.chars().collect();
        let mut out = String::new();
        for piece in chars.chunks(n) {
            out.push_str(matcher.push(&piece.iter().collect::<String>()));
        }
        out.push_str(matcher.finish());
        (out, matcher.stopped().map(str::to_owned))
    }

    #[test]
    fn the_cut_of_the_text_does_not_matter() {
        let cases: [(&[&str], &str, &str, Option<&str>); 8] = [
            (&[], "plain", "plain", None),
            (&[""], "plain", "plain", None),
            (&["END"], "some EN text END more", "some EN text ", Some("END")),
            (&["aab"], "aaaab", "aa", Some("aab")),
            (&["abc", "b"], "xabc", "xa", Some("b")),
            (&["\n\n", "User:"], "hi\nUser: x", "hi\n", Some("User:")),
            (&["é→"], "caféé→x", "café", Some("é→")),
            (&["zzz"], "ends with zz", "ends with zz", None),
        ];
        for (stops, text, expected, found) in cases {
            for n in 1..=text.chars().count() {
                let (out, stopped) = run(stops, text, n);
                assert_eq!((out.as_str(), stopped.as_deref()), (expected, found), "{text} by {n}");
            }
        }
    }

    #[test]
    fn holds_back_only_what_is_undecided() {
        let mut matcher = StopMatcher::new(["<end>"]);
        assert_eq!(matcher.push("a<e"), "a");
        assert_eq!(matcher.push("x<en"), "<ex");
        assert_eq!(matcher.push("d>b"), "");
        assert_eq!(matcher.push("more"), "");
        assert_eq!(matcher.stopped(), Some("<end>"));
    }
}
