//! Running a model: sessions, sampling, generation and perplexity.
