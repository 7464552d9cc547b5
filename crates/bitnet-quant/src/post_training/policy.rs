//! Mixed-precision policies: a format for each layer.

use crate::{PackedFormat, QuantError};

/// Mixed precision: a format for each layer by name, with the most sensitive layers kept.
///
/// ```
/// use bitnet_quant::{PackedFormat, post_training::MixedPrecision};
/// let policy = MixedPrecision {
///     default: Some(PackedFormat::I2S),
///     rules: vec![("lm_head".into(), None), ("*.down_proj".into(), Some(PackedFormat::Int4 { group: 32 }))],
///     keep_most_sensitive: 1,
/// };
/// let layers = [("lm_head", 0.9), ("layers.0.down_proj", 0.8), ("layers.0.up_proj", 0.3), ("layers.0.q_proj", 0.1)];
/// let formats = policy.assign(&layers)?;
/// assert_eq!(formats, [None, Some(PackedFormat::Int4 { group: 32 }), None, Some(PackedFormat::I2S)]);
/// # Ok::<(), bitnet_quant::QuantError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MixedPrecision {
    /// Format of layers without a matching rule; `None` keeps them.
    pub default: Option<PackedFormat>,
    /// Patterns (see [`matches_pattern`]) and formats; the first match wins.
    pub rules: Vec<(String, Option<PackedFormat>)>,
    /// Number of the most sensitive layers without a matching rule that are kept.
    pub keep_most_sensitive: usize,
}

impl MixedPrecision {
    /// The format of each layer, by name and sensitivity: its relative output error
    /// ([`output_error`](super::output_error)), or any other number that grows with the error.
    ///
    /// # Errors
    /// If a pattern matches no layer (probably a typing error), or a sensitivity is NaN.
    pub fn assign(&self, layers: &[(&str, f64)]) -> Result<Vec<Option<PackedFormat>>, QuantError> {
        let refused = |message| Err(QuantError::Argument { op: "mixed precision", message });
        for (pattern, _) in &self.rules {
            if !layers.iter().any(|(name, _)| matches_pattern(pattern, name)) {
                return refused(format!("no layer is named by the pattern {pattern:?}"));
            }
        }
        if let Some((name, _)) = layers.iter().find(|(_, sensitivity)| sensitivity.is_nan()) {
            return refused(format!("the sensitivity of {name} is NaN"));
        }
        let rule = |name: &str| self.rules.iter().find(|(pattern, _)| matches_pattern(pattern, name));
        let mut formats: Vec<_> = layers.iter().map(|(name, _)| rule(name).map_or(self.default, |(_, f)| *f)).collect();
        let mut free: Vec<usize> = (0..layers.len()).filter(|&i| rule(layers[i].0).is_none()).collect();
        free.sort_by(|&a, &b| layers[b].1.total_cmp(&layers[a].1));
        free.into_iter().take(self.keep_most_sensitive).for_each(|i| formats[i] = None);
        Ok(formats)
    }
}

/// Whether `name` matches `pattern`, in which `*` matches any characters.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // The first match leaves the most for the remaining parts.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("*.down_proj", "layers.3.mlp.down_proj", true),
            ("*.down_proj", "layers.3.mlp.down_proj.x", false),
            ("layers.1.*", "layers.11.q", false),
            ("layers.*.q", "layers.11.q", true),
            ("a*b*a", "aba", true),
            ("a*a", "a", false),
            ("*b*b*", "abba", true),
            ("*b*b*", "aba", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn the_most_sensitive_are_kept() {
        let ternary = Some(PackedFormat::HuggingFace);
        let mut policy =
            MixedPrecision { default: ternary, rules: vec![("c".into(), ternary)], keep_most_sensitive: 2 };
        let layers = [("a", 0.1), ("b", 0.4), ("c", 0.9), ("d", 0.2)];
        assert_eq!(policy.assign(&layers).unwrap(), [ternary, None, ternary, None]);
        policy.keep_most_sensitive = 9;
        assert_eq!(policy.assign(&layers).unwrap(), [None, None, ternary, None]);
        assert!(policy.assign(&[("c", f64::NAN)]).unwrap_err().to_string().contains("c is NaN"));
        policy.rules[0].0 = "nothing*".into();
        assert!(policy.assign(&layers).unwrap_err().to_string().contains("nothing*"));
    }
}
