//! Damaged and malicious files: an error or a success, never a panic, and no allocation beyond what the file justifies.

use super::{Folder, data};
use bitnet_core::serialize::npz::Compression;
use bitnet_core::serialize::{TensorMap, npy, npz, safetensors};
use bitnet_core::{BitNetTensor, Device, HybridMemoryPool, Result};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

type Parse = fn(&[u8]) -> Result<TensorMap>;

fn npy(bytes: &[u8]) -> Result<TensorMap> {
    Ok(TensorMap::from_iter([("x".to_owned(), npy::from_bytes(bytes, &Device::cpu())?)]))
}

fn npz(bytes: &[u8]) -> Result<TensorMap> {
    npz::from_bytes(bytes, &Device::cpu())
}

fn safetensors(bytes: &[u8]) -> Result<TensorMap> {
    safetensors::from_bytes(bytes, &Device::cpu())
}

/// Whether it is accepted; reads all of it, or checks the error message.
fn accepted(parse: Parse, bytes: &[u8]) -> bool {
    match parse(bytes) {
        Ok(tensors) => {
            for tensor in tensors.values() {
                super::bytes(tensor);
            }
            true
        }
        Err(e) => {
            let message = e.to_string();
            assert!(!message.contains('\n') && !message.is_empty() && message.len() < 1000, "{message}");
            false
        }
    }
}

/// Every truncation, huge numbers at every position, and random bits.
fn attack(sample: &[u8], parse: Parse, rounds: usize) {
    assert!(accepted(parse, sample));
    for n in 0..sample.len() {
        assert!(!accepted(parse, &sample[..n]), "cut to {n} of {}", sample.len());
    }
    let longer = [sample, &[0]].concat();
    assert!(!accepted(parse, &longer), "a byte too many");
    for at in 0..sample.len() {
        for value in [u64::MAX, i64::MAX as u64, 1 << 40, 0x7fff_ffff_ffff, u64::from(u32::MAX), 1 << 31, 1 << 24] {
            for width in [2, 4, 8] {
                let mut bytes = sample.to_vec();
                let end = (at + width).min(sample.len());
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
                accepted(parse, &bytes);
            }
        }
    }
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..rounds {
        let mut bytes = sample.to_vec();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        accepted(parse, &bytes);
    }
    let peak = HybridMemoryPool::global().get_metrics().peak_allocated;
    assert!(peak < 16 << 20, "tensors of {peak} bytes from a file of {}", sample.len());
}

fn written(name: &str, write: impl FnOnce(&std::path::Path) -> Result<u64>) -> Vec<u8> {
    let folder = Folder::new(name);
    let length = write(&folder.path(name)).unwrap();
    let bytes = std::fs::read(folder.path(name)).unwrap();
    assert_eq!(bytes.len() as u64, length);
    bytes
}

fn sample() -> [(&'static str, BitNetTensor); 3] {
    let tensor = |n: usize| BitNetTensor::from_slice(&vec![1f32; n], &[n / 3, 3], &Device::cpu()).unwrap();
    [("a", tensor(6)), ("b.weight", tensor(12)), ("long name", tensor(300))]
}

fn archive(compression: Compression) -> Vec<u8> {
    let sample = sample();
    let tensors = sample.iter().map(|(name, tensor)| (*name, tensor));
    written(&format!("{compression:?}.npz"), |path| npz::save(path, tensors, compression))
}

#[test]
fn damaged_npy() {
    let sample = written("damaged.npy", |path| npy::save(path, &sample()[0].1));
    attack(&sample, npy, 100_000);
}

#[test]
fn damaged_npz() {
    attack(&archive(Compression::Stored), npz, 20_000);
    attack(&archive(Compression::Deflated), npz, 20_000);
}

#[test]
fn damaged_npz_of_numpy() {
    for name in ["stored.npz", "deflated.npz"] {
        let sample = std::fs::read(data(name)).unwrap();
        for n in 0..sample.len() {
            assert!(!accepted(npz, &sample[..n]), "{name} cut to {n} of {}", sample.len());
        }
    }
}

/// Every single bit of the data of an archive is covered by a checksum or by the header of an array, but for the few
/// after the end of a deflated stream.
#[test]
fn every_flipped_bit_of_the_data_is_noticed() {
    for compression in [Compression::Stored, Compression::Deflated] {
        let sample = archive(compression);
        let directory = sample.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        let starts: Vec<usize> = (0..directory).filter(|&i| sample[i..].starts_with(b"PK\x03\x04")).collect();
        assert_eq!(starts.len(), 3);
        let values = |bytes: &[u8]| npz(bytes).map(|t| t.values().map(super::bytes).collect::<Vec<_>>());
        let sound = values(&sample).unwrap();
        for (i, &start) in starts.iter().enumerate() {
            let field = |at: usize| u16::from_le_bytes([sample[start + at], sample[start + at + 1]]) as usize;
            let end = starts.get(i + 1).copied().unwrap_or(directory);
            for at in start + 30 + field(26) + field(28)..end {
                for bit in 0..8 {
                    let mut bytes = sample.clone();
                    bytes[at] ^= 1 << bit;
                    let same = || at + 1 == end && values(&bytes).unwrap() == sound;
                    assert!(!accepted(npz, &bytes) || same(), "bit {bit} of byte {at}, {compression:?}");
                }
            }
        }
    }
}

#[test]
fn damaged_safetensors() {
    attack(&std::fs::read(data("torch.safetensors")).unwrap(), safetensors, 100_000);
}

#[test]
fn tensors_that_no_tensor_can_be() {
    let file = |header: &str, data: &[u8]| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        safetensors(&bytes).unwrap_err().to_string()
    };
    for (header, data, reason) in [
        (r#"{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}"#, &[0, 0][..], "cast it to F32"),
        (r#"{"a":{"dtype":"C64","shape":[0],"data_offsets":[0,0]}}"#, &[], "elements of type C64"),
        (r#"{"a\n":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}"#, &[1, 3], "element 1 of a bool array is 3"),
        (r#"{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}"#, &[0], "at most 8 dimensions"),
        (
            r#"{"a":{"dtype":"U8","shape":[0,18446744073709551615],"data_offsets":[0,0]}}"#,
            &[],
            "more elements than memory",
        ),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}"#, &[0; 8], "cut short or damaged"),
    ] {
        let error = file(header, data);
        assert!(error.contains(reason) && !error.contains('\n'), "{header}: {error}");
    }
}

fn npy_file(version: [u8; 2], header: &str, data: usize) -> Vec<u8> {
    let mut bytes = [b"\x93NUMPY", &version[..]].concat();
    match version[0] {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 1);
    bytes
}

#[test]
fn headers_of_npy() {
    for (header, data) in [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 8),
        ("{\"shape\":(2),\"descr\":\"<f4\",\"fortran_order\":True}", 8),
        (" { 'shape' : ( 2L , 1L , ) , 'descr' : 'f4' , 'fortran_order' : False } ", 8),
        ("{'descr': '|b1', 'fortran_order': False, 'shape': (), }\n", 1),
        ("{'descr': '>i2', 'fortran_order': False, 'shape': (0, 18446744073709551615), }", 0),
    ] {
        let accepts = !header.contains("18446744073709551615");
        assert_eq!(accepted(npy, &npy_file([1, 0], header, data)), accepts, "{header}");
        assert_eq!(accepted(npy, &npy_file([3, 0], header, data)), accepts, "{header}");
    }
    for (header, reason) in [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "its shape needs 12 bytes, but there are 8"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "its shape needs 4 bytes, but there are 8"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", "more elements than memory"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "not a number of elements"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "not a number of elements"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,2), }", "at most 8 dimensions"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2, }", "not a number of elements"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2", "lacks a )"),
        ("{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }", "neither True nor False"),
        ("{'descr': '<f4', 'fortran_order': False, }", "no shape"),
        ("{'descr': '<f4', 'shape': (2,), }", "no fortran_order"),
        ("{'fortran_order': False, 'shape': (2,), }", "no descr"),
        ("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "descr twice"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}", "a key more"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", "continues after"),
        ("{'descr': '<f4, }", "does not end"),
        ("{'descr': '<f3', 'fortran_order': False, 'shape': (2,)}", "type <f3 are"),
        ("{'descr': 'ü', 'fortran_order': False, 'shape': (2,)}", "type ü are"),
        ("{'descr': '', 'fortran_order': False, 'shape': (2,)}", "nothing that a tensor can hold"),
        ("", "lacks a {"),
    ] {
        let error = npy(&npy_file([1, 0], header, 8)).unwrap_err().to_string();
        assert!(error.contains(reason), "{header}: {error}");
    }
    let good = "{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }";
    let mut not_bool = npy_file([1, 0], good, 3);
    *not_bool.last_mut().unwrap() = 2;
    let error = npy(&not_bool).unwrap_err().to_string();
    assert!(error.contains("element 2 of a bool array is 2, neither 0 nor 1"), "{error}");
    let error = npy(&npy_file([4, 0], good, 3)).unwrap_err().to_string();
    assert!(error.contains("version 4.0"), "{error}");
    let mut latin = npy_file([1, 0], good, 3);
    latin[20] = 0xff;
    assert!(npy(&latin).unwrap_err().to_string().contains("not UTF-8"));
    let mut huge = npy_file([2, 0], good, 3);
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(npy(&huge).unwrap_err().to_string().contains("a header of 4294967295 bytes"), "{huge:?}");
}

/// A stored archive of one array, of which `change` changes local header (at 0) or directory (at the place given).
fn changed(change: impl FnOnce(&mut Vec<u8>, usize)) -> String {
    let one = BitNetTensor::from_slice(&[1f32], &[1], &Device::cpu()).unwrap();
    let mut bytes = written("changed.npz", |path| npz::save(path, [("a", &one)], Compression::Stored));
    let directory = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    change(&mut bytes, directory);
    npz(&bytes).unwrap_err().to_string()
}

#[test]
fn lies_in_an_archive() {
    for (at, value, reason) in [
        (16, &[0; 4][..], "its checksum is wrong"),
        (20, &[0xf0, 0xff, 0xff, 0x7f], "a.npy lies outside"),
        (24, &[0xf0, 0xff, 0xff, 0x7f], "cannot give 2147483632 bytes"),
        (10, &[8], "broken|header|as long"),
        (10, &[12], "is packed by method 12"),
        (8, &[1], "is encrypted"),
        (34, &[1], "another volume"),
        (42, &[0xf0, 0xff, 0xff, 0x7f], "a record ends early"),
        (46, b"b", "another name before its data"),
        (46, &[0xff], "not UTF-8"),
        (46, b"\n", "another name"),
    ] {
        let error = changed(|bytes, directory| bytes[directory + at..][..value.len()].copy_from_slice(value));
        assert!(reason.split('|').any(|r| error.contains(r)) && !error.contains('\n'), "{at}: {error}");
    }
    let end = |at: usize, value: u8| {
        changed(|bytes, _| {
            let end = bytes.len() - 22;
            bytes[end + at] = value;
        })
    };
    for (at, value, reason) in [
        (4, 1, "archive of several files"),
        (8, 2, "archive of several files"),
        (12, 255, "lies outside"),
        (16, 255, "lies outside"),
        (20, 1, "no directory at its end"),
    ] {
        let error = end(at, value);
        assert!(error.contains(reason), "{at}: {error}");
    }
    let error = changed(|bytes, _| {
        let end = bytes.len() - 22;
        bytes[end + 8] = 2;
        bytes[end + 10] = 2;
    });
    assert!(error.contains("1 entries for 2 announced"), "{error}");
    // The entry twice: under the same name, then under another, whose bytes are then shared.
    for (letter, reason) in [(b'a', "a.npy occurs twice"), (b'b', "another name before its data")] {
        let error = changed(|bytes, directory| {
            let end = bytes.len() - 22;
            let mut copy = bytes[directory..end].to_vec();
            copy[46] = letter;
            let size = 2 * copy.len() as u32;
            let mut tail = bytes.split_off(end);
            bytes.extend(copy);
            (tail[8], tail[10]) = (2, 2);
            tail[12..16].copy_from_slice(&size.to_le_bytes());
            bytes.extend(tail);
        });
        assert!(error.contains(reason), "{error}");
    }
}
