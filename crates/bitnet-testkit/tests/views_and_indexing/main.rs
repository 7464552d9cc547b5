//! Property tests of views and indices against a naive model.

mod indexing;
mod naive;
mod views;
