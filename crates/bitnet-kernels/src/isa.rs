//! Which instruction sets this CPU runs, and which one to use.

use std::fmt;

/// The environment variable that caps the choice.
const VARIABLE: &str = "BITNET_ISA";

/// An instruction set that kernels are written for. Within one architecture a later one includes the earlier ones.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: the specification of every other.
    Scalar,
    /// x86-64 with SSSE3 and SSE4.1.
    Sse41,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, DQ and VNNI, and all of [`Isa::Avx2`].
    Avx512,
    /// AArch64 with NEON.
    Neon,
    /// AArch64 with NEON and its 8-bit dot products.
    NeonDotprod,
}

/// A `BITNET_ISA` that cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// No instruction set has this name.
    #[error(
        "{VARIABLE}={0:?} is not an instruction set: use scalar, sse41, avx2, avx512 or amx on x86-64, scalar, neon or dotprod on AArch64"
    )]
    Unknown(String),
    /// The name is one of another architecture.
    #[error(
        "{VARIABLE}={word} is not an instruction set of this machine's architecture ({arch}): use {choices}, or unset it"
    )]
    OtherArchitecture {
        /// The name asked for.
        word: String,
        /// The architecture that this program was built for.
        arch: &'static str,
        /// The names that can be used here.
        choices: &'static str,
    },
}

impl From<IsaError> for bitnet_device::BitNetError {
    fn from(error: IsaError) -> Self {
        Self::NoDevice(error.to_string())
    }
}

impl Isa {
    /// The best instruction set of this CPU.
    pub fn detect() -> Isa {
        *Isa::available().last().expect("scalar is always available")
    }

    /// Every instruction set that this CPU can run, [`Isa::Scalar`] first, the best last.
    pub fn available() -> Vec<Isa> {
        let all = [Isa::Scalar, Isa::Sse41, Isa::Avx2, Isa::Avx512, Isa::Neon, Isa::NeonDotprod];
        all.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// [`Isa::detect`], capped by `BITNET_ISA=scalar|sse41|avx2|avx512|amx|neon|dotprod`.
    ///
    /// Upper case is as good. A cap above what the CPU has changes nothing. `amx` caps at AVX-512; `neon` means NEON without dot products.
    ///
    /// # Errors
    /// [`IsaError`] for an unknown word or one of another architecture.
    pub fn selected() -> Result<Isa, IsaError> {
        match std::env::var_os(VARIABLE) {
            None => Ok(Isa::detect()),
            Some(word) => Isa::capped(&word.to_string_lossy()),
        }
    }

    fn capped(word: &str) -> Result<Isa, IsaError> {
        let cap = match word.to_ascii_lowercase().as_str() {
            "scalar" => Isa::Scalar,
            "sse41" => Isa::Sse41,
            "avx2" => Isa::Avx2,
            "avx512" | "amx" => Isa::Avx512,
            "neon" => Isa::Neon,
            "dotprod" => Isa::NeonDotprod,
            _ => return Err(IsaError::Unknown(word.to_string())),
        };
        let choices = cap.choices();
        if cap != Isa::Scalar && choices != Isa::CHOICES {
            return Err(IsaError::OtherArchitecture {
                word: word.to_string(),
                arch: std::env::consts::ARCH,
                choices: Isa::CHOICES,
            });
        }
        let mut below = Isa::available().into_iter().filter(|&isa| isa <= cap);
        Ok(below.next_back().expect("scalar is always available"))
    }

    /// The name, as `BITNET_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Sse41 => "sse41",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "dotprod",
        }
    }

    const X86: &str = "scalar, sse41, avx2, avx512 or amx";
    const ARM: &str = "scalar, neon or dotprod";
    const CHOICES: &str = if cfg!(target_arch = "x86_64") {
        Isa::X86
    } else if cfg!(target_arch = "aarch64") {
        Isa::ARM
    } else {
        "scalar"
    };

    fn choices(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Sse41 | Isa::Avx2 | Isa::Avx512 => Isa::X86,
            Isa::Neon | Isa::NeonDotprod => Isa::ARM,
        }
    }

    /// Whether this CPU (and its operating system) can run it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        match self {
            Isa::Scalar => true,
            Isa::Sse41 => has!("ssse3") && has!("sse4.1"),
            Isa::Avx2 => Isa::Sse41.is_available() && has!("avx2") && has!("fma") && has!("f16c"),
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512vl")
                    && has!("avx512dq")
                    && has!("avx512vnni")
            }
            Isa::Neon | Isa::NeonDotprod => false,
        }
    }

    /// Whether this CPU (and its operating system) can run it.
    #[cfg(target_arch = "aarch64")]
    pub fn is_available(self) -> bool {
        use std::arch::is_aarch64_feature_detected as has;
        match self {
            Isa::Scalar => true,
            Isa::Neon => has!("neon"),
            Isa::NeonDotprod => has!("neon") && has!("dotprod"),
            Isa::Sse41 | Isa::Avx2 | Isa::Avx512 => false,
        }
    }

    /// Whether this CPU (and its operating system) can run it.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn is_available(self) -> bool {
        self == Isa::Scalar
    }
}

/// Types of which a value exists only on a CPU with the instructions: what has one may use them. Kernels are methods of these
/// types, written for one of them or generic over a trait that they implement, and are chosen once, by
/// [`Kernels::for_isa`](crate::Kernels::for_isa) or [`dispatch`].
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $available:expr, $features:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(());

        impl $name {
            /// `None` on a CPU without the instructions.
            pub fn new() -> Option<$name> {
                $available.then_some($name(()))
            }

            /// Calls `f`, which must be [`inlined`](crate::float::simd::inlined), where the instructions may be used.
            #[inline(always)]
            pub(crate) fn entered<R>(self, f: impl FnOnce() -> R) -> R {
                // Where it is called by code with the same features, it is called to be apart.
                #[inline(never)]
                #[target_feature(enable = $features)]
                fn enter<R>(f: impl FnOnce() -> R) -> R {
                    f()
                }
                // SAFETY: a value of the type exists only where the instructions do.
                unsafe { enter(f) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use kernel;

/// Plain Rust: the kernels that specify all others.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

#[cfg(target_arch = "x86_64")]
kernel!(
    /// [`Isa::Sse41`].
    Sse41, Isa::Sse41.is_available(), "ssse3,sse4.1"
);
#[cfg(target_arch = "x86_64")]
kernel!(
    /// [`Isa::Avx2`].
    Avx2, Isa::Avx2.is_available(), "avx2,fma,f16c"
);
#[cfg(target_arch = "x86_64")]
kernel!(
    /// [`Isa::Avx512`].
    Avx512, Isa::Avx512.is_available(), "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"
);
#[cfg(target_arch = "aarch64")]
kernel!(
    /// [`Isa::Neon`]; the float kernels of [`Isa::NeonDotprod`] too, whose dot products are of 8 bits.
    Neon, Isa::Neon.is_available(), "neon"
);
#[cfg(target_arch = "aarch64")]
kernel!(
    /// [`Isa::NeonDotprod`].
    NeonDotprod, Isa::NeonDotprod.is_available(), "neon,dotprod"
);

/// `$body` with `$s` as the vectors ([`Simd`](crate::float::simd::Simd)) of an instruction set, or `$scalar` for
/// [`Isa::Scalar`]. Panics where the CPU lacks it.
macro_rules! dispatch {
    ($isa:expr, |$s:ident| $body:expr, $scalar:expr) => {{
        #[allow(unused_imports)]
        use crate::isa::*;
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Sse41 => {
                let $s = Sse41::new().expect(MISSING);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                let $s = Avx2::new().expect(MISSING);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                let $s = Avx512::new().expect(MISSING);
                $body
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDotprod => {
                let $s = Neon::new().expect(MISSING);
                $body
            }
            _ => $scalar,
        }
    }};
}
pub(crate) use dispatch;

/// What [`dispatch`] panics with.
pub(crate) const MISSING: &str = "the CPU has the instruction set asked for";

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Calls `f`, which must be [`inlined`](crate::float::simd::inlined), with the vectors of an instruction set. Rust fuses and reorders no numbers: the
/// result is the same with each.
#[inline(always)]
pub(crate) fn wide<R>(isa: Isa, f: impl FnOnce() -> R) -> R {
    dispatch!(isa, |s| s.entered(f), f())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_first_best_last() {
        let all = Isa::available();
        assert_eq!(all[0], Isa::Scalar);
        assert_eq!(*all.last().unwrap(), Isa::detect());
        assert!(all.is_sorted());
    }

    #[test]
    fn a_cap_never_raises() {
        for isa in Isa::available() {
            assert_eq!(Isa::capped(isa.name()), Ok(isa));
            assert_eq!(Isa::capped(&isa.name().to_uppercase()), Ok(isa));
        }
        if cfg!(target_arch = "x86_64") {
            assert_eq!(Isa::capped("amx"), Ok(Isa::detect()));
        }
    }

    #[test]
    fn bad_words_are_explained() {
        let unknown = Isa::capped("avx3").unwrap_err().to_string();
        assert!(unknown.contains("avx3") && unknown.contains("avx2"), "{unknown}");
        let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
        let other = Isa::capped(foreign).unwrap_err().to_string();
        assert!(other.contains(foreign) && other.contains(std::env::consts::ARCH), "{other}");
    }
}
