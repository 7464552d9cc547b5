//! Reading and writing by index and mask.

use crate::calls::{Args, Called};
use crate::cases::number;
use bitnet_core::{BitNetTensor, Index, Result, Slice};
use serde_json::Value;

pub fn call(op: &str, args: &Args) -> Called {
    let result = match op {
        "gather" => args.t(0).gather(args.int("axis"), args.t(1)),
        "index_select" => args.t(0).index_select(args.int("axis"), args.t(1)),
        "take_along_axis" => args.t(0).take_along_axis(args.int("axis"), args.t(1)),
        "masked_fill" => args.t(0).masked_fill(args.t(1), args.scalar(2)),
        "masked_select" => args.t(0).masked_select(args.t(1)),
        "where_" => BitNetTensor::where_(args.t(0), args.t(1), args.t(2)),
        "index" => args.t(0).index(&index(args, 1)),
        "nonzero" => args.t(0).nonzero(),
        _ => return written(op, args),
    };
    Some(result.map(|t| vec![t]))
}

/// Operations that only exist in place: on a copy, which the input must not see.
fn written(op: &str, args: &Args) -> Called {
    fn in_place(args: &Args, f: impl Fn(&mut BitNetTensor) -> Result<()>) -> Called {
        let mut x = args.t(0).clone();
        Some(f(&mut x).map(|()| vec![x]))
    }
    let axis = || args.int("axis");
    match op {
        "scatter_" => in_place(args, |x| x.scatter_(axis(), args.t(1), args.t(2)).map(drop)),
        "scatter_add_" => in_place(args, |x| x.scatter_add_(axis(), args.t(1), args.t(2)).map(drop)),
        "index_add_" => in_place(args, |x| x.index_add_(axis(), args.t(1), args.t(2)).map(drop)),
        "slice_assign" => in_place(args, |x| x.slice_assign(&index(args, 2), args.t(1)).map(drop)),
        "index_put_" => in_place(args, |x| x.index_put_(&index(args, 2), args.t(1)).map(drop)),
        "index_fill_" => in_place(args, |x| x.index_fill_(axis(), args.t(1), args.scalar(2)).map(drop)),
        _ => None,
    }
}

/// The index of a case, whose tensors are the inputs from `first`.
fn index<'a>(args: &Args<'a>, first: usize) -> Vec<Index<'a>> {
    let part = |p: &Value| match p {
        Value::Number(_) => Index::At(number(p)),
        Value::String(_) => Index::Ellipsis,
        Value::Null => Index::NewAxis,
        Value::Object(_) => Index::Tensor(args.t(first + number(&p["t"]) as usize)),
        _ => {
            let end = |i: usize| (!p[i].is_null()).then(|| number(&p[i]));
            Index::Slice(Slice { start: end(0), end: end(1), step: number(&p[2]) })
        }
    };
    args.attrs["index"].as_array().expect("an index").iter().map(part).collect()
}
