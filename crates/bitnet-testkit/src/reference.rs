//! A second device: plain loops in f64 over storage that nobody else can read.
//!
//! It has the primitives of [`Backend`] and nothing else, so every fused operation on it is the composed default. What
//! runs here does not assume that data lies in host memory.

use bitnet_core::backend::*;
use bitnet_core::{
    Backend, BitNetDType, BitNetError, Device, DeviceStorage, Layout, Result, TensorOpError, TensorStorage,
};
use bitnet_kernels::blocks::dequantize_row;
use half::{bf16, f16};
use std::any::Any;
use std::sync::Arc;

/// The reference device.
pub fn reference_device() -> Device {
    Device::from_backend(Arc::new(ReferenceBackend))
}

/// See the module.
#[derive(Debug)]
pub struct ReferenceBackend;

/// Bytes that only [`ReferenceBackend`] reads.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl DeviceStorage for Bytes {
    fn len_bytes(&self) -> usize {
        self.0.len()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl ReferenceBackend {
    fn bytes<'a>(&self, op: &'static str, storage: &'a TensorStorage) -> Result<&'a [u8]> {
        match storage {
            TensorStorage::Device(device) => device.as_any().downcast_ref::<Bytes>().map(|b| b.0.as_slice()),
            TensorStorage::Cpu(_) => None,
        }
        .ok_or_else(|| elsewhere(op))
    }

    fn bytes_mut<'a>(&self, op: &'static str, storage: &'a mut TensorStorage) -> Result<&'a mut [u8]> {
        match storage {
            TensorStorage::Device(device) => device.as_any_mut().downcast_mut::<Bytes>().map(|b| b.0.as_mut_slice()),
            TensorStorage::Cpu(_) => None,
        }
        .ok_or_else(|| elsewhere(op))
    }

    /// The elements of `t` in row-major order.
    fn read(&self, op: &'static str, t: &TensorRef) -> Result<Vec<f64>> {
        let bytes = self.bytes(op, t.storage)?;
        if t.dtype.is_packed() {
            return unpack(self, op, t, bytes);
        }
        let size = t.dtype.block().1;
        let indices = t.layout.indices();
        indices
            .map(|i| get(t.dtype, &bytes[i * size..][..size]).ok_or_else(|| unsupported(self, op, t.dtype)))
            .collect()
    }

    /// Writes elements in row-major order.
    fn write(&self, op: &'static str, t: TensorMut, values: impl Iterator<Item = f64>) -> Result<()> {
        let (dtype, size) = (t.dtype, t.dtype.block().1);
        let indices = t.layout.indices();
        let bytes = self.bytes_mut(op, t.storage)?;
        for (i, value) in indices.zip(values) {
            if !put(dtype, &mut bytes[i * size..][..size], value) {
                return Err(unsupported(self, op, dtype));
            }
        }
        Ok(())
    }
}

fn elsewhere(op: &'static str) -> BitNetError {
    TensorOpError::Device { op, left: "reference".into(), right: "another device".into() }.into()
}

fn get(dtype: BitNetDType, b: &[u8]) -> Option<f64> {
    Some(match dtype {
        BitNetDType::F64 => f64::from_le_bytes(b.try_into().ok()?),
        BitNetDType::F32 => f32::from_le_bytes(b.try_into().ok()?).into(),
        BitNetDType::F16 => f16::from_le_bytes(b.try_into().ok()?).into(),
        BitNetDType::BF16 => bf16::from_le_bytes(b.try_into().ok()?).into(),
        BitNetDType::I8 => (b[0] as i8).into(),
        BitNetDType::I32 => i32::from_le_bytes(b.try_into().ok()?).into(),
        BitNetDType::U8 | BitNetDType::Bool => b[0].into(),
        BitNetDType::U32 => u32::from_le_bytes(b.try_into().ok()?).into(),
        _ => return None,
    })
}

fn put(dtype: BitNetDType, b: &mut [u8], v: f64) -> bool {
    match dtype {
        BitNetDType::F64 => b.copy_from_slice(&v.to_le_bytes()),
        BitNetDType::F32 => b.copy_from_slice(&(v as f32).to_le_bytes()),
        BitNetDType::F16 => b.copy_from_slice(&f16::from_f64(v).to_le_bytes()),
        BitNetDType::BF16 => b.copy_from_slice(&bf16::from_f64(v).to_le_bytes()),
        BitNetDType::I8 => b[0] = v as i8 as u8,
        BitNetDType::I32 => b.copy_from_slice(&(v as i32).to_le_bytes()),
        BitNetDType::U8 => b[0] = v as u8,
        BitNetDType::Bool => b[0] = (v != 0.) as u8,
        BitNetDType::U32 => b.copy_from_slice(&(v as u32).to_le_bytes()),
        _ => return false,
    }
    true
}

/// All rows of a packed type, which are whole and in order.
fn unpack(backend: &ReferenceBackend, op: &'static str, t: &TensorRef, bytes: &[u8]) -> Result<Vec<f64>> {
    let columns = t.layout.shape().last();
    if !t.layout.is_contiguous() || t.layout.offset() != 0 {
        return Err(TensorOpError::NotContiguous { op, what: "packed tensor" }.into());
    }
    let mut out = Vec::new();
    let mut row_values = vec![0f32; columns];
    let rows = t.layout.shape().elements() / columns.max(1);
    for row in bytes.chunks_exact(t.dtype.row_bytes(columns)).take(rows) {
        match t.dtype.weight_type() {
            Some(kind) => dequantize_row(kind, row, &mut row_values),
            None if t.dtype == BitNetDType::Ternary2 => {
                let code = |i: usize| (row[i / 4] >> (2 * (i % 4))) & 3;
                row_values.iter_mut().enumerate().for_each(|(i, v)| *v = code(i) as f32 - 1.);
            }
            None => return Err(unsupported(backend, op, t.dtype)),
        }
        out.extend(row_values.iter().map(|&v| v as f64));
    }
    Ok(out)
}

fn same_shape(op: &'static str, a: &Layout, out: &Layout) -> Result<()> {
    if a.dims() == out.dims() {
        return Ok(());
    }
    Err(TensorOpError::Shape { op, what: "operand", got: *a.shape(), needed: out.shape().to_string() }.into())
}

impl Backend for ReferenceBackend {
    fn name(&self) -> String {
        "reference".into()
    }

    fn as_dyn(&self) -> &dyn Backend {
        self
    }

    fn allocate(&self, bytes: usize) -> Result<TensorStorage> {
        // Not zeros: what reads memory that was never written shows.
        Ok(TensorStorage::Device(Box::new(Bytes(vec![0xa5; bytes]))))
    }

    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage> {
        Ok(TensorStorage::Device(Box::new(Bytes(bytes.to_vec()))))
    }

    fn download(&self, source: &TensorStorage, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let all = self.bytes("download", source)?;
        let part = all.get(offset..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(part.ok_or_else(|| elsewhere("download beyond the end"))?);
        Ok(())
    }

    fn copy(&self, source: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("copy", &source.layout, &out.layout)?;
        if source.dtype != out.dtype {
            let (got, needed) = (source.dtype, out.dtype);
            return Err(TensorOpError::DType { op: "copy", what: "source", got, needed }.into());
        }
        let values = self.read("copy", &source)?;
        self.write("copy", out, values.into_iter())
    }

    fn unary(&self, op: UnaryOp, x: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("unary", &x.layout, &out.layout)?;
        let f: fn(f64) -> f64 = match op {
            UnaryOp::Neg => |x| -x,
            UnaryOp::Abs => f64::abs,
            UnaryOp::Exp => f64::exp,
            UnaryOp::Sqrt => f64::sqrt,
            UnaryOp::Reciprocal => f64::recip,
            UnaryOp::Relu => |x| x.max(0.),
            UnaryOp::Sigmoid => |x| 1. / (1. + (-x).exp()),
            UnaryOp::Round => f64::round_ties_even,
            UnaryOp::Log => f64::ln,
            _ => return Err(unsupported(self, "unary", x.dtype)),
        };
        let values = self.read("unary", &x)?;
        self.write("unary", out, values.into_iter().map(f))
    }

    fn binary(&self, op: BinaryOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("binary", &a.layout, &out.layout)?;
        same_shape("binary", &b.layout, &out.layout)?;
        let f: fn(f64, f64) -> f64 = match op {
            BinaryOp::Add => |a, b| a + b,
            BinaryOp::Sub => |a, b| a - b,
            BinaryOp::Mul => |a, b| a * b,
            BinaryOp::Div => |a, b| a / b,
            BinaryOp::Minimum => |a, b| if a.is_nan() || a < b { a } else { b },
            BinaryOp::Maximum => |a, b| if a.is_nan() || a > b { a } else { b },
            _ => return Err(unsupported(self, "binary", a.dtype)),
        };
        let values = self.read("binary", &a)?.into_iter().zip(self.read("binary", &b)?);
        self.write("binary", out, values.map(|(a, b)| f(a, b)))
    }

    fn compare(&self, op: CompareOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("compare", &a.layout, &out.layout)?;
        same_shape("compare", &b.layout, &out.layout)?;
        let f: fn(&f64, &f64) -> bool = match op {
            CompareOp::Eq => f64::eq,
            CompareOp::Ne => f64::ne,
            CompareOp::Lt => f64::lt,
            CompareOp::Le => f64::le,
            CompareOp::Gt => f64::gt,
            CompareOp::Ge => f64::ge,
        };
        let values = self.read("compare", &a)?.into_iter().zip(self.read("compare", &b)?);
        self.write("compare", out, values.map(|(a, b)| f(&a, &b) as u8 as f64))
    }

    fn select(&self, condition: TensorRef, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        for operand in [&condition, &a, &b] {
            same_shape("select", &operand.layout, &out.layout)?;
        }
        let choices = self.read("select", &a)?.into_iter().zip(self.read("select", &b)?);
        let values = self.read("select", &condition)?.into_iter().zip(choices);
        self.write("select", out, values.map(|(c, (a, b))| if c != 0. { a } else { b }))
    }

    fn cast(&self, x: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("cast", &x.layout, &out.layout)?;
        let values = self.read("cast", &x)?;
        self.write("cast", out, values.into_iter())
    }

    fn reduce(&self, op: ReduceOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()> {
        let extent =
            *x.layout.dims().get(axis).ok_or_else(|| elsewhere("reduce over a dimension that is not there"))?;
        same_shape("reduce", &x.layout.narrow(axis, 0, extent.min(1))?, &out.layout)?;
        let (start, f): (f64, fn(f64, f64) -> f64) = match op {
            ReduceOp::Sum => (0., |a, b| a + b),
            ReduceOp::Max => (f64::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b }),
            ReduceOp::Min => (f64::INFINITY, |a, b| if a.is_nan() || a < b { a } else { b }),
            _ => return Err(unsupported(self, "reduce", x.dtype)),
        };
        let mut sums = vec![start; out.layout.shape().elements()];
        for k in 0..extent {
            let slice = TensorRef { layout: x.layout.narrow(axis, k, 1)?, ..x };
            for (sum, v) in sums.iter_mut().zip(self.read("reduce", &slice)?) {
                *sum = f(*sum, v);
            }
        }
        self.write("reduce", out, sums.into_iter())
    }

    fn matmul(&self, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        let (&[ref batch_a @ .., m, k], &[ref batch_b @ .., k2, n]) = (a.layout.dims(), b.layout.dims()) else {
            return Err(elsewhere("matmul of vectors"));
        };
        if batch_a != batch_b || k != k2 || *out.layout.dims() != [batch_a, &[m, n]].concat() {
            let needed = format!("{} x {}", b.layout.shape(), out.layout.shape());
            return Err(TensorOpError::Shape { op: "matmul", what: "a", got: *a.layout.shape(), needed }.into());
        }
        let (left, right) = (self.read("matmul", &a)?, self.read("matmul", &b)?);
        let product = |i: usize| {
            let (batch, row, column) = (i / (m * n), i / n % m, i % n);
            (0..k).map(|j| left[(batch * m + row) * k + j] * right[(batch * k + j) * n + column]).sum()
        };
        let count = out.layout.shape().elements();
        self.write("matmul", out, (0..count).map(product))
    }

    fn gather(&self, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("gather", &indices.layout, &out.layout)?;
        let mut values = Vec::new();
        let dims = out.layout.dims().to_vec();
        let extent = source.layout.dims()[axis];
        for (flat, index) in self.read("gather", &indices)?.into_iter().enumerate() {
            if index < 0. || index >= extent as f64 {
                let index = index as i64;
                let shape = *source.layout.shape();
                return Err(TensorOpError::IndexOutOfRange { op: "gather", index, axis, shape }.into());
            }
            let (mut rest, mut element) = (flat, source.layout);
            for d in (0..dims.len()).rev() {
                let at = if d == axis { index as usize } else { rest % dims[d] };
                element = element.narrow(d, at, 1)?;
                rest /= dims[d];
            }
            values.extend(self.read("gather", &TensorRef { layout: element, ..source })?);
        }
        self.write("gather", out, values.into_iter())
    }

    fn scan(&self, _op: ScanOp, x: TensorRef, _axis: usize, _out: TensorMut) -> Result<()> {
        Err(unsupported(self, "scan", x.dtype))
    }

    fn scatter(&self, _op: ScatterOp, source: TensorRef, _: usize, _: TensorRef, _: TensorMut) -> Result<()> {
        Err(unsupported(self, "scatter", source.dtype))
    }

    fn sort(&self, x: TensorRef, _axis: usize, _descending: bool, _: TensorMut, _: TensorMut) -> Result<()> {
        Err(unsupported(self, "sort", x.dtype))
    }

    fn random(&self, _distribution: Distribution, _seed: u64, _offset: u64, out: TensorMut) -> Result<()> {
        Err(unsupported(self, "random", out.dtype))
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}
