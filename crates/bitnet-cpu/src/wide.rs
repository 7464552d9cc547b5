//! The types that the CPU computes in, and conversions between them and every dtype.
//!
//! f32 for f32, f16 and bf16; f64 for f64; i64 for the integers and `Bool`; u64 for u64.

use bitnet_device::BitNetDType::{self, *};
use bitnet_kernels::dense::strided::CHUNK;
use half::{bf16, f16};

/// The type in which elements of a dtype are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wide {
    F32,
    F64,
    I64,
    U64,
}

/// The wide type of an unpacked dtype.
pub(super) fn wide(dtype: BitNetDType) -> Option<Wide> {
    Some(match dtype {
        F32 | F16 | BF16 => Wide::F32,
        F64 => Wide::F64,
        U64 => Wide::U64,
        _ if dtype.is_packed() => return None,
        _ => Wide::I64,
    })
}

/// A wide type.
pub(super) trait Number: bytemuck::Pod + PartialOrd + Default + Send + Sync {
    /// The dtype whose elements have this type.
    const DTYPE: BitNetDType;
    /// Reads a chunk of elements of a dtype whose wide type this is.
    fn load(dtype: BitNetDType, from: &[u8], to: &mut [Self]);
    /// Writes a chunk as elements of any unpacked dtype: rounded once, integers wrapping, floats to integers
    /// saturating.
    fn store(dtype: BitNetDType, from: &[Self], to: &mut [u8]);
}

fn elements<T: bytemuck::Pod>(bytes: &[u8]) -> &[T] {
    bytemuck::cast_slice(bytes)
}

fn convert<A: bytemuck::Pod, B: Copy>(from: &[u8], to: &mut [B], f: impl Fn(A) -> B) {
    for (to, &from) in to.iter_mut().zip(elements::<A>(from)) {
        *to = f(from);
    }
}

fn put<A: Copy, B: bytemuck::Pod>(from: &[A], to: &mut [u8], f: impl Fn(A) -> B) {
    for (to, &from) in bytemuck::cast_slice_mut::<u8, B>(to).iter_mut().zip(from) {
        *to = f(from);
    }
}

macro_rules! number {
    ($wide:ident, $own:ident, load { $($from:ident as $rust:ty => $widen:expr),* }, half { $half:ident }, truth { $truth:expr }) => {
        impl Number for $wide {
            const DTYPE: BitNetDType = $own;

            fn load(dtype: BitNetDType, from: &[u8], to: &mut [Self]) {
                match dtype {
                    $($from => convert::<$rust, _>(from, to, $widen),)*
                    other => unreachable!("{other} is not computed in {}", stringify!($wide)),
                }
            }

            fn store(dtype: BitNetDType, from: &[Self], to: &mut [u8]) {
                match dtype {
                    F64 => put(from, to, |x| x as f64),
                    F32 => put(from, to, |x| x as f32),
                    F16 => put(from, to, |x| f16::$half(x as _)),
                    BF16 => put(from, to, |x| bf16::$half(x as _)),
                    I8 => put(from, to, |x| x as i8),
                    I16 => put(from, to, |x| x as i16),
                    I32 => put(from, to, |x| x as i32),
                    I64 => put(from, to, |x| x as i64),
                    U8 => put(from, to, |x| x as u8),
                    U16 => put(from, to, |x| x as u16),
                    U32 => put(from, to, |x| x as u32),
                    U64 => put(from, to, |x| x as u64),
                    Bool => put(from, to, |x| (x != $truth) as u8),
                    _ => unreachable!("packed types are refused before"),
                }
            }
        }
    };
}

number!(f32, F32, load { F32 as f32 => |x| x, F16 as f16 => f16::to_f32, BF16 as bf16 => bf16::to_f32 }, half { from_f32 }, truth { 0. });
number!(f64, F64, load { F64 as f64 => |x| x }, half { from_f64 }, truth { 0. });
number!(i64, I64, load {
    I64 as i64 => |x| x, I32 as i32 => i64::from, I16 as i16 => i64::from, I8 as i8 => i64::from,
    U32 as u32 => i64::from, U16 as u16 => i64::from, U8 as u8 => i64::from, Bool as u8 => |x| (x != 0) as i64
}, half { from_f32 }, truth { 0 });
number!(u64, U64, load { U64 as u64 => |x| x }, half { from_f32 }, truth { 0 });

/// A chunk as numbers: in place, or converted into `buffer`.
pub(super) fn read<'a, N: Number>(dtype: BitNetDType, chunk: &'a [u8], buffer: &'a mut [N; CHUNK]) -> &'a [N] {
    if dtype == N::DTYPE {
        return elements(chunk);
    }
    let buffer = &mut buffer[..chunk.len() / dtype.size()];
    N::load(dtype, chunk, buffer);
    buffer
}

/// Runs `f` on a buffer of numbers, which is then converted to the chunk.
pub(super) fn write<N: Number>(dtype: BitNetDType, chunk: &mut [u8], f: impl FnOnce(&mut [N])) {
    if dtype == N::DTYPE {
        return f(bytemuck::cast_slice_mut(chunk));
    }
    let mut buffer = [N::default(); CHUNK];
    let buffer = &mut buffer[..chunk.len() / dtype.size()];
    f(buffer);
    N::store(dtype, buffer, chunk);
}
