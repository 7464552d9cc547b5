//! The choice of tokens from logits: its parameters, and the operation composed of primitives.

use super::fused::temp::{Temp, binary, cast, reduce_last};
use super::*;
use BinaryOp::*;
use BitNetDType::{Bool, F32, I64, U32};

/// How the token of one row is chosen, a row of the second operand of [`Op::Sample`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleRow {
    /// Logits are divided by it; 0 takes the first of the largest logits before all cuts (greedy).
    pub temperature: f32,
    /// Keeps the first so many; 0 keeps all.
    pub top_k: f32,
    /// Keeps the first whose probabilities together reach it (Holtzman et al. 2020); 1 keeps all.
    pub top_p: f32,
    /// Keeps those at least so many times as likely as the likeliest (Nguyen et al. 2024); 0 keeps all.
    pub min_p: f32,
    /// Keeps those whose surprise is nearest to the entropy, until their probabilities together reach it (Meister et al. 2022);
    /// 1 keeps all. Their distance orders them from now on.
    pub typical_p: f32,
    /// Keeps logits at most so many standard deviations of the finite logits below the largest (Tang et al. 2024); 0 keeps all.
    pub top_n_sigma: f32,
    /// Removes all of at least this probability but the least likely of them (XTC, as in llama.cpp); above 1 removes none.
    pub xtc_threshold: f32,
    /// Keeps those of at most so many bits of surprise, at least the likeliest (the cut of mirostat 2, Basu et al. 2021);
    /// infinity keeps all.
    pub surprise: f32,
    /// The upper 24 bits of a fraction of 48.
    pub upper: f32,
    /// The lower 24 bits.
    pub lower: f32,
}

impl SampleRow {
    /// Its numbers.
    pub const LEN: usize = 10;

    /// The row of the operand.
    pub fn to_array(self) -> [f32; Self::LEN] {
        let Self { temperature, top_k, top_p, min_p, typical_p, top_n_sigma, xtc_threshold, surprise, upper, lower } =
            self;
        [temperature, top_k, top_p, min_p, typical_p, top_n_sigma, xtc_threshold, surprise, upper, lower]
    }
}

/// The operands of [`Op::Sample`] beside the logits.
#[derive(Debug, Clone, Copy)]
pub struct SampleRows<'a> {
    /// f32 `[T, 10]`, see [`SampleRow`].
    pub rows: TensorRef<'a>,
    /// Tokens whose logits are changed, `U32` `[T, L]`. One that is named again has the same edit.
    pub edited: TensorRef<'a>,
    /// f32 `[T, L, 4]`: a number that is added, then the penalty of repetition, by which positive logits are divided and others
    /// multiplied, then two numbers that are subtracted.
    pub edits: TensorRef<'a>,
    /// Which tokens may come, `U32` `[T, ceil(V / 32)]`, token `t` bit `t % 32` of word `t / 32`; `[T, 0]`: all.
    pub mask: TensorRef<'a>,
}

impl dyn Backend + '_ {
    /// Runs [`Op::Sample`].
    pub fn sample(
        &self,
        logits: TensorRef,
        how: SampleRows,
        tokens: TensorMut,
        probabilities: TensorMut,
    ) -> Result<()> {
        let SampleRows { rows, edited, edits, mask } = how;
        self.call(&Op::Sample, &[logits, rows, edited, edits, mask], &mut [tokens, probabilities])
    }
}

/// The dtype of positions.
fn positions(backend: &dyn Backend) -> BitNetDType {
    if backend.has(I64) { I64 } else { U32 }
}

/// `op(a, b)` as `Bool`, both broadcast to `dims`.
fn compare<'b>(backend: &'b dyn Backend, op: CompareOp, [a, b]: [TensorRef; 2], dims: &[usize]) -> Result<Temp<'b>> {
    let mut out = Temp::new(backend, dims, Bool)?;
    let [a, b] = [wide(a, dims)?, wide(b, dims)?];
    backend.compare(op, a, b, out.view_mut())?;
    Ok(out)
}

/// `condition ? a : b`, both broadcast to the shape of the condition.
fn select<'b>(backend: &'b dyn Backend, condition: &Temp, [a, b]: [TensorRef; 2]) -> Result<Temp<'b>> {
    let dims = condition.layout.dims();
    let mut out = Temp::new(backend, dims, a.dtype)?;
    backend.select(condition.view(), wide(a, dims)?, wide(b, dims)?, out.view_mut())?;
    Ok(out)
}

fn wide<'a>(x: TensorRef<'a>, dims: &[usize]) -> Result<TensorRef<'a>> {
    Ok(TensorRef { layout: x.layout.broadcast_to(dims)?, ..x })
}

/// The logits after edits and mask, NaN as minus infinity.
fn edited<'b>(backend: &'b dyn Backend, logits: TensorRef, how: &SampleRows, lowest: &Temp) -> Result<Temp<'b>> {
    let (dims, mut x) = (how.edited.layout.dims(), Temp::copied(backend, logits)?);
    if dims[1] > 0 {
        let edit = |index: usize| -> Result<Temp> {
            let mut edit = Temp::copied(backend, how.edits.narrow(2, index, 1)?)?;
            edit.layout = edit.layout.reshape(dims)?;
            Ok(edit)
        };
        let mut old = Temp::new(backend, dims, F32)?;
        backend.gather(x.view(), 1, how.edited, old.view_mut())?;
        let (old, penalty, zero) =
            (old.binary(Add, edit(0)?.view())?, edit(1)?, Temp::upload(backend, &[1, 1], &[0f32])?);
        let positive = compare(backend, CompareOp::Gt, [old.view(), zero.view()], dims)?;
        let (over, times) = (old.binary(Div, penalty.view())?, old.binary(Mul, penalty.view())?);
        let new = select(backend, &positive, [over.view(), times.view()])?;
        let new = new.binary(Sub, edit(2)?.view())?.binary(Sub, edit(3)?.view())?;
        backend.scatter(ScatterOp::Assign, new.view(), 1, how.edited, x.view_mut())?;
    }
    let (rows, vocab, words) = (dims[0], x.layout.dims()[1], how.mask.layout.dims()[1]);
    if words > 0 {
        let bits: Vec<u32> = (0..32).collect();
        let (bits, one) = (Temp::upload(backend, &[1, 1, 32], &bits)?, Temp::upload(backend, &[1, 1, 1], &[1u32])?);
        let mask = TensorRef { layout: how.mask.layout.unsqueeze(2)?, ..how.mask };
        let mask = wide(mask, &[rows, words, 32])?;
        let mut set = binary(backend, Shr, mask, bits.view())?.binary(And, one.view())?.cast(Bool)?;
        set.layout = set.layout.reshape(&[rows, words * 32])?.narrow(1, 0, vocab)?;
        x = select(backend, &set, [x.view(), lowest.view()])?;
    }
    let number = compare(backend, CompareOp::Eq, [x.view(), x.view()], &[rows, vocab])?;
    select(backend, &number, [x.view(), lowest.view()])
}

/// The candidates of each row, `[T, V]`, from the largest logit to the smallest.
struct Cuts<'b> {
    backend: &'b dyn Backend,
    /// Columns `[T, 1]` of the parameters.
    parameters: Vec<Temp<'b>>,
    /// Place in the order, `[1, V]`.
    places: Temp<'b>,
    /// `(logit - largest) / temperature`
    keys: Temp<'b>,
    /// `e^key`, 0 of what is cut.
    weights: Temp<'b>,
}

impl<'b> Cuts<'b> {
    /// 1 where it holds, else 0, `[T, V]`.
    fn compare(&self, op: CompareOp, a: &Temp, b: &Temp) -> Result<Temp<'b>> {
        compare(self.backend, op, [a.view(), b.view()], self.keys.layout.dims())?.cast(F32)
    }

    /// Keeps what `kept` says where parameter `index` is in use, which `op` and `limit` say.
    fn keep(&mut self, kept: Temp<'b>, index: usize, op: CompareOp, limit: f32) -> Result<()> {
        let limit = Temp::upload(self.backend, &[1, 1], &[limit])?;
        let used = compare(self.backend, op, [self.parameters[index].view(), limit.view()], self.keys.layout.dims())?;
        let kept = self.weights.binary(Mul, kept.view())?;
        self.weights = select(self.backend, &used, [kept.view(), self.weights.view()])?;
        Ok(())
    }

    fn alive(&self) -> Result<Temp<'b>> {
        self.compare(CompareOp::Gt, &self.weights, &Temp::upload(self.backend, &[1, 1], &[0f32])?)
    }

    /// Sum of the weights times a column, `[T, 1]`.
    fn part(&self, of: &Temp) -> Result<Temp<'b>> {
        self.weights.reduce_last(ReduceOp::Sum)?.binary(Mul, of.view())
    }

    /// Whether it is one of the first that together reach parameter `index` of the sum: the sum before it is less.
    fn reach(&self, weights: &Temp<'b>, index: usize) -> Result<Temp<'b>> {
        let mut sums = Temp::new(self.backend, weights.layout.dims(), F32)?;
        self.backend.scan(ScanOp::Sum, weights.view(), 1, sums.view_mut())?;
        self.compare(CompareOp::Lt, &sums.binary(Sub, weights.view())?, &self.part(&self.parameters[index])?)
    }

    fn top_n_sigma(&mut self, sorted: &Temp<'b>) -> Result<()> {
        let most = Temp::upload(self.backend, &[1, 1], &[f32::MAX])?;
        let finite = self.compare(CompareOp::Le, &sorted.unary(UnaryOp::Abs)?, &most)?;
        let count = finite.reduce_last(ReduceOp::Sum)?;
        let values = sorted.scalar(Maximum, f32::MIN.into())?.binary(Mul, finite.view())?;
        let mean = values.reduce_last(ReduceOp::Sum)?.binary(Div, count.view())?;
        let apart = values.binary(Sub, mean.view())?.binary(Mul, finite.view())?.unary(UnaryOp::Square)?;
        let deviation = apart.reduce_last(ReduceOp::Sum)?.binary(Div, count.view())?.unary(UnaryOp::Sqrt)?;
        let top = Temp::copied(self.backend, sorted.view().narrow(1, 0, 1)?)?;
        let floor = top.binary(Sub, deviation.binary(Mul, self.parameters[5].view())?.view())?;
        self.keep(self.compare(CompareOp::Ge, sorted, &floor)?, 5, CompareOp::Gt, 0.)
    }

    fn typical(&mut self) -> Result<()> {
        let (backend, dims) = (self.backend, self.keys.layout.dims());
        let keys = self.keys.scalar(Maximum, f32::MIN.into())?;
        let mean = keys.binary(Mul, self.weights.view())?.reduce_last(ReduceOp::Sum)?;
        let mean = mean.binary(Div, self.weights.reduce_last(ReduceOp::Sum)?.view())?;
        // What is cut comes last.
        let near = keys.binary(Sub, mean.view())?.unary(UnaryOp::Abs)?.unary(UnaryOp::Neg)?;
        let near = near.binary(Minimum, self.alive()?.scalar(Sub, 1.)?.scalar(Mul, f32::MAX.into())?.view())?;
        let mut kept = Temp::new(backend, dims, F32)?;
        let (mut weights, mut order) = (Temp::new(backend, dims, F32)?, Temp::new(backend, dims, positions(backend))?);
        backend.sort(near.view(), 1, true, kept.view_mut(), order.view_mut())?;
        backend.gather(self.weights.view(), 1, order.view(), weights.view_mut())?;
        backend.scatter(ScatterOp::Assign, self.reach(&weights, 4)?.view(), 1, order.view(), kept.view_mut())?;
        self.keep(kept, 4, CompareOp::Lt, 1.)
    }

    fn exclude_top_choices(&mut self) -> Result<()> {
        let large = self.compare(CompareOp::Ge, &self.weights, &self.part(&self.parameters[6])?)?;
        let large = large.binary(Mul, self.alive()?.view())?;
        let last = large.binary(Mul, wide(self.places.view(), large.layout.dims())?)?.reduce_last(ReduceOp::Max)?;
        let least = self.compare(CompareOp::Eq, &self.places, &last)?;
        let small = large.scalar(Mul, -1.)?.scalar(Add, 1.)?;
        self.keep(small.binary(Maximum, least.view())?, 6, CompareOp::Le, 1.)
    }

    fn surprise(&mut self) -> Result<()> {
        let part = self.parameters[7].unary(UnaryOp::Neg)?.unary(UnaryOp::Exp2)?;
        let likely = self.compare(CompareOp::Ge, &self.weights, &self.part(&part)?)?;
        let mut first = Temp::new(self.backend, part.layout.dims(), positions(self.backend))?;
        self.backend.reduce(ReduceOp::ArgMax, self.weights.view(), 1, first.view_mut())?;
        let first = self.compare(CompareOp::Eq, &self.places, &first.cast(F32)?)?;
        self.keep(likely.binary(Maximum, first.view())?, 7, CompareOp::Lt, f32::INFINITY)
    }
}

/// See [`Op::Sample`]: weights and their sums are f32.
pub(super) fn sample(
    backend: &dyn Backend,
    logits: TensorRef,
    how: SampleRows,
    tokens: TensorMut,
    probabilities: TensorMut,
) -> Result<()> {
    let &[rows, vocab] = logits.layout.dims() else { return Err(unsupported(backend, "sample", logits.dtype)) };
    if rows == 0 {
        return Ok(());
    }
    let (dims, index) = ([rows, vocab], positions(backend));
    let number = |x: f32| Temp::upload(backend, &[1, 1], &[x]);
    let x = edited(backend, logits, &how, &number(f32::NEG_INFINITY)?)?;
    let (mut sorted, mut order) = (Temp::new(backend, &dims, F32)?, Temp::new(backend, &dims, index)?);
    backend.sort(x.view(), 1, true, sorted.view_mut(), order.view_mut())?;
    let top = Temp::copied(backend, sorted.view().narrow(1, 0, 1)?)?;
    let column = |i| Temp::copied(backend, how.rows.narrow(1, i, 1)?);
    let parameters = (0..SampleRow::LEN).map(column).collect::<Result<Vec<Temp>>>()?;
    let scale = parameters[0].unary(UnaryOp::Reciprocal)?.scalar(Minimum, f32::MAX.into())?;
    let keys = sorted.binary(Sub, top.view())?.binary(Mul, scale.view())?;
    let places: Vec<f32> = (0..vocab).map(|place| place as f32).collect();
    let places = Temp::upload(backend, &[1, vocab], &places)?;
    let mut cuts = Cuts { backend, parameters, places, weights: keys.unary(UnaryOp::Exp)?, keys };
    let likely = cuts.compare(CompareOp::Ge, &cuts.keys, &number(-30. * std::f32::consts::LN_2)?)?;
    cuts.weights = cuts.weights.binary(Mul, likely.view())?;
    cuts.top_n_sigma(&sorted)?;
    cuts.keep(cuts.compare(CompareOp::Lt, &cuts.places, &cuts.parameters[1])?, 1, CompareOp::Gt, 0.)?;
    cuts.keep(cuts.reach(&cuts.weights, 2)?, 2, CompareOp::Lt, 1.)?;
    let least = cuts.parameters[3].unary(UnaryOp::Log)?;
    cuts.keep(cuts.compare(CompareOp::Ge, &cuts.keys, &least)?, 3, CompareOp::Gt, 0.)?;
    cuts.typical()?;
    cuts.exclude_top_choices()?;
    cuts.surprise()?;

    // In the order of tokens, the first whose sum exceeds the fraction of all.
    let (mut weights, mut sums) = (Temp::new(backend, &dims, F32)?, Temp::new(backend, &dims, F32)?);
    backend.scatter(ScatterOp::Assign, cuts.weights.view(), 1, order.view(), weights.view_mut())?;
    backend.scan(ScanOp::Sum, weights.view(), 1, sums.view_mut())?;
    let total = Temp::copied(backend, sums.view().narrow(1, vocab - 1, 1)?)?;
    let fraction = cuts.parameters[9].scalar(Mul, 2f64.powi(-24))?.binary(Add, cuts.parameters[8].view())?;
    let fraction = fraction.scalar(Mul, 2f64.powi(-24))?.scalar(Minimum, 1. - 2f64.powi(-23))?;
    let passed = cuts.compare(CompareOp::Le, &sums, &total.binary(Mul, fraction.view())?)?;
    let drawn = cast(backend, reduce_last(backend, ReduceOp::Sum, passed.view())?.view(), U32)?;
    let first = Temp::copied(backend, order.view().narrow(1, 0, 1)?)?.cast(U32)?;

    // Columns [T, 1] from here on.
    let greedy = compare(backend, CompareOp::Eq, [cuts.parameters[0].view(), number(0.)?.view()], &[rows, 1])?;
    let token = select(backend, &greedy, [first.view(), drawn.view()])?;
    // Without a finite logit there are no candidates.
    let finite =
        compare(backend, CompareOp::Le, [top.unary(UnaryOp::Abs)?.view(), number(f32::MAX)?.view()], &[rows, 1])?;
    let inside = select(backend, &finite, [token.view(), first.view()])?;
    let mut weight = Temp::new(backend, &[rows, 1], F32)?;
    backend.gather(weights.view(), 1, inside.view(), weight.view_mut())?;
    let probability = weight.binary(Div, total.view())?;
    let probability = select(backend, &greedy, [wide(number(1.)?.view(), &[rows, 1])?, probability.view()])?;
    let none = Temp::upload(backend, &[1, 1], &[u32::MAX])?;
    let into = |out: TensorMut, x: &Temp, none: &Temp| -> Result<()> {
        let layout = out.layout.unsqueeze(1)?;
        select(backend, &finite, [x.view(), none.view()])?.copy_to(TensorMut { layout, ..out })
    };
    into(tokens, &token, &none)?;
    into(probabilities, &probability, &number(0.)?)
}
