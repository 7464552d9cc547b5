//! Views, creation, joins.

use crate::calls::{Args, Called};
use bitnet_core::{BitNetTensor, Result};

pub fn call(op: &str, args: &Args) -> Called {
    if let Some(result) = created(op, args) {
        return Some(result.map(|t| vec![t]));
    }
    if let Some(result) = joined(op, args) {
        return Some(result.map(|t| vec![t]));
    }
    let several = match op {
        "split" => args.t(0).split(args.size("size"), args.int("axis")),
        "split_sizes" => args.t(0).split_sizes(&args.sizes("sizes"), args.int("axis")),
        "chunk" => args.t(0).chunk(args.size("n"), args.int("axis")),
        _ => return view(op, args).map(|result| result.map(|t| vec![t])),
    };
    Some(several)
}

fn view(op: &str, args: &Args) -> Option<Result<BitNetTensor>> {
    let x = || args.t(0);
    let int = |key| args.int(key);
    Some(match op {
        "reshape" => x().reshape(&args.sizes("dims")),
        "view" => x().view(&args.sizes("dims")),
        "squeeze" => x().squeeze(int("axis")),
        "squeeze_all" => x().squeeze_all(),
        "unsqueeze" => x().unsqueeze(int("axis")),
        "permute" => x().permute(&args.ints("axes")),
        "transpose" => x().transpose(int("a"), int("b")),
        "swapaxes" => x().swapaxes(int("a"), int("b")),
        "movedim" => x().movedim(int("a"), int("b")),
        "t" => x().t(),
        "narrow" => x().narrow(int("axis"), args.size("start"), args.size("len")),
        "slice" => x().slice(int("axis"), int("start"), int("end"), int("step")),
        "select" => x().select(int("axis"), int("i")),
        "expand" => x().expand(&args.sizes("dims")),
        "broadcast_to" => x().broadcast_to(&args.sizes("dims")),
        "unfold" => x().unfold(int("axis"), args.size("size"), args.size("step")),
        "diagonal" => x().diagonal(int("offset"), int("a"), int("b")),
        "flatten" => x().flatten(int("start"), int("end")),
        "unflatten" => x().unflatten(int("axis"), &args.sizes("dims")),
        "flip" => x().flip(&args.ints("axes")),
        "contiguous" => x().contiguous(),
        "copy" => x().copy(),
        "tril" => x().tril(int("k")),
        "triu" => x().triu(int("k")),
        "to_dtype" => x().to_dtype(args.dtype()),
        _ => return None,
    })
}

fn created(op: &str, args: &Args) -> Option<Result<BitNetTensor>> {
    let device = args.device;
    Some(match op {
        "zeros" => BitNetTensor::zeros(&args.sizes("dims"), args.dtype(), device),
        "ones" => BitNetTensor::ones(&args.sizes("dims"), args.dtype(), device),
        "full" => BitNetTensor::full(&args.sizes("dims"), args.scalar(0), args.dtype(), device),
        "zeros_like" => args.t(0).zeros_like(),
        "ones_like" => args.t(0).ones_like(),
        "full_like" => args.t(0).full_like(args.scalar(1)),
        "arange" => BitNetTensor::arange(args.scalar(0), args.scalar(1), args.scalar(2), args.dtype(), device),
        "linspace" => {
            let (start, end) = (args.scalar(0).to_f64(), args.scalar(1).to_f64());
            BitNetTensor::linspace(start, end, args.size("steps"), args.dtype(), device)
        }
        "eye" => BitNetTensor::eye(args.size("n"), args.dtype(), device),
        _ => return None,
    })
}

fn joined(op: &str, args: &Args) -> Option<Result<BitNetTensor>> {
    Some(match op {
        "cat" => BitNetTensor::cat(&args.list(0), args.int("axis")),
        "stack" => BitNetTensor::stack(&args.list(0), args.int("axis")),
        "repeat" => args.t(0).repeat(&args.sizes("repeats")),
        "repeat_interleave" => args.t(0).repeat_interleave(args.size("repeats"), args.int("axis")),
        "roll" => args.t(0).roll(&args.ints("shifts"), &args.ints("axes")),
        _ => return None,
    })
}
