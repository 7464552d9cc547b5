//! Quantized weights of MLX: groups of a row with a scale and a bias each, `scale * q + bias`.
//!
//! Beside `X.weight`, u32 `[out, in * bits / 32]`, lie `X.scales` and `X.biases` `[out, in / group]`. The bits of a row are one
//! stream from the lowest bit of the first byte. `config.json` has `quantization` with `group_size` and `bits`, and under the
//! names of modules what is different there, or false. Source: mlx/ops.cpp.

use super::weights::{DenseTensor, WeightSource};
use crate::{ModelError, Result};
use bitnet_core::BitNetDType;
use bitnet_quant::formats::{f16_exact, float16::encode_f16};
use bitnet_quant::{TernaryCodes, TernaryScales};
use serde_json::Value;
use std::collections::HashMap;

/// How the modules of a checkpoint are quantized.
#[derive(Debug)]
pub(super) struct Mlx {
    default: Affine,
    /// Modules with settings of their own.
    modules: HashMap<String, Affine>,
}

/// Settings of one module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Affine {
    /// Weights that share a scale and a bias.
    pub(super) group: usize,
    /// Bits of a weight.
    pub(super) bits: usize,
}

/// Whether an object of a `config.json` says how MLX quantized. transformers' says `quant_method`.
pub(crate) fn is_quantization(value: &Value) -> bool {
    value.get("group_size").is_some() && value.get("bits").is_some() && value.get("quant_method").is_none()
}

impl Mlx {
    /// From the text of a `config.json`; `None` if MLX did not quantize.
    pub(super) fn from_config(text: &str) -> Result<Option<Self>> {
        let config: Value = serde_json::from_str(text).unwrap_or_default();
        let found =
            ["quantization", "quantization_config"].map(|key| &config[key]).into_iter().find(|v| is_quantization(v));
        let Some(value) = found else { return Ok(None) };
        let default = Affine::from_json(value)?;
        let overridden = value.as_object().into_iter().flatten().filter(|(_, v)| v.is_object() && is_quantization(v));
        let modules = overridden.map(|(name, v)| Ok((name.clone(), Affine::from_json(v)?))).collect::<Result<_>>()?;
        Ok(Some(Self { default, modules }))
    }

    /// The settings of a module.
    pub(super) fn of(&self, module: &str) -> Affine {
        self.modules.get(module).copied().unwrap_or(self.default)
    }
}

impl Affine {
    fn from_json(value: &Value) -> Result<Self> {
        let wrong = |key: &str, known: &str| {
            ModelError::Config(format!("quantization.{key} is {}; this build reads {known} of MLX", value[key]))
        };
        if value["mode"].as_str().unwrap_or("affine") != "affine" {
            return Err(wrong("mode", "\"affine\""));
        }
        let number = |key: &str| value[key].as_u64().and_then(|n| usize::try_from(n).ok());
        let group = number("group_size").filter(|g| (8..=1 << 16).contains(g) && g.is_multiple_of(8));
        let bits = number("bits").filter(|bits| [1, 2, 3, 4, 5, 6, 8].contains(bits));
        Ok(Self {
            group: group.ok_or_else(|| wrong("group_size", "multiples of 8"))?,
            bits: bits.ok_or_else(|| wrong("bits", "1 to 6 and 8"))?,
        })
    }

    /// Elements of a row of packed words and of a row of scales; an error if rows are not whole words and groups.
    pub(super) fn widths(self, name: &str, cols: usize) -> Result<(usize, usize)> {
        let bits =
            cols.checked_mul(self.bits).filter(|bits| bits.is_multiple_of(32) && cols.is_multiple_of(self.group));
        let bits = bits.ok_or_else(|| {
            let Self { group, bits } = self;
            ModelError::tensor(name, format!("rows of {cols} are not whole groups of {group} weights of {bits} bits"))
        })?;
        Ok((bits / 32, cols / self.group))
    }

    /// The codes of a row of packed bytes.
    fn unpack(self, row: &[u8], out: &mut [u8]) {
        let mask = (1u16 << self.bits) - 1;
        for (k, out) in out.iter_mut().enumerate() {
            let (byte, shift) = (k * self.bits / 8, k * self.bits % 8);
            let next = row.get(byte + 1).copied().unwrap_or(0);
            *out = (u16::from_le_bytes([row[byte], next]) >> shift & mask) as u8;
        }
    }

    /// Gives `each` the place of every group, its codes, and its values in f32.
    fn groups(self, matrix: &Packed, mut each: impl FnMut(&[f32]) -> bool) -> bool {
        let (mut codes, mut values) = (vec![0; matrix.cols], vec![0f32; self.group]);
        let pairs = matrix.scales.chunks(matrix.cols / self.group).zip(matrix.biases.chunks(matrix.cols / self.group));
        for (row, (scales, biases)) in matrix.words.chunks_exact(matrix.cols * self.bits / 8).zip(pairs) {
            self.unpack(row, &mut codes);
            for ((codes, scale), bias) in codes.chunks_exact(self.group).zip(scales).zip(biases) {
                values.iter_mut().zip(codes).for_each(|(value, &q)| *value = scale * f32::from(q) + bias);
                if !each(&values) {
                    return false;
                }
            }
        }
        true
    }

    /// The matrix as ternary codes with group scales, if every group has the values -d, 0, d alone.
    pub(super) fn ternary(self, matrix: &Packed) -> Result<Option<(TernaryCodes, TernaryScales)>> {
        let mut weights = Vec::with_capacity(matrix.rows * matrix.cols);
        let mut scales = Vec::with_capacity(matrix.scales.len());
        let ternary = self.groups(matrix, |values| {
            let d = values.iter().fold(0f32, |most, v| most.max(v.abs()));
            weights.extend(values.iter().map(|&v| i8::from(v > 0.) - i8::from(v < 0.)));
            scales.push(d);
            values.iter().all(|&v| v == 0. || v.abs() == d)
        });
        if !ternary {
            return Ok(None);
        }
        let codes = TernaryCodes::from_weights(matrix.rows, matrix.cols, &weights)?;
        // Groups that the packed product does not take stay dense.
        Ok(TernaryScales::groups(scales, self.group, &codes).ok().map(|scales| (codes, scales)))
    }

    /// The values, in F16 if that is exact, else in F32.
    pub(super) fn dense(self, name: &str, matrix: &Packed) -> Result<DenseTensor> {
        let mut values = Vec::with_capacity(matrix.rows * matrix.cols);
        self.groups(matrix, |group| {
            values.extend_from_slice(group);
            true
        });
        let (bytes, dtype) = match values.iter().all(|&v| f16_exact(v).is_some()) {
            true => (encode_f16(&values), BitNetDType::F16),
            false => (values.iter().flat_map(|v| v.to_le_bytes()).collect(), BitNetDType::F32),
        };
        DenseTensor::owned(name, bytes, dtype, matrix.rows, matrix.cols)
    }

    /// The layer's weights, ternary where they are.
    pub(super) fn weights(self, name: &str, matrix: &Packed) -> Result<WeightSource> {
        match self.ternary(matrix)? {
            Some((codes, scales)) => Ok(WeightSource::Ternary { codes, scales }),
            None => Ok(WeightSource::Dense(self.dense(name, matrix)?)),
        }
    }
}

/// A quantized matrix `[rows, cols]` as it is stored; its parts have the lengths of its shape.
pub(super) struct Packed<'a> {
    pub(super) words: &'a [u8],
    pub(super) scales: Vec<f32>,
    pub(super) biases: Vec<f32>,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(words: &[u8], scale: f32, bias: f32, cols: usize) -> Packed<'_> {
        Packed { words, scales: vec![scale; cols / 32], biases: vec![bias; cols / 32], rows: 1, cols }
    }

    /// The vector of the layout: codes 0 1 2 1, then 1s.
    #[test]
    fn codes_follow_each_other_from_the_lowest_bit() {
        let two = Affine { group: 32, bits: 2 };
        let words = [&[0x64][..], &[0x55; 7]].concat();
        let mut expected = vec![0.; 32];
        (expected[0], expected[2]) = (-0.5, 0.5);
        assert_eq!(two.dense("w", &packed(&words, 0.5, -0.5, 32)).unwrap().to_f32(), expected);
        // 0, 1, 2, .. in every number of bits, as one number in base 2^bits.
        for bits in [1usize, 2, 3, 4, 5, 6, 8] {
            let mut stream = [false; 256];
            for k in 0..32 {
                (0..bits).for_each(|b| stream[k * bits + b] = (k % (1 << bits)) >> b & 1 == 1);
            }
            let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
            let words: Vec<u8> = stream[..32 * bits].chunks(8).map(byte).collect();
            let read = Affine { group: 32, bits }.dense("w", &packed(&words, 1., 0., 32)).unwrap().to_f32();
            assert_eq!(read, (0..32).map(|k| (k % (1 << bits)) as f32).collect::<Vec<_>>(), "{bits} bits");
        }
    }

    #[test]
    fn ternary_groups_are_recognised_in_any_form() {
        let two = Affine { group: 32, bits: 2 };
        let words = [&[0x64][..], &[0x55; 7]].concat();
        let mut expected = [0i8; 32];
        (expected[0], expected[2]) = (-1, 1);
        for (sign, scale, bias) in [(1, 0.25, -0.25), (-1, -0.25, 0.25)] {
            let (codes, scales) = two.ternary(&packed(&words, scale, bias, 32)).unwrap().unwrap();
            assert_eq!(codes.to_weights(), expected.iter().map(|w| w * sign).collect::<Vec<_>>());
            assert_eq!(scales.one(), Some(0.25));
        }
        // Four values, and values that are not symmetric.
        assert!(two.ternary(&packed(&[0xE4; 8], 0.5, -0.5, 32)).unwrap().is_none());
        assert!(two.ternary(&packed(&words, 0.5, -0.25, 32)).unwrap().is_none());
        // One bit: -d and d.
        let one = Affine { group: 32, bits: 1 };
        let (codes, scales) = one.ternary(&packed(&[5, 0, 0, 0x80], 0.5, -0.25, 32)).unwrap().unwrap();
        assert_eq!((codes.to_weights()[..3].to_vec(), codes.to_weights()[31]), (vec![1, -1, 1], 1));
        assert_eq!(scales.one(), Some(0.25));
        // A scale for each group.
        let matrix = Packed { scales: vec![0.5, 2.], biases: vec![-0.5, -2.], ..packed(&[0x64; 16], 0., 0., 64) };
        let (_, scales) = two.ternary(&matrix).unwrap().unwrap();
        assert_eq!((scales.group(), scales.values()), (Some(32), &[0.5, 2.][..]));
    }

    #[test]
    fn settings_of_modules_and_mistakes() {
        let read = |json: &str| Mlx::from_config(json);
        assert!(read("{}").unwrap().is_none());
        assert!(
            read(r#"{"quantization_config": {"quant_method": "x", "bits": 4, "group_size": 64}}"#).unwrap().is_none()
        );
        let own = r#"{"quantization": {"group_size": 64, "bits": 4, "mode": "affine", "lm_head": {"group_size": 32, "bits": 6},
                      "model.norm": false}}"#;
        let mlx = read(own).unwrap().unwrap();
        assert_eq!((mlx.of("lm_head"), mlx.of("x")), (Affine { group: 32, bits: 6 }, Affine { group: 64, bits: 4 }));
        for (json, word) in [
            (r#"{"quantization": {"group_size": 64, "bits": 7}}"#, "bits is 7"),
            (r#"{"quantization": {"group_size": 0, "bits": 4}}"#, "group_size is 0"),
            (r#"{"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}"#, "mxfp4"),
        ] {
            assert!(read(json).unwrap_err().to_string().contains(word), "{json}");
        }
        assert!(mlx.of("x").widths("w", 96).is_err());
        assert_eq!(mlx.of("lm_head").widths("w", 64).unwrap(), (12, 2));
    }
}
