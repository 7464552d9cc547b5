//! A histogram of magnitudes whose range grows with the data.

/// Bins of a histogram.
pub const BINS: usize = 4096;

/// Counts of magnitudes in 4096 equal bins of `[0, limit)`.
///
/// The limit is the smallest power of two above every magnitude. When it grows, adjacent bins are merged, so that edges
/// remain edges: the histogram does not depend on the batching or order of the data.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    counts: Vec<u64>,
    /// `limit = 2^exponent`; `None` before the first value.
    exponent: Option<i32>,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; BINS], exponent: None }
    }

    /// Adds the magnitudes of finite values.
    pub(super) fn add(&mut self, values: &[f32]) {
        if values.is_empty() {
            return;
        }
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let needed = exponent_above(largest);
        let exponent = self.exponent.map_or(needed, |has| has.max(needed));
        for _ in self.exponent.unwrap_or(exponent)..exponent {
            self.double();
        }
        self.exponent = Some(exponent);
        let per_unit = BINS as f64 / self.limit();
        for value in values {
            // A power of two times a magnitude below the limit: exact, and below the number of bins.
            self.counts[(f64::from(value.abs()) * per_unit) as usize] += 1;
        }
    }

    /// Doubles the limit.
    fn double(&mut self) {
        for bin in 0..BINS / 2 {
            self.counts[bin] = self.counts[2 * bin] + self.counts[2 * bin + 1];
        }
        self.counts[BINS / 2..].fill(0);
    }

    /// Count of each bin.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Upper edge of the last bin; 0 before the first value.
    pub fn limit(&self) -> f64 {
        self.exponent.map_or(0., |e| 2f64.powi(e))
    }

    /// Width of a bin.
    pub fn width(&self) -> f64 {
        self.limit() / BINS as f64
    }

    /// Magnitudes in all bins.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The magnitude at a percentile, to the precision of a bin.
    pub(super) fn percentile(&self, percent: f64) -> f64 {
        let rank = percent / 100. * self.total().saturating_sub(1) as f64;
        let mut below = 0u64;
        for (bin, &count) in self.counts.iter().enumerate() {
            if count > 0 && rank < (below + count) as f64 {
                // The values of a bin are assumed to be evenly spaced in it.
                return (bin as f64 + (rank - below as f64 + 0.5).clamp(0., count as f64) / count as f64)
                    * self.width();
            }
            below += count;
        }
        self.limit()
    }

    /// Squared error of rounding to multiples of `step`, clipped at `largest_code` of them, with every value at the
    /// middle of its bin.
    pub(super) fn squared_error(&self, step: f64, largest_code: u8) -> f64 {
        let each = |(bin, &count): (usize, &u64)| {
            let value = (bin as f64 + 0.5) * self.width();
            let code = (value / step).round_ties_even().min(f64::from(largest_code));
            count as f64 * (value - code * step).powi(2)
        };
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(each).sum()
    }
}

/// `e` with `2^e` the smallest power of two above `magnitude`, and at least 2^-126, the smallest normal number.
fn exponent_above(magnitude: f32) -> i32 {
    ((magnitude.to_bits() >> 23) as i32 - 127).max(-127) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_powers_of_two_above() {
        for (magnitude, exponent) in
            [(0., -126), (1e-42, -126), (0.5, 0), (0.999, 0), (1., 1), (1.5, 1), (f32::MAX, 128)]
        {
            assert_eq!(exponent_above(magnitude), exponent, "{magnitude}");
        }
    }

    #[test]
    fn the_way_there_does_not_count() {
        let values: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 0.013 - 3.).collect();
        let mut whole = Histogram::new();
        whole.add(&values);
        for cut in [1, 7, 300] {
            let mut parts = Histogram::new();
            values.chunks(cut).for_each(|part| parts.add(part));
            assert_eq!(parts, whole);
        }
        assert_eq!((whole.total(), whole.limit()), (1000, 16.));
    }
}
