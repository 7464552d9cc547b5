//! The primitives, each implemented by its definition.

use super::number::Number;
use super::{Bytes, ReferenceBackend, elementwise, elsewhere, random, reduce};
use bitnet_core::BitNetDType::Bool;
use bitnet_core::backend::*;
use bitnet_core::{Backend, Layout, Result, TensorOpError, TensorStorage};

impl ReferenceBackend {
    /// For every index in row-major order, the place in row-major order of `table` of the element with the same coordinates but
    /// the index along `axis`.
    fn places(&self, op: &'static str, indices: &TensorRef, axis: usize, table: &Layout) -> Result<Vec<usize>> {
        let (small, large) = (indices.layout.dims(), table.dims());
        let place = |(i, value): (usize, Number)| {
            let index = value.int() as i64;
            let (mut rest, mut place, mut step) = (i, 0, 1);
            for d in (0..small.len()).rev() {
                let coordinate = if d == axis { index as usize } else { rest % small[d] };
                rest /= small[d];
                place = coordinate.wrapping_mul(step).wrapping_add(place);
                step *= large[d];
            }
            let inside = usize::try_from(index).is_ok_and(|index| index < large[axis]);
            let outside = || TensorOpError::IndexOutOfRange { op, index, axis, shape: *table.shape() }.into();
            inside.then_some(place).ok_or_else(outside)
        };
        self.read(op, indices)?.into_iter().enumerate().map(place).collect()
    }

    fn matmul(&self, a: &TensorRef, b: &TensorRef, out: TensorMut) -> Result<()> {
        let (&[.., m, k], &[.., n]) = (a.layout.dims(), b.layout.dims()) else { return Err(elsewhere("matmul")) };
        if a.dtype == Bool {
            return Err(unsupported(self, "matmul", Bool));
        }
        let (left, right) = (self.read("matmul", a)?, self.read("matmul", b)?);
        let product = |i: usize| {
            let (batch, row, column) = (i / (m * n), i / n % m, i % n);
            let row = left[(batch * m + row) * k..][..k].iter().copied();
            let column = (0..k).map(|j| right[(batch * k + j) * n + column]);
            reduce::dot(row, column, a.dtype.is_float())
        };
        let count = out.layout.shape().elements();
        self.put("matmul", out, (0..count).map(product))
    }
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

    fn write(&self, target: &mut TensorStorage, offset: usize, bytes: &[u8]) -> Result<()> {
        let all = self.bytes_mut("write", target)?;
        let part = all.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
        part.ok_or_else(|| elsewhere("write beyond the end"))?.copy_from_slice(bytes);
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn run(&self, op: &Op, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()> {
        let name = op.name();
        match (*op, inputs, &mut *outputs) {
            (Op::Copy | Op::Cast, [x], [out]) => self.put(name, out.reborrow(), self.read(name, x)?),
            (Op::Unary(f), [x], [out]) => {
                let f = elementwise::unary(f, x.dtype).ok_or_else(|| unsupported(self, name, x.dtype))?;
                self.put(name, out.reborrow(), self.read(name, x)?.into_iter().map(f))
            }
            (Op::Binary(f), [a, b], [out]) => {
                let dtype = out.dtype;
                let by_zero = |_| TensorOpError::DivisionByZero {
                    op: if f == BinaryOp::FloorDiv { "floor_div" } else { "remainder" },
                };
                let f = elementwise::binary(f, dtype).ok_or_else(|| unsupported(self, name, dtype))?;
                let pairs = self.read(name, a)?.into_iter().zip(self.read(name, b)?);
                let values: Result<Vec<_>, _> = pairs.map(|(x, y)| f(x, y, dtype)).collect();
                self.put(name, out.reborrow(), values.map_err(by_zero)?)
            }
            (Op::Compare(f), [a, b], [out]) => {
                let pairs = self.read(name, a)?.into_iter().zip(self.read(name, b)?);
                let values = pairs.map(|(a, b)| Number::Int(elementwise::compare(f, a, b).into()));
                self.put(name, out.reborrow(), values)
            }
            (Op::Select, [condition, a, b], [out]) => {
                let choices = self.read(name, a)?.into_iter().zip(self.read(name, b)?);
                let values = self.read(name, condition)?.into_iter().zip(choices);
                self.put(name, out.reborrow(), values.map(|(c, (a, b))| if c.is_zero() { b } else { a }))
            }
            (Op::Reduce { op, axis }, [x], [out]) => {
                let one = |line: &Vec<Number>| vec![reduce::reduce(op, line).expect("checked: not empty")];
                let lines: Vec<_> = self.lines(name, x, axis)?.iter().map(one).collect();
                self.write_lines(name, out.reborrow(), axis, &lines)
            }
            (Op::Scan { op, axis }, [x], [out]) => {
                let lines: Vec<_> = self.lines(name, x, axis)?.iter().map(|line| reduce::scan(op, line)).collect();
                self.write_lines(name, out.reborrow(), axis, &lines)
            }
            (Op::Matmul, [a, b], [out]) => self.matmul(a, b, out.reborrow()),
            (Op::Gather { axis }, [source, indices], [out]) => {
                let places = self.places(name, indices, axis, &source.layout)?;
                let values = self.read(name, source)?;
                self.put(name, out.reborrow(), places.into_iter().map(|place| values[place]))
            }
            (Op::Scatter { op, axis }, [source, indices], [out]) => {
                let places = self.places(name, indices, axis, &out.layout)?;
                let dtype = out.dtype;
                let mut values = self.read(name, &out.as_ref())?;
                for (place, new) in places.into_iter().zip(self.read(name, source)?) {
                    values[place] = match op {
                        ScatterOp::Assign => new,
                        ScatterOp::Add => reduce::added(dtype, values[place], new),
                    };
                }
                self.put(name, out.reborrow(), values)
            }
            (Op::Sort { axis, descending }, [x], [values, indices]) => {
                let lines = self.lines(name, x, axis)?;
                let orders: Vec<_> = lines.iter().map(|line| reduce::order(line, descending)).collect();
                let pick = |(line, order): (&Vec<Number>, &Vec<usize>)| order.iter().map(|&i| line[i]).collect();
                let sorted: Vec<Vec<_>> = lines.iter().zip(&orders).map(pick).collect();
                let number = |order: &Vec<usize>| order.iter().map(|&i| Number::Int(i as i128)).collect();
                let positions: Vec<Vec<_>> = orders.iter().map(number).collect();
                self.write_lines(name, values.reborrow(), axis, &sorted)?;
                self.write_lines(name, indices.reborrow(), axis, &positions)
            }
            (Op::Random { distribution, skip }, [state], [out]) => {
                let dtype = out.dtype;
                let float = matches!(distribution, Distribution::Uniform { .. } | Distribution::Normal { .. });
                if float && !dtype.is_float() {
                    return Err(unsupported(self, name, dtype));
                }
                let state: Vec<u64> = self.read(name, state)?.into_iter().map(|word| word.int() as u64).collect();
                let (seed, offset) = (state[0] | state[1] << 32, (state[2] | state[3] << 32).wrapping_add(skip));
                let count = out.layout.shape().elements() as u64;
                let values = (0..count).map(|i| random::draw(distribution, dtype, seed, offset.wrapping_add(i)));
                self.put(name, out.reborrow(), values)
            }
            _ => op.compose(self, inputs, outputs),
        }
    }
}
