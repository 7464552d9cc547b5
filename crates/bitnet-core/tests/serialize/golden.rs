//! Files made by NumPy and by safetensors for PyTorch (`crates/bitnet-testkit/golden/make_files.py`).

use super::{DTYPES, bytes, counting, data, name};
use bitnet_core::serialize::npz::NpzFile;
use bitnet_core::serialize::{TensorMap, npz, safetensors};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Result};

fn check(tensors: &TensorMap, prefix: &str, with_bf16: bool) {
    let get = |name: &str| &tensors[format!("{prefix}{name}").as_str()];
    for dtype in DTYPES.into_iter().filter(|&d| with_bf16 || d != BitNetDType::BF16) {
        let tensor = get(&name(dtype));
        assert_eq!((tensor.dtype(), tensor.dims()), (dtype, &[2, 3][..]));
        assert_eq!(bytes(tensor), counting(dtype), "{prefix}{dtype}");
    }
    assert_eq!(get("scalar").dims(), [0; 0]);
    assert_eq!(get("scalar").to_vec::<f32>().unwrap(), [7.5]);
    assert_eq!(get("empty").dims(), [0, 4]);
    assert_eq!(get("cube").dims(), [2, 3, 4]);
    assert_eq!(get("cube").to_vec::<i16>().unwrap(), (0..24).collect::<Vec<_>>());
}

#[test]
fn safetensors_of_pytorch() {
    let path = data("torch.safetensors");
    let cpu = Device::cpu();
    for tensors in [safetensors::load(&path, &cpu).unwrap(), safetensors::load_mapped(&path, &cpu).unwrap()] {
        assert_eq!(tensors.len(), 17);
        check(&tensors, "", true);
        assert_eq!(tensors["odd \"name\"\\ ü"].to_vec::<f32>().unwrap(), [1.0]);
    }
    let file = safetensors::SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.header().metadata["note"], "made by torch");
    let error = file.tensor("absent", &cpu).unwrap_err().to_string();
    assert!(error.ends_with("torch.safetensors has no tensor absent"), "{error}");
}

#[test]
fn npz_of_numpy() {
    let cpu = Device::cpu();
    for archive in ["stored.npz", "deflated.npz"] {
        let path = data(archive);
        let read = npz::load(&path, &cpu).unwrap();
        check(&read, "", false);
        assert_eq!(read.keys().next().unwrap(), "bool", "the order of the file");
        let file = NpzFile::open(&path).unwrap();
        let map = |name: &str| Ok((name.to_owned(), file.mapped(name, &cpu)?));
        check(&file.names().map(map).collect::<Result<_>>().unwrap(), "", false);
        check(&npz::from_bytes(&std::fs::read(&path).unwrap(), &cpu).unwrap(), "", false);
    }
    assert_eq!(npz::load(data("stored.npz"), &cpu).unwrap()["ü"].to_vec::<f64>().unwrap(), [1.0]);
    let long = NpzFile::open(data("deflated.npz")).unwrap().tensor("long", &cpu).unwrap();
    assert_eq!(long.to_vec::<f64>().unwrap(), vec![0.0; 5000]);
}

/// The script keeps the single files in one zip archive.
#[test]
fn npy_of_every_version_and_order() {
    let cpu = Device::cpu();
    let file = NpzFile::open(data("npy.zip")).unwrap();
    type Read = fn(&NpzFile, &str, &Device) -> Result<BitNetTensor>;
    for read in [NpzFile::tensor as Read, NpzFile::mapped as Read] {
        let wanted = file.names().filter(|name| !name.starts_with("refused/"));
        let tensors: TensorMap = wanted.map(|name| (name.to_owned(), read(&file, name, &cpu).unwrap())).collect();
        for prefix in ["little/", "big/", "fortran/"] {
            check(&tensors, prefix, false);
        }
        for version in 1..4 {
            let cube = &tensors[format!("version/{version}").as_str()];
            assert_eq!(cube.to_vec::<i16>().unwrap(), (0..24).collect::<Vec<_>>());
        }
    }
    let fortran = file.tensor("fortran/cube", &cpu).unwrap();
    assert_eq!(fortran.layout().strides(), [1, 2, 6], "a view, not a copy");
}

#[test]
fn unsupported_dtypes_are_refused_with_advice() {
    let file = NpzFile::open(data("npy.zip")).unwrap();
    for (name, advice) in [
        ("complex", "save real and imaginary part apart"),
        ("text", "are text"),
        ("bytes", "are text"),
        ("void", "save it as float32, or in a safetensors file"),
        ("records", "save each field by itself"),
        ("objects", "never read because reading them runs code"),
        ("dates", "save them as int64"),
        ("longdouble", "save them as float64"),
    ] {
        let name = format!("refused/{name}");
        let error = file.tensor(&name, &Device::cpu()).unwrap_err().to_string();
        assert!(error.contains(advice) && error.contains(&name) && !error.contains('\n'), "{error}");
    }
}
