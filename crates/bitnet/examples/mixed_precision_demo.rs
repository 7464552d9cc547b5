//! Mixed precision: products in bf16, sums in f32, and what that costs in accuracy and saves in memory.
//!
//! ```text
//! cargo run -p bitnet --example mixed_precision_demo
//! ```

use BitNetDType::{BF16, F16, F32};
use bitnet::core::mixed_precision::{Precision, PrecisionPolicy, analyse_precision, autocast, in_layer};
use bitnet::core::{BitNetDType, BitNetTensor, Device, Generator, Result};

fn main() -> Result<()> {
    let (device, mut random) = (Device::cpu(), Generator::new(11));
    let x = BitNetTensor::randn(&[32, 256], F32, &device, &mut random)?;
    let w = BitNetTensor::randn(&[256, 256], F32, &device, &mut random)?;
    let full = x.matmul(&w)?;

    // A policy by the names of layers: heads stay in f32.
    let exact = Precision { compute: F32, storage: F32, accumulation: F32 };
    let half = Precision { compute: BF16, storage: BF16, accumulation: F32 };
    let policy = PrecisionPolicy::new(half)?.with("*.head", exact)?;

    let (stored, head) = (policy.store("block.0.up", &w)?, policy.store("model.head", &w)?);
    println!(
        "block.0.up is kept in {}: {} bytes, model.head in {}: {} bytes",
        stored.dtype(),
        stored.storage_bytes(),
        head.dtype(),
        head.storage_bytes()
    );
    assert_eq!((stored.dtype(), head.dtype()), (BF16, F32));
    assert_eq!(2 * stored.storage_bytes(), head.storage_bytes());

    // Within `autocast` operations follow the policy of the layer they are called in.
    let (mixed, unchanged, softmax) = autocast(&policy, || -> Result<_> {
        let mixed = in_layer("block.0.up", || x.matmul(&w))?;
        let softmax = in_layer("block.0.up", || mixed.softmax(-1))?;
        Ok((mixed, in_layer("model.head", || x.matmul(&w))?, softmax))
    })?;
    assert_eq!((mixed.dtype(), unchanged.dtype(), softmax.dtype()), (BF16, F32, F32));
    assert_eq!(unchanged.to_vec::<f32>()?, full.to_vec::<f32>()?);
    println!(
        "matmul gives {}, softmax of it {}, the head's matmul {}",
        mixed.dtype(),
        softmax.dtype(),
        unchanged.dtype()
    );

    // What rounding costs: bf16 keeps 8 bits of a number, f16 11 bits, but f16 ends at 65504.
    for dtype in [BF16, F16] {
        let loss = analyse_precision(&full, &full.to_dtype(dtype)?)?;
        println!(
            "as {dtype}: signal to noise {:.1} dB, largest relative error {:.1e}",
            loss.sqnr_db, loss.max_relative
        );
        assert!(loss.sqnr_db > 45. && loss.overflows == 0);
    }
    let large = full.mul(1e5)?;
    let (bf16, f16) =
        (analyse_precision(&large, &large.to_dtype(BF16)?)?, analyse_precision(&large, &large.to_dtype(F16)?)?);
    println!("1e5 times larger: {} overflows as bf16, {} as f16", bf16.overflows, f16.overflows);
    assert!(bf16.overflows == 0 && f16.overflows > 0);
    Ok(())
}
