//! An index resolved for a tensor: a view, and the columns of positions that index tensors select in it.

use super::Index;
use crate::ops::broadcast_shapes;
use crate::{BitNetDType, BitNetError, BitNetTensor, Layout, MAX_DIMS, Result, TensorOpError, TensorShape};

pub(super) struct Plan {
    /// The view by positions, slices and new axes, with the dimensions of `columns` side by side from `start` on.
    pub layout: Layout,
    /// First dimension of the columns.
    pub start: usize,
    /// Shape that the index tensors broadcast to; `[]` without them.
    pub shape: TensorShape,
    /// For each dimension indexed by a tensor, its positions in row-major order of `shape`.
    pub columns: Vec<Vec<i64>>,
}

/// The dimension of the view that a tensor indexes, its positions (checked, not negative) and its shape.
struct Column {
    axis: usize,
    places: Vec<i64>,
    shape: TensorShape,
}

impl Plan {
    pub fn new(op: &'static str, x: &BitNetTensor, indices: &[Index]) -> Result<Self> {
        let error = |message: String| BitNetError::from(TensorOpError::Argument { op, message });
        let is_mask = |t: &BitNetTensor| t.dtype() == BitNetDType::Bool;
        let taken = |index: &Index| match index {
            Index::Ellipsis | Index::NewAxis => 0,
            Index::Tensor(t) if is_mask(t) => t.rank(),
            _ => 1,
        };
        let named: usize = indices.iter().map(taken).sum();
        let left = x.rank().checked_sub(named);
        let left =
            left.ok_or_else(|| error(format!("{named} indices for the {} dimensions of {}", x.rank(), x.shape())))?;
        if indices.iter().filter(|index| matches!(index, Index::Ellipsis)).count() > 1 {
            return Err(error("more than one Ellipsis: the dimensions of each are ambiguous".into()));
        }
        let is_place = |t: &BitNetTensor| !is_mask(t) && t.rank() == 0;
        // Places first, from the last dimension on: a new axis may take the one that is free then.
        let mut layout = *x.layout();
        let mut named_at = [(0, 0); MAX_DIMS];
        let mut count = 0;
        let mut source = 0;
        for index in indices {
            let place = match *index {
                Index::At(at) => Some(wrap(op, at as i64, x, source)?),
                Index::Tensor(t) if is_place(t) => {
                    x.same_device(op, t)?;
                    Some(places(op, t, x, source)?[0])
                }
                _ => None,
            };
            if let Some(place) = place {
                named_at[count] = (source, place);
                count += 1;
            }
            source += if matches!(index, Index::Ellipsis) { left } else { taken(index) };
        }
        for &(axis, place) in named_at[..count].iter().rev() {
            layout = layout.select(axis, place as usize)?;
        }
        let mut columns: Vec<Column> = Vec::new();
        // Dimension of the view that the next index applies to, and the same of `x`.
        let (mut axis, mut source) = (0, 0);
        for index in indices {
            match *index {
                Index::At(_) => {}
                Index::Slice(slice) => {
                    layout = layout.slice(axis, slice.start, slice.end, slice.step)?;
                    axis += 1;
                }
                Index::Ellipsis => {
                    axis += left;
                    source += left;
                }
                Index::NewAxis => {
                    layout = layout.unsqueeze(axis)?;
                    axis += 1;
                }
                Index::Tensor(t) if is_place(t) => {}
                Index::Tensor(t) => {
                    x.same_device(op, t)?;
                    if is_mask(t) && t.rank() == 0 {
                        layout = layout.unsqueeze(axis)?;
                        columns.extend(mask_columns(t.reshape(&[1])?, axis)?);
                        axis += 1;
                    } else if is_mask(t) {
                        if t.dims() != &x.dims()[source..source + t.rank()] {
                            let needed = format!("that of dimensions {source} and up of {}", x.shape());
                            let got = *t.shape();
                            return Err(TensorOpError::Shape { op, what: "mask", got, needed }.into());
                        }
                        columns.extend(mask_columns((*t).clone(), axis)?);
                        axis += t.rank();
                    } else {
                        columns.push(Column { axis, places: places(op, t, x, source)?, shape: *t.shape() });
                        axis += 1;
                    }
                }
            }
            source += taken(index);
        }
        Self::arranged(op, layout, columns)
    }

    /// Puts the dimensions of the columns side by side, and broadcasts the columns.
    fn arranged(op: &'static str, layout: Layout, columns: Vec<Column>) -> Result<Self> {
        let mut shape = TensorShape::new(&[])?;
        for column in &columns {
            shape = broadcast_shapes(op, &shape, &column.shape)?;
        }
        let adjacent = columns.windows(2).all(|pair| pair[0].axis + 1 == pair[1].axis);
        let start = if adjacent { columns.first().map_or(0, |column| column.axis) } else { 0 };
        let mut order: Vec<usize> = (0..layout.dims().len()).collect();
        if !adjacent {
            order.retain(|&axis| columns.iter().all(|column| column.axis != axis));
            order.splice(0..0, columns.iter().map(|column| column.axis));
        }
        let expand = |column: Column| -> Result<Vec<i64>> {
            let from = Layout::contiguous(column.shape).broadcast_to(shape.dims())?;
            Ok(from.indices().map(|i| column.places[i]).collect())
        };
        let layout = layout.permute(&order)?;
        Ok(Self { layout, start, shape, columns: columns.into_iter().map(expand).collect::<Result<_>>()? })
    }

    /// Shape of the result.
    pub fn result(&self) -> Result<TensorShape> {
        let dims = self.layout.dims();
        TensorShape::new(&[&dims[..self.start], self.shape.dims(), &dims[self.start + self.columns.len()..]].concat())
    }

    /// The view with the dimensions of the columns merged; an error where strides cannot express it.
    pub fn merged(&self) -> Result<Layout> {
        let (dims, end) = (self.layout.dims(), self.start + self.columns.len());
        let one = dims[self.start..end].iter().product();
        self.layout.reshape(&[&dims[..self.start], &[one], &dims[end..]].concat())
    }

    /// Positions in the merged dimension of [`Plan::merged`].
    pub fn rows(&self) -> Vec<i64> {
        let mut rows = vec![0; self.shape.elements()];
        for (column, &extent) in self.columns.iter().zip(&self.layout.dims()[self.start..]) {
            for (row, &place) in rows.iter_mut().zip(column) {
                *row = *row * extent as i64 + place;
            }
        }
        rows
    }

    /// Storage index of every element of the result, whose shape is `result`.
    pub fn places(&self, result: &TensorShape) -> Result<Vec<i64>> {
        let (strides, end) = (self.layout.strides(), self.start + self.columns.len());
        let around: Vec<isize> = [&strides[..self.start], &vec![0; self.shape.rank()], &strides[end..]].concat();
        // Storage indices for index 0, and the row of the columns for each.
        let origin = Layout::strided(result.dims(), &around, self.layout.offset())?;
        let mut own = vec![0; result.rank()];
        let numbers = Layout::contiguous(self.shape);
        own[self.start..self.start + self.shape.rank()].copy_from_slice(numbers.strides());
        let numbers = Layout::strided(result.dims(), &own, 0)?;
        let steps = &strides[self.start..end];
        let jump = |row: usize| self.columns.iter().zip(steps).map(|(c, &step)| c[row] * step as i64).sum::<i64>();
        Ok(origin.indices().zip(numbers.indices()).map(|(place, row)| place as i64 + jump(row)).collect())
    }
}

/// The position of index `at` in dimension `axis` of `x`.
fn wrap(op: &'static str, at: i64, x: &BitNetTensor, axis: usize) -> Result<i64> {
    let extent = x.dims()[axis] as i64;
    let place = if at < 0 { at.saturating_add(extent) } else { at };
    if !(0..extent).contains(&place) {
        return Err(TensorOpError::IndexOutOfRange { op, index: at, axis, shape: *x.shape() }.into());
    }
    Ok(place)
}

fn places(op: &'static str, t: &BitNetTensor, x: &BitNetTensor, axis: usize) -> Result<Vec<i64>> {
    // On the host, where negative ones of any dtype stay negative.
    let t = t.to_cpu()?.as_indices(op)?;
    let given: Vec<i64> = match t.dtype() {
        BitNetDType::U32 => t.to_vec::<u32>()?.into_iter().map(i64::from).collect(),
        _ => t.to_vec()?,
    };
    given.into_iter().map(|at| wrap(op, at, x, axis)).collect()
}

/// A column for each dimension of `mask`: where it is true.
fn mask_columns(mask: BitNetTensor, axis: usize) -> Result<Vec<Column>> {
    let rank = mask.rank();
    let positions = mask.to_cpu()?.nonzero()?.to_vec::<i64>()?;
    let count = positions.len() / rank;
    let shape = TensorShape::new(&[count])?;
    let column = |d: usize| Column {
        axis: axis + d,
        places: positions[d.min(positions.len())..].iter().step_by(rank).copied().collect(),
        shape,
    };
    Ok((0..rank).map(column).collect())
}
