//! Cases of the fused operations of training.

use super::*;

pub(super) fn all(cases: &mut Cases) {
    derivatives_of_norms_and_gates(cases);
    scaled_operands_and_products(cases);
    attention_of_whole_sequences(cases);
    adam(cases);
}

fn derivatives_of_norms_and_gates(cases: &mut Cases) {
    for (rows, width) in [(1, 2), (7, 34), (130, 768)] {
        cases.add("rms_norm_backward", 2e-6, move |device| {
            let (grad, x) = (tensor(device, &[rows, width], 8)?, tensor(device, &[rows, width], 9)?);
            let w = tensor(device, &[width], 10)?;
            let (mut dx, mut dw) = (out(device, &[rows, width])?, out(device, &[width])?);
            let results = (dx.as_mut()?, dw.as_mut()?);
            let (grad, x, w) = (grad.as_ref(), x.as_ref(), w.as_ref());
            device.rms_norm_backward(grad, x, w, 1e-5, results.0, results.1)?;
            Ok([dx.to_vec::<f32>()?, dw.to_vec()?].concat())
        });
        for act in GateActivation::ALL {
            cases.add("gate and its derivative", 1e-6, move |device| {
                let (grad, both) = (tensor(device, &[rows, width / 2], 11)?, tensor(device, &[rows, width], 12)?);
                let (mut y, mut d) = (out(device, &[rows, width / 2])?, out(device, &[rows, width])?);
                device.gated_halves(act, both.as_ref(), y.as_mut()?)?;
                device.gated_halves_backward(act, grad.as_ref(), both.as_ref(), d.as_mut()?)?;
                Ok([y.to_vec::<f32>()?, d.to_vec()?].concat())
            });
        }
    }
}

fn scaled_operands_and_products(cases: &mut Cases) {
    for (rows, width) in [(1, 1), (9, 77), (100, 700)] {
        // bf16: two products that differ in the last bit of f32 may be rounded to neighbours.
        for (dtype, bound) in [(BitNetDType::F32, 1e-7), (BitNetDType::BF16, 4e-3)] {
            cases.add("scale", bound, move |device| {
                let (x, r) = (tensor(device, &[rows, width], 1)?, tensor(device, &[rows], 2)?);
                let c = tensor(device, &[width], 3)?;
                let bytes = x.mul(100)?.to_dtype(BitNetDType::I8)?;
                let mut all = Vec::new();
                for (x, r, c) in
                    [(&x, Some(&r), Some(&c)), (&x, None, Some(&c)), (&x, Some(&r), None), (&bytes, Some(&r), None)]
                {
                    let (r, c) = (r.map(BitNetTensor::as_ref), c.map(BitNetTensor::as_ref));
                    let mut y = BitNetTensor::empty(&[rows, width], dtype, device)?;
                    device.scale(x.as_ref(), r, c, y.as_mut()?)?;
                    all.extend(y.to_dtype(BitNetDType::F32)?.to_vec::<f32>()?);
                }
                Ok(all)
            });
        }
    }
    cases.add("a product of bf16 in f32", 1e-6, move |device| {
        let bf16 = |dims: &[usize], seed| tensor(device, dims, seed)?.to_dtype(BitNetDType::BF16);
        let (a, b, mut y) = (bf16(&[33, 70], 1)?, bf16(&[70, 41], 2)?, out(device, &[33, 41])?);
        device.matmul(a.as_ref(), b.as_ref(), y.as_mut()?)?;
        y.to_vec()
    });
}

fn attention_of_whole_sequences(cases: &mut Cases) {
    for (batch, tokens, heads, kv_heads, head_dim) in [(1, 1, 1, 1, 2), (2, 70, 4, 2, 8), (3, 5, 6, 3, 20)] {
        let shape = CausalShape { batch, tokens, heads, kv_heads, head_dim };
        cases.add("causal_attention and its derivative", 5e-6, move |device| {
            let (rows, wide, narrow) = (batch * tokens, shape.row(), shape.out_row());
            let (qkv, grad) = (tensor(device, &[rows, wide], 1)?, tensor(device, &[rows, narrow], 2)?);
            let angles = tensor(device, &[tokens, head_dim / 2], 3)?;
            let (cos, sin) = (angles.cos()?, angles.sin()?);
            let (mut y, mut d) = (out(device, &[rows, narrow])?, out(device, &[rows, wide])?);
            let (x, cos, sin, g) = (qkv.as_ref(), cos.as_ref(), sin.as_ref(), grad.as_ref());
            device.causal_attention(shape, x, cos, sin, y.as_mut()?)?;
            device.causal_attention_backward(shape, g, x, cos, sin, d.as_mut()?)?;
            Ok([y.to_vec::<f32>()?, d.to_vec()?].concat())
        });
    }
}

fn adam(cases: &mut Cases) {
    let step = AdamStep { beta1: 0.9, beta2: 0.95, eps: 1e-8 };
    cases.add("adam_step", 1e-6, move |device| {
        let (mut x, grad) = (tensor(device, &[7, 301], 1)?, tensor(device, &[7, 301], 2)?);
        let (mut m, mut v) = (tensor(device, &[7, 301], 3)?, tensor(device, &[7, 301], 4)?.square()?);
        let operands = (x.as_mut()?, grad.as_ref(), m.as_mut()?, v.as_mut()?);
        let rates = BitNetTensor::from_slice(&[0.99f32, 0.02, 0.4], &[3], device)?;
        device.adam_step(step, rates.as_ref(), operands.0, operands.1, operands.2, operands.3)?;
        Ok([x.to_vec::<f32>()?, m.to_vec()?, v.to_vec()?].concat())
    });
}
