//! Views share storage; what they show is what PyTorch shows.

use crate::{BitNetDType, BitNetTensor, Device, INFER};

fn x(dims: &[usize]) -> BitNetTensor {
    let data: Vec<i32> = (0..dims.iter().product::<usize>() as i32).collect();
    BitNetTensor::from_slice(&data, dims, &Device::cpu()).unwrap()
}

#[track_caller]
fn check(view: &BitNetTensor, of: &BitNetTensor, dims: &[usize], values: &[i32]) {
    assert_eq!((view.dims(), view.to_vec::<i32>().unwrap()), (dims, values.to_vec()));
    assert!(view.shares_storage(of), "a byte moved");
}

#[test]
fn shape_operations_copy_nothing() {
    let m = x(&[2, 3]);
    check(&m.view(&[INFER, 2]).unwrap(), &m, &[3, 2], &[0, 1, 2, 3, 4, 5]);
    check(&m.unsqueeze(-1).unwrap().squeeze(2).unwrap(), &m, &[2, 3], &[0, 1, 2, 3, 4, 5]);
    check(&m.squeeze(0).unwrap(), &m, &[2, 3], &[0, 1, 2, 3, 4, 5]);
    check(&m.t().unwrap(), &m, &[3, 2], &[0, 3, 1, 4, 2, 5]);
    check(&m.permute(&[-1, 0]).unwrap(), &m, &[3, 2], &[0, 3, 1, 4, 2, 5]);
    check(&m.movedim(-1, 0).unwrap(), &m, &[3, 2], &[0, 3, 1, 4, 2, 5]);
    check(&m.select(-1, -2).unwrap(), &m, &[2], &[1, 4]);
    check(&m.slice(1, None, None, -2).unwrap(), &m, &[2, 2], &[2, 0, 5, 3]);
    check(&m.flip(&[0, 1]).unwrap(), &m, &[2, 3], &[5, 4, 3, 2, 1, 0]);
    check(&m.narrow(1, 1, 1).unwrap().expand(&[2, INFER, 3]).unwrap(), &m, &[2, 2, 3], &[1, 1, 1, 4, 4, 4].repeat(2));
    check(&m.flatten(0, -1).unwrap().unflatten(0, &[3, INFER]).unwrap(), &m, &[3, 2], &[0, 1, 2, 3, 4, 5]);
    check(&m.diagonal(-1, 0, 1).unwrap(), &m, &[1], &[3]);
    check(&m.unfold(1, 2, 1).unwrap(), &m, &[2, 2, 2], &[0, 1, 1, 2, 3, 4, 4, 5]);
    check(&m.split(2, 1).unwrap()[1], &m, &[2, 1], &[2, 5]);
    check(&m.chunk(2, -1).unwrap()[0], &m, &[2, 2], &[0, 1, 3, 4]);
    check(&m.split_sizes(&[0, 2], 0).unwrap()[1], &m, &[2, 3], &[0, 1, 2, 3, 4, 5]);
    check(&m.contiguous().unwrap(), &m, &[2, 3], &[0, 1, 2, 3, 4, 5]);
    let padded = x(&[1, 3, 1]);
    check(&padded.squeeze_all().unwrap(), &padded, &[3], &[0, 1, 2]);
}

#[test]
fn reshape_copies_where_strides_cannot_say_it_and_view_refuses() {
    let t = x(&[2, 3]).t().unwrap();
    assert!(t.view(&[6]).is_err());
    let flat = t.reshape(&[INFER]).unwrap();
    assert_eq!(flat.to_vec::<i32>().unwrap(), [0, 3, 1, 4, 2, 5]);
    assert!(!flat.shares_storage(&t));
}

#[test]
fn scalars_pass_as_vectors_of_one() {
    let s = x(&[]);
    assert_eq!(s.flatten(0, -1).unwrap().dims(), [1]);
    assert_eq!(s.squeeze(-1).unwrap().rank(), 0);
    assert_eq!(s.flip(&[0]).unwrap().rank(), 0);
    assert_eq!(s.unsqueeze(0).unwrap().dims(), [1]);
    assert_eq!(s.expand(&[2, 2]).unwrap().to_vec::<i32>().unwrap(), [0; 4]);
    assert!(s.squeeze(1).is_err());
}

#[test]
fn view_errors_say_what_to_do() {
    let m = x(&[2, 3]);
    let message = |r: crate::Result<BitNetTensor>| r.unwrap_err().to_string();
    assert_eq!(
        message(m.reshape(&[INFER, 4])),
        "reshape: [?, 4] cannot be inferred from 6 elements: give every extent"
    );
    assert!(m.reshape(&[INFER, INFER]).is_err());
    assert!(x(&[0]).reshape(&[0, INFER]).is_err());
    assert_eq!(message(m.select(0, -3)), "select: index -3 is outside dimension 0 of [2, 3]");
    assert_eq!(message(m.select(2, 0)), "select: [2, 3] has no dimension 2");
    assert!(m.narrow(0, 1, usize::MAX).is_err());
    assert!(m.split(0, 0).is_err() && m.chunk(0, 0).is_err() && m.split_sizes(&[1], 0).is_err());
    assert!(m.flip(&[0, -2]).is_err());
    assert!(m.expand(&[INFER, 2, 3]).is_err());
    assert!(m.unflatten(0, &[3]).is_err());
    assert!(m.unsqueeze(4).is_err() && m.unsqueeze(-4).is_err());
    assert!(x(&[0]).chunk(usize::MAX, 0).is_err());
}

#[test]
fn rows_of_packed_types_stay_whole() {
    let p = BitNetTensor::from_bytes(&[0; 6], &[3, 8], BitNetDType::Ternary2, &Device::cpu()).unwrap();
    assert_eq!(p.unsqueeze(0).unwrap().squeeze(0).unwrap().dims(), [3, 8]);
    assert_eq!(p.view(&[1, 3, 8]).unwrap().dims(), [1, 3, 8]);
    assert!(p.reshape(&[6, 4]).is_err() && p.t().is_err() && p.unsqueeze(-1).is_err() && p.slice(1, 0, 4, 1).is_err());
}

#[test]
fn a_write_through_a_view_leaves_the_others() {
    let m = x(&[2, 3]);
    let mut row = m.select(0, 0).unwrap();
    row.as_mut().unwrap();
    assert!(!row.shares_storage(&m));
    // Not shared any more, but six elements in one place.
    let mut expanded = x(&[1]).expand(&[6]).unwrap();
    assert_eq!(expanded.as_mut().unwrap().layout.strides(), [1]);
}

#[test]
fn a_scalar_passes_as_a_vector_of_one() {
    let five = x(&[1]).reshape(&[]).unwrap();
    // torch.tensor(5.).movedim(0, -1), .unfold(0, 1, 1), .unfold(0, 0, 1)
    check(&five.movedim(0, -1).unwrap(), &five, &[], &[0]);
    check(&five.unfold(0, 1, 1).unwrap(), &five, &[1], &[0]);
    check(&five.unfold(-1, 0, 1).unwrap(), &five, &[0], &[]);
    assert!(five.unfold(0, 2, 1).is_err() && five.unfold(1, 1, 1).is_err() && five.movedim(0, 1).is_err());
}

#[test]
fn a_new_axis_takes_the_dimension_that_a_place_frees() {
    use crate::idx;
    let full = x(&[2, 1, 1, 1, 1, 1, 1, 3]);
    check(&full.index(&idx![NewAxis, 1]).unwrap(), &full, &[1, 1, 1, 1, 1, 1, 1, 3], &[3, 4, 5]);
    check(&full.index(&idx![NewAxis, Ellipsis, 2]).unwrap(), &full, &[1, 2, 1, 1, 1, 1, 1, 1], &[2, 5]);
    let place = BitNetTensor::from_slice(&[1i64], &[], &Device::cpu()).unwrap();
    check(&full.index(&idx![NewAxis, &place]).unwrap(), &full, &[1, 1, 1, 1, 1, 1, 1, 3], &[3, 4, 5]);
    assert!(full.index(&idx![NewAxis]).is_err());
}
