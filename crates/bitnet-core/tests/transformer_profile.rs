//! How many of the shape-only calls of a transformer's forward pass copy bytes:
//! `cargo test --release -p bitnet-core --test transformer_profile -- --nocapture` prints the profile.

use bitnet_core::{
    AttentionOptions, BitNetDType::F32, BitNetTensor as Tensor, Device, Generator, INFER, OperationKind, Profiler,
    Result,
};

const TOKENS: usize = 32;
const WIDTH: usize = 128;
const HEADS: usize = 8;
const KV_HEADS: usize = 2;
const HEAD: usize = WIDTH / HEADS;
const HIDDEN: usize = 320;
const BATCH: usize = 2;
const VOCABULARY: usize = 500;

struct Layer {
    norm: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    ffn_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

impl Layer {
    fn new(random: &mut Generator) -> Result<Self> {
        let mut weights = |rows, columns| matrix(rows, columns, random);
        Ok(Self {
            norm: Tensor::ones(&[WIDTH], F32, &Device::cpu())?,
            q: weights(HEADS * HEAD, WIDTH)?,
            k: weights(KV_HEADS * HEAD, WIDTH)?,
            v: weights(KV_HEADS * HEAD, WIDTH)?,
            o: weights(WIDTH, HEADS * HEAD)?,
            ffn_norm: Tensor::ones(&[WIDTH], F32, &Device::cpu())?,
            gate: weights(HIDDEN, WIDTH)?,
            up: weights(HIDDEN, WIDTH)?,
            down: weights(WIDTH, HIDDEN)?,
        })
    }

    /// `x` `[B, T, WIDTH]`, `cos` and `sin` `[T, HEAD / 2]`.
    fn forward(&self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
        let normed = x.rms_norm(&self.norm, 1e-5)?;
        // [B, T, heads * HEAD] -> [B, heads, T, HEAD]
        let heads = |w: &Tensor| linear(&normed, w)?.unflatten(-1, &[INFER, HEAD])?.transpose(1, 2);
        let (q, k) = (heads(&self.q)?.rope(cos, sin)?, heads(&self.k)?.rope(cos, sin)?);
        let options = AttentionOptions { causal: true, ..Default::default() };
        let seen = q.scaled_dot_product_attention(&k, &heads(&self.v)?, &options)?;
        let x = x.add(&linear(&seen.transpose(1, 2)?.flatten(-2, -1)?, &self.o)?)?;
        let normed = x.rms_norm(&self.ffn_norm, 1e-5)?;
        let gated = linear(&normed, &self.gate)?.silu()?.mul(&linear(&normed, &self.up)?)?;
        x.add(&linear(&gated, &self.down)?)
    }
}

fn matrix(rows: usize, columns: usize, random: &mut Generator) -> Result<Tensor> {
    Tensor::randn(&[rows, columns], F32, &Device::cpu(), random)?.mul(1. / (columns as f64).sqrt())
}

/// `x` `[B, T, K]` by `w` `[N, K]` transposed.
fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    x.matmul(&w.t()?)
}

#[test]
fn shapes_change_without_moving_bytes() -> Result<()> {
    let (cpu, random) = (Device::cpu(), &mut Generator::new(1));
    let layers = [Layer::new(random)?, Layer::new(random)?, Layer::new(random)?];
    let (table, head_norm) = (matrix(VOCABULARY, WIDTH, random)?, Tensor::ones(&[WIDTH], F32, &cpu)?);
    let ids = Tensor::randint(0, VOCABULARY as i64, &[BATCH, TOKENS], bitnet_core::BitNetDType::I64, &cpu, random)?;
    let positions = Tensor::arange(0, TOKENS as i64, 1, F32, &cpu)?.unsqueeze(1)?;
    let frequencies =
        Tensor::arange(0, HEAD as i64 / 2, 1, F32, &cpu)?.mul(-(1e4f64.ln()) * 2. / HEAD as f64)?.exp()?;
    let angles = positions.mul(&frequencies)?;
    let (cos, sin) = (angles.cos()?, angles.sin()?);

    let profiler = Profiler::start();
    let mut x = table.embedding(&ids)?;
    for layer in &layers {
        x = layer.forward(&x, &cos, &sin)?;
    }
    let logits = linear(&x.rms_norm(&head_norm, 1e-5)?, &table)?;
    let loss = logits.movedim(-1, 1)?.cross_entropy(&ids, &Default::default())?;
    let profile = profiler.stop();

    println!("{profile}");
    assert_eq!(logits.dims(), [BATCH, TOKENS, VOCABULARY]);
    assert!(loss.item::<f32>()?.is_finite());
    assert!(profile.operations().iter().any(|o| o.kind == OperationKind::View && o.calls > 20));
    let share = profile.shape_only_share().expect("shapes were changed");
    assert!(share >= 0.8, "{:.1} % of the calls that only change a shape moved no bytes", share * 100.);
    Ok(())
}
