//! Ctrl-C and SIGTERM: they end the program without leaving unfinished files, or are a request that the running command ends
//! itself.

use crate::error::{CliError, Result};
use bitnet::core::serialize::output::AtomicFile;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static LISTENING: OnceLock<io::Result<()>> = OnceLock::new();
/// Whether Ctrl-C is a request, and SIGTERM.
static CATCHES: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on both end the program as they would have, once its unfinished files are removed. Where the system refuses to
/// tell of them, such files stay.
pub fn listen() {
    LISTENING.get_or_init(system::listen);
}

/// From now on Ctrl-C is noted; pressed again before it was taken notice of, it ends the program.
pub fn catch() -> Result<()> {
    if let Some(Err(e)) = LISTENING.get() {
        return Err(CliError::refused(format!("cannot listen to Ctrl-C: {e}")));
    }
    CATCHES[0].store(true, Relaxed);
    Ok(())
}

/// As [`catch`], and SIGTERM is a request like Ctrl-C: what job schedulers and `kill` send.
pub fn catch_termination() -> Result<()> {
    catch()?;
    CATCHES[1].store(true, Relaxed);
    Ok(())
}

/// Whether an end was requested since [`clear`].
pub fn pressed() -> bool {
    REQUESTED.load(Relaxed)
}

/// What [`pressed`] reads, for a library to look at.
pub fn flag() -> &'static AtomicBool {
    &REQUESTED
}

/// Forgets it.
pub fn clear() {
    REQUESTED.store(false, Relaxed);
}

/// Notes a request, or calls `end`.
fn received(is_termination: bool, end: impl FnOnce()) {
    let caught = CATCHES[usize::from(is_termination)].load(Relaxed);
    let again = caught && REQUESTED.swap(true, Relaxed);
    if !caught || again && !is_termination {
        AtomicFile::abandon_all();
        end();
    }
}

#[cfg(unix)]
mod system {
    use super::*;
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::{iterator::Signals, low_level::emulate_default_handler};
    use std::sync::mpsc;

    pub fn listen() -> io::Result<()> {
        // The thread comes first: without it the signals must keep their effect.
        let (sender, receiver) = mpsc::channel::<Signals>();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let Ok(mut signals) = receiver.recv() else { return };
            for signal in signals.forever() {
                // The shell sees that it was a signal, and stops its loops.
                received(signal == SIGTERM, || {
                    let _ = emulate_default_handler(signal);
                });
            }
        })?;
        let _ = sender.send(Signals::new([SIGINT, SIGTERM])?);
        Ok(())
    }
}

#[cfg(not(unix))]
mod system {
    use super::*;

    /// What shells report of a process that Ctrl-C ended.
    const ENDED_BY_INTERRUPT: i32 = 130;

    pub fn listen() -> io::Result<()> {
        let handler = || received(false, || std::process::exit(ENDED_BY_INTERRUPT));
        ctrlc::set_handler(handler).map_err(io::Error::other)
    }
}
