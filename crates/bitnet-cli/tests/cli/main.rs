//! The built program, run as a user runs it.

mod bad_checkpoints;
mod bad_flags;
mod conversations;
mod embed;
mod files;
mod golden;
mod help;
#[cfg(feature = "hub")]
mod hub;
mod model;
mod prompts;
mod quantize;
mod terminal;
mod text;
mod train;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program with these arguments.
fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // No test asks the real hub.
    command.env("HF_HUB_OFFLINE", "1");
    command
}

/// Runs it to the end; `stdin` is all that it can read.
fn run_with(mut command: Command, stdin: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // A program that does not read its input closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

/// Standard output of a run that must succeed.
fn stdout(args: &[&str]) -> String {
    success(args, run_with(program(args), b""))
}

fn success(args: &[&str], output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&stdout(args)).unwrap()
}

/// A run that must fail: one line on standard error that holds `words`, the exit code of its kind, no panic.
fn refused(args: &[&str], words: &[&str]) {
    check_refused(args, run_with(program(args), b""), words);
}

fn check_refused(args: &[&str], output: Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(matches!(code, Some(1 | 2)), "{args:?}: exit code {code:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{args:?}: {stderr}");
    assert!(!stderr.contains('\x1b'), "{args:?}: colours without a terminal: {stderr:?}");
    for word in words {
        assert!(stderr.contains(word), "{args:?} should say {word:?}: {stderr}");
    }
}

/// An empty folder of a test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// A folder with what a folder holds.
fn copy_of(source: &Path, name: &str) -> PathBuf {
    let copy = folder(name);
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        fs::write(copy.join(path.file_name().unwrap()), fs::read(&path).unwrap()).unwrap();
    }
    copy
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A folder or file of the testkit's golden checkpoints.
fn golden(name: &str) -> PathBuf {
    repository().join("crates/bitnet-testkit/golden").join(name)
}

fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}
