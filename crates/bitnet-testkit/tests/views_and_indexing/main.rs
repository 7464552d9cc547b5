//! Views and indices against a naive model, by property tests.

mod indexing;
mod naive;
mod views;
