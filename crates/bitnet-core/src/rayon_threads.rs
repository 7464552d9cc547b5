//! The global threads of rayon, which decompositions and the training of tokenizers use.

use std::error::Error;
use std::sync::LazyLock;

/// Starts rayon's global threads, once. False where the system refuses them (a limit on processes): there rayon panics, and its
/// callers must work without it.
pub fn start_rayon() -> bool {
    static STARTED: LazyLock<bool> = LazyLock::new(|| {
        let Err(error) = rayon::ThreadPoolBuilder::new().build_global() else { return true };
        // An error without a source says that the program has started them itself.
        let Some(cause) = error.source() else { return true };
        eprintln!("note: the system refuses more threads ({cause}): decompositions and tokenizer training use one");
        false
    });
    *STARTED
}
