//! Profile of an attention block: `cargo run --release -p bitnet-core --example profile`.

use bitnet_core::{
    AttentionOptions, BitNetDType, BitNetTensor, Device, DeviceCapabilities, Generator, HybridMemoryPool, Profiler,
    Result,
};

fn main() -> Result<()> {
    let device = Device::cpu();
    println!("{:#?}\n", DeviceCapabilities::for_device(&device));

    let (tokens, heads, width) = (256, 8, 64);
    let hidden = heads * width;
    let random = &mut Generator::new(1);
    let mut normal = |dims: &[usize]| BitNetTensor::randn(dims, BitNetDType::F32, &device, random);
    let x = normal(&[tokens, hidden])?;
    let qkv = normal(&[tokens, 3, heads, width])?;
    let weight = BitNetTensor::ones(&[hidden], BitNetDType::F32, &device)?;

    let block = || -> Result<BitNetTensor> {
        let y = x.rms_norm(&weight, 1e-5)?;
        // [tokens, 3, heads, width] -> queries, keys and values of [heads, tokens, width], none of them copied.
        let parts = qkv.permute(&[1, 2, 0, 3])?;
        let (q, k, v) = (parts.select(0, 0)?, parts.select(0, 1)?, parts.select(0, 2)?);
        let options = AttentionOptions { causal: true, ..Default::default() };
        let attended = q.scaled_dot_product_attention(&k, &v, &options)?;
        let attended = attended.transpose(0, 1)?.reshape(&[tokens, hidden])?;
        y.add(&attended)
    };
    block()?;
    let before = HybridMemoryPool::global().get_metrics();
    let profiler = Profiler::start();
    for _ in 0..20 {
        block()?;
    }
    println!("{}", profiler.stop());
    let after = HybridMemoryPool::global().get_metrics();
    let (hits, all) = (after.hits - before.hits, after.allocations - before.allocations);
    println!("{hits} of {all} allocations were served from memory that was in use before");
    Ok(())
}
