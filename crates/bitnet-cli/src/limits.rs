//! Measured limits of this machine.

use crate::error::Result;
use crate::output;
use bitnet::core::BitNetError;
use bitnet::kernels::{Kernels, ThreadPool, probe};
use serde_json::{Value, json};
use std::fmt;

/// Limits of a number of threads.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub threads: usize,
    /// Reading memory that does not fit the caches, GB/s.
    pub read: f64,
    /// 8-bit multiply-adds on registers, two operations each, GOP/s.
    pub int8: f64,
}

impl Limits {
    /// Takes about `2 * seconds`.
    pub fn measure(threads: usize, seconds: f64) -> Result<Self> {
        let kernels = Kernels::select().map_err(BitNetError::from)?;
        let pool = ThreadPool::new(threads);
        let read = probe::read_bandwidth(&pool, seconds);
        Ok(Self { threads, read, int8: probe::int8_rate(&kernels, &pool, seconds) })
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({ "threads": self.threads, "read_gb_per_second": self.read, "int8_gop_per_second": self.int8 })
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = output::counted(self.threads, "thread");
        write!(f, "{threads}: reads {:.1} GB/s, int8 {:.0} GOP/s", self.read, self.int8)
    }
}
