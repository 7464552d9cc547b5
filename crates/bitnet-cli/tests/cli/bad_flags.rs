//! Flags out of range, and commands that contradict themselves.

use super::*;

#[test]
fn flags_out_of_range() {
    let cases: [(&[&str], &str); 40] = [
        (&["generate", "x", "--threads", "0"], "--threads"),
        (&["generate", "x", "--threads", "5000"], "1..=1024"),
        (&["generate", "x", "--threads", "many"], "--threads"),
        (&["generate", "x", "--max-tokens", "0"], "--max-tokens"),
        (&["generate", "x", "--max-tokens", "-3"], "-3"),
        (&["generate", "x", "--temperature", "-1"], "temperature"),
        (&["generate", "x", "--temperature", "nan"], "temperature"),
        (&["generate", "x", "--temperature", "inf"], "temperature"),
        (&["generate", "x", "--temperature", "hot"], "--temperature"),
        (&["generate", "x", "--top-k", "-1"], "-1"),
        (&["generate", "x", "--top-p", "0"], "top-p"),
        (&["generate", "x", "--top-p", "1.5"], "top-p"),
        (&["generate", "x", "--min-p", "-0.1"], "min-p"),
        (&["generate", "x", "--typical-p", "0"], "typical-p"),
        (&["generate", "x", "--xtc-probability", "1.5"], "xtc-probability"),
        (&["generate", "x", "--xtc-threshold", "-1"], "xtc-threshold"),
        (&["generate", "x", "--top-n-sigma", "-1"], "top-n-sigma"),
        (&["generate", "x", "--dry-multiplier", "-1"], "dry-multiplier"),
        (&["generate", "x", "--dry-base", "0.5"], "dry-base"),
        (&["generate", "x", "--dry-allowed-length", "0"], "dry-allowed-length"),
        (&["generate", "x", "--mirostat", "1"], "mirostat"),
        (&["generate", "x", "--mirostat-tau", "-1"], "mirostat-tau"),
        (&["chat", "--mirostat-eta", "inf"], "mirostat-eta"),
        (&["generate", "x", "--logit-bias", "3"], "--logit-bias"),
        (&["generate", "x", "--logit-bias", "3=inf"], "logit-bias"),
        (&["generate", "x", "--repeat-penalty", "0"], "repeat-penalty"),
        (&["generate", "x", "--seed", "1.5"], "--seed"),
        (&["generate", "x", "--seed", "-2"], "--seed"),
        (&["generate", "x", "--seed", "9007199254740992"], "9007199254740991"),
        (&["generate", "x", "--presence-penalty", "nan"], "presence-penalty"),
        (&["generate", "x", "--frequency-penalty", "inf"], "frequency-penalty"),
        (&["generate", "x", "--stop", ""], "--stop"),
        (&["generate", "x", "--i2s-order", "mips"], "arm"),
        (&["perplexity", "--file", "x", "--window", "0"], "--window"),
        (&["perplexity", "--file", "x", "--max-windows", "0"], "--max-windows"),
        (&["bench", "--shape", "9000b"], "350m"),
        (&["bench", "--shape", "125m", "-t", "0"], "1..=1024"),
        (&["bench", "--shape", "125m", "-p", "0"], "--prompt"),
        (&["bench", "--shape", "125m", "-n", "0"], "--generate"),
        (&["bench", "--shape", "125m", "-n", "99999"], "-n 99999"),
    ];
    for (args, word) in cases {
        refused(args, &[word]);
    }
}

#[test]
fn conflicting_and_missing_flags_are_refused() {
    let cases: [(&[&str], &str); 15] = [
        (&["dance"], "dance"),
        (&["generate", "x", "--loud"], "--loud"),
        (&["generate", "one", "two"], "two"),
        (&["generate", "--lod"], "--lod"),
        (&["generate", "one", "--prompt", "two"], "--prompt"),
        (&["generate", "--file", "one", "--prompt", "two"], "--prompt"),
        (&["bench", "--json", "--format", "csv"], "--format"),
        (&["generate", "x", "--quiet", "--verbose"], "--verbose"),
        (&["logits", "--output", "x", "--tokens", "1", "--prompt", "x"], "--prompt"),
        (&["logits", "--output", "x"], "--tokens"),
        (&["logits", "--tokens", "1"], "--output"),
        (&["logits", "--output", "x", "--tokens", "1,two"], "two"),
        (&["convert", "in", "out"], "--to"),
        (&["convert", "in", "out", "--to", "int4"], "tq2_0"),
        (&["bench", "--shape", "125m", "--model", "x"], "--model"),
    ];
    for (args, word) in cases {
        refused(args, &[word]);
    }
}

#[test]
fn prompts_that_are_none() {
    for args in [&["generate"][..], &["generate", "-"], &["generate", "--file", "-"]] {
        check_refused(args, run_with(program(args), b"ab\xff"), &["standard input is not UTF-8", "byte 2"]);
    }
    refused(&["generate", "--file", "absent.txt"], &["absent.txt"]);
}

#[test]
fn an_unknown_instruction_set() {
    let args = ["devices"];
    let mut command = program(&args);
    command.env("BITNET_ISA", "abacus");
    check_refused(&args, run_with(command, b""), &["abacus", "scalar"]);
    let dir = golden("bitnet-offline");
    let out = folder("unknown-isa").join("out.npy");
    let args = ["logits", "--model", str(&dir), "--tokens", "1", "--output", str(&out)];
    let mut command = program(&args);
    command.env("BITNET_ISA", "abacus");
    check_refused(&args, run_with(command, b""), &["abacus", "scalar"]);
}
