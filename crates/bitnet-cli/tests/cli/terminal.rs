//! What is printed beside the results, in which colours, and where it cannot be printed.

use super::*;

fn stderr(args: &[&str]) -> String {
    String::from_utf8(run_with(program(args), b"").stderr).unwrap()
}

#[test]
fn quiet_and_verbose() {
    let model = golden("bitnet-offline");
    let out = folder("verbosity").join("x.npy");
    let args = ["logits", "--model", str(&model), "--tokens", "1", "--output", str(&out), "--force"];
    assert_eq!(stderr(&args), "");
    let told = stderr(&[&args[..], &["-v"]].concat());
    assert!(told.contains("model: ") && told.contains("loaded in ") && told.contains("kernels"), "{told}");
    let copy = folder("quiet").join("copy");
    let args = ["convert", str(&model), str(&copy), "--to", "hf", "--force"];
    assert!(stderr(&args).starts_with("wrote "));
    assert_eq!(stderr(&[&["-q"], &args[..]].concat()), "");
    assert!(stderr(&["inspect", "absent", "--quiet"]).starts_with("error: "), "errors are printed all the same");
}

#[test]
fn colours_are_asked_for() {
    for args in [&["inspect", "absent"][..], &["inspect", "--loud"]] {
        assert!(!stderr(args).contains('\x1b'), "no terminal");
        assert!(stderr(&[args, &["--color", "always"]].concat()).contains("\x1b["));
        assert!(stderr(&[args, &["--color=always"]].concat()).contains("\x1b["));
        assert!(!stderr(&[args, &["--color", "never"]].concat()).contains('\x1b'));
    }
    assert!(stdout(&["--help", "--color", "always"]).contains("\x1b["));
    refused(&["inspect", "absent", "--color", "blue"], &["blue", "never"]);
}

/// A name must not move the cursor or change the title of a terminal.
#[test]
fn control_characters_of_names_are_written_out() {
    for args in [&["inspect", "a\x1b]0;title\x07\rb"][..], &["generate", "x", "--\x1b[2Jloud"]] {
        let told = stderr(&[args, &["--color", "always"]].concat());
        let told = told.replace("\x1b[1m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert!(!told.trim_end().contains(char::is_control), "{told:?}");
    }
}

#[test]
fn a_name_with_an_escape_is_recognised() {
    assert!(stderr(&["inspect", "a\x1b]0;b\x07"]).contains("a\\u{1b}]0;b\\u{7}"));
}

/// Every kind of command refuses to lose its result, where standard output is this.
#[cfg(unix)]
fn refused_with_output_to(file: &fs::File) {
    let model = golden("bitnet-offline");
    let logits = ["logits", "--model", str(&model), "--tokens", "1", "--output", "-"];
    let plain = [&["--version"][..], &["--help"], &["completions", "bash"], &["man"], &["devices"]];
    for args in plain.into_iter().chain([&["inspect", str(&model)][..], &logits]) {
        let mut command = program(args);
        command.stdout(file.try_clone().unwrap());
        check_refused(args, run_with(command, b""), &["standard output"]);
    }
    if let Some(model) = text::model() {
        let args = ["generate", "ROMEO:", "--model", str(&model), "-n", "2"];
        let mut command = program(&args);
        command.stdout(file.try_clone().unwrap());
        check_refused(&args, run_with(command, b""), &["cannot write to standard output"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_for_help_as_well() {
    refused_with_output_to(&fs::File::options().write(true).open("/dev/full").unwrap());
}

/// As `1<file` instead of `1>file` makes it.
#[cfg(unix)]
#[test]
fn an_output_that_is_open_for_reading_is_an_error() {
    refused_with_output_to(&fs::File::open("/dev/null").unwrap());
}

/// Commands run on a stack of their own.
#[cfg(unix)]
#[test]
fn a_small_stack_is_enough() {
    let model = golden("bitnet-offline");
    let out = folder("small-stack").join("x.npy");
    for line in ["train --help".to_owned(), format!("logits --model {} --tokens 1 -o {}", str(&model), str(&out))] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -s 256; exec {} {line}", env!("CARGO_BIN_EXE_bitnet"))]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        success(&[&line], run_with(command, b""));
    }
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&["completions", shell]);
        assert!(script.contains("perplexity") && script.contains("max-tokens"), "{shell}");
    }
    let page = stdout(&["man"]);
    assert!(page.contains(".TH bitnet 1") && page.contains("perplexity"), "{page}");
    let folder = folder("man");
    stdout(&["man", str(&folder)]);
    let page = fs::read_to_string(folder.join("bitnet-generate.1")).unwrap();
    assert!(page.contains("max\\-tokens"), "{page}");
}
