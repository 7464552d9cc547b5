//! Metadata: named values, and getters whose errors name the key.

use std::collections::BTreeMap;

use super::GgufError;
use super::error::one_line;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the names say it
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array value: elements of one kind.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::String(v) => v.len(),
            Array::Array(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F64(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the kind of element.
    fn kind(&self) -> &'static str {
        match self {
            Array::U8(_) => "u8",
            Array::I8(_) => "i8",
            Array::U16(_) => "u16",
            Array::I16(_) => "i16",
            Array::U32(_) => "u32",
            Array::I32(_) => "i32",
            Array::F32(_) => "f32",
            Array::Bool(_) => "bool",
            Array::String(_) => "string",
            Array::Array(_) => "array",
            Array::U64(_) => "u64",
            Array::I64(_) => "i64",
            Array::F64(_) => "f64",
        }
    }
}

/// A short description of a value: strings are truncated, arrays are counted.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::U8(v) => write!(f, "{v}"),
            Value::I8(v) => write!(f, "{v}"),
            Value::U16(v) => write!(f, "{v}"),
            Value::I16(v) => write!(f, "{v}"),
            Value::U32(v) => write!(f, "{v}"),
            Value::I32(v) => write!(f, "{v}"),
            Value::F32(v) => write!(f, "{v}"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::String(v) => f.write_str(&one_line(v)),
            Value::Array(v) => write!(f, "an array of {} {}", v.len(), v.kind()),
            Value::U64(v) => write!(f, "{v}"),
            Value::I64(v) => write!(f, "{v}"),
            Value::F64(v) => write!(f, "{v}"),
        }
    }
}

/// The metadata of a file, by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// Sets a value; returns the previous one.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> Option<Value> {
        self.0.insert(key.into(), value)
    }

    /// The value of a key as `T`, or `None` when there is no such key.
    ///
    /// # Errors
    /// If the value is of another kind or does not fit.
    pub fn find<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, GgufError> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(v) => Ok(Some(v)),
            None => Err(GgufError::WrongKind { key: key.to_owned(), expected: T::EXPECTED, found: value.to_string() }),
        }
    }

    /// The value of a required key.
    ///
    /// # Errors
    /// If there is no such key, or its value is of another kind or does not fit.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, GgufError> {
        self.find(key)?.ok_or_else(|| GgufError::MissingKey(key.to_owned()))
    }

    /// The value of a key, of whatever kind.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Types that a metadata value can be read as.
///
/// Integers are read from every integer kind that holds a value in range, since writers differ.
pub trait FromValue<'a>: Sized {
    /// For an error: "an integer from 0 to ...".
    const EXPECTED: &'static str;
    /// The value, or `None` when it is of another kind.
    fn from_value(value: &'a Value) -> Option<Self>;
}

fn integer(value: &Value) -> Option<i128> {
    Some(match *value {
        Value::U8(v) => v.into(),
        Value::I8(v) => v.into(),
        Value::U16(v) => v.into(),
        Value::I16(v) => v.into(),
        Value::U32(v) => v.into(),
        Value::I32(v) => v.into(),
        Value::U64(v) => v.into(),
        Value::I64(v) => v.into(),
        _ => return None,
    })
}

macro_rules! integers {
    ($($t:ty, $expected:literal;)*) => {$(
        impl FromValue<'_> for $t {
            const EXPECTED: &'static str = $expected;
            fn from_value(value: &Value) -> Option<Self> {
                integer(value)?.try_into().ok()
            }
        }
    )*};
}
integers! {
    u32, "an integer from 0 to 2^32 - 1";
    u64, "an integer from 0 to 2^64 - 1";
    usize, "an integer from 0 to the size of memory";
    i32, "an integer of 32 bits";
}

macro_rules! variants {
    ($($t:ty, $expected:literal, $pattern:pat => $result:expr;)*) => {$(
        impl<'a> FromValue<'a> for $t {
            const EXPECTED: &'static str = $expected;
            fn from_value(value: &'a Value) -> Option<Self> {
                match value { $pattern => Some($result), _ => None }
            }
        }
    )*};
}
variants! {
    bool, "true or false", Value::Bool(v) => *v;
    &'a str, "a string", Value::String(v) => v;
    &'a Array, "an array", Value::Array(v) => v;
    &'a [String], "an array of strings", Value::Array(Array::String(v)) => v;
    &'a [f32], "an array of f32", Value::Array(Array::F32(v)) => v;
    &'a [bool], "an array of true and false", Value::Array(Array::Bool(v)) => v;
    &'a [i32], "an array of i32", Value::Array(Array::I32(v)) => v;
    &'a [u32], "an array of u32", Value::Array(Array::U32(v)) => v;
}

impl FromValue<'_> for f32 {
    const EXPECTED: &'static str = "a number";
    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }
}

macro_rules! into_value {
    ($($t:ty, $variant:ident;)*) => {$(
        impl From<$t> for Value {
            fn from(v: $t) -> Self { Value::$variant(v.into()) }
        }
    )*};
}
into_value! {
    u32, U32; i32, I32; u64, U64; f32, F32; bool, Bool; &str, String; String, String; Array, Array;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn getters_convert_what_fits_and_name_the_key() {
        let mut m = Metadata::default();
        m.insert("a", Value::U64(7));
        m.insert("b", Value::I8(-1));
        m.insert("c", Value::from("text\nof two lines"));
        m.insert("d", Value::Array(Array::String(vec!["x".into()])));
        assert_eq!(m.require::<u32>("a").unwrap(), 7);
        assert_eq!(m.find::<u32>("missing").unwrap(), None);
        assert_eq!(m.require::<i32>("b").unwrap(), -1);
        assert_eq!(m.require::<&[String]>("d").unwrap(), ["x"]);
        let err = m.require::<u32>("b").unwrap_err().to_string();
        assert_eq!(err, "metadata key b should be an integer from 0 to 2^32 - 1, but is -1");
        let err = m.require::<f32>("c").unwrap_err().to_string();
        assert_eq!(err, "metadata key c should be a number, but is \"text\\nof two lines\"");
        let err = m.require::<&str>("d").unwrap_err().to_string();
        assert_eq!(err, "metadata key d should be a string, but is an array of 1 string");
        assert!(m.require::<&str>("e").unwrap_err().to_string().starts_with("metadata key e is missing"));
    }
}
