//! `bitnet devices`: detected hardware, the kernels chosen, and measured limits.

use crate::error::Result;
use crate::limits::Limits;
use crate::output;
use bitnet::core::device::cpu_capabilities;
use bitnet::core::{auto_select_device, explain_device_selection};
use serde_json::json;

/// Seconds of each probe.
const SECONDS: f64 = 0.3;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Limits are measured, with one thread and with all: reading memory beyond the caches, and 8-bit multiply-adds of the \
chosen instruction set on registers. BITNET_ISA caps the choice.")]
pub struct DevicesArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: DevicesArgs) -> Result<()> {
    let cpu = cpu_capabilities()?;
    let (selected, why) = (auto_select_device(), explain_device_selection());
    let mut limits = vec![Limits::measure(1, SECONDS)?];
    if cpu.cores > 1 {
        limits.push(Limits::measure(cpu.cores, SECONDS)?);
    }
    let kernels = cpu.isa.unwrap_or("none");
    let isas = &cpu.available_isas;
    if args.json {
        let limits = limits.iter().map(Limits::json).collect::<Vec<_>>();
        return output::json(&json!({
            "selected": selected.name(),
            "reason": why,
            "devices": [{
                "name": cpu.name,
                "model": cpu.model,
                "cores": cpu.cores,
                "memory_bytes": cpu.memory_bytes,
                "instruction_sets": isas,
                "kernels": kernels,
                "limits": limits,
            }],
        }));
    }
    let mut rows = vec![
        ("device", format!("{} ({why})", selected.name())),
        ("model", cpu.model.unwrap_or_else(|| "unknown".into())),
        ("cores", cpu.cores.to_string()),
        ("memory", cpu.memory_bytes.map_or_else(|| "unknown".into(), output::bytes)),
        ("can run", isas.join(", ")),
        ("kernels", kernels.into()),
    ];
    rows.extend(limits.iter().map(|limit| ("limits", limit.to_string())));
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
    output::text(&output::columns(&rows, "ll"))
}
