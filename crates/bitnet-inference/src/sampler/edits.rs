//! What bias, penalties and DRY do to the logits of tokens.

use crate::Sampling;

/// Tokens whose logits are changed, each once. Nothing allocates but [`Edits::new`].
#[derive(Debug, Clone)]
pub(super) struct Edits {
    /// Of each token its place in the lists, [`NONE`] without one; empty where nothing is changed.
    places: Vec<u32>,
    pub tokens: Vec<u32>,
    /// Bias, penalty of repetition, what the other penalties subtract, what DRY subtracts: an edit of `Op::Sample`.
    pub values: Vec<[f32; 4]>,
    /// How often each was generated.
    generated: Vec<u32>,
    /// Places that DRY lowers.
    repeated: Vec<u32>,
    penalties: bool,
}

const NONE: u32 = u32::MAX;

impl Edits {
    pub fn new(sampling: &Sampling, vocab: usize) -> Self {
        let penalties =
            sampling.repeat_penalty != 1. || sampling.frequency_penalty != 0. || sampling.presence_penalty != 0.;
        let any = penalties || sampling.dry_multiplier > 0. || !sampling.logit_bias.is_empty();
        let room = if any { vocab } else { 0 };
        let mut edits = Self {
            places: vec![NONE; room],
            tokens: Vec::with_capacity(room),
            values: Vec::with_capacity(room),
            generated: Vec::with_capacity(room),
            repeated: Vec::with_capacity(room),
            penalties,
        };
        for &(token, bias) in &sampling.logit_bias {
            let place = edits.place(token);
            edits.values[place][0] += bias;
        }
        edits
    }

    fn place(&mut self, token: u32) -> usize {
        let place = &mut self.places[token as usize];
        if *place == NONE {
            *place = self.tokens.len() as u32;
            self.tokens.push(token);
            self.values.push([0., 1., 0., 0.]);
            self.generated.push(0);
        }
        *place as usize
    }

    /// Notes a token of the text, which was `generated` so many times now.
    pub fn note(&mut self, token: u32, generated: u32, sampling: &Sampling) {
        if !self.penalties || token as usize >= self.places.len() {
            return;
        }
        let place = self.place(token);
        self.generated[place] += generated;
        let count = self.generated[place];
        let presence = if count > 0 { sampling.presence_penalty } else { 0. };
        self.values[place][1] = sampling.repeat_penalty;
        self.values[place][2] = count as f32 * sampling.frequency_penalty + presence;
    }

    /// Forgets what DRY subtracted.
    pub fn forget_repeated(&mut self) {
        for place in self.repeated.drain(..) {
            self.values[place as usize][3] = 0.;
        }
    }

    /// DRY subtracts `amount` from the logit of a token.
    pub fn repeated(&mut self, token: u32, amount: f32) {
        if token as usize >= self.places.len() {
            return;
        }
        let place = self.place(token);
        self.values[place][3] = amount;
        self.repeated.push(place as u32);
    }
}
