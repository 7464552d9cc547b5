//! Bytes that are neither 0 nor 1 do not become the elements of a `Bool` tensor. (Arithmetic takes such elements for 0 or 1:
//! the sum of `BYTES` was 258.) Files are in `serialize/damaged.rs`.

use bitnet_core::*;
use std::sync::Arc;

const BYTES: [u8; 4] = [2, 1, 0, 255];

fn refused(what: &str, result: Result<BitNetTensor>) {
    let Err(error) = result else { panic!("{what}: bytes {BYTES:?} were taken for bools") };
    assert!(error.to_string().contains("element 0 of a bool array is 2, neither 0 nor 1"), "{what}: {error}");
}

#[test]
#[cfg_attr(miri, ignore)] // maps a file
fn bools_other_than_0_and_1_are_refused() {
    let cpu = Device::cpu();
    let bools = BitNetTensor::from_bytes(&[1, 1, 0, 1], &[4], BitNetDType::Bool, &cpu).unwrap();
    assert_eq!(bools.sum(.., false).unwrap().to_vec::<i64>().unwrap(), [3]);
    refused("bytes", BitNetTensor::from_bytes(&BYTES, &[4], BitNetDType::Bool, &cpu));
    // Those of other types stay what they are.
    assert!(BitNetTensor::from_bytes(&BYTES, &[4], BitNetDType::U8, &cpu).is_ok());

    let path = std::env::temp_dir().join(format!("bitnet-bools-{}", std::process::id()));
    std::fs::write(&path, BYTES).unwrap();
    let file = Arc::new(MappedFile::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    refused("a mapped file", BitNetTensor::from_mapped(&file, 0..4, &[4], BitNetDType::Bool, &cpu));
}
