//! Tensors in one page: creation, views, broadcasting, indexing, reductions, gradients, files.
//!
//! ```text
//! cargo run -p bitnet --example comprehensive_tensor_demo
//! ```

use bitnet::core::serialize::npy;
use bitnet::core::{BitNetDType, BitNetTensor, Device, Generator, Result, idx};

fn main() -> Result<()> {
    let device = Device::cpu();

    // Creation, and a view that moves nothing.
    let x = BitNetTensor::arange(0, 12, 1, BitNetDType::F32, &device)?.reshape(&[3, 4])?;
    let columns = x.t()?;
    println!(
        "x {:?} and its transpose {:?} share one storage: {}",
        x.dims(),
        columns.dims(),
        x.shares_storage(&columns)
    );
    assert!(x.shares_storage(&columns));

    // Broadcasting and reductions: each row less its mean has mean 0.
    let centred = &x - &x.mean(-1, true)?;
    assert_eq!(centred.mean(-1, false)?.to_vec::<f32>()?, [0.; 3]);
    println!("a row less its mean: {:?}", centred.index(&idx![0])?.to_vec::<f32>()?);

    // Indexing as in NumPy.
    let corner = x.index(&idx![.., -1])?;
    println!("the last column: {:?}", corner.to_vec::<f32>()?);
    assert_eq!(corner.to_vec::<f32>()?, [3., 7., 11.]);

    // Dtypes are promoted as in PyTorch: an integer tensor and a float give a float.
    let counted = x.gt(5)?.count_nonzero(..)?;
    println!("{} of {} elements are above 5", counted.item::<i64>()?, x.elements());
    assert_eq!(counted.item::<i64>()?, 6);

    // Gradients: d/dw of sum((x w)^2) is 2 x^T (x w).
    let mut w = BitNetTensor::randn(&[4, 2], BitNetDType::F32, &device, &mut Generator::new(1))?;
    w.requires_grad_(true)?;
    let y = x.matmul(&w)?;
    y.pow(2)?.sum(.., false)?.backward()?;
    let expected = x.t()?.matmul(&y.detach())?.mul(2)?;
    let gradient = w.grad().expect("backward gives leaves a gradient");
    let error = gradient.sub(&expected)?.abs()?.amax(.., false)?.item::<f32>()?;
    println!("the gradient differs from its formula by at most {error:.1e}");
    assert!(error < 1e-3);

    // A file that NumPy reads.
    let path = std::env::temp_dir().join(format!("bitnet-demo-{}.npy", std::process::id()));
    npy::save(&path, &x)?;
    let back = npy::load(&path, &device)?;
    std::fs::remove_file(&path).expect("the file was just written");
    assert_eq!(back.to_vec::<f32>()?, x.to_vec::<f32>()?);
    println!("written to a file and read back: equal");
    Ok(())
}
