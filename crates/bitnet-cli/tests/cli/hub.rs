//! Models of the hub, from a server of the test's own.

use super::*;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server was asked for: path, and the first byte wanted.
type Requests = Arc<Mutex<Vec<(String, usize)>>>;

/// A hub with one repository, `owner/name`, of these files. Of a body it sends `most` bytes at most, and closes.
fn hub(files: Vec<(String, Vec<u8>)>, most: usize) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let seen = requests.clone();
    std::thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap(), &files, most, &seen)));
    (endpoint, requests)
}

fn answer(mut stream: TcpStream, files: &[(String, Vec<u8>)], most: usize, seen: &Requests) {
    let lines: Vec<String> =
        BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
    let path = lines[0].split(' ').nth(1).unwrap().to_owned();
    let range =
        lines.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let (from, to) = range.as_deref().and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap();
    seen.lock().unwrap().push((path.clone(), from));
    let file = path.strip_prefix("/owner/name/resolve/main/");
    let file = file.and_then(|name| files.iter().find(|(n, _)| n == name));
    let (head, body) = if path == "/api/models/owner/name/revision/main" {
        let names: Vec<_> = files.iter().map(|(name, _)| serde_json::json!({ "rfilename": name })).collect();
        let info = serde_json::json!({ "sha": COMMIT, "siblings": names }).to_string().into_bytes();
        (format!("200 OK\r\ncontent-length: {}\r\n", info.len()), info)
    } else if let Some((name, bytes)) = file {
        let end = to.parse().map_or(bytes.len(), |last: usize| last + 1);
        let (sent, all) = (end - from, bytes.len());
        let head = format!(
            "206 Partial Content\r\netag: \"of-{}\"\r\nx-repo-commit: {COMMIT}\r\ncontent-length: {sent}\r\n\
             content-range: bytes {from}-{}/{all}\r\n",
            name.replace('.', "-"),
            end - 1
        );
        (head, bytes[from..end].to_vec())
    } else {
        ("404 Not Found\r\ncontent-length: 0\r\n".to_owned(), Vec::new())
    };
    // A client that has seen enough closes.
    let _ = stream.write_all(format!("HTTP/1.1 {head}connection: close\r\n\r\n").as_bytes());
    let _ = stream.write_all(&body[..body.len().min(most)]);
}

fn with_hub(args: &[&str], home: &Path, endpoint: &str) -> Output {
    let mut command = program(args);
    command.env("HF_HOME", home).env("HF_ENDPOINT", endpoint).env("HF_HUB_OFFLINE", "0");
    command.env_remove("HF_HUB_CACHE").env_remove("HF_TOKEN");
    run_with(command, b"")
}

/// The files of a folder, and one that no model needs.
fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entry = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| entry(e.unwrap())).collect();
    files.push(("README.md".into(), b"not needed".to_vec()));
    files
}

#[test]
fn a_model_of_the_hub_is_fetched_once() {
    let source = golden("bitnet-offline");
    let (endpoint, requests) = hub(files_of(&source), usize::MAX);
    let home = folder("hub-once");
    let args = ["inspect", "owner/name", "--json"];
    let output = with_hub(&args, &home, &endpoint);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("fetching model.safetensors of owner/name"), "{stderr}");
    let fetched: serde_json::Value = serde_json::from_str(&success(&args, output)).unwrap();
    assert_eq!(fetched["parameters"], json(&["inspect", str(&source), "--json"])["parameters"]);
    assert!(!requests.lock().unwrap().iter().any(|(path, _)| path.contains("README")));
    // The layout of Hugging Face's tools.
    let repository = home.join("hub/models--owner--name");
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    let weights = fs::read(repository.join("snapshots").join(COMMIT).join("model.safetensors")).unwrap();
    assert!(weights == fs::read(source.join("model.safetensors")).unwrap());
    // From then on it needs no hub.
    let mut command = program(&args);
    command.env("HF_HOME", &home).env_remove("HF_HUB_CACHE");
    let offline: serde_json::Value = serde_json::from_str(&success(&args, run_with(command, b""))).unwrap();
    assert_eq!(offline, fetched);
}

/// Four attempts of a run get a piece each; what they fetched is not fetched again.
#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let source = golden("gguf/bitnet-b1.58-i2_s.gguf");
    let bytes = fs::read(&source).unwrap();
    let piece = 60_000;
    assert!(bytes.len() > 4 * piece);
    let files = vec![("q/small-I2_S.gguf".to_owned(), bytes.clone()), ("q/small-F16.gguf".to_owned(), vec![0])];
    let (endpoint, requests) = hub(files, piece);
    let home = folder("hub-resume");
    let args = ["inspect", "owner/name:i2_s", "--json"];
    let first = with_hub(&args, &home, &endpoint);
    let stderr = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(!first.status.success(), "{stderr}");
    assert!(stderr.lines().last().unwrap().contains("run the command again to go on"), "{stderr}");
    for _ in 0..bytes.len() / (4 * piece) {
        with_hub(&args, &home, &endpoint);
    }
    success(&args, with_hub(&args, &home, &endpoint));
    let file = home.join("hub/models--owner--name/snapshots").join(COMMIT).join("q/small-I2_S.gguf");
    assert!(fs::read(file).unwrap() == bytes);
    let mut starts: Vec<usize> = requests.lock().unwrap().iter().map(|(_, from)| *from).filter(|&f| f > 0).collect();
    starts.dedup();
    let expected: Vec<usize> = (1..bytes.len().div_ceil(piece)).map(|n| n * piece).collect();
    assert_eq!(starts, expected);
}

#[test]
fn what_the_hub_does_not_have_is_said() {
    let files = vec![("a-Q2_0.gguf".to_owned(), vec![0; 8]), ("a-TQ1_0.gguf".to_owned(), vec![0; 8])];
    let (endpoint, _) = hub(files, usize::MAX);
    let home = folder("hub-lacks");
    for (model, words) in [
        ("owner/other", &["no such model", "HF_TOKEN"][..]),
        ("owner/name", &["several", "a-Q2_0.gguf, a-TQ1_0.gguf"]),
        ("owner/name:Q8_0", &["no Q8_0", "a-TQ1_0.gguf"]),
    ] {
        check_refused(&[model], with_hub(&["inspect", model], &home, &endpoint), words);
    }
    // A port that nothing listens on.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = with_hub(&["inspect", "owner/name"], &home, &format!("http://{closed}"));
    check_refused(&["closed"], output, &["cannot be reached", "name a local path"]);
    refused(&["inspect", "owner/name"], &["HF_HUB_OFFLINE"]);
    refused(&["inspect", "./owner/name"], &["there is no ./owner/name", "owner/name of the hub"]);
}
