//! Functions of neural networks.

use crate::calls::{Args, Called};
use bitnet_core::{AttentionOptions, BitNetTensor, CrossEntropyOptions, Gelu, Reduction, Result};

pub fn call(op: &str, args: &Args) -> Called {
    let x = || args.t(0);
    let result = match op {
        "gelu" => x().gelu(approximation(args)),
        "softplus" => x().softplus(args.float("beta"), args.float("threshold")),
        "elu" => x().elu(args.float("alpha")),
        "leaky_relu" => x().leaky_relu(args.float("slope")),
        "softmax" => x().softmax(args.int("axis")),
        "log_softmax" => x().log_softmax(args.int("axis")),
        "layer_norm" => {
            let weight = args.flag("weight").then(|| args.t(1));
            let bias = args.flag("bias").then(|| args.t(2));
            x().layer_norm(&args.sizes("normalized"), weight, bias, args.float("eps"))
        }
        "rms_norm" => x().rms_norm(args.t(1), args.float("eps")),
        "embedding" => x().embedding(args.t(1)),
        "one_hot" => x().one_hot(args.size("classes")),
        "rope" => x().rope(args.t(1), args.t(2)),
        "mse_loss" => x().mse_loss(args.t(1), reduction(args)),
        "kl_div" => x().kl_div(args.t(1), args.flag("log_target"), reduction(args)),
        "cross_entropy" => {
            let options = CrossEntropyOptions {
                ignore_index: args.int("ignore") as i64,
                label_smoothing: args.float("smoothing"),
                reduction: reduction(args),
                ..CrossEntropyOptions::default()
            };
            x().cross_entropy(args.t(1), &options)
        }
        "scaled_dot_product_attention" => {
            let options = AttentionOptions {
                causal: args.flag("causal"),
                mask: args.flag("mask").then(|| args.t(3)),
                scale: args.attrs["scale"].as_f64(),
            };
            x().scaled_dot_product_attention(args.t(1), args.t(2), &options)
        }
        _ => return None,
    };
    Some(result.map(|t| vec![t]))
}

fn approximation(args: &Args) -> Gelu {
    if args.text("approximate") == "tanh" { Gelu::Tanh } else { Gelu::Erf }
}

fn reduction(args: &Args) -> Reduction {
    match args.text("reduction") {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        _ => Reduction::Mean,
    }
}

/// The in-place form of GELU, the only one here that is not among the plain functions.
pub fn in_place(op: &str, args: &Args, x: &mut BitNetTensor) -> Option<Result<()>> {
    (op == "gelu").then(|| x.gelu_(approximation(args)).map(drop))
}
