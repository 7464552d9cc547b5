//! Where the time of a step goes: the roofline of its operations (Williams et al. 2009).

use super::{CONTEXT, tokens};
use crate::error::Result;
use crate::limits::Limits;
use crate::output;
use bitnet::core::{OperationKind, OperationProfile, Profile, Profiler};
use bitnet::inference::{Model, Session};
use std::sync::Arc;

/// A table for each prompt and one for decoding.
pub fn report(model: &Arc<Model>, limits: &Limits, prompts: &[usize], generate: usize) -> Result<String> {
    let text = |count| tokens(model.config(), count);
    let longest = prompts.iter().copied().max().unwrap_or(0).max(CONTEXT + generate);
    let mut session = Session::new(model.clone(), longest)?;
    session.feed(&text(CONTEXT))?; // page faults happen here
    let mut out = format!("{limits}\n");
    for &count in prompts {
        session.truncate(0);
        let profiler = Profiler::start();
        session.feed(&text(count))?;
        out += &table(&format!("pp{count}, a prompt"), 1, &profiler.stop(), limits);
    }
    session.truncate(0);
    session.feed(&text(CONTEXT))?;
    let decoded = text(generate);
    let profiler = Profiler::start();
    for token in &decoded {
        session.feed(std::slice::from_ref(token))?;
    }
    Ok(out + &table(&format!("tg{generate}, a token"), generate as u64, &profiler.stop(), limits))
}

/// The operations of `steps` equal steps, slowest first, by step.
fn table(name: &str, steps: u64, profile: &Profile, limits: &Limits) -> String {
    let per_step = |n: u64| n as f64 / steps as f64;
    let wall = profile.wall_time().as_secs_f64();
    let head = ["operation", "kernel", "calls", "MB", "Mop", "ms", "time", "GB/s", "GOP/s", "of the limit"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for o in profile.operations().iter().filter(|o| o.kind != OperationKind::View) {
        rows.push(vec![
            format!("{} {}", o.operation, o.dtypes),
            o.kernel.clone(),
            format!("{:.0}", per_step(o.calls)),
            format!("{:.2}", per_step(o.bytes()) / 1e6),
            format!("{:.1}", per_step(o.operations) / 1e6),
            format!("{:.3}", o.time.as_secs_f64() * 1e3 / steps as f64),
            format!("{:.1} %", 100. * o.time.as_secs_f64() / wall),
            format!("{:.1}", o.gigabytes_per_second()),
            format!("{:.1}", o.gigaops_per_second()),
            share(o, limits),
        ]);
    }
    let (all, inside) = (wall * 1e3 / steps as f64, profile.device_time().as_secs_f64() * 1e3 / steps as f64);
    let outside = format!("{name}: {all:.3} ms, {:.3} ms of it outside of operations\n", all - inside);
    format!("\n{outside}{}", output::columns(&rows, "llrrrrrrrl"))
}

/// The larger of its shares: of reading memory, and, where it multiplies 8-bit activations, of 8-bit products.
fn share(o: &OperationProfile, limits: &Limits) -> String {
    let read = o.gigabytes_per_second() / limits.read;
    let int8 = if o.operation == "ternary_matmul" { o.gigaops_per_second() / limits.int8 } else { 0. };
    match int8 > read {
        true => format!("{:.0} % of int8", 100. * int8),
        false => format!("{:.0} % of read", 100. * read),
    }
}
