//! TensorBoard's event files.
//!
//! A record is its length (u64, little endian), the masked CRC-32C of that, the data, and the masked CRC-32C of the data
//! (TensorFlow, `record_writer.h`); the data is an `Event` (`event.proto`, `summary.proto`), of which we write:
//!
//! ```text
//! Event      { 1: double wall_time, 2: int64 step, 3: string file_version | 5: Summary | 7: SessionLog }
//! Summary    { 1: repeated Value { 1: string tag, 2: float simple_value } }
//! SessionLog { 1: status, START = 1 }
//! ```

use crate::crc32c::crc32c;
use crate::error::{Result, TrainingError};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file that is being written.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Starts a file in `folder` of a run that has made `step` updates. If those are not 0, TensorBoard is told to forget
    /// what other files of the folder say of later ones.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(folder: &Path, step: u64) -> Result<Self> {
        // TensorBoard reads the files of a folder by name, so the time comes first; the number makes names unique.
        let seconds = now() as u64;
        let names = (0..).map(|n| folder.join(format!("events.out.tfevents.{seconds:010}.{n:04}.bitnet")));
        for path in names {
            match File::create_new(&path) {
                Ok(file) => {
                    let mut writer = Self { file, path };
                    writer.event(0, &bytes(3, b"brain.Event:2"))?;
                    if step > 0 {
                        writer.event(step + 1, &bytes(7, &varint(1, 1)))?;
                    }
                    return Ok(writer);
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(TrainingError::io(&path, e)),
            }
        }
        Err(TrainingError::run(folder, "no name is left for an event file"))
    }

    /// Writes values after `step` updates, as f32.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let number = (*value as f32).to_le_bytes();
            let value = [bytes(1, tag.as_bytes()), vec![2 << 3 | 5], number.to_vec()].concat();
            summary.extend(bytes(1, &value));
        }
        self.event(step, &bytes(5, &summary))
    }

    fn event(&mut self, step: u64, what: &[u8]) -> Result<()> {
        let mut event = vec![1 << 3 | 1];
        event.extend(now().to_le_bytes());
        event.extend(varint(2, step));
        event.extend(what);
        self.file.write_all(&record(&event)).map_err(|e| TrainingError::io(&self.path, e))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// `data` between its length and its sum.
pub(super) fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()].concat()
}

/// The sum of a record's part, turned so that sums of sums differ.
pub(super) fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protobuf field of an integer.
fn varint(field: u8, value: u64) -> Vec<u8> {
    let mut out = vec![field << 3];
    number(value, &mut out);
    out
}

/// A protobuf field of bytes.
fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    number(value.len() as u64, &mut out);
    out.extend(value);
    out
}

fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
