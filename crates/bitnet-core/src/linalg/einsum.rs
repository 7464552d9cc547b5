//! Einstein summation: operands are contracted from left to right, each pair as one batched matrix product.

use super::argument;
use crate::{BitNetError, BitNetTensor, Result};

/// A dimension: a letter, or one of those of the ellipsis, numbered from the last (below zero).
type Label = i32;

const OP: &str = "einsum";

/// A tensor and the label of each of its dimensions, all distinct.
struct Term {
    tensor: BitNetTensor,
    labels: Vec<Label>,
}

impl BitNetTensor {
    /// Sum of products by an equation (`torch.einsum`): a letter for each dimension of each operand, `...` for
    /// dimensions that are broadcast, and after `->` those of the result. Without it the result has those of the
    /// ellipsis, then the letters that occur once in alphabetical order. A letter twice in one operand takes its
    /// diagonal; dimensions of 1 broadcast. Floats keep their dtype; of three and more operands intermediate results
    /// are rounded to it.
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device};
    /// let a = BitNetTensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[2, 2], &Device::cpu())?;
    /// assert_eq!(BitNetTensor::einsum("ij,jk->ki", &[&a, &a])?.to_vec::<f32>()?, [7.0, 15.0, 10.0, 22.0]);
    /// assert_eq!(BitNetTensor::einsum("ii", &[&a])?.to_vec::<f32>()?, [5.0]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    ///
    /// # Errors
    /// An invalid equation, or one that does not fit the operands.
    pub fn einsum(equation: &str, operands: &[&Self]) -> Result<Self> {
        let wrong = |message: &str| argument(OP, format!("{equation:?}: {message}"));
        let Some(first) = operands.first() else {
            return Err(wrong("no operands"));
        };
        for other in &operands[1..] {
            first.same_device(OP, other)?;
            if first.dtype() != other.dtype() {
                let (got, needed) = (other.dtype(), first.dtype());
                return Err(crate::TensorOpError::DType { op: OP, what: "an operand", got, needed }.into());
            }
        }
        let compact: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (inputs, result) = match compact.split_once("->") {
            Some((inputs, result)) => (inputs, Some(result)),
            None => (compact.as_str(), None),
        };
        let inputs: Vec<&str> = inputs.split(',').collect();
        if inputs.len() != operands.len() {
            return Err(wrong(&format!("{} terms for {} operands", inputs.len(), operands.len())));
        }
        let mut terms = Vec::new();
        let mut counts = std::collections::BTreeMap::<Label, usize>::new();
        for (text, tensor) in inputs.iter().zip(operands) {
            let labels = labels(text, Some(tensor.rank()), &wrong)?;
            labels.iter().for_each(|&label| *counts.entry(label).or_default() += 1);
            terms.push(diagonals(tensor, labels, &wrong)?);
        }
        let mut broadcast: Vec<Label> = counts.keys().copied().filter(|&label| label < 0).collect();
        broadcast.sort();
        let wanted = match result {
            Some(text) => {
                let mut wanted = Vec::new();
                for label in labels(text, None, &wrong)? {
                    if label == ELLIPSIS { wanted.extend(&broadcast) } else { wanted.push(label) }
                }
                if let Some(&label) = wanted.iter().find(|label| !counts.contains_key(label)) {
                    return Err(wrong(&format!("the result's {} is in no operand", name(label))));
                }
                if (1..wanted.len()).any(|i| wanted[..i].contains(&wanted[i])) {
                    return Err(wrong("a letter occurs twice in the result"));
                }
                wanted
            }
            None => {
                let once = counts.iter().filter(|&(&label, &count)| label >= 0 && count == 1).map(|(&label, _)| label);
                broadcast.iter().copied().chain(once).collect()
            }
        };
        same_extents(&terms, &wrong)?;
        let mut terms = terms.into_iter();
        let mut product = terms.next().expect("one operand at least");
        while let Some(term) = terms.next() {
            let later =
                |label: &Label| wanted.contains(label) || terms.as_slice().iter().any(|t| t.labels.contains(label));
            product = contract(product, term, later)?;
        }
        let product = product.keep(|label| wanted.contains(label))?;
        let order: Vec<isize> = wanted.iter().map(|label| product.axis(*label)).collect();
        product.tensor.permute(&order)?.to_dtype(first.dtype())
    }
}

/// Placeholder for the ellipsis of the result until its dimensions are known.
const ELLIPSIS: Label = i32::MIN;

fn name(label: Label) -> String {
    match u8::try_from(label) {
        Ok(letter) => format!("letter {}", letter as char),
        Err(_) => "ellipsis".into(),
    }
}

/// Labels of a term; the ellipsis of an operand is expanded by its rank.
fn labels(text: &str, rank: Option<usize>, wrong: &dyn Fn(&str) -> BitNetError) -> Result<Vec<Label>> {
    let mut labels = Vec::new();
    let mut ellipsis = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c.is_ascii_alphabetic() {
            labels.push(c as Label);
            rest = &rest[1..];
        } else if let (Some(after), None) = (rest.strip_prefix("..."), ellipsis) {
            ellipsis = Some(labels.len());
            rest = after;
        } else {
            return Err(wrong(&format!("{c:?} is neither a letter nor the first ellipsis of its term")));
        }
    }
    let Some(rank) = rank else {
        if let Some(at) = ellipsis {
            labels.insert(at, ELLIPSIS);
        }
        return Ok(labels);
    };
    match ellipsis {
        Some(at) if labels.len() <= rank => {
            let broadcast = (rank - labels.len()) as Label;
            labels.splice(at..at, -broadcast..0);
        }
        None if labels.len() == rank => {}
        _ => return Err(wrong(&format!("{} letters for an operand of {rank} dimensions", labels.len()))),
    }
    Ok(labels)
}

/// A letter that occurs twice becomes one dimension.
fn diagonals(tensor: &BitNetTensor, mut labels: Vec<Label>, wrong: &dyn Fn(&str) -> BitNetError) -> Result<Term> {
    let mut tensor = tensor.clone();
    while let Some((i, j)) =
        (0..labels.len()).flat_map(|j| (0..j).map(move |i| (i, j))).find(|&(i, j)| labels[i] == labels[j])
    {
        if tensor.dims()[i] != tensor.dims()[j] {
            return Err(wrong(&format!("{} has two extents in {}", name(labels[i]), tensor.shape())));
        }
        let label = labels[i];
        tensor = tensor.diagonal(0, i as isize, j as isize)?;
        labels.remove(j);
        labels.remove(i);
        labels.push(label);
    }
    Ok(Term { tensor, labels })
}

/// Every label has one extent, apart from 1.
fn same_extents(terms: &[Term], wrong: &dyn Fn(&str) -> BitNetError) -> Result<()> {
    let mut extents = std::collections::BTreeMap::new();
    for term in terms {
        for (&label, &extent) in term.labels.iter().zip(term.tensor.dims()) {
            let known = extents.entry(label).or_insert(extent);
            if *known == 1 {
                *known = extent;
            } else if extent != 1 && extent != *known {
                return Err(wrong(&format!("{} has extents {known} and {extent}", name(label))));
            }
        }
    }
    Ok(())
}

impl Term {
    fn axis(&self, label: Label) -> isize {
        self.labels.iter().position(|&l| l == label).expect("a label of this term") as isize
    }

    fn extent(&self, label: Label) -> usize {
        self.labels.iter().position(|&l| l == label).map_or(1, |axis| self.tensor.dims()[axis])
    }

    /// Summed over the dimensions that are not kept.
    fn keep(self, kept: impl Fn(&Label) -> bool) -> Result<Term> {
        let drop: Vec<isize> = (0..self.labels.len() as isize).filter(|&i| !kept(&self.labels[i as usize])).collect();
        if drop.is_empty() {
            return Ok(self);
        }
        let labels = self.labels.iter().copied().filter(kept).collect();
        let dtype = self.tensor.dtype();
        Ok(Term { tensor: self.tensor.sum(&drop[..], false)?.to_dtype(dtype)?, labels })
    }

    /// As `[groups.0, groups.1, groups.2]`, each a product of extents; `full` gives them where this term has 1.
    fn grouped(&self, groups: [&[Label]; 3], full: impl Fn(Label) -> usize) -> Result<BitNetTensor> {
        let order: Vec<isize> = groups.iter().flat_map(|g| g.iter()).map(|&label| self.axis(label)).collect();
        let dims: Vec<usize> = groups.iter().flat_map(|g| g.iter()).map(|&label| full(label)).collect();
        let sizes = groups.map(|group| group.iter().map(|&label| full(label)).product());
        self.tensor.permute(&order)?.broadcast_to(&dims)?.reshape(&sizes)
    }
}

/// The product of two terms, summed over the labels that no later term uses.
fn contract(a: Term, b: Term, later: impl Fn(&Label) -> bool) -> Result<Term> {
    let a = a.keep(|label| later(label) || b.labels.contains(label))?;
    let b = b.keep(|label| later(label) || a.labels.contains(label))?;
    let (shared, rows): (Vec<Label>, Vec<Label>) = a.labels.iter().partition(|label| b.labels.contains(label));
    let columns: Vec<Label> = b.labels.iter().copied().filter(|label| !shared.contains(label)).collect();
    let (batch, inner): (Vec<Label>, Vec<Label>) = shared.into_iter().partition(|label| later(label));
    let full = |label: Label| match (a.extent(label), b.extent(label)) {
        (1, extent) | (extent, _) => extent,
    };
    let left = a.grouped([&batch, &rows, &inner], full)?;
    let right = b.grouped([&batch, &inner, &columns], full)?;
    let labels: Vec<Label> = [batch, rows, columns].concat();
    let dims: Vec<usize> = labels.iter().map(|&label| full(label)).collect();
    let dtype = left.dtype();
    Ok(Term { tensor: left.bmm(&right)?.reshape(&dims)?.to_dtype(dtype)?, labels })
}
