//! Ctrl-C, and for training SIGTERM too, as a request that the running command ends itself.

use crate::error::{CliError, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);
/// What shells report of a process that Ctrl-C ended.
const ENDED_BY_INTERRUPT: i32 = 130;

/// From now on Ctrl-C is noted; pressed again before it was taken notice of, it ends the process.
pub fn catch() -> Result<()> {
    let handler = || {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(ENDED_BY_INTERRUPT);
        }
    };
    ctrlc::set_handler(handler).map_err(|e| CliError::refused(format!("cannot listen to Ctrl-C: {e}")))
}

/// As [`catch`], and SIGTERM is a request like Ctrl-C: what job schedulers and `kill` send.
pub fn catch_termination() -> Result<()> {
    catch()?;
    #[cfg(unix)]
    {
        use signal_hook::{consts::SIGTERM, iterator::Signals};
        let listen = |e| CliError::refused(format!("cannot listen to SIGTERM: {e}"));
        let mut signals = Signals::new([SIGTERM]).map_err(listen)?;
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || signals.forever().for_each(|_| REQUESTED.store(true, Ordering::Relaxed)))
            .map_err(listen)?;
    }
    Ok(())
}

/// Whether an end was requested since [`clear`].
pub fn pressed() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// What [`pressed`] reads, for a library to look at.
pub fn flag() -> &'static AtomicBool {
    &REQUESTED
}

/// Forgets it.
pub fn clear() {
    REQUESTED.store(false, Ordering::Relaxed);
}
