use super::events::{masked, record};
use super::*;
use std::fs;
use std::path::PathBuf;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bitnet-metrics-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn events(&self) -> Vec<PathBuf> {
        let is_one = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().starts_with("events.out.tfevents.");
        let mut paths: Vec<PathBuf> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().path()).filter(is_one).collect();
        paths.sort();
        paths
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The value of a protobuf field.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    Number(u64),
    Double(f64),
    Float(f32),
    Bytes(Vec<u8>),
}

/// The fields of a protobuf message.
fn message(mut data: &[u8]) -> Vec<(u64, Field)> {
    let number = |data: &mut &[u8]| {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = data[0];
            *data = &data[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let mut fields = Vec::new();
    while !data.is_empty() {
        let key = number(&mut data);
        let field = match key & 7 {
            0 => Field::Number(number(&mut data)),
            1 => Field::Double(f64::from_le_bytes(data.split_off(..8).unwrap().try_into().unwrap())),
            5 => Field::Float(f32::from_le_bytes(data.split_off(..4).unwrap().try_into().unwrap())),
            2 => {
                let len = number(&mut data) as usize;
                Field::Bytes(data.split_off(..len).unwrap().to_vec())
            }
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

/// The events of a file, its sums checked.
fn events(path: &Path) -> Vec<Vec<(u64, Field)>> {
    let bytes = fs::read(path).unwrap();
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    while !rest.is_empty() {
        let length: [u8; 8] = rest[..8].try_into().unwrap();
        let end = 12 + u64::from_le_bytes(length) as usize;
        assert_eq!(rest[8..12], masked(&length).to_le_bytes());
        assert_eq!(rest[end..end + 4], masked(&rest[12..end]).to_le_bytes());
        events.push(message(&rest[12..end]));
        rest = &rest[end + 4..];
    }
    events
}

fn bytes(fields: &[(u64, Field)], number: u64) -> Vec<u8> {
    match fields.iter().find(|(n, _)| *n == number) {
        Some((_, Field::Bytes(bytes))) => bytes.clone(),
        other => panic!("{other:?}"),
    }
}

/// Bytes that TensorFlow's framing gives for the first event of a file written at time 0; worked out by hand from the
/// protobuf encoding, the sums by an independent implementation (see `golden.py` beside this file).
#[test]
fn a_record_is_framed_as_tensorflow_frames_it() {
    let golden = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/golden.tfevents")).unwrap();
    let mut rest = &golden[..];
    for _ in 0..2 {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(record(&rest[12..12 + length]), rest[..16 + length]);
        rest = &rest[16 + length..];
    }
    assert!(rest.is_empty());
}

#[test]
fn events_hold_what_was_logged_and_tell_of_a_resumed_run() {
    let folder = Folder::new("events");
    let run = RunDirectory::create(&folder.0, "", 1).unwrap();
    let mut metrics = Metrics::open(&run, 0).unwrap();
    metrics.log(300, &[("train/loss", 4.25), ("learning_rate", 1e-3)]).unwrap();
    drop(Metrics::open(&run, 200).unwrap());
    let files = folder.events();
    assert_eq!(files.len(), 2);
    let first = events(&files[0]);
    assert_eq!(first.len(), 2);
    assert!(matches!(first[0][0], (1, Field::Double(time)) if time > 1.7e9));
    assert_eq!(bytes(&first[0], 3), b"brain.Event:2");
    assert_eq!(first[1][1], (2, Field::Number(300)));
    let values = message(&bytes(&first[1], 5));
    let value = |i: usize| {
        let Field::Bytes(value) = &values[i].1 else { panic!() };
        message(value)
    };
    assert_eq!(value(0), [(1, Field::Bytes(b"train/loss".to_vec())), (2, Field::Float(4.25))]);
    assert_eq!(value(1), [(1, Field::Bytes(b"learning_rate".to_vec())), (2, Field::Float(1e-3))]);
    let second = events(&files[1]);
    assert_eq!(second[1][1], (2, Field::Number(201)));
    assert_eq!(message(&bytes(&second[1], 7)), [(1, Field::Number(1))]);
}

#[test]
fn lines_of_updates_that_will_be_made_again_go() {
    let folder = Folder::new("lines");
    let run = RunDirectory::create(&folder.0, "", 1).unwrap();
    let path = folder.0.join("metrics.jsonl");
    let mut metrics = Metrics::open(&run, 0).unwrap();
    for step in [10, 20, 30] {
        metrics.log(step, &[("train/loss", 1.0 / step as f64), ("bad", f64::NAN)]).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().next().unwrap(), r#"{"step":10,"train/loss":0.1,"bad":null}"#);
    // A kill in the middle of a line.
    fs::write(&path, text + "{\"step\":15,\"tr").unwrap();
    let mut resumed = Metrics::open(&run, 20).unwrap();
    assert_eq!(resumed.records().iter().map(|r| r.step).collect::<Vec<_>>(), [10, 20]);
    assert_eq!(resumed.records()[1].values["train/loss"], 0.05);
    resumed.log(25, &[("validation/loss", 2.0)]).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert_eq!(text.lines().last().unwrap(), r#"{"step":25,"validation/loss":2.0}"#);
    // A run begun anew.
    assert!(Metrics::open(&run, 0).unwrap().records().is_empty());
}

#[test]
fn the_plot_is_well_formed_and_shows_each_curve_once() {
    let folder = Folder::new("plot");
    let run = RunDirectory::create(&folder.0, "", 1).unwrap();
    let mut metrics = Metrics::open(&run, 0).unwrap();
    for step in 0..100u32 {
        let loss = if step == 50 { f64::NAN } else { 4.0 / f64::from(step + 1) };
        metrics.log(u64::from(step), &[("train/loss", loss), ("learning_rate", 1e-3)]).unwrap();
    }
    metrics.log(100, &[("validation/loss", 1.0)]).unwrap();
    metrics.plot().unwrap();
    let svg = fs::read_to_string(folder.0.join("curves.svg")).unwrap();
    assert_eq!(svg.matches(">training<").count(), 1);
    assert_eq!(svg.matches(">validation<").count(), 1);
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    // The gap: the training curve starts twice.
    let curve = svg.lines().find(|l| l.contains("#3b7dd8")).unwrap();
    assert_eq!(curve.split('"').nth(1).unwrap().matches('M').count(), 2);
    let opened = svg.matches('<').count() - svg.matches("</").count() - svg.matches("/>").count();
    assert_eq!(opened, svg.matches("</").count());
    let strange = [Panel { title: "a < b & c".into(), series: vec![] }];
    let empty = super::svg("x", &strange);
    assert!(empty.contains("a &lt; b &amp; c") && empty.contains("nothing yet"));
}
