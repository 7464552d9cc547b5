//! Blocking and threading of a product: blocks that fit the caches are packed by all threads, then multiplied by all.

use super::pack::{Side, panel};
use super::product::{MAX_TILE, Output, Panels, Product, Sum};
use super::{Job, MatmulShape, Matrix, Target, scratch, vector};
use std::mem::MaybeUninit;

/// Words of depth of a block, so that a panel of `b` stays in the first cache.
const DEPTH: usize = 256;
/// Words of depth that are packed at once where results are rounded, which must happen once.
const ROUNDED_DEPTH: usize = 2048;
/// Words of a block of `b` that all threads share (8 MiB of 4 bytes), and of `a`.
const SHARED: usize = 2 << 20;
/// Rows of `a` that a task takes, in whole tiles of at most 12: together they stay in the second cache.
const TASK_ROWS: usize = 96;
/// Sums that a task keeps: its rows of one panel.
const MAX_SUMS: usize = 32 * TASK_ROWS;
/// Multiply-adds below which another thread costs more than it brings.
const SMALL: usize = 1 << 17;
/// Tiles that a word is read for, up to which a copy of it costs more than it brings.
const FEW_TILES: usize = 8;
/// Words that the second cache holds however they lie.
const NEAR: usize = 1 << 16;

/// Pointers into scratch memory, shared by tasks that write disjoint parts of it.
struct Shared<T>(*mut T);
// SAFETY: tasks of one run write disjoint panels, and read them in the next run only.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

/// `out = a b`.
pub(super) fn run<P: Product, O: Output<P::Acc>>(p: P, job: Job<P::In, O>) {
    let Job { shape: MatmulShape { m, n, k }, a, b, out, .. } = job;
    if m == 0 || n == 0 {
        return;
    }
    if n == 1 || m > 1 && out.col_stride != 1 && out.row_stride == 1 {
        // Results that are neighbours in a column: the transposed product.
        let shape = MatmulShape { m: n, n: m, k };
        return run_rows(p, Job { shape, a: b.t(), b: a.t(), out: out.t(), ..job });
    }
    run_rows(p, job);
}

fn run_rows<P: Product, O: Output<P::Acc>>(p: P, job: Job<P::In, O>) {
    let Job { pool, shape: MatmulShape { m, n, k }, a, b, out } = job;
    let depth = k.div_ceil(P::GROUP);
    if m == 1 && vector::run(p, &job) {
        return;
    }
    if O::SAME || depth <= ROUNDED_DEPTH {
        return blocked(p, job);
    }
    // Sums of several blocks of k are kept whole until all are there; as many rows at once as the scratch holds.
    let rows = (SHARED / n).clamp(1, m);
    let mut sums = vec![P::Acc::default(); rows * n];
    for first in (0..m).step_by(rows) {
        let rows = rows.min(m - first);
        let part = Target { data: sums.as_mut_ptr(), row_stride: n as isize, col_stride: 1 };
        let a = Matrix { start: a.start.wrapping_add_signed(a.row_stride * first as isize), ..a };
        blocked(p, Job { pool, shape: MatmulShape { m: rows, n, k }, a, b, out: part });
        let sums = &sums;
        pool.run(rows, &|i| {
            for (j, &sum) in sums[i * n..][..n].iter().enumerate() {
                // SAFETY: an element of out, whose row is this task's.
                unsafe { out.at(first + i, j).write(O::rounded(sum)) };
            }
        });
    }
}

/// Rows of the tile at `row` of a block of `rows`.
fn height<P: Product>(rows: usize, row: usize) -> usize {
    (rows - row).next_multiple_of(4).min(P::ROWS)
}

fn blocked<P: Product, O: Output<P::Acc>>(p: P, job: Job<P::In, O>) {
    let Job { pool, shape, a, b, out } = job;
    let MatmulShape { m, n, k } = shape;
    let depth = k.div_ceil(P::GROUP);
    let block_depth = if O::SAME { depth.div_ceil(depth.div_ceil(DEPTH).max(1)).max(1) } else { depth.max(1) };
    let block_rows = m.next_multiple_of(4).min((SHARED / block_depth / P::ROWS).max(1) * P::ROWS);
    let block_columns = n.next_multiple_of(P::COLUMNS).min((SHARED / block_depth / P::COLUMNS).max(1) * P::COLUMNS);
    let small = m * n * k.max(1) < SMALL;
    let (left, right) = (direct_left::<P>(shape, &a), direct_right::<P>(shape, &b));
    let b = b.t();
    // a: [row / ROWS, depth, ROWS], b: [column / COLUMNS, depth, COLUMNS], bias: [columns]
    let word = size_of::<P::Word>();
    let bytes_a = if left.is_some() { 0 } else { (block_rows * block_depth * word).next_multiple_of(64) };
    let bytes_b = if right.is_some() { 0 } else { block_columns * block_depth * word };
    let bytes = bytes_a + bytes_b.next_multiple_of(64) + block_columns * size_of::<P::Acc>();
    scratch::with(bytes, |memory| {
        let packed_a = Shared(memory.cast::<P::Word>());
        let packed_b = Shared(memory.wrapping_add(bytes_a).cast::<P::Word>());
        let bias = Shared(memory.wrapping_add(bytes_a + bytes_b.next_multiple_of(64)).cast::<P::Acc>());
        for column in (0..n).step_by(block_columns) {
            let columns = block_columns.min(n - column);
            for from in (0..k.max(1)).step_by(block_depth * P::GROUP) {
                let end = k.min(from + block_depth * P::GROUP);
                let words = (end - from).div_ceil(P::GROUP);
                for row in (0..m).step_by(block_rows) {
                    let rows = block_rows.min(m - row);
                    let (panels_a, panels_b) = (rows.div_ceil(P::ROWS), columns.div_ceil(P::COLUMNS));
                    // Every task packs a part of both.
                    let (to_pack_a, to_pack_b) = (left.map_or(panels_a, |_| 0), right.map_or(panels_b, |_| 0));
                    let tasks = if small { 1 } else { (4 * pool.threads()).min(to_pack_a.max(to_pack_b)) };
                    let share = |panels: usize, task: usize| panels * task / tasks..panels * (task + 1) / tasks;
                    pool.run(tasks, &|task| {
                        p.enter(
                            #[inline(always)]
                            || {
                                for i in share(to_pack_a, task) {
                                    let lane = i * P::ROWS;
                                    let lanes = (lane + row, P::ROWS.min(rows - lane), height::<P>(rows, lane));
                                    // SAFETY: the panel's part of the scratch, which no other task has.
                                    unsafe { panel(p, Side::A, &a, lanes, (from, end), packed_a.at(lane * words)) };
                                }
                                if row > 0 {
                                    return; // the same as for the rows before
                                }
                                for j in share(to_pack_b, task) {
                                    let lane = j * P::COLUMNS;
                                    let lanes = (lane + column, P::COLUMNS.min(columns - lane), P::COLUMNS);
                                    let to = packed_b.at(lane * words);
                                    // SAFETY: as above.
                                    unsafe {
                                        panel(p, Side::B, &b, lanes, (from, end), to);
                                        biases(p, words, to, bias.at(lane));
                                    }
                                }
                            },
                        );
                    });
                    let task_rows = (TASK_ROWS / P::ROWS).max(1) * P::ROWS;
                    let task_rows = task_rows.min(rows.div_ceil(pool.threads()).next_multiple_of(P::ROWS));
                    let row_tasks = rows.div_ceil(task_rows);
                    // Few rows: the columns are divided too.
                    let split = (4 * pool.threads()).div_ceil(row_tasks).min(panels_b);
                    let split = if small || pool.threads() == 1 { 1 } else { split };
                    let tasks = row_tasks * split;
                    let at_once = if small { tasks } else { 1 };
                    pool.run(tasks / at_once, &|task| {
                        (task..task + at_once).for_each(|task| {
                            let first = task / split * task_rows;
                            let block = Block {
                                a: match left {
                                    Some(strides) => Left::Direct(a.at(row, from).cast(), strides),
                                    None => Left::Packed(packed_a.at(0)),
                                },
                                b: match right {
                                    Some(stride) => (b.at(column, from).cast(), P::COLUMNS as isize, stride),
                                    None => (
                                        packed_b.at(0).cast_const(),
                                        (words * P::COLUMNS) as isize,
                                        P::COLUMNS as isize,
                                    ),
                                },
                                bias: bias.at(0),
                                rows: first..rows.min(first + task_rows),
                                panels: panels_b * (task % split) / split..panels_b * (task % split + 1) / split,
                                words,
                                total_rows: rows,
                                columns,
                                accumulate: from > 0,
                            };
                            let out = Target { data: out.at(row, column), ..out };
                            p.enter(
                                #[inline(always)]
                                || {
                                    // SAFETY: packed above; the block's part of out is this task's.
                                    unsafe {
                                        match block.a {
                                            Left::Direct(..) if P::PLAIN && !P::BIASED => {
                                                multiply::<P, O, true>(p, &block, out)
                                            }
                                            _ => multiply::<P, O, false>(p, &block, out),
                                        }
                                    }
                                },
                            );
                        })
                    });
                }
            }
        }
    });
}

/// First sums of the columns of a packed panel of `b`.
///
/// # Safety
/// `words * COLUMNS` packed words, room for `COLUMNS` sums.
#[inline(always)]
unsafe fn biases<P: Product>(p: P, words: usize, packed: *const P::Word, bias: *mut P::Acc) {
    if !P::BIASED {
        return;
    }
    // Words of zeros add what is to be taken off.
    let zeros = p.splat(p.signed(P::Word::default()));
    for v in (0..P::COLUMNS).step_by(P::LANES) {
        let mut sums = p.zero();
        // SAFETY: the caller's promise.
        unsafe {
            for depth in 0..words {
                sums = p.multiply_add(zeros, p.words(packed.add(depth * P::COLUMNS + v)), sums);
            }
            p.store(sums, bias.add(v));
            for sum in std::slice::from_raw_parts_mut(bias.add(v), P::LANES) {
                *sum = P::Acc::default().minus(*sum);
            }
        }
    }
}

/// The strides, in words, of rows and of depth of an `a` that is read where it lies: its words are packed ones, and few
/// tiles read each.
fn direct_left<P: Product>(shape: MatmulShape, a: &Matrix<P::In>) -> Option<[isize; 2]> {
    let MatmulShape { m, n, k } = shape;
    let group = P::GROUP as isize;
    let words = P::PLAIN
        && !P::BIASED
        && (P::GROUP == 1 || a.col_stride == 1 && a.row_stride % group == 0 && k.is_multiple_of(P::GROUP));
    let pays = n <= FEW_TILES * P::COLUMNS && (a.col_stride == 1 || m * k <= NEAR);
    (words && pays && m.is_multiple_of(4))
        .then_some([a.row_stride / group, if P::GROUP == 1 { a.col_stride } else { 1 }])
}

/// The stride of depth of a `b` of whole panels that is read where it lies.
fn direct_right<P: Product>(shape: MatmulShape, b: &Matrix<P::In>) -> Option<isize> {
    let MatmulShape { m, n, k } = shape;
    let words = P::PLAIN && P::GROUP == 1 && b.col_stride == 1 && n.is_multiple_of(P::COLUMNS);
    (words && m <= FEW_TILES * P::ROWS && k * n <= NEAR).then_some(b.row_stride)
}

/// Rows of `a` of a block.
#[derive(Clone, Copy)]
enum Left<W> {
    /// Panels of all of its rows and its depth.
    Packed(*const W),
    /// The word of the first row at the first depth, and the strides of rows and of depth.
    Direct(*const W, [isize; 2]),
}

/// What a task multiplies.
struct Block<P: Product> {
    a: Left<P::Word>,
    /// The first panel of `b`, words from a panel to the next and from a depth to the next.
    b: (*const P::Word, isize, isize),
    bias: *const P::Acc,
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    words: usize,
    total_rows: usize,
    columns: usize,
    accumulate: bool,
}

/// `DIRECT`: whether `a` is, known to the compiler, so that the strides of a packed one are too.
///
/// # Safety
/// Panels packed as [`blocked`] does, `out` the first element of the block.
#[inline(always)]
unsafe fn multiply<P: Product, O: Output<P::Acc>, const DIRECT: bool>(p: P, block: &Block<P>, out: Target<O>) {
    const { assert!(P::ROWS * P::COLUMNS <= MAX_TILE && P::COLUMNS * TASK_ROWS <= MAX_SUMS) };
    let direct = O::SAME && out.col_stride == 1 && out.row_stride > 0;
    let mut sums = [const { MaybeUninit::<P::Acc>::uninit() }; MAX_SUMS];
    let (b, panel_stride, b_stride) = block.b;
    for panel in block.panels.clone() {
        let column = panel * P::COLUMNS;
        let columns = P::COLUMNS.min(block.columns - column);
        // Rounded results have all of k here: their sums wait until its last part.
        for from in (0..block.words.max(1)).step_by(DEPTH) {
            let depth = DEPTH.min(block.words - from);
            for row in block.rows.clone().step_by(P::ROWS) {
                let rows = P::ROWS.min(block.total_rows - row);
                let height = height::<P>(block.total_rows, row);
                let (a, a_strides) = match block.a {
                    Left::Direct(a, strides) if DIRECT => {
                        (a.wrapping_offset(row as isize * strides[0] + from as isize * strides[1]), strides)
                    }
                    Left::Packed(a) if !DIRECT => {
                        (a.wrapping_add(row * block.words + from * height), [1, height as isize])
                    }
                    _ => unreachable!("DIRECT is what a is"),
                };
                // SAFETY: within the packed blocks and the sums of the task's rows.
                let (panels, kept) = unsafe {
                    let panels = Panels {
                        a,
                        a_strides,
                        b: b.wrapping_offset(panel as isize * panel_stride + from as isize * b_stride),
                        b_stride,
                        bias: Some(block.bias.add(column)).filter(|_| P::BIASED && from == 0),
                        accumulate: if O::SAME { block.accumulate } else { from > 0 },
                    };
                    (panels, sums.as_mut_ptr().cast::<P::Acc>().add((row - block.rows.start) * P::COLUMNS))
                };
                let to = out.at(row, column);
                if direct && rows == height && columns == P::COLUMNS {
                    // SAFETY: a whole tile inside out, whose elements are sums.
                    unsafe { p.tile(height, depth, panels, to.cast(), out.row_stride as usize) };
                    continue;
                }
                let add = O::SAME && block.accumulate;
                // SAFETY: the sums have room for the task's rows.
                unsafe {
                    let panels = Panels { accumulate: panels.accumulate && !O::SAME, ..panels };
                    p.tile(height, depth, panels, kept, P::COLUMNS);
                }
                if from + depth < block.words {
                    continue;
                }
                for i in 0..rows {
                    for j in 0..columns {
                        let (to, kept) = (out.at(row + i, column + j), kept.wrapping_add(i * P::COLUMNS + j));
                        // SAFETY: an element of out; when it is added to, it holds the sum of the blocks before.
                        unsafe {
                            to.write(O::rounded(if add { to.cast::<P::Acc>().read().plus(*kept) } else { *kept }))
                        };
                    }
                }
            }
        }
    }
}
