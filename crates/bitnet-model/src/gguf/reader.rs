//! The header of a GGUF file: metadata and the byte ranges of its tensors.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::error::one_line;
use super::types::{self, GgufType};
use super::{ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, GgufError, Metadata, Value, align_up};

/// Limit of nested arrays.
const MAX_NESTING: usize = 4;

/// A parsed header. It borrows nothing; [`TensorInfo::range`] is the position of the data in the file.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// Named values.
    pub metadata: Metadata,
    /// Tensors in the order of the file.
    pub tensors: Vec<TensorInfo>,
    pub(super) index: HashMap<String, usize>,
}

/// Name, type, shape and byte range of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Name of the tensor.
    pub name: String,
    /// Type of its data.
    pub ty: GgufType,
    /// Shape, outermost dimension first (`[rows, cols]`; GGUF itself stores it the other way round).
    /// One to four dimensions, none of them zero.
    pub shape: Vec<usize>,
    /// The bytes of the file that hold its data, without padding.
    pub range: Range<usize>,
    /// Which of the files of a split model holds it, from 0.
    pub part: usize,
}

impl TensorInfo {
    /// The data, of the same `file` that was parsed.
    ///
    /// # Panics
    /// When `file` is another one and shorter.
    pub fn data<'a>(&self, file: &'a [u8]) -> &'a [u8] {
        &file[self.range.clone()]
    }

    /// Number of weights.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of a row: the innermost dimension.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

impl Gguf {
    /// Reads the header of a whole file.
    ///
    /// # Errors
    /// If the file is not GGUF, big-endian, of another version, cut short, or contradicts itself:
    /// duplicate or unreadable names, sizes that do not fit, data that overlaps or lies outside.
    /// A tensor of an unsupported or unknown type is an error only when it is requested.
    pub fn parse(file: &[u8]) -> Result<Self, GgufError> {
        let magic = file.get(..4).unwrap_or(file);
        if magic != b"GGUF" {
            return Err(GgufError::NotGguf(magic.to_vec()));
        }
        let mut cursor = Cursor { file, at: 4, what: "the header".to_owned() };
        let version = cursor.u32()?;
        match version {
            2 | 3 => {}
            v if v.swap_bytes() < 256 => return Err(GgufError::BigEndian),
            v => return Err(GgufError::Version(v)),
        }
        let tensor_count = cursor.u64()?;
        let key_count = cursor.u64()?;
        let metadata = read_metadata(&mut cursor, key_count)?;
        let alignment = read_alignment(&metadata)?;
        let raw = read_tensor_infos(&mut cursor, tensor_count)?;
        let (tensors, index) = place(raw, cursor.at, file.len(), alignment)?;
        Ok(Self { version, metadata, tensors, index })
    }

    /// The tensor of that name, of any type, if there is one.
    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// The tensor of that name, of a supported type.
    ///
    /// # Errors
    /// If there is none, or its type is not supported.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        let info = self.find(name).ok_or_else(|| GgufError::MissingTensor(name.to_owned()))?;
        match info.ty.advice() {
            None => Ok(info),
            Some(advice) => Err(GgufError::UnsupportedType {
                tensor: one_line(name),
                name: info.ty.name(),
                number: info.ty.number(),
                advice,
            }),
        }
    }
}

/// A position in the file, and what is being read for errors.
struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
    what: String,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.file.len() - self.at
    }

    fn truncated(&self, need: u64) -> GgufError {
        GgufError::Truncated { what: self.what.clone(), at: self.at, need, have: self.file.len() }
    }

    fn malformed(&self, problem: impl Into<String>) -> GgufError {
        GgufError::Malformed { what: self.what.clone(), problem: problem.into() }
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], GgufError> {
        if n > self.left() as u64 {
            return Err(self.truncated(n));
        }
        let bytes = &self.file[self.at..][..n as usize];
        self.at += n as usize;
        Ok(bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A count of items of at least `each` bytes, checked against the rest of the file.
    fn count(&mut self, each: usize) -> Result<usize, GgufError> {
        let n = self.u64()?;
        self.check_count(n, each)
    }

    fn check_count(&self, n: u64, each: usize) -> Result<usize, GgufError> {
        match n.checked_mul(each as u64) {
            Some(need) if need <= self.left() as u64 => Ok(n as usize),
            need => Err(self.truncated(need.unwrap_or(u64::MAX))),
        }
    }

    fn string(&mut self) -> Result<String, GgufError> {
        let n = self.u64()?;
        match std::str::from_utf8(self.take(n)?) {
            Ok(s) => Ok(s.to_owned()),
            Err(_) => Err(self.malformed("a string that is not UTF-8")),
        }
    }

    fn boolean(&mut self) -> Result<bool, GgufError> {
        match self.bytes()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [b] => Err(self.malformed(format!("a boolean of value {b}"))),
        }
    }

    fn value(&mut self) -> Result<Value, GgufError> {
        Ok(match self.u32()? {
            0 => Value::U8(u8::from_le_bytes(self.bytes()?)),
            1 => Value::I8(i8::from_le_bytes(self.bytes()?)),
            2 => Value::U16(u16::from_le_bytes(self.bytes()?)),
            3 => Value::I16(i16::from_le_bytes(self.bytes()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.bytes()?)),
            6 => Value::F32(f32::from_le_bytes(self.bytes()?)),
            7 => Value::Bool(self.boolean()?),
            8 => Value::String(self.string()?),
            9 => Value::Array(self.array(1)?),
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.bytes()?)),
            12 => Value::F64(f64::from_le_bytes(self.bytes()?)),
            kind => return Err(self.malformed(format!("unknown kind of value {kind}"))),
        })
    }

    fn array(&mut self, depth: usize) -> Result<Array, GgufError> {
        if depth > MAX_NESTING {
            return Err(self.malformed(format!("arrays nested deeper than {MAX_NESTING}")));
        }
        Ok(match self.u32()? {
            0 => Array::U8(self.numbers(u8::from_le_bytes)?),
            1 => Array::I8(self.numbers(i8::from_le_bytes)?),
            2 => Array::U16(self.numbers(u16::from_le_bytes)?),
            3 => Array::I16(self.numbers(i16::from_le_bytes)?),
            4 => Array::U32(self.numbers(u32::from_le_bytes)?),
            5 => Array::I32(self.numbers(i32::from_le_bytes)?),
            6 => Array::F32(self.numbers(f32::from_le_bytes)?),
            7 => Array::Bool(self.elements(1, Self::boolean)?),
            8 => Array::String(self.elements(8, Self::string)?),
            9 => Array::Array(self.elements(12, |c| c.array(depth + 1))?),
            10 => Array::U64(self.numbers(u64::from_le_bytes)?),
            11 => Array::I64(self.numbers(i64::from_le_bytes)?),
            12 => Array::F64(self.numbers(f64::from_le_bytes)?),
            kind => return Err(self.malformed(format!("unknown kind of array element {kind}"))),
        })
    }

    /// An array of elements that take at least `each` bytes.
    fn elements<T>(
        &mut self,
        each: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, GgufError>,
    ) -> Result<Vec<T>, GgufError> {
        let n = self.count(each)?;
        (0..n).map(|_| read(self)).collect()
    }

    /// An array of numbers of `N` bytes.
    fn numbers<const N: usize, T>(&mut self, from: fn([u8; N]) -> T) -> Result<Vec<T>, GgufError> {
        let n = self.count(N)?;
        let (numbers, _) = self.take((n * N) as u64)?.as_chunks::<N>();
        Ok(numbers.iter().map(|b| from(*b)).collect())
    }
}

fn read_metadata(cursor: &mut Cursor, count: u64) -> Result<Metadata, GgufError> {
    // A key takes at least its length, its kind and one byte of value.
    let count = cursor.check_count(count, 13)?;
    let mut metadata = Metadata::default();
    for i in 0..count {
        cursor.what = format!("metadata entry {i}");
        let key = cursor.string()?;
        cursor.what = format!("metadata key {}", one_line(&key));
        let value = cursor.value()?;
        if metadata.insert(key, value).is_some() {
            return Err(cursor.malformed("it occurs twice"));
        }
    }
    Ok(metadata)
}

/// The alignment of tensor data in a file's metadata.
pub(super) fn read_alignment(metadata: &Metadata) -> Result<usize, GgufError> {
    let alignment = metadata.find::<u32>(ALIGNMENT_KEY)?.map_or(DEFAULT_ALIGNMENT, |a| a as usize);
    if alignment.is_power_of_two() && alignment <= 1 << 20 {
        return Ok(alignment);
    }
    let (what, problem) =
        (format!("metadata key {ALIGNMENT_KEY}"), format!("{alignment} is not a reasonable power of two"));
    Err(GgufError::Malformed { what, problem })
}

/// A tensor entry of the file.
struct RawTensor {
    name: String,
    /// Outermost first.
    shape: Vec<usize>,
    number: u32,
    /// From the start of the data section.
    offset: usize,
}

fn read_tensor_infos(cursor: &mut Cursor, count: u64) -> Result<Vec<RawTensor>, GgufError> {
    cursor.what = "the list of tensors".to_owned();
    // Length of the name, number of dimensions, one dimension, type, offset.
    let count = cursor.check_count(count, 8 + 4 + 8 + 4 + 8)?;
    let mut tensors = Vec::with_capacity(count);
    for i in 0..count {
        cursor.what = format!("the description of tensor {i}");
        let name = cursor.string()?;
        cursor.what = format!("tensor {}", one_line(&name));
        let dims = cursor.u32()?;
        if !(1..=4).contains(&dims) {
            return Err(cursor.malformed(format!("{dims} dimensions (1 to 4 are possible)")));
        }
        let mut shape = vec![0; dims as usize];
        let mut weights = 1usize;
        for dim in shape.iter_mut().rev() {
            let size = cursor.u64()?;
            let product = usize::try_from(size).ok().and_then(|s| weights.checked_mul(s));
            (*dim, weights) = match product {
                Some(0) => return Err(cursor.malformed("a dimension of size 0")),
                Some(p) => (size as usize, p),
                None => return Err(cursor.malformed("more weights than memory can address")),
            };
        }
        let number = cursor.u32()?;
        let offset = cursor.u64()?;
        let Ok(offset) = usize::try_from(offset) else {
            return Err(cursor.malformed(format!("its data is said to be at byte {offset}")));
        };
        tensors.push(RawTensor { name, shape, number, offset });
    }
    Ok(tensors)
}

/// Finds the type and byte range of every tensor, and checks that none overlap or exceed the file.
#[allow(clippy::type_complexity)]
fn place(
    raw: Vec<RawTensor>,
    header_end: usize,
    file_len: usize,
    alignment: usize,
) -> Result<(Vec<TensorInfo>, HashMap<String, usize>), GgufError> {
    let malformed =
        |name: &str, problem: String| GgufError::Malformed { what: format!("tensor {}", one_line(name)), problem };
    let beyond = || malformed("", "the file is larger than memory".to_owned());
    let data_start = align_up(header_end, alignment).ok_or_else(beyond)?;
    let data_len = file_len.saturating_sub(data_start);

    // The space of a tensor: up to the next one by offset, or to the end of the file.
    let mut order: Vec<usize> = (0..raw.len()).collect();
    order.sort_by_key(|&i| raw[i].offset);
    let mut rooms = vec![(0, false); raw.len()];
    for (k, &i) in order.iter().enumerate() {
        let RawTensor { name, offset, .. } = &raw[i];
        if !offset.is_multiple_of(alignment) {
            return Err(malformed(
                name,
                format!("its data starts at {offset}, which is not a multiple of {alignment}"),
            ));
        }
        let end = order.get(k + 1).map_or(usize::MAX, |&next| raw[next].offset);
        rooms[i] = (end.min(data_len).saturating_sub(*offset), end <= data_len);
    }

    let mut by_number: BTreeMap<u32, Vec<types::Extent>> = BTreeMap::new();
    for (t, &(room, bounded)) in raw.iter().zip(&rooms) {
        let cols = t.shape[t.shape.len() - 1];
        let rows = t.shape.iter().product::<usize>() / cols;
        let room = align_up(room, alignment).ok_or_else(beyond)?;
        by_number.entry(t.number).or_default().push(types::Extent { rows, cols, room, bounded });
    }
    let types: BTreeMap<u32, GgufType> =
        by_number.iter().map(|(&n, extents)| (n, types::resolve(n, extents, alignment))).collect();

    let mut tensors = Vec::with_capacity(raw.len());
    let mut index = HashMap::with_capacity(raw.len());
    for (i, (t, (room, _))) in raw.into_iter().zip(rooms).enumerate() {
        let ty = types[&t.number];
        let cols = t.shape[t.shape.len() - 1];
        let rows = t.shape.iter().product::<usize>() / cols;
        let size = match (ty.byte_size(rows, cols), ty.block()) {
            (Some(size), _) => size,
            (None, None) => room, // a layout that the file does not tell
            (None, Some((block, _))) => {
                return Err(GgufError::RowNotBlocks { tensor: one_line(&t.name), cols, block, name: ty.name() });
            }
        };
        if size > room || size == 0 {
            let start = data_start.saturating_add(t.offset);
            return Err(if start.saturating_add(size) > file_len {
                let what = format!("the data of tensor {}", one_line(&t.name));
                GgufError::Truncated { what, at: start, need: size as u64, have: file_len }
            } else {
                let problem = format!("{size} bytes of {} overlap the next tensor, {room} bytes on", ty.name());
                malformed(&t.name, problem)
            });
        }
        if index.insert(t.name.clone(), i).is_some() {
            return Err(malformed(&t.name, "it occurs twice".to_owned()));
        }
        let start = data_start + t.offset;
        tensors.push(TensorInfo { name: t.name, ty, shape: t.shape, range: start..start + size, part: 0 });
    }
    Ok((tensors, index))
}
