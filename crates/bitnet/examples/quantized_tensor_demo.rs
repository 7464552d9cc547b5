//! One matrix in every packed format: bytes, bits a weight, and the error of each.
//!
//! ```text
//! cargo run -p bitnet --example quantized_tensor_demo
//! ```

use bitnet::core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet::quant::analysis::compare;
use bitnet::quant::{PackedFormat, QuantError, QuantizedTensor};

fn main() -> Result<(), QuantError> {
    let device = Device::cpu();
    let w = BitNetTensor::randn(&[64, 512], BitNetDType::F32, &device, &mut Generator::new(3))?;
    let values = w.to_vec::<f32>()?;
    let formats = [
        PackedFormat::I2S,
        PackedFormat::Tq1_0,
        PackedFormat::Tq2_0,
        PackedFormat::HuggingFace,
        PackedFormat::Binary { group: 64 },
        PackedFormat::Int4 { group: 32 },
        PackedFormat::UInt4 { group: 32 },
        PackedFormat::Q8_0,
    ];
    println!("{:<10} {:>7} {:>12} {:>9} {:>8}", "format", "bytes", "bits/weight", "SQNR dB", "cosine");
    for format in formats {
        let packed = QuantizedTensor::from_tensor(&w, format)?;
        let restored = packed.dequantize(&device)?;
        let error = compare(&values, &restored.to_vec::<f32>()?)?;
        let (name, bytes, bits) = (format.name(), packed.bytes().len(), packed.bits_per_weight());
        println!("{name:<10} {bytes:>7} {bits:>12.3} {:>9.1} {:>8.4}", error.sqnr_db, error.cosine);
        assert!(bits < 9. && error.cosine > 0.75, "{name}");
        // Packed again, the restored values keep their direction.
        let again = QuantizedTensor::from_tensor(&restored, format)?.dequantize(&device)?;
        let twice = compare(&restored.to_vec::<f32>()?, &again.to_vec::<f32>()?)?;
        assert!(twice.cosine > 0.9999, "{name}: {twice:?}");
    }

    // Scaling changes one factor and shares the bytes.
    let packed = QuantizedTensor::from_tensor(&w, PackedFormat::Tq2_0)?;
    let doubled = -&packed * 2.0;
    assert_eq!(doubled.bytes().as_ptr(), packed.bytes().as_ptr());
    println!("scaled by -2: the same {} bytes, factor {}", packed.bytes().len(), doubled.factor());

    // A format says what it cannot hold.
    let narrow = BitNetTensor::ones(&[4, 100], BitNetDType::F32, &device)?;
    let error = QuantizedTensor::from_tensor(&narrow, PackedFormat::Tq2_0).expect_err("100 columns are no whole block");
    println!("100 columns as TQ2_0: {error}");
    Ok(())
}
