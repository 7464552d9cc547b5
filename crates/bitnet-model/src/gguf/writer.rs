//! Writing GGUF version 3: first the header, then the data, one tensor at a time.

use std::collections::HashSet;
use std::path::Path;

use super::reader::read_alignment;
use super::{Array, GgufError, GgufType, Metadata, TensorInfo, Value, align_up};
use bitnet_core::serialize::output::{AtomicFile, TensorSink, WriteError};

/// Tensor names must be shorter than this for llama.cpp.
const MAX_NAME: usize = 64;

/// Writer of a GGUF file.
///
/// ```
/// # fn main() -> Result<(), bitnet_model::gguf::GgufError> {
/// use bitnet_model::gguf::{Gguf, GgufError, GgufType, GgufWriter, Metadata};
///
/// let mut metadata = Metadata::default();
/// metadata.insert("general.architecture", "bitnet".into());
/// let mut writer = GgufWriter::new(metadata);
/// writer.add("output_norm.weight", GgufType::F32, &[4])?;
///
/// let path = std::env::temp_dir().join("bitnet-doc-example.gguf");
/// writer.write(&path, |_tensor, sink| Ok::<_, GgufError>(sink.put(&[0; 16])?))?;
/// # let bytes = std::fs::read(&path).unwrap();
/// assert_eq!(Gguf::parse(&bytes)?.tensor("output_norm.weight")?.data(&bytes), [0; 16]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GgufWriter {
    metadata: Metadata,
    /// Ranges count from the start of the data.
    tensors: Vec<TensorInfo>,
    names: HashSet<String>,
    end: usize,
}

impl GgufWriter {
    /// A file with this metadata. Tensors are aligned to `general.alignment`, or else to 32 bytes.
    pub fn new(metadata: Metadata) -> Self {
        Self { metadata, tensors: Vec::new(), names: HashSet::new(), end: 0 }
    }

    /// Declares a tensor; `shape` has the outermost dimension first.
    ///
    /// # Errors
    /// If the name is taken or longer than 63 bytes, the shape has no dimension, more than four
    /// or an empty one, or its rows are not whole blocks of the type.
    pub fn add(&mut self, name: &str, ty: GgufType, shape: &[usize]) -> Result<(), GgufError> {
        let refuse = |problem: String| {
            Err(GgufError::Write(WriteError::Tensor { tensor: format!("\"{}\"", name.escape_debug()), problem }))
        };
        if name.len() >= MAX_NAME {
            return refuse(format!("its name has {} bytes, llama.cpp takes {} at most", name.len(), MAX_NAME - 1));
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let (Some(&cols), Some(count @ 1..), ..=4) = (shape.last(), count, shape.len()) else {
            return refuse(format!("its shape {shape:?}"));
        };
        let alignment = read_alignment(&self.metadata)?;
        let Some(size) = ty.byte_size(count / cols, cols) else {
            return refuse(format!("rows of {cols} are not whole blocks of type {}", ty.name()));
        };
        let start = align_up(self.end, alignment);
        let Some((start, end)) = start.and_then(|s| Some((s, s.checked_add(size)?))) else {
            return refuse("the file would be larger than memory can address".to_owned());
        };
        if !self.names.insert(name.to_owned()) {
            return refuse("it occurs twice".to_owned());
        }
        self.end = end;
        self.tensors.push(TensorInfo { name: name.to_owned(), ty, shape: shape.to_vec(), range: start..end, part: 0 });
        Ok(())
    }

    /// The declared tensors, in the order in which their data is requested. Ranges count from the
    /// start of the data section.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Writes the file; `data` is called for each tensor in turn and puts exactly `range.len()`
    /// bytes. Returns the length of the file.
    ///
    /// The file is written to a temporary name in the same folder and renamed when it is complete,
    /// so that a failure keeps an existing file.
    ///
    /// # Errors
    /// If `data` fails or puts another number of bytes, or the file cannot be written.
    pub fn write<E: From<GgufError>>(
        &self,
        path: &Path,
        mut data: impl FnMut(&TensorInfo, &mut TensorSink) -> Result<(), E>,
    ) -> Result<u64, E> {
        let alignment = read_alignment(&self.metadata)?;
        let failed = |e: WriteError| E::from(GgufError::Write(e));
        let mut file = AtomicFile::create(path).map_err(failed)?;
        file.put(&self.header()).map_err(failed)?;
        for tensor in &self.tensors {
            file.pad(alignment).map_err(failed)?;
            file.tensor(&tensor.name, tensor.range.len() as u64, |sink| data(tensor, sink), failed)?;
        }
        // llama.cpp expects padding after the last tensor as well.
        file.pad(alignment).map_err(failed)?;
        file.commit().map_err(failed)
    }

    fn header(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(b"GGUF");
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            put_string(&mut out, key);
            put_value(&mut out, value);
        }
        for t in &self.tensors {
            put_string(&mut out, &t.name);
            out.extend((t.shape.len() as u32).to_le_bytes());
            for &dim in t.shape.iter().rev() {
                out.extend((dim as u64).to_le_bytes());
            }
            out.extend(t.ty.number().to_le_bytes());
            out.extend((t.range.start as u64).to_le_bytes());
        }
        out
    }
}

fn put_string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    macro_rules! kind {
        ($n:literal, $v:expr) => {{
            out.extend(u32::to_le_bytes($n));
            out.extend($v.to_le_bytes());
        }};
    }
    match value {
        Value::U8(v) => kind!(0, v),
        Value::I8(v) => kind!(1, v),
        Value::U16(v) => kind!(2, v),
        Value::I16(v) => kind!(3, v),
        Value::U32(v) => kind!(4, v),
        Value::I32(v) => kind!(5, v),
        Value::F32(v) => kind!(6, v),
        Value::Bool(v) => kind!(7, u8::from(*v)),
        Value::String(s) => {
            out.extend(8u32.to_le_bytes());
            put_string(out, s);
        }
        Value::Array(a) => {
            out.extend(9u32.to_le_bytes());
            put_array(out, a);
        }
        Value::U64(v) => kind!(10, v),
        Value::I64(v) => kind!(11, v),
        Value::F64(v) => kind!(12, v),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    macro_rules! elements {
        ($n:literal, $v:expr, $x:ident => $put:expr) => {{
            out.extend(u32::to_le_bytes($n));
            out.extend(($v.len() as u64).to_le_bytes());
            for $x in $v {
                $put;
            }
        }};
        ($n:literal, $v:expr) => {
            elements!($n, $v, x => out.extend(x.to_le_bytes()))
        };
    }
    match array {
        Array::U8(v) => elements!(0, v),
        Array::I8(v) => elements!(1, v),
        Array::U16(v) => elements!(2, v),
        Array::I16(v) => elements!(3, v),
        Array::U32(v) => elements!(4, v),
        Array::I32(v) => elements!(5, v),
        Array::F32(v) => elements!(6, v),
        Array::Bool(v) => elements!(7, v, x => out.push(u8::from(*x))),
        Array::String(v) => elements!(8, v, x => put_string(out, x)),
        Array::Array(v) => elements!(9, v, x => put_array(out, x)),
        Array::U64(v) => elements!(10, v),
        Array::I64(v) => elements!(11, v),
        Array::F64(v) => elements!(12, v),
    }
}
