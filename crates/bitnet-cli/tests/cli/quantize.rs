//! `bitnet quantize`.

use super::*;

#[test]
fn a_report_alone_writes_no_model() {
    let folder = folder("quantize-report");
    let (report, plot) = (folder.join("report.json"), folder.join("report.svg"));
    let source = golden("bitnet-online-f32");
    let text = stdout(&["quantize", str(&source), "--report", str(&report), "--plot", str(&plot)]);
    assert!(text.contains("model.layers.0.self_attn.q_proj") && text.contains("SQNR dB"), "{text}");
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let layers = value["layers"].as_array().unwrap();
    assert!(layers.iter().all(|l| l["sqnr_db"].as_f64().unwrap() > 0. && l["output_error"].is_null()));
    assert!(fs::read_to_string(&plot).unwrap().starts_with("<svg "));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
}

#[test]
fn rounding_master_weights_changes_nothing() {
    let folder = folder("quantize-rtn");
    let (source, out) = (golden("bitnet-online-f32"), folder.join("packed"));
    let args = ["quantize", str(&source), str(&out)];
    let output = run_with(program(&args), b"");
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    success(&args, output);
    assert!(stderr.contains("linear layers made ternary by rtn; most lost") && !stderr.contains("warning"), "{stderr}");
    let logits = |model: &Path| {
        let file = folder.join("logits.safetensors");
        stdout(&["logits", "--model", str(model), "--tokens", "1,2,3", "--output", str(&file), "--force"]);
        fs::read(&file).unwrap()
    };
    assert!(logits(&source) == logits(&out));
    assert!(out.join("model.safetensors").metadata().unwrap().len() > 0);
}

#[test]
fn error_feedback_reads_a_text() {
    let source = repository().join("../shared/models/shakespeare-hf-online");
    if !source.is_dir() {
        eprintln!("skipped: ../shared/models/shakespeare-hf-online is absent");
        return;
    }
    let folder = folder("quantize-gptq");
    let (text, report, out) = (folder.join("text.txt"), folder.join("report.json"), folder.join("out.gguf"));
    fs::write(&text, "ROMEO:\nBut, soft! what light through yonder window breaks?\n".repeat(40)).unwrap();
    let lost = |method: &str, more: &[&str]| {
        let mut args = vec!["quantize", str(&source), "--method", method, "--calibration", str(&text)];
        args.extend(["--window", "64", "--max-windows", "4", "--report", str(&report), "--force"]);
        args.extend(more);
        stdout(&args);
        let value: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        let errors = value["layers"].as_array().unwrap().iter().filter_map(|l| l["output_error"].as_f64());
        errors.sum::<f64>()
    };
    // A master of a ternary model is ruined by it, which is said. Its context is shorter than the default window.
    let args = ["quantize", str(&source), "--method", "gptq", "--calibration", str(&text), "--max-windows", "1"];
    let run = run_with(program(&args), b"");
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && stderr.contains("warning: this model was trained ternary"), "{stderr}");
    let feedback = lost("gptq", &[str(&out), "--to", "tq2_0", "--keep", "*.0.mlp.*", "--keep-sensitive", "2"]);
    assert!(feedback < 0.5 * lost("rtn", &[]));
    stdout(&["logits", "--model", str(&out), "--tokens", "1,2,3", "--output", str(&folder.join("logits.npy"))]);
}

#[test]
fn impossible_requests_are_refused_with_a_reason() {
    let online = golden("bitnet-online-f32");
    refused(&["quantize", str(&online), "--method", "gptq"], &["--calibration"]);
    refused(&["quantize", str(&online), "--keep", "*.nothing"], &["*.nothing"]);
    refused(&["quantize", str(&online), str(&online)], &["another path"]);
    refused(&["quantize", str(&online), "--calibration", "absent.txt"], &["absent.txt"]);
    refused(&["quantize", str(&golden("bitnet-offline"))], &["ternary already"]);
    let out = folder("quantize-refused").join("out.gguf");
    refused(&["quantize", str(&online), str(&out)], &["q_proj", "HF packed"]);
    assert!(!out.exists());
}
