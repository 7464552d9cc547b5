//! Choosing by a mask.

use crate::{BitNetTensor, Device};

#[test]
fn masks_choose_fill_and_count() {
    let cpu = &Device::cpu();
    let x = BitNetTensor::from_vec(vec![1f32, 0., 3., 4., 5., 0.], &[2, 3], cpu).unwrap();
    let mask = BitNetTensor::from_bools(&[true, false, true], &[3], cpu).unwrap();
    assert_eq!(x.masked_select(&mask).unwrap().to_vec::<f32>().unwrap(), [1., 3., 4., 0.]);
    assert_eq!(x.masked_fill(&mask, 9).unwrap().to_vec::<f32>().unwrap(), [9., 0., 9., 9., 5., 9.]);
    assert_eq!(x.nonzero().unwrap().to_vec::<i64>().unwrap(), [0, 0, 0, 2, 1, 0, 1, 1]);
    assert_eq!(x.select(0, 0).unwrap().select(0, 0).unwrap().nonzero().unwrap().dims(), [1, 0]);
    let row = BitNetTensor::from_vec(vec![-1f32, -2., -3.], &[3], cpu).unwrap();
    let column = BitNetTensor::from_bools(&[true, false], &[2, 1], cpu).unwrap();
    let chosen = BitNetTensor::where_(&column, &row, 0.5f32).unwrap();
    assert_eq!(chosen.to_vec::<f32>().unwrap(), [-1., -2., -3., 0.5, 0.5, 0.5]);
    assert!(x.masked_fill(&x, 0).is_err() && x.masked_select(&column.t().unwrap()).is_err());
    let mut y = x.clone();
    y.masked_fill_(&mask, -1).unwrap();
    assert_eq!((y.to_vec::<f32>().unwrap()[0], x.to_vec::<f32>().unwrap()[0]), (-1., 1.));
}

#[test]
fn a_mask_with_nothing_true_selects_and_writes_nothing() {
    use crate::{BitNetDType, idx};
    let cpu = &Device::cpu();
    for dims in [&[2, 3][..], &[2, 3, 4], &[3], &[0, 3], &[3, 0], &[1, 1, 1, 1, 2]] {
        let x = BitNetTensor::ones(dims, BitNetDType::F32, cpu).unwrap();
        for rank in 1..=dims.len() {
            let none = BitNetTensor::zeros(&dims[..rank], BitNetDType::Bool, cpu).unwrap();
            let selected = x.index(&idx![&none]).unwrap();
            assert_eq!(selected.dims(), [&[0], &dims[rank..]].concat());
            let mut y = x.clone();
            y.index_put_(&idx![&none], 5.).unwrap();
            y.index_put_accumulate_(&idx![&none], 5.).unwrap();
            y.index_put_(&idx![&none], &selected).unwrap();
            assert!(y.equal(&x).unwrap());
            let mut leaf = x.clone();
            leaf.requires_grad_(true).unwrap();
            leaf.index(&idx![&none]).unwrap().sum(.., false).unwrap().backward().unwrap();
            assert_eq!(leaf.grad().unwrap().dims(), dims);
        }
        let none = BitNetTensor::zeros(dims, BitNetDType::Bool, cpu).unwrap();
        assert_eq!(x.masked_select(&none).unwrap().dims(), [0]);
        assert_eq!(none.nonzero().unwrap().dims(), [0, dims.len()]);
    }
}
