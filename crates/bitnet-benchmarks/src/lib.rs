//! Benchmarks of the facade, as an application uses it: `cargo bench -p bitnet-benchmarks` writes
//! `target/criterion/report/index.html`. The crates have benchmarks of their own parts.
