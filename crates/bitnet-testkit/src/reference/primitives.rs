//! The primitives, each implemented by its definition.

use super::number::Number;
use super::{Bytes, ReferenceBackend, elementwise, elsewhere, random, reduce};
use bitnet_core::BitNetDType::{self, BF16, Bool, F16, F32, I8, I32, I64, U32, U64};
use bitnet_core::backend::*;
use bitnet_core::{Backend, Layout, Result, TensorOpError, TensorStorage};

fn same_shape(op: &'static str, a: &Layout, out: &Layout) -> Result<()> {
    if a.dims() == out.dims() {
        return Ok(());
    }
    Err(TensorOpError::Shape { op, what: "operand", got: *a.shape(), needed: out.shape().to_string() }.into())
}

fn same_dtype(op: &'static str, what: &'static str, got: BitNetDType, needed: BitNetDType) -> Result<()> {
    if got == needed {
        return Ok(());
    }
    Err(TensorOpError::DType { op, what, got, needed }.into())
}

/// The extent of a dimension.
fn extent(op: &'static str, layout: &Layout, axis: usize) -> Result<usize> {
    let no_axis = || TensorOpError::NoAxis { op, axis: axis as isize, shape: *layout.shape() };
    Ok(*layout.dims().get(axis).ok_or_else(no_axis)?)
}

/// The accumulation type of sums and products of `dtype`.
fn wide(dtype: BitNetDType) -> BitNetDType {
    match dtype {
        _ if dtype.is_float() => dtype,
        U64 => U64,
        _ => I64,
    }
}

impl ReferenceBackend {
    /// Positions along `axis`, each inside `extent`.
    fn positions(&self, op: &'static str, indices: &TensorRef, axis: usize, of: &Layout) -> Result<Vec<usize>> {
        if !matches!(indices.dtype, I64 | U32) {
            return Err(unsupported(self, op, indices.dtype));
        }
        let extent = extent(op, of, axis)?;
        let inside = |v: Number| {
            let index = v.int() as i64;
            usize::try_from(index)
                .ok()
                .filter(|&i| i < extent)
                .ok_or_else(|| TensorOpError::IndexOutOfRange { op, index, axis, shape: *of.shape() }.into())
        };
        self.read(op, indices)?.into_iter().map(inside).collect()
    }
}

/// For every element of `small`, in row-major order, the place in row-major order of `large` of the element with the
/// same coordinates but `positions` along `axis`.
fn places(op: &'static str, small: &Layout, large: &Layout, axis: usize, positions: &[usize]) -> Result<Vec<usize>> {
    let fits = small.shape().rank() == large.shape().rank()
        && small.dims().iter().zip(large.dims()).enumerate().all(|(d, (s, l))| d == axis || s <= l);
    if !fits {
        return Err(TensorOpError::Shape {
            op,
            what: "indices",
            got: *small.shape(),
            needed: large.shape().to_string(),
        }
        .into());
    }
    let mut places = Vec::with_capacity(positions.len());
    for (i, &position) in positions.iter().enumerate() {
        let (mut rest, mut place, mut step) = (i, 0, 1);
        for d in (0..small.dims().len()).rev() {
            let coordinate = if d == axis { position } else { rest % small.dims()[d] };
            rest /= small.dims()[d];
            place += coordinate * step;
            step *= large.dims()[d];
        }
        places.push(place);
    }
    Ok(places)
}

impl Backend for ReferenceBackend {
    fn name(&self) -> String {
        "reference".into()
    }

    fn as_dyn(&self) -> &dyn Backend {
        self
    }

    fn allocate(&self, bytes: usize) -> Result<TensorStorage> {
        // Not zeros, so that reads of uninitialised memory are noticed.
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
        same_dtype("copy", "source", source.dtype, out.dtype)?;
        let values = self.read("copy", &source)?;
        self.write("copy", out, values)
    }

    fn unary(&self, op: UnaryOp, x: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("unary", &x.layout, &out.layout)?;
        same_dtype("unary", "out", out.dtype, x.dtype)?;
        let f = elementwise::unary(op, x.dtype).ok_or_else(|| unsupported(self, "unary", x.dtype))?;
        let values = self.read("unary", &x)?;
        self.write("unary", out, values.into_iter().map(f))
    }

    fn binary(&self, op: BinaryOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("binary", &a.layout, &out.layout)?;
        same_shape("binary", &b.layout, &out.layout)?;
        for (what, dtype) in [("a", a.dtype), ("b", b.dtype)] {
            let number = dtype == F32 && matches!(out.dtype, F16 | BF16) && a.dtype != b.dtype;
            if !number {
                same_dtype("binary", what, dtype, out.dtype)?;
            }
        }
        let f = elementwise::binary(op, out.dtype).ok_or_else(|| unsupported(self, "binary", out.dtype))?;
        let pairs = self.read("binary", &a)?.into_iter().zip(self.read("binary", &b)?);
        let values: Result<Vec<_>, _> = pairs.map(|(x, y)| f(x, y, out.dtype)).collect();
        let by_zero =
            |_| TensorOpError::DivisionByZero { op: if op == BinaryOp::FloorDiv { "floor_div" } else { "remainder" } };
        self.write("binary", out, values.map_err(by_zero)?)
    }

    fn compare(&self, op: CompareOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("compare", &a.layout, &out.layout)?;
        same_shape("compare", &b.layout, &out.layout)?;
        same_dtype("compare", "b", b.dtype, a.dtype)?;
        same_dtype("compare", "out", out.dtype, Bool)?;
        let pairs = self.read("compare", &a)?.into_iter().zip(self.read("compare", &b)?);
        self.write("compare", out, pairs.map(|(a, b)| Number::Int(elementwise::compare(op, a, b).into())))
    }

    fn select(&self, condition: TensorRef, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        for operand in [&condition, &a, &b] {
            same_shape("select", &operand.layout, &out.layout)?;
        }
        same_dtype("select", "condition", condition.dtype, Bool)?;
        same_dtype("select", "a", a.dtype, out.dtype)?;
        same_dtype("select", "b", b.dtype, out.dtype)?;
        let choices = self.read("select", &a)?.into_iter().zip(self.read("select", &b)?);
        let values = self.read("select", &condition)?.into_iter().zip(choices);
        self.write("select", out, values.map(|(c, (a, b))| if c.is_zero() { b } else { a }))
    }

    fn cast(&self, x: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("cast", &x.layout, &out.layout)?;
        let values = self.read("cast", &x)?;
        self.write("cast", out, values)
    }

    fn reduce(&self, op: ReduceOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()> {
        let extent = extent("reduce", &x.layout, axis)?;
        let mut dims = x.layout.dims().to_vec();
        dims[axis] = 1;
        if out.layout.dims() != dims {
            let needed = format!("{dims:?}");
            return Err(TensorOpError::Shape { op: "reduce", what: "out", got: *out.layout.shape(), needed }.into());
        }
        let result = match op {
            ReduceOp::Sum | ReduceOp::Prod => wide(x.dtype),
            ReduceOp::Max | ReduceOp::Min | ReduceOp::Norm => x.dtype,
            ReduceOp::Any | ReduceOp::All => Bool,
            ReduceOp::ArgMax | ReduceOp::ArgMin => I64,
        };
        same_dtype("reduce", "out", out.dtype, result)?;
        let reduced = |line: Vec<Number>| {
            reduce::reduce(op, &line).map(|v| vec![v]).ok_or_else(|| {
                let needed = format!("at least one element along dimension {axis}, which has {extent}");
                TensorOpError::Shape { op: "reduce", what: "x", got: *x.layout.shape(), needed }.into()
            })
        };
        let lines: Result<Vec<_>> = self.lines("reduce", &x, axis)?.into_iter().map(reduced).collect();
        self.write_lines("reduce", out, axis, &lines?)
    }

    fn scan(&self, op: ScanOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()> {
        extent("scan", &x.layout, axis)?;
        same_shape("scan", &x.layout, &out.layout)?;
        same_dtype("scan", "out", out.dtype, wide(x.dtype))?;
        let lines: Vec<_> = self.lines("scan", &x, axis)?.iter().map(|line| reduce::scan(op, line)).collect();
        self.write_lines("scan", out, axis, &lines)
    }

    fn matmul(&self, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        let (&[ref batch_a @ .., m, k], &[ref batch_b @ .., k2, n]) = (a.layout.dims(), b.layout.dims()) else {
            return Err(elsewhere("matmul of vectors"));
        };
        if batch_a != batch_b || k != k2 || *out.layout.dims() != [batch_a, &[m, n]].concat() {
            let needed = format!("{} x {}", b.layout.shape(), out.layout.shape());
            return Err(TensorOpError::Shape { op: "matmul", what: "a", got: *a.layout.shape(), needed }.into());
        }
        same_dtype("matmul", "b", b.dtype, a.dtype)?;
        let result = match (a.dtype, out.dtype) {
            (I8, _) => I32,
            (BF16, F32) => F32,
            (same, _) => same,
        };
        same_dtype("matmul", "out", out.dtype, result)?;
        if a.dtype == Bool {
            return Err(unsupported(self, "matmul", Bool));
        }
        let (left, right) = (self.read("matmul", &a)?, self.read("matmul", &b)?);
        let product = |i: usize| {
            let (batch, row, column) = (i / (m * n), i / n % m, i % n);
            let row = left[(batch * m + row) * k..][..k].iter().copied();
            let column = (0..k).map(|j| right[(batch * k + j) * n + column]);
            reduce::dot(row, column, a.dtype.is_float())
        };
        let count = out.layout.shape().elements();
        self.write("matmul", out, (0..count).map(product))
    }

    fn gather(&self, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("gather", &indices.layout, &out.layout)?;
        same_dtype("gather", "out", out.dtype, source.dtype)?;
        let positions = self.positions("gather", &indices, axis, &source.layout)?;
        let places = places("gather", &indices.layout, &source.layout, axis, &positions)?;
        let values = self.read("gather", &source)?;
        self.write("gather", out, places.into_iter().map(|place| values[place]))
    }

    fn scatter(&self, op: ScatterOp, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) -> Result<()> {
        same_shape("scatter", &indices.layout, &source.layout)?;
        same_dtype("scatter", "source", source.dtype, out.dtype)?;
        let positions = self.positions("scatter", &indices, axis, &out.layout)?;
        let places = places("scatter", &indices.layout, &out.layout, axis, &positions)?;
        let dtype = out.dtype;
        let mut values = self.read("scatter", &out.as_ref())?;
        for (place, new) in places.into_iter().zip(self.read("scatter", &source)?) {
            values[place] = match op {
                ScatterOp::Assign => new,
                ScatterOp::Add => reduce::added(dtype, values[place], new),
            };
        }
        self.write("scatter", out, values)
    }

    fn sort(&self, x: TensorRef, axis: usize, descending: bool, values: TensorMut, indices: TensorMut) -> Result<()> {
        extent("sort", &x.layout, axis)?;
        same_shape("sort", &x.layout, &values.layout)?;
        same_shape("sort", &x.layout, &indices.layout)?;
        same_dtype("sort", "values", values.dtype, x.dtype)?;
        same_dtype("sort", "indices", indices.dtype, I64)?;
        let lines = self.lines("sort", &x, axis)?;
        let orders: Vec<_> = lines.iter().map(|line| reduce::order(line, descending)).collect();
        let pick = |(line, order): (&Vec<Number>, &Vec<usize>)| order.iter().map(|&i| line[i]).collect();
        let sorted: Vec<Vec<_>> = lines.iter().zip(&orders).map(pick).collect();
        let positions: Vec<Vec<_>> =
            orders.iter().map(|order| order.iter().map(|&i| Number::Int(i as i128)).collect()).collect();
        self.write_lines("sort", values, axis, &sorted)?;
        self.write_lines("sort", indices, axis, &positions)
    }

    fn random(&self, distribution: Distribution, seed: u64, offset: u64, out: TensorMut) -> Result<()> {
        let dtype = out.dtype;
        let float = matches!(distribution, Distribution::Uniform { .. } | Distribution::Normal { .. });
        if float && !dtype.is_float() {
            return Err(unsupported(self, "random", dtype));
        }
        let count = out.layout.shape().elements() as u64;
        let values = (0..count).map(|i| random::draw(distribution, dtype, seed, offset.wrapping_add(i)));
        self.write("random", out, values)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}
