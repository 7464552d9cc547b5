//! Round trips of tensors with any strides, dtype and device.

use super::{DTYPES, Folder, bytes, counting, name};
use bitnet_core::serialize::npz::{Compression, NpzFile, NpzWriter};
use bitnet_core::serialize::safetensors::{Dtype, SafetensorsFile, SafetensorsWriter};
use bitnet_core::serialize::{TensorMap, npy, npz, safetensors};
use bitnet_core::{BitNetDType, BitNetError, BitNetTensor, Device, TensorStorage};
use bitnet_testkit::{queue_device, reference_device};

fn tensors(dtypes: &[BitNetDType], device: &Device) -> TensorMap {
    let tensor = |d: BitNetDType| BitNetTensor::from_bytes(&counting(d), &[2, 3], d, device).unwrap();
    let mut map: TensorMap = dtypes.iter().map(|&d| (name(d), tensor(d))).collect();
    map.insert("scalar".into(), BitNetTensor::from_slice(&[7.5f32], &[], device).unwrap());
    map.insert("empty".into(), BitNetTensor::from_slice::<f32>(&[], &[0, 4], device).unwrap());
    map.insert("none".into(), BitNetTensor::from_slice::<u8>(&[], &[3, 0], device).unwrap());
    let line = BitNetTensor::from_slice(&(0..24u8).map(f32::from).collect::<Vec<_>>(), &[2, 3, 4], device).unwrap();
    map.insert("transposed".into(), line.transpose(0, 2).unwrap());
    map.insert("part".into(), line.narrow(1, 1, 2).unwrap());
    map.insert("nothing of it".into(), line.narrow(0, 2, 0).unwrap());
    map
}

fn same(a: &TensorMap, b: &TensorMap) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "the order is kept");
    for ((name, a), b) in a.iter().zip(b.values()) {
        assert_eq!((a.dims(), a.dtype(), bytes(a)), (b.dims(), b.dtype(), bytes(b)), "{name}");
    }
}

const NUMPY: [BitNetDType; 12] = {
    use BitNetDType::*;
    [Bool, U8, I8, U16, I16, U32, I32, U64, I64, F16, F32, F64]
};

#[test]
fn safetensors_on_every_device() {
    let folder = Folder::new("safetensors");
    let path = folder.path("x.safetensors");
    for from in [Device::cpu(), reference_device(), queue_device()] {
        let saved = tensors(&DTYPES, &from);
        let length = safetensors::save(&path, &saved, &[("b", "2"), ("a", "ü \"")]).unwrap();
        assert_eq!(length, std::fs::metadata(&path).unwrap().len());
        for to in [Device::cpu(), reference_device(), queue_device()] {
            same(&saved, &safetensors::load(&path, &to).unwrap());
            same(&saved, &safetensors::load_mapped(&path, &to).unwrap());
        }
        let header = SafetensorsFile::open(&path).unwrap().header().clone();
        assert_eq!(header.metadata["a"], "ü \"");
        for tensor in header.tensors() {
            let size = tensor.dtype.bitsize() / 8;
            assert!(tensor.range.start.is_multiple_of(size), "{} is aligned", tensor.name);
        }
    }
}

#[test]
fn npz_on_every_device() {
    let folder = Folder::new("npz");
    let path = folder.path("x.npz");
    for from in [Device::cpu(), reference_device(), queue_device()] {
        let saved = tensors(&NUMPY, &from);
        for compression in [Compression::Stored, Compression::Deflated] {
            let length = npz::save(&path, &saved, compression).unwrap();
            assert_eq!(length, std::fs::metadata(&path).unwrap().len());
            for to in [Device::cpu(), reference_device(), queue_device()] {
                same(&saved, &npz::load(&path, &to).unwrap());
                let file = NpzFile::open(&path).unwrap();
                let map = |name: &str| (name.to_owned(), file.mapped(name, &to).unwrap());
                same(&saved, &file.names().map(map).collect());
            }
        }
    }
}

#[test]
fn npy_on_every_device() {
    let folder = Folder::new("npy");
    let path = folder.path("x.npy");
    for from in [Device::cpu(), reference_device(), queue_device()] {
        for (name, tensor) in tensors(&NUMPY, &from) {
            npy::save(&path, &tensor).unwrap();
            let raw = std::fs::read(&path).unwrap();
            assert_eq!((raw.len() - tensor.shape().elements() * tensor.dtype().block().1) % 64, 0, "{name}");
            for to in [Device::cpu(), reference_device(), queue_device()] {
                for read in [npy::load(&path, &to), npy::load_mapped(&path, &to), npy::from_bytes(&raw, &to)] {
                    let read = read.unwrap();
                    assert_eq!(
                        (read.dims(), read.dtype(), bytes(&read)),
                        (tensor.dims(), tensor.dtype(), bytes(&tensor))
                    );
                }
            }
        }
    }
}

/// Writes the files for `crates/bitnet-testkit/golden/check_files.py` to the folder `BITNET_WRITE_FILES`.
#[test]
fn files_for_numpy_and_pytorch() {
    let own = Folder::new("python");
    let folder = std::env::var_os("BITNET_WRITE_FILES").map_or(own.0.clone(), Into::into);
    let cpu = Device::cpu();
    let (all, numpy) = (tensors(&DTYPES, &cpu), tensors(&NUMPY, &cpu));
    safetensors::save(folder.join("ours.safetensors"), &all, &[("format", "pt"), ("note", "ü \"quoted\"")]).unwrap();
    npz::save(folder.join("stored.npz"), &numpy, Compression::Stored).unwrap();
    npz::save(folder.join("deflated.npz"), &numpy, Compression::Deflated).unwrap();
    for (name, tensor) in &numpy {
        npy::save(folder.join(format!("{name}.npy")), tensor).unwrap();
    }
    same(&numpy, &npz::load(folder.join("deflated.npz"), &cpu).unwrap());
}

/// Address of the bytes of a CPU tensor.
fn address(tensor: &BitNetTensor) -> (*const u8, usize) {
    match tensor.as_ref().storage {
        TensorStorage::Cpu(cpu) => (cpu.bytes().as_ptr(), cpu.bytes().len()),
        TensorStorage::Device(_) => panic!("not on the CPU"),
    }
}

#[test]
fn a_mapping_is_not_copied_until_it_is_written() {
    let folder = Folder::new("mapped");
    let cpu = Device::cpu();
    let x = BitNetTensor::from_slice(&[1f32, 2., 3.], &[3], &cpu).unwrap();
    let odd = BitNetTensor::from_slice(&[1u8, 2, 3], &[3], &cpu).unwrap();
    let both = [("odd", &odd), ("x", &x)];
    safetensors::save(folder.path("x.safetensors"), both, &[]).unwrap();
    npz::save(folder.path("x.npz"), both, Compression::Stored).unwrap();
    npy::save(folder.path("x.npy"), &x).unwrap();
    let file = SafetensorsFile::open(folder.path("x.safetensors")).unwrap();
    let archive = NpzFile::open(folder.path("x.npz")).unwrap();
    let maps: [&dyn Fn() -> BitNetTensor; 3] =
        [&|| file.mapped("x", &cpu).unwrap(), &|| archive.mapped("x", &cpu).unwrap(), &|| {
            npy::load_mapped(folder.path("x.npy"), &cpu).unwrap()
        }];
    for map in &maps[..2] {
        assert_eq!(address(&map()), address(&map()), "two tensors are one part of one mapping");
    }
    for map in maps {
        let mut mapped = map();
        let before = address(&mapped);
        let TensorStorage::Cpu(storage) = mapped.as_mut().unwrap().storage else { panic!() };
        storage.elements_mut::<f32>().unwrap()[0] = 9.0;
        assert_ne!(address(&mapped), before);
        assert_eq!(mapped.to_vec::<f32>().unwrap(), [9., 2., 3.]);
        assert_eq!(map().to_vec::<f32>().unwrap(), [1., 2., 3.], "the file is as it was");
    }
    assert_ne!(address(&file.tensor("x", &cpu).unwrap()), address(&file.mapped("x", &cpu).unwrap()));
}

#[test]
fn one_tensor_at_a_time() {
    let folder = Folder::new("stream");
    let path = folder.path("x.safetensors");
    let mut plan = SafetensorsWriter::new();
    for step in 0..4 {
        plan.add(&format!("step{step}"), Dtype::I64, &[1]).unwrap();
    }
    plan.write(&path, |info, sink| {
        let step: i64 = info.name.trim_start_matches("step").parse().unwrap();
        sink.put_tensor(&BitNetTensor::from_slice(&[step], &[1], &Device::cpu())?)
    })
    .unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.tensor("step3", &Device::cpu()).unwrap().to_vec::<i64>().unwrap(), [3]);
    let wrong =
        plan.write(&path, |_, sink| sink.put_tensor(&BitNetTensor::from_slice(&[1i64, 2], &[2], &Device::cpu())?));
    let error = wrong.unwrap_err().to_string();
    assert!(error.contains("16 bytes of data were given for the 8 that its shape needs"), "{error}");
    assert_eq!(safetensors::load(&path, &Device::cpu()).unwrap().len(), 4, "what was there before");
}

#[test]
fn dtypes_a_format_lacks_are_errors_and_write_nothing() {
    let folder = Folder::new("lacks");
    let cpu = Device::cpu();
    let bf16 = BitNetTensor::zeros(&[2], BitNetDType::BF16, &cpu).unwrap();
    let packed = BitNetTensor::zeros(&[1, 4], BitNetDType::Ternary2, &cpu).unwrap();
    let f32 = BitNetTensor::zeros(&[2], BitNetDType::F32, &cpu).unwrap();
    let advice = "save: NumPy has no type for bf16: cast it to f32 with to_dtype, or use safetensors";
    assert_eq!(npy::save(folder.path("x.npy"), &bf16).unwrap_err().to_string(), advice);
    let archive = folder.path("x.npz");
    assert_eq!(npz::save(&archive, [("x", &bf16)], Compression::Stored).unwrap_err().to_string(), advice);
    for (result, name) in [
        (npy::save(folder.path("x.npy"), &packed), "npy"),
        (npz::save(&archive, [("x", &packed)], Compression::Deflated), "npz"),
        (safetensors::save(folder.path("x.safetensors"), [("x", &packed)], &[]), "safetensors"),
    ] {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("ternary2"), "{name}: {error}");
    }
    let twice = [("x", &f32), ("x", &f32)];
    let error = npz::save(&archive, twice, Compression::Stored).unwrap_err().to_string();
    assert_eq!(error, "tensor \"x\" cannot be written: the name is taken");
    let error = safetensors::save(folder.path("x.safetensors"), twice, &[]).unwrap_err().to_string();
    assert_eq!(error, "tensor \"x\" cannot be written: the name is taken");
    assert!(NpzWriter::create(&archive, Compression::Stored).unwrap().add("", &f32).is_err());
    let nowhere = npy::save(folder.path("no/such/x.npy"), &f32).unwrap_err();
    assert!(matches!(nowhere, BitNetError::File(_)), "{nowhere}");
    let left: Vec<_> = std::fs::read_dir(&folder.0).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
