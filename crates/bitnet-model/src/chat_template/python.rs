//! Values as Python prints them: `str()`, `repr()`, `json.dumps()`; and methods of its strings.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::LONGEST;

/// Limit of nested lists and maps.
const DEEPEST: usize = 64;

fn refuse(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// `str(value)`; what is undefined is nothing.
pub(super) fn text(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        _ => {
            let mut out = String::new();
            write_repr(value, 0, &mut out)?;
            Ok(out)
        }
    }
}

fn write_repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > DEEPEST || out.len() > LONGEST {
        return Err(refuse("the value is too large to print"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        kind @ (ValueKind::Seq | ValueKind::Map) => {
            let map = kind == ValueKind::Map;
            out.push(if map { '{' } else { '[' });
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_repr(&item, depth + 1, out)?;
                if map {
                    out.push_str(": ");
                    write_repr(&value.get_item(&item)?, depth + 1, out)?;
                }
            }
            out.push(if map { '}' } else { ']' });
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// `repr` of a string.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == mark => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(mark);
}

/// A number: floats with the shortest digits that mean them, an exponent from 1e16 on and below 1e-4.
fn number(value: &Value) -> String {
    let text = value.to_string();
    if value.is_integer() {
        return text;
    }
    let Ok(float) = f64::try_from(value.clone()) else { return text };
    if !float.is_finite() {
        return if float.is_nan() {
            "nan".into()
        } else if float > 0. {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or_default() {
        exponent @ -4..16 => {
            let places = (digits.trim_start_matches('-').len() as i32 - 2 - exponent).max(1) as usize;
            format!("{float:.places$}")
        }
        exponent => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

/// The arguments of `json.dumps`.
struct Json {
    ascii: bool,
    indent: Option<String>,
    separators: [String; 2],
    sort_keys: bool,
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn to_json(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let arg = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = args.get(at).cloned().map_or_else(|| named.get::<Option<Value>>(name), |value| Ok(Some(value)))?;
        Ok(value.filter(|value| !value.is_none()))
    };
    let indent = match arg(1, "indent")? {
        Some(value) if value.as_str().is_some() => value.as_str().map(str::to_owned),
        Some(value) => match i64::try_from(value)? {
            n @ ..=64 => Some(" ".repeat(n.max(0) as usize)),
            _ => return Err(refuse("tojson: the indent is too large")),
        },
        None => None,
    };
    let separators = match arg(2, "separators")? {
        Some(pair) => {
            let pair: Vec<Value> = pair.try_iter()?.collect();
            let [item, key] = &pair[..] else { return Err(refuse("tojson: separators are two texts")) };
            [text(item)?, text(key)?]
        }
        None => [if indent.is_some() { "," } else { ", " }.into(), ": ".into()],
    };
    let flag = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let json = Json { ascii: flag(arg(0, "ensure_ascii")?), indent, separators, sort_keys: flag(arg(3, "sort_keys")?) };
    named.assert_all_used()?;
    let mut out = String::new();
    json.write(value, 0, &mut out)?;
    Ok(out)
}

impl Json {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEEPEST || out.len() > LONGEST {
            return Err(refuse("tojson: the value is too large"));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(match &*number(value) {
                "nan" => "NaN",
                "inf" => "Infinity",
                "-inf" => "-Infinity",
                number => number,
            }),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out)?,
            kind @ (ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) => {
                let map = kind == ValueKind::Map;
                let mut items: Vec<Value> = value.try_iter()?.collect();
                if map && self.sort_keys {
                    items.sort();
                }
                out.push(if map { '{' } else { '[' });
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i > 0 { &self.separators[0] } else { "" });
                    self.line(depth + 1, out);
                    if map {
                        self.key(item, out)?;
                        out.push_str(&self.separators[1]);
                        self.write(&value.get_item(item)?, depth + 1, out)?;
                    } else {
                        self.write(item, depth + 1, out)?;
                    }
                }
                if !items.is_empty() {
                    self.line(depth, out);
                }
                out.push(if map { '}' } else { ']' });
            }
            _ => return Err(refuse("tojson: the value has no JSON form")),
        }
        Ok(())
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    /// Keys are strings, as in Python.
    fn key(&self, key: &Value, out: &mut String) -> Result<(), Error> {
        match key.as_str() {
            Some(key) => self.string(key, out),
            None => {
                let mut text = String::new();
                Self { ascii: true, indent: None, separators: Default::default(), sort_keys: false }
                    .write(key, DEEPEST, &mut text)?;
                self.string(&text, out)
            }
        }
    }

    fn string(&self, text: &str, out: &mut String) -> Result<(), Error> {
        let quoted = serde_json::to_string(text).map_err(|e| refuse(e.to_string()))?;
        if !self.ascii {
            out.push_str(&quoted);
            return Ok(());
        }
        for c in quoted.chars() {
            match c {
                ' '..='~' => out.push(c),
                c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
            }
        }
        Ok(())
    }
}

/// Methods of Python's strings that `pycompat` lacks, then those that it has.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let parts = |parts: [&str; 3]| Value::from(parts.map(Value::from).to_vec());
    match (value.as_str(), name, args) {
        (Some(text), "removeprefix", [part]) => {
            Ok(text.strip_prefix(part.as_str().unwrap_or_default()).unwrap_or(text).into())
        }
        (Some(text), "removesuffix", [part]) => {
            Ok(text.strip_suffix(part.as_str().unwrap_or_default()).unwrap_or(text).into())
        }
        (Some(text), "partition" | "rpartition", [mark]) if mark.as_str().is_some_and(|mark| !mark.is_empty()) => {
            let mark = mark.as_str().unwrap_or_default();
            let split = if name == "partition" { text.split_once(mark) } else { text.rsplit_once(mark) };
            Ok(match split {
                Some((left, right)) => parts([left, mark, right]),
                None if name == "partition" => parts([text, "", ""]),
                None => parts(["", "", text]),
            })
        }
        (Some(text), "rsplit", [mark, most]) if mark.as_str().is_some_and(|mark| !mark.is_empty()) => {
            let most = usize::try_from(most.clone())?;
            let mut split: Vec<Value> =
                text.rsplitn(most + 1, mark.as_str().unwrap_or_default()).map(Value::from).collect();
            split.reverse();
            Ok(split.into())
        }
        (Some(text), "rsplit", [mark]) if mark.as_str().is_some_and(|mark| !mark.is_empty()) => {
            Ok(text.split(mark.as_str().unwrap_or_default()).map(Value::from).collect::<Vec<_>>().into())
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}
