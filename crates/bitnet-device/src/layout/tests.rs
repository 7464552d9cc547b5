//! Layouts compared with NumPy's and PyTorch's.

use super::*;

fn layout(dims: &[usize]) -> Layout {
    Layout::contiguous(TensorShape::new(dims).unwrap())
}

#[test]
fn views_visit_the_elements_numpy_visits() {
    let l = layout(&[2, 3]);
    assert_eq!(l.indices().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(l.transpose(0, 1).unwrap().indices().collect::<Vec<_>>(), [0, 3, 1, 4, 2, 5]);
    assert_eq!(l.narrow(1, 1, 2).unwrap().indices().collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert_eq!(layout(&[3]).broadcast_to(&[2, 3]).unwrap().indices().collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
    assert_eq!(layout(&[]).indices().collect::<Vec<_>>(), [0]);
    assert_eq!(layout(&[2, 0]).indices().count(), 0);
}

#[test]
fn invalid_views_are_errors() {
    let l = layout(&[2, 3]);
    assert!(l.narrow(1, 2, 2).is_err());
    assert!(l.narrow(1, usize::MAX, 2).is_err());
    assert!(l.transpose(0, 2).is_err());
    assert!(l.reshape(&[7]).is_err());
    assert!(l.transpose(0, 1).unwrap().reshape(&[6]).is_err());
    assert!(l.broadcast_to(&[2, 4]).is_err());
    assert!(TensorShape::new(&[usize::MAX, 2]).is_err());
    assert!(TensorShape::new(&[0, usize::MAX, 2]).is_err());
    assert!(TensorShape::new(&[1; 9]).is_err());
}

#[test]
fn contiguity_ignores_dimensions_of_one() {
    let l = layout(&[4, 1, 3]);
    assert!(l.transpose(0, 1).unwrap().is_contiguous());
    assert!(!l.transpose(0, 2).unwrap().is_contiguous());
    assert!(l.narrow(0, 1, 2).unwrap().is_contiguous());
}

fn visited(l: Layout) -> Vec<usize> {
    l.indices().collect()
}

#[test]
fn reshape_is_a_view_where_pytorch_has_one() {
    let l = layout(&[2, 3, 4]);
    // Dimensions 1 and 2 stay contiguous after the exchanged ones.
    let t = l.unsqueeze(0).unwrap().transpose(0, 1).unwrap();
    assert_eq!(t.reshape(&[2, 12]).unwrap().strides(), [12, 1]);
    let swapped = layout(&[2, 3, 4]).permute(&[1, 0, 2]).unwrap();
    assert_eq!(swapped.reshape(&[3, 2, 2, 2]).unwrap().strides(), [4, 12, 2, 1]);
    assert!(swapped.reshape(&[6, 4]).is_err());
    // Every second row, every column of a broadcast, backwards.
    let rows = layout(&[4, 3]).slice(0, None, None, 2).unwrap();
    assert!(rows.reshape(&[6]).is_err());
    assert_eq!(layout(&[8]).slice(0, None, None, 2).unwrap().reshape(&[2, 2]).unwrap().strides(), [4, 2]);
    assert_eq!(layout(&[1]).broadcast_to(&[6]).unwrap().reshape(&[2, 3]).unwrap().strides(), [0, 0]);
    assert_eq!(visited(layout(&[6]).flip(0).unwrap().reshape(&[2, 3]).unwrap()), [5, 4, 3, 2, 1, 0]);
    assert_eq!(layout(&[0, 3]).transpose(0, 1).unwrap().reshape(&[7, 0]).unwrap().dims(), [7, 0]);
}

#[test]
fn slices_follow_python() {
    let l = layout(&[5]);
    let slice = |start, end, step| visited(l.slice(0, start, end, step).unwrap());
    assert_eq!(slice(None, None, -1), [4, 3, 2, 1, 0]);
    assert_eq!(slice(Some(-2), None, 1), [3, 4]);
    assert_eq!(slice(Some(10), Some(-10), -2), [4, 2, 0]);
    assert_eq!(slice(Some(1), Some(100), 2), [1, 3]);
    assert_eq!(slice(Some(3), Some(1), 1), [0; 0]);
    assert_eq!(slice(Some(3), Some(0), -2), [3, 1]);
    assert_eq!(slice(Some(isize::MIN), Some(isize::MAX), isize::MAX), [0]);
    assert_eq!(slice(Some(isize::MAX), Some(isize::MIN), isize::MIN), [4]);
    assert!(l.slice(0, None, None, 0).is_err());
    assert!(l.slice(1, None, None, 1).is_err());
    assert_eq!(layout(&[0]).slice(0, None, None, -1).unwrap().dims(), [0]);
}

#[test]
fn a_view_without_elements_stays_inside_its_storage() {
    let l = layout(&[0, 3]);
    assert_eq!(l.select(1, 2).unwrap().offset(), 0);
    assert_eq!(layout(&[2, 3]).narrow(0, 2, 0).unwrap().offset(), 0);
    assert_eq!(layout(&[2, 3]).diagonal(7, 0, 1).unwrap().offset(), 0);
}

#[test]
fn windows_and_diagonals() {
    let l = layout(&[3, 4]);
    assert_eq!(visited(l.diagonal(0, 0, 1).unwrap()), [0, 5, 10]);
    assert_eq!(visited(l.diagonal(2, 0, 1).unwrap()), [2, 7]);
    assert_eq!(visited(l.diagonal(-1, 0, 1).unwrap()), [4, 9]);
    assert_eq!(visited(l.diagonal(1, 1, 0).unwrap()), [4, 9]);
    let cube = layout(&[2, 3, 4]);
    assert_eq!(cube.diagonal(0, 0, 2).unwrap().dims(), [3, 2]);
    assert_eq!(visited(cube.diagonal(0, 0, 2).unwrap()), [0, 13, 4, 17, 8, 21]);
    let w = layout(&[7]).unfold(0, 3, 2).unwrap();
    assert_eq!((w.dims(), visited(w)), (&[3, 3][..], vec![0, 1, 2, 2, 3, 4, 4, 5, 6]));
    assert!(w.overlaps());
    assert!(!layout(&[7]).unfold(0, 2, 2).unwrap().overlaps());
    assert!(layout(&[2]).unfold(0, 3, 1).is_err());
    assert!(l.diagonal(0, 1, 1).is_err());
}

#[test]
fn moved_dimensions() {
    let l = layout(&[2, 3, 4]);
    assert_eq!(l.movedim(0, 2).unwrap().dims(), [3, 4, 2]);
    assert_eq!(l.movedim(2, 0).unwrap().dims(), [4, 2, 3]);
    assert_eq!(l.permute(&[2, 0, 1]).unwrap().strides(), [1, 12, 4]);
    assert!(l.permute(&[0, 0, 1]).is_err());
    assert!(l.permute(&[0, 1]).is_err());
    assert_eq!(l.select(1, 2).unwrap(), l.narrow(1, 2, 1).unwrap().squeeze(1).unwrap());
    assert!(!l.permute(&[2, 0, 1]).unwrap().flip(1).unwrap().overlaps());
    assert!(l.unsqueeze(0).unwrap().broadcast_to(&[5, 2, 3, 4]).unwrap().overlaps());
    assert!(layout(&[1; 8]).unsqueeze(0).is_err());
}
