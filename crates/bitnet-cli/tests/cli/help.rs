//! Help and what needs no model.

use super::*;

const COMMANDS: [&str; 17] = [
    "generate",
    "chat",
    "template",
    "logits",
    "embed",
    "perplexity",
    "inspect",
    "convert",
    "quantize",
    "export",
    "tokenize",
    "train",
    "bench",
    "devices",
    "selftest",
    "completions",
    "man",
];

#[test]
fn every_command_explains_itself() {
    let overview = stdout(&["--help"]);
    for command in COMMANDS {
        assert!(overview.contains(&format!("  {command} ")), "{command}: {overview}");
        let help = stdout(&[command, "--help"]);
        assert!(help.contains("Usage: bitnet") && help.contains("--"), "{help}");
        assert!(!help.contains('\x1b'), "colours without a terminal");
        let longest = help.lines().map(|line| line.chars().count()).max();
        assert!(longest < Some(140), "{command}: lines of {longest:?}");
    }
    assert!(stdout(&["--version"]).starts_with("bitnet "));
}

#[test]
fn no_command_shows_help() {
    let output = run_with(program(&[]), b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Usage: bitnet"));
}

#[test]
fn devices_for_machines() {
    let value = json(&["devices", "--json"]);
    let device = &value["devices"][0];
    assert_eq!(device["name"], "cpu");
    let sets = device["instruction_sets"].as_array().unwrap();
    assert_eq!(sets[0], "scalar");
    assert!(sets.contains(&device["kernels"]));
    assert!(device["limits"][0]["read_gb_per_second"].as_f64().unwrap() > 0.);
    assert!(device["limits"][0]["int8_gop_per_second"].as_f64().unwrap() > 0.);
}

#[test]
fn an_instruction_set_can_be_forced() {
    let mut command = program(&["devices", "--json"]);
    command.env("BITNET_ISA", "scalar");
    let value: serde_json::Value = serde_json::from_str(&success(&["scalar"], run_with(command, b""))).unwrap();
    assert_eq!(value["devices"][0]["kernels"], "scalar");
}

/// The report of a device: every operation agrees with the scalar kernels; what is absent is an error.
#[test]
fn selftest_checks_the_cpu() {
    let report: serde_json::Value = serde_json::from_str(&stdout(&["selftest", "--json"])).unwrap();
    assert_eq!(report["agrees"], true, "{report}");
    assert_eq!(report["agreeing"], report["cases"], "{report}");
    assert!(report["cases"].as_u64() > Some(100) && report["lacking"].as_array().unwrap().is_empty(), "{report}");
    let refused = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let absent = refused(&mut program(&["selftest", "--device", "cuda:7"]));
    assert!(absent.contains("device cuda:7 is not compiled into this build"), "{absent}");
    let wrong = refused(&mut program(&["selftest", "--device", "cuda:x"]));
    assert!(wrong.contains("use cpu, or a kind and a number as cuda:0"), "{wrong}");
    let isa = refused(program(&["selftest"]).env("BITNET_REQUIRE_ISA", "scalar,sve"));
    assert!(isa.contains("BITNET_REQUIRE_ISA asks for sve; this CPU has scalar"), "{isa}");
    let device = refused(program(&["selftest"]).env("BITNET_REQUIRE_DEVICES", "vulkan"));
    assert!(device.contains("device vulkan:0 is not compiled into this build"), "{device}");
}

/// The roofline of a prompt and of decoding: the operations of a step with their shares of the machine's limits.
#[test]
fn a_benchmark_shows_where_the_time_goes() {
    let text = stdout(&["bench", "--profile", "-p", "8", "-n", "2", "-t", "1"]);
    assert!(text.contains("\npp8, a prompt: ") && text.contains("\ntg2, a token: "), "{text}");
    let decode = text.split("tg2, a token").nth(1).unwrap();
    for operation in
        ["ternary_matmul", "quantize_activations", "store_kv", "paged_attention", "rms_norm", "rope", "embedding"]
    {
        let row =
            decode.lines().find(|line| line.starts_with(operation)).unwrap_or_else(|| panic!("{operation}: {text}"));
        assert!(row.contains("cpu ") && row.contains(" % of "), "{row}");
    }
}
