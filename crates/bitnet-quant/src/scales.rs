//! The scales of a ternary matrix.

use crate::{QuantError, TernaryCodes};

/// The scales of a ternary matrix `[rows, cols]`: one for all weights, or one for every [`group`](Self::group) columns of each
/// row, as checkpoints with groups store them (Q2_0 and others).
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryScales {
    values: Vec<f32>,
    /// 0: all weights share one.
    group: usize,
}

/// Columns of a group are a multiple of this, unless it is a whole row.
const UNIT: usize = 32;

impl From<f32> for TernaryScales {
    /// One scale for all weights.
    fn from(scale: f32) -> Self {
        Self { values: vec![scale], group: 0 }
    }
}

impl TernaryScales {
    /// `values` `[rows, cols / group]`, the scale of every `group` columns of `codes`; `group = cols` is one for each row.
    ///
    /// What has one scale becomes so: a group of zeros may have any, and equal scales of a row, or of the matrix, are one.
    ///
    /// # Errors
    /// If rows are not whole groups, a group is neither a row nor a multiple of 32 columns, or the number of values is another.
    pub fn groups(values: Vec<f32>, group: usize, codes: &TernaryCodes) -> Result<Self, QuantError> {
        const FORMAT: &str = "ternary scales";
        let (rows, cols) = (codes.rows(), codes.cols());
        if group == 0 || !cols.is_multiple_of(group) || (group != cols && !group.is_multiple_of(UNIT)) {
            return Err(QuantError::Groups { format: FORMAT, group, cols });
        }
        let expected = rows * (cols / group);
        if values.len() != expected {
            return Err(QuantError::Scales { format: FORMAT, expected: (expected, 0), actual: (values.len(), 0) });
        }
        // The scale of each row, where its groups with weights have one.
        let per_row = cols / group;
        let of_row = |row: usize| -> Option<Option<f32>> {
            let scales = &values[row * per_row..][..per_row];
            // A group is whole bytes, but for the end of a row that is one.
            let groups = codes.row(row).chunks(group.div_ceil(4));
            let used = groups.zip(scales).filter(|(codes, _)| codes.iter().any(|&c| c != ZEROS));
            let mut used = used.map(|(_, &scale)| scale);
            let Some(first) = used.next() else { return Some(None) };
            used.all(|scale| scale == first).then_some(Some(first))
        };
        let Some(of_rows) = (0..rows).map(of_row).collect::<Option<Vec<_>>>() else {
            return Ok(Self { values, group });
        };
        let mut used = of_rows.iter().flatten();
        match used.next() {
            None => Ok(values.first().copied().unwrap_or(0.).into()),
            Some(&first) if used.all(|&scale| scale == first) => Ok(first.into()),
            Some(&first) => {
                Ok(Self { values: of_rows.iter().map(|scale| scale.unwrap_or(first)).collect(), group: cols })
            }
        }
    }

    /// The scale of every weight, if there is one.
    pub fn one(&self) -> Option<f32> {
        (self.group == 0).then(|| self.values[0])
    }

    /// Columns that share a scale, the whole row where each row has one; `None`: all weights share one.
    pub fn group(&self) -> Option<usize> {
        (self.group > 0).then_some(self.group)
    }

    /// `[1]`, or `[rows, cols / group]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The scale of the weight at `row` and `col` of a matrix of `cols` columns.
    pub fn at(&self, row: usize, col: usize, cols: usize) -> f32 {
        match self.group {
            0 => self.values[0],
            group => self.values[row * (cols / group) + col / group],
        }
    }

    /// All scales multiplied by `factor`; `None` where one is then not finite.
    pub fn times(&self, factor: f32) -> Option<Self> {
        let values: Vec<f32> = self.values.iter().map(|scale| scale * factor).collect();
        values.iter().all(|scale| scale.is_finite()).then_some(Self { values, ..*self })
    }

    /// The scales of a matrix of `rows` rows, row `from(r)` of the `all` rows of this one as row `r`.
    pub fn take_rows(&self, all: usize, rows: usize, from: impl Fn(usize) -> usize) -> Self {
        let per_row = self.values.len() / all.max(1);
        let values = match self.group {
            0 => self.values.clone(),
            _ => (0..rows).flat_map(|row| &self.values[from(row) * per_row..][..per_row]).copied().collect(),
        };
        Self { values, ..*self }
    }
}

/// Four weights of 0.
const ZEROS: u8 = 0b01_01_01_01;

#[cfg(test)]
mod tests {
    use super::*;

    fn codes() -> TernaryCodes {
        // Row 0 has weights in both groups, row 1 in the second alone.
        let weights: Vec<i8> = (0..2 * 64).map(|i| i8::from(!(64..96).contains(&i))).collect();
        TernaryCodes::from_weights(2, 64, &weights).unwrap()
    }

    #[test]
    fn equal_scales_become_one() {
        let of = |values: [f32; 4]| TernaryScales::groups(values.to_vec(), 32, &codes()).unwrap();
        assert_eq!(of([2., 2., 9., 2.]), 2f32.into());
        assert_eq!((of([2., 2., 9., 3.]).group(), of([2., 2., 9., 3.]).values()), (Some(64), &[2., 3.][..]));
        let groups = of([2., 1., 9., 3.]);
        assert_eq!((groups.group(), groups.one(), groups.at(1, 40, 64)), (Some(32), None, 3.));
        assert_eq!(groups.take_rows(2, 2, |row| 1 - row).values(), [9., 3., 2., 1.]);
        assert_eq!(groups.times(2.).unwrap().values(), [4., 2., 18., 6.]);
        assert!(groups.times(f32::INFINITY).is_none());
        let rows = TernaryScales::groups(vec![2., 3.], 64, &codes()).unwrap();
        assert_eq!((rows.group(), rows.at(1, 63, 64)), (Some(64), 3.));
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        for (values, group) in [(4, 0), (4, 48), (8, 16), (3, 32)] {
            assert!(TernaryScales::groups(vec![1.; values], group, &codes()).is_err(), "{values} {group}");
        }
    }
}
