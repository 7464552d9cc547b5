//! Elementwise operations over strided operands: a function of slices sees contiguous chunks, whatever the strides.
//!
//! Elements are untyped bytes of one size here, so that one engine serves every type; the function casts them.

use crate::ThreadPool;
use std::mem::MaybeUninit;

/// The most elements that a function is given at once.
pub const CHUNK: usize = 1024;
/// Bytes of the largest element.
const MAX_SIZE: usize = 8;
/// The most dimensions.
const MAX_DIMS: usize = 8;
/// The most operands, the result included.
const MAX_OPERANDS: usize = 4;
/// Below this many elements one thread is faster than telling the others.
const PARALLEL: usize = 32 << 10;

/// Elements to read: `size` bytes each, the first at element `offset`, strides in elements.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The storage.
    pub bytes: &'a [u8],
    /// Bytes of an element: 1, 2, 4 or 8.
    pub size: usize,
    /// The first element.
    pub offset: usize,
    /// For each dimension.
    pub strides: &'a [isize],
}

/// Elements to write, as [`Operand`].
#[derive(Debug)]
pub struct OperandMut<'a> {
    /// The storage.
    pub bytes: &'a mut [u8],
    /// Bytes of an element: 1, 2, 4 or 8.
    pub size: usize,
    /// The first element.
    pub offset: usize,
    /// For each dimension.
    pub strides: &'a [isize],
}

/// A function of chunks of equal element count: the inputs, then the result.
pub type Map<'f> = &'f (dyn Fn(&[&[u8]], &mut [u8]) + Sync);

/// `out = f(inputs)`, all with extents `dims`; `f` must write all of its result and is called on any thread in any order.
///
/// # Panics
/// When an operand leaves its bytes, or there are more than three inputs or eight dimensions.
pub fn map(threads: &ThreadPool, dims: &[usize], inputs: &[Operand], out: OperandMut, f: Map) {
    run(threads, dims, inputs, out, false, f);
}

/// As [`map`], but `f` finds the present elements in its result.
pub fn update(threads: &ThreadPool, dims: &[usize], inputs: &[Operand], out: OperandMut, f: Map) {
    run(threads, dims, inputs, out, true, f);
}

/// One operand of a plan, in bytes.
#[derive(Clone, Copy)]
struct Walk {
    base: *mut u8,
    size: usize,
    strides: [isize; MAX_DIMS],
}

/// The dimensions that are left when those that all operands walk alike are merged.
struct Plan {
    rank: usize,
    dims: [usize; MAX_DIMS],
    /// The inputs, then the result.
    walks: [Walk; MAX_OPERANDS],
    inputs: usize,
    /// Whether `f` reads the result.
    update: bool,
}

// SAFETY: the pointers are read by all threads; chunks of the result that are written at once are disjoint (see `run`).
unsafe impl Sync for Plan {}

fn run(threads: &ThreadPool, dims: &[usize], inputs: &[Operand], out: OperandMut, update: bool, f: Map) {
    assert!(dims.len() <= MAX_DIMS && inputs.len() < MAX_OPERANDS);
    if dims.contains(&0) {
        return;
    }
    let elements = dims.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    let elements = elements.unwrap_or_else(|| panic!("{dims:?} has more elements than can be counted"));
    let out_strides = out.strides;
    let plan = Plan::new(dims, inputs, out, update);
    // Its spans cannot wrap: the plan has checked that they lie in the operand.
    let disjoint = disjoint(dims, out_strides);
    // Chunks are whole short rows or parts of a long one.
    let len = plan.dims[plan.rank - 1];
    let rows = elements / len;
    let (group, parts) = if len >= CHUNK { (1, len.div_ceil(CHUNK)) } else { (CHUNK / len, 1) };
    let chunks = rows.div_ceil(group) * parts;
    let chunk = |i: usize| {
        let (row, start) = (i / parts * group, i % parts * CHUNK);
        plan.chunk(row, group.min(rows - row), start, CHUNK.min(len - start), f);
    };
    if elements < PARALLEL || !disjoint {
        return (0..chunks).for_each(chunk);
    }
    let tasks = chunks.min(threads.threads() * 4);
    threads.run(tasks, &|task| (chunks * task / tasks..chunks * (task + 1) / tasks).for_each(chunk));
}

/// Whether no two elements share a place, judged by extents and strides alone (false where that is not certain).
fn disjoint(dims: &[usize], strides: &[isize]) -> bool {
    let mut axes = [(0, 1); MAX_DIMS];
    for (axis, (&extent, &stride)) in axes.iter_mut().zip(dims.iter().zip(strides)) {
        *axis = (stride.unsigned_abs(), extent);
    }
    axes.sort_unstable();
    let mut span = 1;
    axes.into_iter().all(|(stride, extent)| {
        let free = extent == 1 || stride >= span;
        span += stride * (extent - 1);
        free
    })
}

impl Plan {
    fn new(dims: &[usize], inputs: &[Operand], out: OperandMut, update: bool) -> Plan {
        let result = Walk::new(out.bytes.as_mut_ptr(), out.bytes.len(), out.size, out.offset, dims, out.strides);
        let mut plan =
            Plan { rank: 0, dims: [1; MAX_DIMS], walks: [result; MAX_OPERANDS], inputs: inputs.len(), update };
        for (walk, x) in plan.walks.iter_mut().zip(inputs) {
            *walk = Walk::new(x.bytes.as_ptr().cast_mut(), x.bytes.len(), x.size, x.offset, dims, x.strides);
        }
        let walks = &mut plan.walks[..=inputs.len()];
        for axis in 0..dims.len() {
            if dims[axis] == 1 {
                continue;
            }
            let merges = plan.rank > 0
                && walks
                    .iter()
                    .all(|w| Some(w.strides[plan.rank - 1]) == w.strides[axis].checked_mul(dims[axis] as isize));
            let at = if merges { plan.rank - 1 } else { plan.rank };
            plan.dims[at] *= dims[axis];
            walks.iter_mut().for_each(|w| w.strides[at] = w.strides[axis]);
            plan.rank = at + 1;
        }
        if plan.rank == 0 {
            plan.rank = 1;
            walks.iter_mut().for_each(|w| w.strides[0] = w.size as isize);
        }
        plan
    }

    /// Bytes from the base of a walk to the first element of a row.
    fn row(&self, walk: &Walk, mut row: usize) -> isize {
        let mut at = 0;
        for axis in (0..self.rank - 1).rev() {
            at += walk.strides[axis] * (row % self.dims[axis]) as isize;
            row /= self.dims[axis];
        }
        at
    }

    /// Elements `start..start + len` of `rows` rows (all of the row unless there is one).
    fn chunk(&self, row: usize, rows: usize, start: usize, len: usize, f: Map) {
        let mut buffers = [const { Buffer([MaybeUninit::uninit(); CHUNK * MAX_SIZE]) }; MAX_OPERANDS];
        let (inner, count) = (self.rank - 1, rows * len);
        let (read, write) = buffers.split_at_mut(self.inputs);
        let place = |walk: &Walk, row: usize| {
            // SAFETY: `Walk::new` has checked that every element lies inside the bytes.
            unsafe { walk.base.offset(self.row(walk, row) + walk.strides[inner] * start as isize) }
        };
        let direct = |walk: &Walk| rows == 1 && (walk.strides[inner] == walk.size as isize || len == 1);
        let mut slices: [&[u8]; MAX_OPERANDS] = [&[]; MAX_OPERANDS];
        for ((walk, buffer), slice) in self.walks.iter().zip(read).zip(&mut slices) {
            *slice = if direct(walk) {
                // SAFETY: `count` elements without gaps, inside the operand's bytes, which nobody writes meanwhile.
                unsafe { std::slice::from_raw_parts(place(walk, row), count * walk.size) }
            } else {
                for r in 0..rows {
                    buffer.gather(r * len, place(walk, row + r), walk.strides[inner], walk.size, len);
                }
                buffer.filled(count * walk.size)
            };
        }
        let (walk, buffer) = (&self.walks[self.inputs], &mut write[0]);
        if direct(walk) {
            // SAFETY: as above; the result is borrowed exclusively and no other chunk holds these elements.
            let out = unsafe { std::slice::from_raw_parts_mut(place(walk, row), count * walk.size) };
            return f(&slices[..self.inputs], out);
        }
        if self.update {
            for r in 0..rows {
                buffer.gather(r * len, place(walk, row + r), walk.strides[inner], walk.size, len);
            }
        } else {
            buffer.0[..count * walk.size].fill(MaybeUninit::new(0));
        }
        f(&slices[..self.inputs], buffer.filled_mut(count * walk.size));
        for r in 0..rows {
            buffer.scatter(r * len, place(walk, row + r), walk.strides[inner], walk.size, len);
        }
    }
}

impl Walk {
    fn new(base: *mut u8, bytes: usize, size: usize, offset: usize, dims: &[usize], strides: &[isize]) -> Walk {
        assert!(matches!(size, 1 | 2 | 4 | 8), "elements of {size} bytes");
        assert_eq!(dims.len(), strides.len(), "a stride for each dimension");
        let inside = isize::try_from(offset).ok().and_then(|offset| {
            let (mut first, mut last) = (offset, offset);
            for (&extent, &stride) in dims.iter().zip(strides) {
                let span = stride.checked_mul(isize::try_from(extent - 1).ok()?)?;
                (first, last) = (first.checked_add(span.min(0))?, last.checked_add(span.max(0))?);
            }
            Some(first >= 0 && (last as usize) < bytes / size)
        });
        assert!(
            inside == Some(true),
            "elements from {offset} on with extents {dims:?} and strides {strides:?} leave {bytes} bytes"
        );
        let mut in_bytes = [0; MAX_DIMS];
        // The stride of a dimension of one element may be anything; it is not walked.
        in_bytes.iter_mut().zip(strides).for_each(|(b, s)| *b = s.wrapping_mul(size as isize));
        // SAFETY: the first element lies inside the bytes.
        Walk { base: unsafe { base.add(offset * size) }, size, strides: in_bytes }
    }
}

/// A chunk of elements, aligned for every type.
#[repr(align(64))]
struct Buffer([MaybeUninit<u8>; CHUNK * MAX_SIZE]);

impl Buffer {
    /// The first `bytes` bytes, which have been written.
    fn filled(&self, bytes: usize) -> &[u8] {
        // SAFETY: the callers have gathered as many.
        unsafe { self.0[..bytes].assume_init_ref() }
    }

    fn filled_mut(&mut self, bytes: usize) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { self.0[..bytes].assume_init_mut() }
    }

    /// Elements `at..at + len` from memory at a byte stride.
    fn gather(&mut self, at: usize, from: *const u8, stride: isize, size: usize, len: usize) {
        let to = self.0[at * size..(at + len) * size].as_mut_ptr().cast();
        transfer(from, stride, to, size as isize, size, len);
    }

    /// Elements `at..at + len` to memory at a byte stride.
    fn scatter(&self, at: usize, to: *mut u8, stride: isize, size: usize, len: usize) {
        let from = self.0[at * size..(at + len) * size].as_ptr().cast();
        transfer(from, size as isize, to, stride, size, len);
    }
}

/// Moves `len` elements from one stride to another. The callers' plans have checked both sides.
fn transfer(from: *const u8, from_stride: isize, to: *mut u8, to_stride: isize, size: usize, len: usize) {
    fn each<T: Copy>(from: *const u8, from_stride: isize, to: *mut u8, to_stride: isize, len: usize) {
        for i in 0..len as isize {
            // SAFETY: element i of both sides, by the caller's plan; a storage may leave elements unaligned.
            unsafe {
                let value = from.offset(from_stride * i).cast::<T>().read_unaligned();
                to.offset(to_stride * i).cast::<T>().write_unaligned(value);
            }
        }
    }
    if from_stride == size as isize && to_stride == from_stride {
        // SAFETY: both sides are without gaps; one of them is a buffer of ours, so they do not overlap.
        return unsafe { std::ptr::copy_nonoverlapping(from, to, len * size) };
    }
    match size {
        1 => each::<u8>(from, from_stride, to, to_stride, len),
        2 => each::<u16>(from, from_stride, to, to_stride, len),
        4 => each::<u32>(from, from_stride, to, to_stride, len),
        _ => each::<u64>(from, from_stride, to, to_stride, len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `out[i] = a[i] + 2 b[i]` on bytes, by the definition.
    fn naive(dims: &[usize], a: (&[u8], usize, &[isize]), b: (&[u8], usize, &[isize])) -> Vec<u8> {
        let count: usize = dims.iter().product();
        let at = |mut i: usize, (x, offset, strides): (&[u8], usize, &[isize])| {
            let mut place = offset as isize;
            for axis in (0..dims.len()).rev() {
                place += strides[axis] * (i % dims[axis]) as isize;
                i /= dims[axis];
            }
            x[place as usize]
        };
        (0..count).map(|i| at(i, a).wrapping_add(at(i, b).wrapping_mul(2))).collect()
    }

    #[test]
    fn any_strides_give_what_the_definition_gives() {
        let threads = ThreadPool::new(3);
        let a: Vec<u8> = (0..200_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let b: Vec<u8> = (0..200_000u32).map(|i| (i * 13 % 241) as u8).collect();
        // Extents, then offset and strides of each operand.
        type Case = (&'static [usize], usize, &'static [isize], usize, &'static [isize]);
        let cases: [Case; 8] = [
            (&[], 5, &[], 9, &[]),
            (&[7], 6, &[-1], 0, &[0]),
            (&[3, 5], 0, &[1, 3], 2, &[5, 1]),
            (&[3, 0, 2], 0, &[1, 3, 1], 2, &[5, 1, 1]),
            (&[100, 1, 1000], 0, &[1000, 7, 1], 0, &[1, 0, 100]),
            (&[40_000, 3], 2, &[3, -1], 0, &[0, 1]),
            (&[5, 3000], 3, &[3000, 1], 1, &[0, 2]),
            (&[2, 3, 4, 5, 6], 0, &[1, 2, 6, 24, 120], 719, &[-360, -120, -30, -6, -1]),
        ];
        for (dims, a_offset, a_strides, b_offset, b_strides) in cases {
            let inputs = [
                Operand { bytes: &a, size: 1, offset: a_offset, strides: a_strides },
                Operand { bytes: &b, size: 1, offset: b_offset, strides: b_strides },
            ];
            let expected = naive(dims, (&a, a_offset, a_strides), (&b, b_offset, b_strides));
            let count = expected.len();
            let mut strides = vec![1isize; dims.len()];
            (0..dims.len().saturating_sub(1)).rev().for_each(|d| strides[d] = strides[d + 1] * dims[d + 1] as isize);
            // The result in order, and every other element of a longer one.
            for step in [1, 2] {
                let mut out = vec![0u8; count * step];
                let strides: Vec<isize> = strides.iter().map(|s| s * step as isize).collect();
                let f = |x: &[&[u8]], out: &mut [u8]| {
                    (0..out.len()).for_each(|i| out[i] = x[0][i].wrapping_add(x[1][i].wrapping_mul(2)));
                };
                let target = OperandMut { bytes: &mut out, size: 1, offset: 0, strides: &strides };
                map(&threads, dims, &inputs, target, &f);
                assert!(out.iter().step_by(step).eq(&expected), "{dims:?} step {step}");
                let target = OperandMut { bytes: &mut out, size: 1, offset: 0, strides: &strides };
                let add =
                    |x: &[&[u8]], out: &mut [u8]| (0..out.len()).for_each(|i| out[i] = out[i].wrapping_add(x[0][i]));
                update(&threads, dims, &inputs[..1], target, &add);
                let again = naive(dims, (&a, a_offset, a_strides), (&a, a_offset, &vec![0; dims.len()]));
                let constant = a[a_offset].wrapping_mul(2);
                let sums = expected.iter().zip(&again).map(|(e, a)| e.wrapping_add(a.wrapping_sub(constant)));
                assert!(out.iter().step_by(step).copied().eq(sums), "update of {dims:?} step {step}");
            }
        }
    }

    #[test]
    fn a_result_whose_elements_share_a_place_is_written_by_one_thread() {
        assert!(disjoint(&[4, 3], &[3, 1]) && disjoint(&[3, 4], &[-1, 3]) && disjoint(&[1, 5], &[0, 2]));
        assert!(!disjoint(&[4, 3], &[0, 1]) && !disjoint(&[4, 3], &[1, 1]));
    }

    #[test]
    #[should_panic(expected = "leave 6 bytes")]
    fn an_operand_that_leaves_its_bytes_is_refused() {
        let mut out = [0u8; 6];
        let target = OperandMut { bytes: &mut out, size: 1, offset: 0, strides: &[3, 2] };
        map(&ThreadPool::new(1), &[3, 1], &[], target, &|_, out| out.fill(1));
    }
}
