//! A profile as numbers, as a table, and as advice.

use std::fmt;
use std::time::Duration;

/// Kinds of calls by their effect on memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Computed values.
    Compute,
    /// Allocated, moved between host and device, or waited.
    Memory,
    /// Changed only a shape, without copying.
    View,
    /// Changed only a shape, but had to copy the elements.
    ShapeCopy,
}

/// The calls of one operation with equal dtypes on one kernel.
#[derive(Debug, Clone)]
pub struct OperationProfile {
    /// Its name, such as `matmul` or `unary exp`.
    pub operation: String,
    /// Element type, or `from -> to`.
    pub dtypes: String,
    /// Device and kernels, such as `cpu avx512`.
    pub kernel: String,
    /// Its effect on memory.
    pub kind: OperationKind,
    /// Number of calls.
    pub calls: u64,
    /// Calls that moved less than 16 KiB.
    pub small_calls: u64,
    /// Total time.
    pub time: Duration,
    /// Bytes of the operands; broadcast elements count once.
    pub bytes_read: u64,
    /// Bytes of the results.
    pub bytes_written: u64,
    /// Additions, multiplications and functions; a multiply-add is two.
    pub operations: u64,
}

impl OperationProfile {
    /// Read and written.
    pub fn bytes(&self) -> u64 {
        self.bytes_read + self.bytes_written
    }

    /// Operations in 1e9 a second.
    pub fn gigaops_per_second(&self) -> f64 {
        self.operations as f64 / self.time.as_secs_f64().max(1e-12) / 1e9
    }

    /// Bytes read and written in 1e9 a second.
    pub fn gigabytes_per_second(&self) -> f64 {
        self.bytes() as f64 / self.time.as_secs_f64().max(1e-12) / 1e9
    }
}

/// The result of a [`Profiler`](crate::Profiler). Displays as a table, slowest operation first, followed by advice.
#[derive(Debug, Clone)]
pub struct Profile {
    operations: Vec<OperationProfile>,
    wall: Duration,
}

impl Profile {
    pub(super) fn new(mut operations: Vec<OperationProfile>, wall: Duration) -> Self {
        operations.sort_by(|a, b| b.time.cmp(&a.time).then(b.calls.cmp(&a.calls)).then(a.operation.cmp(&b.operation)));
        Self { operations, wall }
    }

    /// Operations, slowest first.
    pub fn operations(&self) -> &[OperationProfile] {
        &self.operations
    }

    /// Time from start to stop.
    pub fn wall_time(&self) -> Duration {
        self.wall
    }

    /// Time inside devices.
    pub fn device_time(&self) -> Duration {
        self.operations.iter().map(|o| o.time).sum()
    }

    /// Calls of an operation, of every dtype and kernel.
    pub fn calls(&self, operation: &str) -> u64 {
        self.operations.iter().filter(|o| o.operation == operation).map(|o| o.calls).sum()
    }

    fn count(&self, kind: OperationKind) -> u64 {
        self.operations.iter().filter(|o| o.kind == kind).map(|o| o.calls).sum()
    }

    /// Share of the calls that only change a shape (views, reshape, contiguous) that copied nothing; `None` without
    /// such calls.
    pub fn shape_only_share(&self) -> Option<f64> {
        let (free, copied) = (self.count(OperationKind::View), self.count(OperationKind::ShapeCopy));
        (free + copied > 0).then(|| free as f64 / (free + copied) as f64)
    }

    /// Advice that follows from the numbers, most important first.
    pub fn advice(&self) -> Vec<String> {
        let all = self.operations.iter();
        let (bytes, time) = (all.clone().map(|o| o.bytes()).sum::<u64>().max(1), self.device_time());
        let of_bytes = |n: u64| n as f64 / bytes as f64;
        let of_time = |t: Duration| t.as_secs_f64() / time.as_secs_f64().max(1e-12);
        let mut advice: Vec<(f64, String)> = Vec::new();

        for cast in all.clone().filter(|o| o.operation == "cast" && of_bytes(o.bytes()) >= 0.2) {
            let (share, dtypes) = (of_bytes(cast.bytes()), &cast.dtypes);
            let to = dtypes.rsplit(' ').next().unwrap_or(dtypes);
            advice.push((
                share,
                format!("{} of the bytes are casts {dtypes}: store what is read often as {to}", percent(share)),
            ));
        }
        for copy in all.clone().filter(|o| o.kind == OperationKind::ShapeCopy && of_bytes(o.bytes()) >= 0.1) {
            let share = of_bytes(copy.bytes());
            advice.push((
                share,
                format!(
                    "{} of the bytes are copies that `{}` makes of transposed or sliced tensors ({} calls): \
                     give the view itself to the next operation, or store the tensor in that order",
                    percent(share),
                    copy.operation,
                    copy.calls
                ),
            ));
        }
        let element_wise =
            |o: &&OperationProfile| o.operation.starts_with("unary ") || o.operation.starts_with("binary ");
        let passes: u64 = all.clone().filter(element_wise).map(|o| o.bytes()).sum();
        if of_bytes(passes) >= 0.5 {
            advice.push((
                of_bytes(passes),
                format!(
                    "{} of the bytes are element-wise passes: use the in-place forms (`add_`), or one of the fused \
                     operations (layer_norm, rms_norm, softmax, gated)",
                    percent(of_bytes(passes))
                ),
            ));
        }
        let moved: Duration =
            all.clone().filter(|o| matches!(o.operation.as_str(), "upload" | "download")).map(|o| o.time).sum();
        if of_time(moved) >= 0.2 {
            advice.push((
                of_time(moved),
                format!(
                    "{} of the time moves data between host and device: keep tensors where they are used",
                    percent(of_time(moved))
                ),
            ));
        }
        let compute = all.filter(|o| o.kind == OperationKind::Compute);
        let (small, calls) = compute.fold((0, 0), |(small, calls), o| (small + o.small_calls, calls + o.calls));
        if calls >= 100 && small * 2 > calls {
            let share = small as f64 / calls as f64;
            advice.push((
                share / 2.,
                format!(
                    "{small} of {calls} operations move less than 16 KiB, where the call costs more than the work: \
                     batch them"
                ),
            ));
        }
        advice.sort_by(|a, b| b.0.total_cmp(&a.0));
        advice.into_iter().map(|(_, text)| text).collect()
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.device_time();
        let (total_ms, wall_ms) = (total.as_secs_f64() * 1e3, self.wall.as_secs_f64() * 1e3);
        writeln!(f, "{total_ms:.3} ms in devices of {wall_ms:.3} ms")?;
        writeln!(
            f,
            "{:<24} {:<14} {:<12} {:>7} {:>10} {:>6} {:>9} {:>9} {:>7}",
            "operation", "dtype", "kernel", "calls", "ms", "share", "MiB read", "written", "GB/s"
        )?;
        for o in &self.operations {
            let share = 100. * o.time.as_secs_f64() / total.as_secs_f64().max(1e-12);
            let name = if o.kind == OperationKind::ShapeCopy {
                format!("{} (copy)", o.operation)
            } else {
                o.operation.clone()
            };
            write!(f, "{name:<24} {:<14} {:<12} {:>7} ", o.dtypes, o.kernel, o.calls)?;
            if o.kind == OperationKind::View {
                writeln!(f, "{:>10} {:>6} {:>9} {:>9} {:>7}", "-", "-", "-", "-", "-")?;
                continue;
            }
            write!(f, "{:>10.3} {share:>5.1}% ", o.time.as_secs_f64() * 1e3)?;
            write!(f, "{:>9.2} {:>9.2} ", mebibytes(o.bytes_read), mebibytes(o.bytes_written))?;
            if o.bytes() == 0 { writeln!(f, "{:>7}", "-")? } else { writeln!(f, "{:>7.1}", o.gigabytes_per_second())? }
        }
        if let Some(share) = self.shape_only_share() {
            let (free, copied) = (self.count(OperationKind::View), self.count(OperationKind::ShapeCopy));
            let all = free + copied;
            writeln!(f, "shape only: {free} of {all} calls moved no bytes ({:.1} %)", share * 100.)?;
        }
        for advice in self.advice() {
            writeln!(f, "advice: {advice}")?;
        }
        Ok(())
    }
}
