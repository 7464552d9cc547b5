//! Tensor types: numbers, names and sizes, and resolution of colliding numbers.

use bitnet_core::BitNetDType;

/// The type of a tensor's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names of the format
#[allow(non_camel_case_types)]
pub enum GgufType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q6_K,
    Q4_0,
    Q4_K,
    F64,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q5_K,
    IQ4_NL,
    MXFP4,
    /// Ternary of bitnet.cpp, in x86 or ARM block order, which the file does not record.
    I2_S,
    TQ1_0,
    TQ2_0,
    /// Q2_0 with groups of 64, upstream's.
    Q2_0_G64,
    /// Q2_0 with groups of 128.
    Q2_0_G128,
    /// One bit a weight: plus or minus a scale.
    Q1_0,
    /// PrismML's: the bytes of Q2_0 with groups of 128.
    PQ2_0,
    /// PrismML's: base 3.
    PTQ1_0,
    /// Sherry: of every four weights one is zero. 43, and 42 in early files.
    STQ1_0,
    /// The same under its early number.
    STQ1_0_EARLY,
    /// ik_llama.cpp's: base 3, a scale for each row.
    IQ1_BN,
    /// ik_llama.cpp's: 2 bits, a scale for each row.
    IQ2_BN,
    /// An unsupported type; one whose number is not known has the name "unknown" and all bytes up to the next tensor.
    Unsupported {
        number: u32,
        name: &'static str,
    },
}

use GgufType::*;

/// Type, number in a file, name, weights in a block, bytes of a block.
/// I2_S has 32 bytes more at the end of the tensor, IQ1_BN and IQ2_BN a scale of 2 and 4 bytes before each row.
const READ: [(GgufType, u32, &str, usize, usize); 28] = [
    (F32, 0, "F32", 1, 4),
    (F16, 1, "F16", 1, 2),
    (BF16, 30, "BF16", 1, 2),
    (Q8_0, 8, "Q8_0", 32, 34),
    (Q6_K, 14, "Q6_K", 256, 210),
    (Q4_0, 2, "Q4_0", 32, 18),
    (Q4_K, 12, "Q4_K", 256, 144),
    (F64, 28, "F64", 1, 8),
    (Q4_1, 3, "Q4_1", 32, 20),
    (Q5_0, 6, "Q5_0", 32, 22),
    (Q5_1, 7, "Q5_1", 32, 24),
    (Q2_K, 10, "Q2_K", 256, 84),
    (Q3_K, 11, "Q3_K", 256, 110),
    (Q5_K, 13, "Q5_K", 256, 176),
    (IQ4_NL, 20, "IQ4_NL", 32, 18),
    (MXFP4, 39, "MXFP4", 32, 17),
    (I2_S, 36, "I2_S", 4, 1),
    (TQ1_0, 34, "TQ1_0", 256, 54),
    (TQ2_0, 35, "TQ2_0", 256, 66),
    (Q2_0_G64, 42, "Q2_0", 64, 18),
    (Q2_0_G128, 42, "Q2_0 (groups of 128)", 128, 34),
    (Q1_0, 41, "Q1_0", 128, 18),
    (PQ2_0, 142, "PQ2_0", 128, 34),
    (PTQ1_0, 143, "PTQ1_0", 128, 28),
    (STQ1_0, 43, "STQ1_0", 256, 42),
    (STQ1_0_EARLY, 42, "STQ1_0", 256, 42),
    (IQ1_BN, 134, "IQ1_BN", 64, 13),
    (IQ2_BN, 135, "IQ2_BN", 64, 16),
];

/// Known but unsupported types: number, name, weights in a block, bytes of a block.
const NAMED: [(u32, &str, usize, usize); 18] = [
    (9, "Q8_1", 32, 40),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (31, "Q4_0_4_4", 32, 18),
    (32, "Q4_0_4_8", 32, 18),
    (33, "Q4_0_8_8", 32, 18),
    (40, "NVFP4", 64, 36),
];

/// Types that are used as they are stored, and what tensors of them are.
const DTYPES: [(GgufType, BitNetDType); 15] = [
    (F32, BitNetDType::F32),
    (F16, BitNetDType::F16),
    (BF16, BitNetDType::BF16),
    (Q8_0, BitNetDType::Q8_0),
    (Q6_K, BitNetDType::Q6K),
    (Q4_0, BitNetDType::Q4_0),
    (Q4_K, BitNetDType::Q4K),
    (Q4_1, BitNetDType::Q4_1),
    (Q5_0, BitNetDType::Q5_0),
    (Q5_1, BitNetDType::Q5_1),
    (Q2_K, BitNetDType::Q2K),
    (Q3_K, BitNetDType::Q3K),
    (Q5_K, BitNetDType::Q5K),
    (IQ4_NL, BitNetDType::Iq4Nl),
    (MXFP4, BitNetDType::Mxfp4),
];

const UNKNOWN: &str = "unknown";
const I8_S: &str = "I8_S";
const INTERLEAVED: &str = "IQ2_BN_R4";
const TL1: &str = "TL1";
const TL2: &str = "TL2";

impl GgufType {
    /// Name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Unsupported { name, .. } => name,
            _ => self.row().map_or("", |r| r.2),
        }
    }

    /// Its number in a file.
    pub fn number(self) -> u32 {
        match self {
            Unsupported { number, .. } => number,
            _ => self.row().map_or(u32::MAX, |r| r.1),
        }
    }

    /// Whether weights are stored as -1, 0, +1 and scales (Q2_0 and PQ2_0 may also hold +2).
    pub fn is_ternary(self) -> bool {
        matches!(self, I2_S | TQ1_0 | TQ2_0 | Q2_0_G64 | Q2_0_G128 | Q1_0 | PQ2_0 | PTQ1_0)
            || matches!(self, STQ1_0 | STQ1_0_EARLY | IQ1_BN | IQ2_BN)
    }

    /// The dtype of its elements, if they are used as they are stored.
    pub(crate) fn dtype(self) -> Option<BitNetDType> {
        DTYPES.iter().find(|d| d.0 == self).map(|d| d.1)
    }

    /// The type that stores elements of `dtype` as they are.
    pub(crate) fn of(dtype: BitNetDType) -> Option<Self> {
        DTYPES.iter().find(|d| d.1 == dtype).map(|d| d.0)
    }

    /// Weights in a block and bytes of a block; `None` for an unknown layout.
    pub fn block(self) -> Option<(usize, usize)> {
        match self {
            Unsupported { number, name } => NAMED.iter().find(|r| r.0 == number && r.1 == name).map(|r| (r.2, r.3)),
            _ => self.row().map(|r| (r.3, r.4)),
        }
    }

    /// Bytes of a tensor of `rows` rows of `cols`; `None` when rows are not whole blocks, the size
    /// overflows, or the type has no known layout.
    pub fn byte_size(self, rows: usize, cols: usize) -> Option<usize> {
        let (block, bytes) = self.block()?;
        let n = rows.checked_mul(cols)?;
        if self == I2_S {
            // Codes are flat over the tensor, the scale has a tail of 32 bytes.
            return n.is_multiple_of(block).then(|| n / block + 32);
        }
        if !cols.is_multiple_of(block) {
            return None;
        }
        let scales = match self {
            IQ1_BN => 2,
            IQ2_BN => 4,
            _ => 0,
        };
        (n / block).checked_mul(bytes)?.checked_add(rows.checked_mul(scales)?)
    }

    /// Why a type is not supported and what to do; `None` for a supported one.
    pub fn advice(self) -> Option<&'static str> {
        let Unsupported { name, .. } = self else { return None };
        Some(match name {
            TL1 | TL2 => {
                "its layout depends on a tile configuration that is not in the file; \
                 convert the Hugging Face checkpoint again, to I2_S or TQ2_0"
            }
            UNKNOWN => {
                "it is newer than this program, or of a fork; use a newer version, or a file with ternary or common \
                 quantized tensors"
            }
            INTERLEAVED | "Q4_0_4_4" | "Q4_0_4_8" | "Q4_0_8_8" => {
                "its rows are interleaved for one kind of CPU; use the file that it was made from, or make it again without"
            }
            I8_S => "it is an activation type of bitnet.cpp; convert the Hugging Face checkpoint again",
            _ => {
                "use a file with ternary (I2_S, TQ1_0, TQ2_0, Q1_0, Q2_0, PQ2_0, PTQ1_0, STQ1_0, IQ1_BN, IQ2_BN), float, MXFP4, IQ4_NL, Q4_0 to Q8_0 or Q2_K to Q6_K tensors"
            }
        })
    }

    fn row(self) -> Option<&'static (GgufType, u32, &'static str, usize, usize)> {
        READ.iter().find(|r| r.0 == self)
    }
}

/// Size information of a tensor in the file.
pub(super) struct Extent {
    pub rows: usize,
    pub cols: usize,
    /// Bytes to the next tensor or the end of the file, rounded up to the alignment.
    pub room: usize,
    /// Whether the space ends at another tensor, so that truncation of the file does not change it.
    pub bounded: bool,
}

impl Extent {
    /// Whether a tensor of type `ty` fills the space, apart from padding.
    fn fits(&self, ty: GgufType, alignment: usize) -> bool {
        let size = ty.byte_size(self.rows, self.cols);
        size.and_then(|s| s.checked_next_multiple_of(alignment)) == Some(self.room)
    }
}

/// The type of `number` in a file whose tensors of that number are `tensors`.
///
/// Numbers collide: bitnet.cpp's old fork has 36 I2_S, 37 I8_S, 38 TL1, 39 TL2; its fork of 2026 has
/// TL2 as 42; upstream has 39 MXFP4 and 42 Q2_0, of which there are builds with groups of 64 and of 128; early files of STQ1_0 have 42 too.
/// The sizes of all tensors of the number decide together: one tensor of fewer than 2048 weights
/// fits both groups once it is padded, and then 64, upstream's, is taken.
pub(super) fn resolve(number: u32, tensors: &[Extent], alignment: usize) -> GgufType {
    let any_bounded = tensors.iter().any(|t| t.bounded);
    let all_fit = |ty: &GgufType| tensors.iter().filter(|t| t.bounded || !any_bounded).all(|t| t.fits(*ty, alignment));
    match number {
        37 => Unsupported { number, name: I8_S },
        38 => Unsupported { number, name: TL1 },
        39 if all_fit(&MXFP4) => MXFP4,
        39 => Unsupported { number, name: TL2 },
        42 => {
            let found = [Q2_0_G64, Q2_0_G128, STQ1_0_EARLY].into_iter().find(all_fit);
            found.unwrap_or(Unsupported { number, name: TL2 })
        }
        335 => Unsupported { number, name: INTERLEAVED },
        // Numbers of forks, which others may use too.
        142 if !all_fit(&PQ2_0) => Unsupported { number, name: UNKNOWN },
        143 if !all_fit(&PTQ1_0) => Unsupported { number, name: UNKNOWN },
        43 if !all_fit(&STQ1_0) => Unsupported { number, name: UNKNOWN },
        134 if !all_fit(&IQ1_BN) => Unsupported { number, name: UNKNOWN },
        135 if !all_fit(&IQ2_BN) => Unsupported { number, name: UNKNOWN },
        _ => match READ.iter().find(|r| r.1 == number) {
            Some(row) => row.0,
            None => Unsupported { number, name: NAMED.iter().find(|r| r.0 == number).map_or(UNKNOWN, |r| r.1) },
        },
    }
}
