//! GGUF: the byte ranges of an accepted header must exist, and decoders must not trust their content.
#![no_main]

use bitnet_model::gguf::{Gguf, GgufType};
use bitnet_quant::QuantError;
use bitnet_quant::formats::{
    IQ1_BN, IQ2_BN, PTQ1_0, Q1_0, Q2_0_G64, Q2_0_G128, STQ1_0, ScaledCodes, TQ1_0, TQ2_0, i2_s, i2_s::I2sOrder,
};
use libfuzzer_sys::fuzz_target;

fn scales(decoded: Result<ScaledCodes, QuantError>) {
    let _ = decoded.map(|decoded| decoded.ternary_scales().map_err(|e| e.to_string()));
}

fuzz_target!(|file: &[u8]| {
    let g = match Gguf::parse(file) {
        Ok(g) => g,
        Err(e) => return assert!(!e.to_string().contains('\n')),
    };
    // As the first of its parts, and as each of the others.
    if let Ok(Some((_, parts))) = g.part() {
        let name = format!("m-00001-of-{parts:05}.gguf");
        if parts < 100 {
            let _ = g.other_parts(name.as_ref()).map_err(|e| e.to_string());
        }
        let _ = g.clone().join(vec![g.clone()]).map_err(|e| e.to_string());
    }
    for key in g.metadata.iter().map(|(key, _)| key) {
        let _ = g.metadata.require::<u32>(key).map_err(|e| e.to_string());
        let _ = g.metadata.require::<&[String]>(key).map_err(|e| e.to_string());
    }
    for t in &g.tensors {
        let (data, cols) = (t.data(file), t.cols());
        let rows = t.count() / cols;
        if t.ty.is_ternary() {
            assert_eq!(t.ty.byte_size(rows, cols), Some(data.len()));
        }
        match t.ty {
            GgufType::I2_S => {
                let _ = i2_s::decode(data, rows, cols, I2sOrder::X86);
                let _ = i2_s::decode(data, rows, cols, I2sOrder::Arm);
            }
            GgufType::TQ1_0 => scales(TQ1_0.decode(data, rows, cols)),
            GgufType::TQ2_0 => scales(TQ2_0.decode(data, rows, cols)),
            GgufType::Q2_0_G64 => scales(Q2_0_G64.decode(data, rows, cols)),
            GgufType::Q1_0 => scales(Q1_0.decode(data, rows, cols)),
            GgufType::PTQ1_0 => scales(PTQ1_0.decode(data, rows, cols)),
            GgufType::Q2_0_G128 | GgufType::PQ2_0 => scales(Q2_0_G128.decode(data, rows, cols)),
            GgufType::STQ1_0 | GgufType::STQ1_0_EARLY => scales(STQ1_0.decode(data, rows, cols)),
            GgufType::IQ1_BN => scales(IQ1_BN.decode(data, rows, cols)),
            GgufType::IQ2_BN => scales(IQ2_BN.decode(data, rows, cols)),
            _ => drop(g.tensor(&t.name).map_err(|e| e.to_string())),
        }
    }
});
