//! Comparisons, logic, functions of three operands, reductions and scans.

use crate::calls::{Args, Called};
use bitnet_core::{Axes, BitNetTensor, Result};

pub fn call(op: &str, args: &Args) -> Called {
    if let Some(result) = single(op, args) {
        return Some(result.map(|t| vec![t]));
    }
    let keepdim = || args.flag("keepdim");
    let pair = |result: Result<(BitNetTensor, BitNetTensor)>| Some(result.map(|(a, b)| vec![a, b]));
    match op {
        "max" => pair(args.t(0).max(args.int("axis"), keepdim())),
        "min" => pair(args.t(0).min(args.int("axis"), keepdim())),
        "allclose" => {
            let (rtol, atol) = (args.float("rtol"), args.float("atol"));
            truth(args, args.t(0).allclose(args.t(1), rtol, atol, args.flag("equal_nan")))
        }
        "equal" => truth(args, args.t(0).equal(args.t(1))),
        _ => None,
    }
}

fn truth(args: &Args, result: Result<bool>) -> Called {
    Some(result.and_then(|b| BitNetTensor::from_bools(&[b], &[], args.device)).map(|t| vec![t]))
}

fn single(op: &str, args: &Args) -> Option<Result<BitNetTensor>> {
    let x = || args.t(0);
    let keepdim = || args.flag("keepdim");
    let axes = || if args.attrs["axes"].is_null() { Axes::from(..) } else { Axes::from(&args.ints("axes")[..]) };
    let one = || if args.attrs["axis"].is_null() { None } else { Some(args.int("axis")) };
    let limit = |i: usize, key: &str| args.flag(key).then(|| args.scalar(i));
    Some(match op {
        "eq" => x().eq(args.operand(1)),
        "ne" => x().ne(args.operand(1)),
        "lt" => x().lt(args.operand(1)),
        "le" => x().le(args.operand(1)),
        "gt" => x().gt(args.operand(1)),
        "ge" => x().ge(args.operand(1)),
        "logical_and" => x().logical_and(args.operand(1)),
        "logical_or" => x().logical_or(args.operand(1)),
        "logical_xor" => x().logical_xor(args.operand(1)),
        "logical_not" => x().logical_not(),
        "isnan" => x().isnan(),
        "isinf" => x().isinf(),
        "isfinite" => x().isfinite(),
        "clamp" => x().clamp(limit(1, "low"), limit(2, "high")),
        "lerp" => x().lerp(args.t(1), args.operand(2)),
        "addcmul" => x().addcmul(args.t(1), args.t(2), args.scalar(3)),
        "sum" => x().sum(axes(), keepdim()),
        "prod" => x().prod(axes(), keepdim()),
        "any" => x().any(axes(), keepdim()),
        "all" => x().all(axes(), keepdim()),
        "amax" => x().amax(axes(), keepdim()),
        "amin" => x().amin(axes(), keepdim()),
        "count_nonzero" => x().count_nonzero(axes()),
        "mean" => x().mean(axes(), keepdim()),
        "var" => x().var(axes(), args.float("correction"), keepdim()),
        "std" => x().std(axes(), args.float("correction"), keepdim()),
        "norm" => x().norm(args.float("p"), axes(), keepdim()),
        "logsumexp" => x().logsumexp(axes(), keepdim()),
        "argmax" => x().argmax(one(), keepdim()),
        "argmin" => x().argmin(one(), keepdim()),
        "cumsum" => x().cumsum(args.int("axis")),
        "cumprod" => x().cumprod(args.int("axis")),
        _ => return None,
    })
}

/// The in-place and `_into` forms of these.
pub fn in_place(op: &str, args: &Args, x: &mut BitNetTensor) -> Option<Result<()>> {
    let limit = |i: usize, key: &str| args.flag(key).then(|| args.scalar(i));
    Some(match op {
        "clamp" => x.clamp_(limit(1, "low"), limit(2, "high")).map(drop),
        "lerp" => x.lerp_(args.t(1), args.operand(2)).map(drop),
        "addcmul" => x.addcmul_(args.t(1), args.t(2), args.scalar(3)).map(drop),
        "masked_fill" => x.masked_fill_(args.t(1), args.scalar(2)).map(drop),
        _ => return None,
    })
}

pub fn into(op: &str, args: &Args, out: &mut BitNetTensor) -> Option<Result<()>> {
    let x = args.t(0);
    Some(match op {
        "eq" => x.eq_into(args.operand(1), out),
        "ne" => x.ne_into(args.operand(1), out),
        "lt" => x.lt_into(args.operand(1), out),
        "le" => x.le_into(args.operand(1), out),
        "gt" => x.gt_into(args.operand(1), out),
        "ge" => x.ge_into(args.operand(1), out),
        _ => return None,
    })
}
