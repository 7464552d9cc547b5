//! Sorting and searching.

use crate::calls::{Args, Called};
use bitnet_core::BitNetTensor;

pub fn call(op: &str, args: &Args) -> Called {
    let x = || args.t(0);
    let (axis, descending) = (|| args.int("axis"), || args.flag("descending"));
    Some(match op {
        "sort" => x().sort(axis(), descending()).map(|(values, indices)| vec![values, indices]),
        "argsort" => x().argsort(axis(), descending()).map(|t| vec![t]),
        "topk" => x().topk(args.size("k"), axis(), args.flag("largest")).map(|(values, indices)| vec![values, indices]),
        "unique" => x().unique().map(|(values, inverse, counts)| vec![values, inverse, counts]),
        "searchsorted" => BitNetTensor::searchsorted(x(), args.t(1), args.flag("right")).map(|t| vec![t]),
        "bincount" => x().bincount().map(|t| vec![t]),
        _ => return None,
    })
}
