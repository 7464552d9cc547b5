//! Ctrl-C as a wish to end what runs, rather than the end of the process.

use crate::error::{CliError, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static PRESSED: AtomicBool = AtomicBool::new(false);
/// What shells report of a process that Ctrl-C ended.
const ENDED_BY_INTERRUPT: i32 = 130;

/// From now on Ctrl-C is noted; pressed again before it was taken notice of, it ends the process.
pub fn catch() -> Result<()> {
    let handler = || {
        if PRESSED.swap(true, Ordering::Relaxed) {
            std::process::exit(ENDED_BY_INTERRUPT);
        }
    };
    ctrlc::set_handler(handler).map_err(|e| CliError::refused(format!("cannot listen to Ctrl-C: {e}")))
}

/// Whether Ctrl-C was pressed since [`clear`].
pub fn pressed() -> bool {
    PRESSED.load(Ordering::Relaxed)
}

/// What [`pressed`] reads, for a library to look at.
pub fn flag() -> &'static AtomicBool {
    &PRESSED
}

/// Forgets it.
pub fn clear() {
    PRESSED.store(false, Ordering::Relaxed);
}
