//! The bitnet command line.
fn main() {}
