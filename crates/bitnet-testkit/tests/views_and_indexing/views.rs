//! Chains of views and indices compared with a naive model: extents, and the storage position of each element.

use crate::naive::{self, Model};
use bitnet_core::{BitNetTensor, Device, Result};
use bitnet_testkit::{queue_device, reference_device};
use proptest::prelude::*;

/// A step as numbers that are fitted to the tensor they meet, so that every chain is legal.
type Step = (u8, usize, usize, usize);

/// The step on the tensor and on the model; the tensor unchanged where the step does not fit.
fn step(x: &BitNetTensor, model: &Model, (kind, p, q, r): Step) -> Result<(BitNetTensor, Model)> {
    let dims = model.dims.clone();
    let rank = dims.len();
    if rank == 0 {
        return Ok((x.unsqueeze(0)?, model.map(&[1], |_| vec![])));
    }
    let axis = p % rank;
    // Every other time counted from the end.
    let signed = |axis: usize| if q % 2 == 0 { axis as isize } else { axis as isize - rank as isize };
    let extent = dims[axis];
    let with = |axis: usize, extent: usize| {
        let mut dims = dims.clone();
        dims[axis] = extent;
        dims
    };
    let moved = |c: &[usize], axis: usize, to: usize| {
        let mut c = c.to_vec();
        c[axis] = to;
        c
    };
    Ok(match kind % 12 {
        0 => {
            let start = q % (extent + 1);
            let len = r % (extent - start + 1);
            (x.narrow(signed(axis), start, len)?, model.map(&with(axis, len), |c| moved(c, axis, start + c[axis])))
        }
        1 => {
            let stride = [1isize, 2, 3, -1, -2, -3][r % 6];
            let (start, end) = (q as isize % 9 - 4, (q / 9) as isize % 9 - 4);
            let places = naive::slice(extent, Some(start), Some(end), stride);
            let view = x.slice(signed(axis), start, end, stride)?;
            (view, model.map(&with(axis, places.len()), |c| moved(c, axis, places[c[axis]])))
        }
        2 => {
            let mut axes: Vec<usize> = (0..rank).collect();
            axes.rotate_left(q % rank);
            axes.swap(axis, r % rank);
            let signed: Vec<isize> = axes.iter().map(|&a| a as isize).collect();
            let to: Vec<usize> = axes.iter().map(|&a| dims[a]).collect();
            let back = |c: &[usize]| {
                let mut old = vec![0; rank];
                axes.iter().zip(c).for_each(|(&a, &i)| old[a] = i);
                old
            };
            (x.permute(&signed)?, model.map(&to, back))
        }
        3 => {
            let other = r % rank;
            let mut to = dims.clone();
            to.swap(axis, other);
            let swap = |c: &[usize]| {
                let mut c = c.to_vec();
                c.swap(axis, other);
                c
            };
            (x.transpose(signed(axis), other as isize)?, model.map(&to, swap))
        }
        4 if extent == 1 => {
            let mut to = dims.clone();
            to.remove(axis);
            let back = |c: &[usize]| {
                let mut c = c.to_vec();
                c.insert(axis, 0);
                c
            };
            (x.squeeze(signed(axis))?, model.map(&to, back))
        }
        5 if rank < 6 => {
            let at = q % (rank + 1);
            let mut to = dims.clone();
            to.insert(at, 1);
            let back = |c: &[usize]| {
                let mut c = c.to_vec();
                c.remove(at);
                c
            };
            (x.unsqueeze(at as isize)?, model.map(&to, back))
        }
        6 if extent == 1 && rank < 6 && model.at.len() < 500 => {
            let mut to = with(axis, r % 4);
            to.insert(0, 1 + q % 2);
            (x.expand(&to)?, model.map(&to, |c| moved(&c[1..], axis, 0)))
        }
        7 => (x.flip(&[signed(axis)])?, model.map(&dims, |c| moved(c, axis, extent - 1 - c[axis]))),
        8 if extent > 0 && rank < 6 && model.at.len() < 500 => {
            let (size, stride) = (1 + q % extent, 1 + r % 3);
            let mut to = with(axis, (extent - size) / stride + 1);
            to.push(size);
            let view = x.unfold(axis as isize, size, stride)?;
            (view, model.map(&to, |c| moved(&c[..rank], axis, c[axis] * stride + c[rank])))
        }
        9 if rank > 1 && r % rank != axis => {
            let (other, offset) = (r % rank, q as isize % 5 - 2);
            let (down, right) = ((-offset).max(0) as usize, offset.max(0) as usize);
            let length = dims[axis].saturating_sub(down).min(dims[other].saturating_sub(right));
            let mut to: Vec<usize> = (0..rank).filter(|&d| d != axis && d != other).map(|d| dims[d]).collect();
            to.push(length);
            let back = |c: &[usize]| {
                let (rest, i) = (&c[..rank - 2], c[rank - 2]);
                let mut rest = rest.iter();
                let place = |d| {
                    if d == axis {
                        i + down
                    } else if d == other {
                        i + right
                    } else {
                        *rest.next().unwrap()
                    }
                };
                (0..rank).map(place).collect()
            };
            (x.diagonal(offset, axis as isize, other as isize)?, model.map(&to, back))
        }
        10 => {
            let mut to: Vec<usize> = dims.clone();
            if rank > 1 && r % 2 == 0 {
                let last = to.pop().unwrap();
                *to.last_mut().unwrap() *= last;
            } else if rank < 6 && extent > 0 {
                let divisor = (1..=extent).filter(|d| extent.is_multiple_of(*d)).nth(q % 2).unwrap_or(1);
                to[axis] = extent / divisor;
                to.insert(axis + 1, divisor);
            }
            (x.reshape(&to)?, Model { dims: to, at: model.at.clone() })
        }
        11 if extent > 0 => {
            let at = r % extent;
            let mut to = dims.clone();
            to.remove(axis);
            let back = |c: &[usize]| {
                let mut c = c.to_vec();
                c.insert(axis, at);
                c
            };
            let index = if q % 2 == 0 { at as isize } else { at as isize - extent as isize };
            (x.select(signed(axis), index)?, model.map(&to, back))
        }
        _ => (x.clone(), model.clone()),
    })
}

fn devices() -> [Device; 3] {
    [Device::cpu(), reference_device(), queue_device()]
}

/// Elements 0, 1, 2, ... so that a value is its position.
fn counted(dims: &[usize], device: &Device) -> BitNetTensor {
    let values: Vec<i32> = (0..dims.iter().product::<usize>() as i32).collect();
    BitNetTensor::from_slice(&values, dims, device).unwrap()
}

fn places(model: &Model) -> Vec<i32> {
    model.at.iter().map(|&i| i as i32).collect()
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1 => Just(0usize), 4 => Just(1usize), 12 => 2usize..6], 0..5)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((any::<u8>(), 0usize..1000, 0usize..1000, 0usize..1000), 0..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn views_read_what_the_model_reads(dims in shapes(), steps in steps()) {
        for device in devices() {
            let (mut x, mut model) = (counted(&dims, &device), Model::new(&dims));
            for &s in &steps {
                (x, model) = step(&x, &model, s).unwrap();
                prop_assert_eq!(x.dims(), &model.dims[..], "after {:?}", s);
            }
            prop_assert_eq!(x.to_vec::<i32>().unwrap(), places(&model));
            let copied = x.contiguous().unwrap();
            prop_assert!(copied.is_contiguous());
            prop_assert_eq!(copied.to_vec::<i32>().unwrap(), places(&model));
            prop_assert_eq!(x.to_device(&Device::cpu()).unwrap().to_vec::<i32>().unwrap(), places(&model));
        }
    }

    #[test]
    fn writing_to_a_view_leaves_the_others(dims in shapes(), steps in steps()) {
        for device in devices() {
            let base = counted(&dims, &device);
            let (mut x, mut model) = (base.clone(), Model::new(&dims));
            for &s in &steps {
                (x, model) = step(&x, &model, s).unwrap();
            }
            let before = x.clone();
            x.fill_(-1).unwrap();
            prop_assert_eq!(x.to_vec::<i32>().unwrap(), vec![-1; model.at.len()]);
            prop_assert_eq!(before.to_vec::<i32>().unwrap(), places(&model));
            let all: Vec<i32> = (0..base.elements() as i32).collect();
            prop_assert_eq!(base.to_vec::<i32>().unwrap(), all);
            // Not shared now: each element is written separately, whatever the strides were.
            x.fill_(-2).unwrap();
            prop_assert_eq!(x.to_vec::<i32>().unwrap(), vec![-2; model.at.len()]);
        }
    }

    #[test]
    fn arithmetic_in_place_on_any_view(dims in shapes(), steps in steps()) {
        for device in devices() {
            let (mut x, mut model) = (counted(&dims, &device), Model::new(&dims));
            for &s in &steps {
                (x, model) = step(&x, &model, s).unwrap();
            }
            let sum = x.add(&x).unwrap().to_vec::<i32>().unwrap();
            let other = x.clone();
            x.add_(&other).unwrap();
            let expected: Vec<i32> = places(&model).iter().map(|v| v * 2).collect();
            prop_assert_eq!(&sum, &expected);
            prop_assert_eq!(x.to_vec::<i32>().unwrap(), expected);
        }
    }
}
