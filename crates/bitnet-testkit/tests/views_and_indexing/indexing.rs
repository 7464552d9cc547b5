//! Reading and writing by index, compared with a naive model of PyTorch's rules.

use crate::naive::{coordinates, position, slice};
use bitnet_core::{BitNetTensor, Device, Index, Slice};
use bitnet_testkit::{queue_device, reference_device};
use proptest::prelude::*;

/// A part of an index, already fitted to its dimension.
#[derive(Debug, Clone)]
enum Part {
    At(isize),
    Slice(Option<isize>, Option<isize>, isize),
    NewAxis,
    /// Extents and places, some negative.
    Places(Vec<usize>, Vec<i64>),
    Mask(Vec<bool>),
    Ellipsis,
}

/// A tensor's extents and an index that fits them.
fn cases() -> impl Strategy<Value = (Vec<usize>, Vec<Part>)> {
    let dims = prop::collection::vec(prop_oneof![1 => Just(0usize), 3 => Just(1usize), 12 => 2usize..5], 0..5);
    let choices = prop::collection::vec((0u8..12, 0usize..1000, 0usize..1000), 8);
    // The extents that index tensors of one index broadcast to.
    let common = prop_oneof![Just(vec![]), Just(vec![3]), Just(vec![2, 2]), Just(vec![0]), Just(vec![2, 1])];
    (dims, choices, common).prop_map(|(dims, choices, common)| {
        let mut parts = Vec::new();
        let mut axis = 0;
        let masks = common == [3];
        for (kind, a, b) in choices {
            if kind == 0 && parts.len() < 6 {
                parts.push(Part::NewAxis);
            }
            let Some(&extent) = dims.get(axis) else { break };
            axis += 1;
            let signed = |at: usize| if b % 2 == 0 { at as isize } else { at as isize - extent as isize };
            parts.push(match kind {
                1 | 2 if extent > 0 => Part::At(signed(a % extent)),
                3..=5 => {
                    let end = |v: usize| (!v.is_multiple_of(3)).then_some(v as isize % 11 - 5);
                    Part::Slice(end(a), end(b), [1, 2, -1, -2, 3][(a + b) % 5])
                }
                6..=8 if extent > 0 || common.contains(&0) => {
                    let shape = if a % 3 == 0 { vec![] } else { common.clone() };
                    let count: usize = shape.iter().product();
                    let place = |i: usize| signed((a * 7 + i * (b % 5 + 1)) % extent.max(1)) as i64;
                    Part::Places(shape, (0..if extent > 0 { count } else { 0 }).map(place).collect())
                }
                // A mask gives as many places as it has truths: three, to go with the others.
                9 if masks && extent >= 3 => Part::Mask((0..extent).map(|i| (i + a) % extent < 3).collect()),
                10 if !parts.iter().any(|p| matches!(p, Part::Ellipsis)) => {
                    axis += (a % 2).min(dims.len() - axis);
                    Part::Ellipsis
                }
                _ => Part::Slice(None, None, 1),
            });
            // Index tensors of no places need a dimension that has some, or none asked.
            if let Some(Part::Places(shape, places)) = parts.last()
                && shape.iter().product::<usize>() != places.len()
            {
                *parts.last_mut().unwrap() = Part::Slice(None, None, 1);
            }
        }
        // An ellipsis covers the remaining dimensions; after an explicit share no other index may follow.
        if parts.iter().any(|p| matches!(p, Part::Ellipsis)) {
            let consumed = parts.iter().filter(|p| !matches!(p, Part::NewAxis | Part::Ellipsis)).count();
            debug_assert!(consumed <= dims.len());
        }
        (dims, parts)
    })
}

/// What a coordinate of the result selects.
enum Source {
    /// One place.
    Fixed(usize),
    /// The places of a slice, indexed by this dimension of the result without the tensors' dimensions.
    Along(usize, Vec<usize>),
    /// An index tensor.
    Tensor(Vec<usize>, Vec<usize>),
}

/// Extents of `x[parts]` and the place of each of its elements in row-major order of `x`.
fn model(dims: &[usize], parts: &[Part]) -> (Vec<usize>, Vec<usize>) {
    let consumed = parts.iter().filter(|p| !matches!(p, Part::NewAxis | Part::Ellipsis)).count();
    let mut full = Vec::new();
    for part in parts {
        match part {
            Part::Ellipsis => full.extend(vec![Part::Slice(None, None, 1); dims.len() - consumed]),
            // A tensor without dimensions is a position.
            Part::Places(shape, places) if shape.is_empty() => full.push(Part::At(places[0] as isize)),
            other => full.push(other.clone()),
        }
    }
    let used = full.iter().filter(|p| !matches!(p, Part::NewAxis)).count();
    full.extend(vec![Part::Slice(None, None, 1); dims.len() - used]);

    // Dimensions kept by slices, the position of the index tensors' dimensions, whether those are adjacent.
    let (mut kept, mut sources, mut axis) = (Vec::new(), Vec::new(), 0);
    let (mut place, mut together, mut last_was_tensor) = (None, true, false);
    for part in &full {
        let is_tensor = matches!(part, Part::Places(..) | Part::Mask(_));
        if is_tensor {
            together &= place.is_none() || last_was_tensor;
            place.get_or_insert(kept.len());
        }
        // A position has already taken its dimension away.
        if !matches!(part, Part::At(_)) {
            last_was_tensor = is_tensor;
        }
        let extent = |axis: usize| dims[axis];
        let wrapped = |at: isize| if at < 0 { (at + extent(axis) as isize) as usize } else { at as usize };
        match part {
            Part::NewAxis => {
                kept.push(1);
                continue;
            }
            Part::At(at) => sources.push(Source::Fixed(wrapped(*at))),
            Part::Slice(start, end, step) => {
                let places = slice(extent(axis), *start, *end, *step);
                sources.push(Source::Along(kept.len(), places.clone()));
                kept.push(places.len());
            }
            Part::Places(shape, places) => {
                let places = places.iter().map(|&p| wrapped(p as isize)).collect();
                sources.push(Source::Tensor(shape.clone(), places));
            }
            Part::Mask(mask) => {
                let places: Vec<_> = (0..mask.len()).filter(|&i| mask[i]).collect();
                sources.push(Source::Tensor(vec![places.len()], places));
            }
            Part::Ellipsis => unreachable!(),
        }
        axis += 1;
    }
    let shapes = sources.iter().filter_map(|s| if let Source::Tensor(shape, _) = s { Some(shape) } else { None });
    let common = shapes.fold(vec![], |a: Vec<usize>, b| if a.len() >= b.len() { a } else { b.clone() });
    let at = if together { place.unwrap_or(0) } else { 0 };
    let result = [&kept[..at], &common, &kept[at..]].concat();
    let from = |c: Vec<usize>| {
        let tensor = &c[at..at + common.len()];
        let rest = [&c[..at], &c[at + common.len()..]].concat();
        let old: Vec<usize> = sources
            .iter()
            .map(|source| match source {
                Source::Fixed(at) => *at,
                Source::Along(d, places) => places[rest[*d]],
                Source::Tensor(shape, places) => places[if shape.is_empty() { 0 } else { position(shape, tensor) }],
            })
            .collect();
        position(dims, &old)
    };
    let places = coordinates(&result).into_iter().map(from).collect();
    (result, places)
}

/// The index tensors and masks of an index, in order.
fn tensors(parts: &[Part], device: &Device) -> Vec<BitNetTensor> {
    let tensor = |part: &Part| match part {
        Part::Places(shape, places) => Some(BitNetTensor::from_slice(places, shape, device).unwrap()),
        Part::Mask(mask) => Some(BitNetTensor::from_bools(mask, &[mask.len()], device).unwrap()),
        _ => None,
    };
    parts.iter().filter_map(tensor).collect()
}

fn indices<'a>(parts: &[Part], tensors: &'a [BitNetTensor]) -> Vec<Index<'a>> {
    let mut tensors = tensors.iter();
    let mut index = |part: &Part| match part {
        Part::At(at) => Index::At(*at),
        Part::Slice(start, end, step) => Index::Slice(Slice { start: *start, end: *end, step: *step }),
        Part::NewAxis => Index::NewAxis,
        Part::Ellipsis => Index::Ellipsis,
        Part::Places(..) | Part::Mask(_) => Index::Tensor(tensors.next().unwrap()),
    };
    parts.iter().map(&mut index).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn indexing_reads_and_writes_what_the_model_does((dims, parts) in cases()) {
        let (shape, places) = model(&dims, &parts);
        prop_assume!(shape.len() <= bitnet_core::MAX_DIMS);
        let count: usize = dims.iter().product();
        let all: Vec<i32> = (0..count as i32).collect();
        for device in [Device::cpu(), reference_device(), queue_device()] {
            let base = BitNetTensor::from_slice(&all, &dims, &device).unwrap();
            // The same elements with strides other than those of a new tensor.
            let axes: Vec<isize> = (0..dims.len() as isize).rev().collect();
            let turned = base.permute(&axes).unwrap().copy().unwrap().permute(&axes).unwrap();
            let tensors = tensors(&parts, &device);
            let index = indices(&parts, &tensors);
            for x in [&base, &turned] {
                let got = x.index(&index).unwrap();
                prop_assert_eq!(got.dims(), &shape[..]);
                let expected: Vec<i32> = places.iter().map(|&p| p as i32).collect();
                prop_assert_eq!(got.to_vec::<i32>().unwrap(), expected);

                // Of several writes to one place the last stays.
                let new: Vec<i32> = (0..places.len() as i32).map(|i| -1 - i).collect();
                let mut written = all.clone();
                places.iter().zip(&new).for_each(|(&p, &v)| written[p] = v);
                let mut y = x.clone();
                let values = BitNetTensor::from_slice(&new, &shape, &device).unwrap();
                y.index_put_(&index, &values).unwrap();
                prop_assert_eq!(y.to_vec::<i32>().unwrap(), written);
                prop_assert_eq!(x.to_vec::<i32>().unwrap(), all.clone());
                let mut y = x.copy().unwrap();
                y.index_put_(&index, 7).unwrap();
                let filled: Vec<i32> = (0..count).map(|i| if places.contains(&i) { 7 } else { i as i32 }).collect();
                prop_assert_eq!(y.to_vec::<i32>().unwrap(), filled);
            }
        }
    }
}
