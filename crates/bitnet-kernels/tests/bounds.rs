//! Sizes, strides and offsets whose products or sums wrap: every entry that takes them refuses, on every instruction set.
//! (Without debug assertions arithmetic wraps in silence: what these calls would then read and write lies outside of the
//! slices. Run under a sanitizer, a test that fails here shows it.)

mod common;

use bitnet_device::backend::ActivationRule::Token;
use bitnet_kernels::activation::quantize_rows;
use bitnet_kernels::blocks::{BlockMatrix, BlockType, embedding};
use bitnet_kernels::dense::matmul::{MatmulShape, Matrix, MatrixMut, matmul_f32, matmul_i8};
use bitnet_kernels::dense::parallel::{self, Reduction};
use bitnet_kernels::dense::strided::{Operand, OperandMut, map, update};
use bitnet_kernels::float::{KvPages, KvPagesMut, KvRows, PagedShape, store_kv};
use bitnet_kernels::gradient::{CausalShape, causal_attention, causal_attention_backward};
use bitnet_kernels::ternary::{TernaryMatrix, matmul_i32, packed_len};
use bitnet_kernels::{Isa, Kernels, ThreadPool};
use common::kernels;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Half of the range of sizes: two of them multiply to 2^64, or 2^32 on machines of 32 bits.
const ROOT: usize = 1 << (usize::BITS / 2);
const TOP: usize = 1 << (usize::BITS - 1);

fn refused(what: &str, f: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(f)).is_err(), "{what}: not refused");
}

#[test]
fn strided_operands_that_wrap_around_are_refused() {
    let threads = ThreadPool::new(2);
    let copy = |x: &[&[u8]], out: &mut [u8]| out.copy_from_slice(x[0]);
    let read = |dims: &[usize], size: usize, offset: usize, strides: &[isize]| {
        let (x, mut out) = (vec![7u8; 64], vec![0u8; 64]);
        let x = Operand { bytes: &x, size, offset, strides };
        let zeros = vec![0; dims.len()];
        map(&threads, dims, &[x], OperandMut { bytes: &mut out, size, offset: 0, strides: &zeros }, &copy);
    };
    let write = |dims: &[usize], size: usize, offset: usize, strides: &[isize]| {
        let mut out = vec![0u8; 64];
        update(&threads, dims, &[], OperandMut { bytes: &mut out, size, offset, strides }, &|_, out| out.fill(1));
    };
    // (last + 1) * size is 0; the first element lies half of memory away.
    refused("an offset", || read(&[1], 2, TOP - 1, &[0]));
    refused("an offset", || write(&[1], 8, TOP / 4 - 1, &[0]));
    refused("an offset beyond isize", || write(&[1], 1, usize::MAX, &[0]));
    // stride * (extent - 1) is 0, or negative.
    refused("a span", || read(&[3], 1, 0, &[TOP as isize]));
    refused("a span", || write(&[5], 1, 0, &[(TOP / 2) as isize]));
    refused("two spans", || write(&[2, 2], 1, 32, &[isize::MAX - 31, isize::MAX - 31]));
    // The number of elements is 0, or 2^33.
    refused("a count", || write(&[ROOT, ROOT], 1, 0, &[0, 0]));
    refused("a count", || read(&[ROOT * 2, ROOT / 2 + 1], 1, 0, &[0, 0]));
    // What is no fault stays none: the stride of a dimension of one element is never used.
    read(&[1, 4], 2, 3, &[isize::MIN, 1]);
    write(&[0, ROOT, ROOT], 1, 0, &[1, 1, 1]);
}

#[test]
fn transposes_and_columns_that_wrap_around_are_refused() {
    let (x, pool) = (vec![1f32; 256], ThreadPool::new(2));
    for Kernels { isa, dense, .. } in kernels() {
        let out = || vec![0f32; 256];
        refused(&format!("{isa}: first + count"), || dense.transpose(&x, 0, 16, usize::MAX - 15, false, &mut out()));
        refused(&format!("{isa}: (rows - 1) * stride"), || dense.transpose(&x, TOP, 3, 0, false, &mut out()[..48]));
        refused(&format!("{isa}: no whole columns"), || dense.transpose(&x, 16, 16, 0, false, &mut out()[..17]));
        refused(&format!("{isa}: parallel"), || parallel::transpose(dense, &pool, &x, TOP, 3, &mut out()[..48]));
        let stride = TOP;
        refused(&format!("{isa}: sums"), || dense.column_sums(&x, stride, 3, &mut [0.; 16]));
        refused(&format!("{isa}: extremes"), || dense.column_extremes(true, &x, stride, 3, &mut [0.; 16]));
        refused(&format!("{isa}: moments"), || {
            dense.column_moments(&x, stride, 3, 0., &mut [0.; 16], &mut [0.; 16]);
        });
        refused(&format!("{isa}: reduce"), || {
            parallel::reduce(dense, &pool, Reduction::Sum, &[], [ROOT, ROOT, 1], &mut []);
        });
        refused(&format!("{isa}: moments of a tensor"), || {
            parallel::moments(dense, &pool, &[], [ROOT, ROOT, 1], |_, _| ());
        });
    }
}

#[test]
fn products_of_dense_matrices_that_wrap_around_are_refused() {
    let pool = ThreadPool::new(2);
    let one = [1f32];
    for isa in Isa::available() {
        // Every element is the same one: m * n is 0 in the test whether elements of out overlap.
        let still = Matrix { data: &one, start: 0, row_stride: 0, col_stride: 0 };
        refused(&format!("{isa}: m * n"), || {
            let out = MatrixMut { data: &mut [0f32], start: 0, row_stride: 0, col_stride: 0 };
            matmul_f32(isa, &pool, MatmulShape { m: ROOT, n: ROOT, k: 1 }, still, still, out);
        });
        refused(&format!("{isa}: m * k"), || {
            let out = MatrixMut { data: &mut [0f32; 2], start: 0, row_stride: 1, col_stride: 1 };
            matmul_f32(isa, &pool, MatmulShape { m: 2, n: 1, k: usize::MAX }, still, still, out);
        });
        let bytes = [1i8; 16];
        for (start, row_stride, col_stride) in
            [(usize::MAX, 1, 1), (0, TOP as isize, 1), (0, isize::MAX, isize::MAX), (15, isize::MIN, 1)]
        {
            let a = Matrix { data: &bytes, start, row_stride, col_stride };
            let b = Matrix::row_major(&bytes, 4);
            refused(&format!("{isa}: strides {row_stride} {col_stride}"), || {
                matmul_i8(isa, &pool, MatmulShape { m: 3, n: 4, k: 4 }, a, b, MatrixMut::row_major(&mut [0; 12], 4));
            });
        }
    }
}

#[test]
fn attention_and_heads_that_wrap_around_are_refused() {
    let pool = ThreadPool::new(2);
    for all @ Kernels { isa, float, .. } in kernels() {
        let shape = PagedShape { heads: 1, kv_heads: 1, head_dim: 2, page_len: 64, scale: 1.0, window: None };
        let page = [0.0; 128];
        let attend = |shape: &PagedShape, pages: &[f32], table: &[u32], sequence: u32, position: u32| {
            let pages = KvPages::F32 { keys: pages, values: pages };
            let rows = KvRows { table, table_width: 1, sequences: &[sequence], positions: &[position] };
            float.paged_attention(&pool, shape, &[0.0; 2], &pages, &rows, &mut [0.0; 2]);
        };
        attend(&shape, &page, &[0], 0, 63);
        refused(&format!("{isa}: a page"), || {
            attend(&PagedShape { heads: ROOT, kv_heads: ROOT, page_len: ROOT, ..shape }, &[], &[0], 0, 0);
        });
        refused(&format!("{isa}: a page that does not exist"), || attend(&shape, &page, &[1], 0, 0));
        refused(&format!("{isa}: a sequence that does not exist"), || attend(&shape, &page, &[0], 1, 0));
        refused(&format!("{isa}: a position behind the table"), || attend(&shape, &page, &[0], 0, 64));
        refused(&format!("{isa}: half a page"), || attend(&shape, &page[..64], &[0], 0, 0));
        refused(&format!("{isa}: a slot behind the pages"), || {
            let pages = KvPagesMut::F32 { keys: &mut [0.0; 128], values: &mut [0.0; 128] };
            store_kv(&pool, &shape, &[0.0; 2], &[0.0; 2], &[64], pages);
        });
        refused(&format!("{isa}: rope"), || float.rope(&mut [0.; 8], TOP + 1, 1, &[0.; 4], &[0.; 4]));
        for shape in [
            CausalShape { batch: ROOT, tokens: ROOT, heads: 1, kv_heads: 1, head_dim: 2 },
            CausalShape { batch: 1, tokens: 2, heads: TOP, kv_heads: TOP, head_dim: 2 },
        ] {
            refused(&format!("{isa}: {shape:?}"), || {
                causal_attention(all, &pool, shape, &[], &[], &[], &mut []);
            });
            refused(&format!("{isa}: {shape:?}, backward"), || {
                causal_attention_backward(all, &pool, shape, &[], &[], &[], &[], &mut []);
            });
        }
    }
}

#[test]
fn rows_of_weights_and_activations_that_wrap_around_are_refused() {
    let pool = ThreadPool::new(2);
    assert_eq!(packed_len(1, usize::MAX), None);
    for Kernels { isa, ternary, .. } in kernels() {
        refused(&format!("{isa}: activations"), || {
            quantize_rows(ternary, &pool, Token, &[], TOP, &mut [], &mut [0.; 2], &mut [0; 2]);
        });
        let tiles = vec![0; packed_len(16, 16).unwrap()];
        let w = TernaryMatrix::new(&tiles, 16, 16);
        refused(&format!("{isa}: output stride"), || {
            matmul_i32(ternary, &pool, &w, &[0; 48], &[0; 3], 3, &mut [0; 16], TOP);
        });
    }
    let table = BlockMatrix::new(BlockType::BF16, 0, TOP / 2, &[]).unwrap();
    refused("embedding", || drop(embedding(&[0; 4], &table, &mut [])));
}
