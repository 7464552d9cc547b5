//! Files that are written over, and files that change while they are read.

use super::*;
use bitnet::core::serialize::npy;
use bitnet::core::{BitNetDType, Device};

fn logits<'a>(model: &'a str, out: &'a str) -> [&'a str; 7] {
    ["logits", "--model", model, "--tokens", "1,2", "--output", out]
}

#[test]
fn nothing_is_written_over_without_force() {
    let folder = folder("overwrite");
    let (model, file, copy) = (golden("bitnet-offline"), folder.join("logits.npy"), folder.join("copy"));
    let (report, text) = (folder.join("report.json"), repository().join("LICENSE"));
    let (tokenizer, masters) = (folder.join("tokenizer"), golden("bitnet-online-f32"));
    for args in [
        &logits(str(&model), str(&file))[..],
        &["convert", str(&model), str(&copy), "--to", "hf"],
        &["quantize", str(&masters), "--report", str(&report)],
        &["tokenize", str(&text), "--train", "char", "--tokenizer", str(&tokenizer)],
    ] {
        stdout(args);
        refused(args, &["is there already", "--force"]);
        stdout(&[args, &["--force"]].concat());
    }
    // Before the run is looked at.
    refused(&["export", "absent", str(&file), "--to", "i2_s"], &["logits.npy is there already"]);
    refused(&["export", "absent", str(&copy), "--to", "hf"], &["config.json is there already"]);
    refused(&["convert", str(&model), "-", "--to", "hf"], &["name a directory"]);
}

#[test]
fn logits_are_what_the_suffix_says() {
    let folder = folder("logits-formats");
    let model = golden("bitnet-offline");
    let (npy, safetensors) = (folder.join("x.npy"), folder.join("x.safetensors"));
    stdout(&logits(str(&model), str(&npy)));
    stdout(&logits(str(&model), str(&safetensors)));
    let array = npy::load(&npy, &Device::cpu()).unwrap();
    assert_eq!((array.dtype(), array.dims()[0]), (BitNetDType::F32, 2));
    let bytes = fs::read(&safetensors).unwrap();
    let file = bitnet::model::safetensors::Safetensors::parse(&bytes, "x").unwrap();
    assert_eq!(array.to_vec::<f32>().unwrap(), file.tensor("logits").unwrap().to_f32(&bytes).unwrap());
    // Standard output gets the same bytes.
    let args = logits(str(&model), "-");
    let output = run_with(program(&args), b"");
    assert!(output.status.success() && output.stdout == bytes);
    for name in ["x.bin", "x"] {
        let out = folder.join(name);
        refused(&logits(str(&model), str(&out)), &[".safetensors or .npy"]);
        assert!(!out.exists());
    }
}

#[test]
fn logits_of_several_texts_are_those_of_each() {
    let folder = folder("logits-several");
    let model = golden("bitnet-offline");
    let all = folder.join("all.safetensors");
    let texts = ["1,2,3", "4", "5,6,7,8,9,1,2,3"];
    let lists = texts.iter().flat_map(|ids| ["--tokens", ids]);
    let several = ["logits", "--model", str(&model)].into_iter().chain(lists).collect::<Vec<_>>();
    stdout(&[&several[..], &["--output", str(&all)]].concat());
    let (bytes, one) = (fs::read(&all).unwrap(), folder.join("one.safetensors"));
    let file = bitnet::model::safetensors::Safetensors::parse(&bytes, "all").unwrap();
    for (index, ids) in texts.iter().enumerate() {
        stdout(&["logits", "--model", str(&model), "--tokens", ids, "--output", str(&one), "--force"]);
        let alone = fs::read(&one).unwrap();
        let alone_file = bitnet::model::safetensors::Safetensors::parse(&alone, "one").unwrap();
        let logits = alone_file.tensor("logits").unwrap().to_f32(&alone).unwrap();
        assert_eq!(file.tensor(&format!("logits.{index}")).unwrap().to_f32(&bytes).unwrap(), logits, "{ids}");
    }
    refused(&[&several[..], &["--output", str(&folder.join("x.npy"))]].concat(), &["one text", ".safetensors"]);
}

#[cfg(unix)]
#[test]
fn a_link_or_a_device_stays_what_it_is() {
    let folder = folder("links");
    let model = golden("bitnet-offline");
    let (target, link, null) = (folder.join("target.npy"), folder.join("link.npy"), folder.join("null.npy"));
    std::os::unix::fs::symlink("target.npy", &link).unwrap();
    std::os::unix::fs::symlink("/dev/null", &null).unwrap();
    stdout(&logits(str(&model), str(&link)));
    stdout(&logits(str(&model), str(&null)));
    assert!(link.is_symlink() && !target.is_symlink() && fs::read(&target).unwrap().starts_with(b"\x93NUMPY"));
    assert!(null.is_symlink() && !null.is_file());
}

/// The shell's limit ends the program by a signal unless it is told otherwise.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_the_size_of_files_leaves_nothing_behind() {
    let folder = folder("size-limit");
    let (model, out) = (golden("bitnet-offline"), folder.join("x.safetensors"));
    let line = logits(str(&model), str(&out)).join(" ");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -f 1; exec {} {line}", env!("CARGO_BIN_EXE_bitnet"))]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    check_refused(&["logits"], run_with(command, b""), &["cannot write", "x.safetensors"]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_no_model() {
    let folder = folder("pipe-model");
    let pipe = folder.join("model.gguf");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    refused(&["inspect", str(&pipe)], &["model.gguf", "is a pipe or a device"]);
    let text = repository().join("LICENSE");
    let tokenize =
        ["tokenize", str(&text), "--tokenizer", str(&pipe), "-o", str(&folder.join("out"))].map(str::to_owned);
    let tokenize: Vec<&str> = tokenize.iter().map(String::as_str).collect();
    refused(&tokenize, &["model.gguf", "is a pipe or a device"]);
}

/// A conversation with a model whose file is large enough to be mapped; `change` happens to the file after an answer.
#[cfg(unix)]
fn changed_in_a_conversation(name: &str, change: impl FnOnce(&fs::File)) -> Output {
    use std::io::{BufRead, BufReader};
    let dir = prompts::chat_model(name).unwrap();
    let file = dir.join("model.gguf");
    stdout(&["convert", str(&dir), str(&file), "--to", "tq2_0"]);
    let handle = fs::File::options().write(true).open(&file).unwrap();
    handle.set_len(6 << 20).unwrap();
    let mut child = program(&["chat", "--model", str(&file), "-n", "3"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "Who art thou?").unwrap();
    let mut answer = String::new();
    // Kept, so that the next answer can be written.
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut answer).unwrap();
    change(&handle);
    // The first answer may have more lines, so that the program has ended already.
    let _ = writeln!(input, "Whence, and why?");
    drop(input);
    reader.read_line(&mut answer).unwrap();
    child.wait_with_output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_file_cut_short_while_it_is_used_is_named() {
    if text::model().is_none() {
        return eprintln!("skipped: no model");
    }
    let output = changed_in_a_conversation("cut-short", |file| file.set_len(4096).unwrap());
    check_refused(&["chat"], output, &["model.gguf", "was cut short"]);
}

#[cfg(unix)]
#[test]
fn a_model_file_rewritten_while_it_is_used_is_named() {
    if text::model().is_none() {
        return eprintln!("skipped: no model");
    }
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9);
    let output = changed_in_a_conversation("rewritten", |file| file.set_modified(later).unwrap());
    check_refused(&["chat"], output, &["model.gguf", "was written to while it was in use"]);
}
