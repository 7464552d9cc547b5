//! The Python dictionary in the header of an npy array: three keys, each in one form.

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`
#[derive(Debug, PartialEq)]
pub(super) struct Fields {
    pub(super) descr: String,
    pub(super) fortran_order: bool,
    pub(super) shape: Vec<usize>,
}

impl Fields {
    /// Parses a header; an error says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut t = Text(text);
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        t.expect('{')?;
        while !t.take('}') {
            let key = t.string()?;
            t.expect(':')?;
            let repeated = match key {
                "descr" if t.is_next('[') => return Err("its elements are records; save each field by itself".into()),
                "descr" => descr.replace(t.string()?.to_owned()).is_some(),
                "fortran_order" => fortran_order.replace(t.boolean()?).is_some(),
                "shape" => shape.replace(t.tuple()?).is_some(),
                _ => return Err(format!("its header has a key {}", super::one_line(key))),
            };
            if repeated {
                return Err(format!("its header has {key} twice"));
            }
            if !t.take(',') {
                t.expect('}')?;
                break;
            }
        }
        if !t.0.trim().is_empty() {
            return Err("its header continues after the dictionary".into());
        }
        let missing = |key: &str| format!("its header has no {key}");
        Ok(Self {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
        })
    }
}

/// The unread rest.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn is_next(&mut self, c: char) -> bool {
        self.0 = self.0.trim_start();
        self.0.starts_with(c)
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.is_next(c);
        if found {
            self.0 = &self.0[c.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.take(c) { Ok(()) } else { Err(format!("its header lacks a {c}")) }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.is_next('"') { '"' } else { '\'' };
        self.expect(quote)?;
        let (string, rest) = self.0.split_once(quote).ok_or("a string of its header does not end")?;
        self.0 = rest;
        Ok(string)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.0 = self.0.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.0.strip_prefix(word) {
                self.0 = rest;
                return Ok(value);
            }
        }
        Err("fortran_order in its header is neither True nor False".into())
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        let mut numbers = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            self.0 = self.0.trim_start();
            let digits = self.0.len() - self.0.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number = self.0[..digits].parse().map_err(|_| "an extent in its header is not a number of elements")?;
            numbers.push(number);
            self.0 = &self.0[digits..];
            // Python 2 marks a long integer.
            self.take('L');
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(numbers)
    }
}
