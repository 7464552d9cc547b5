//! Signals about files that would end a program without a message.
//!
//! A handler may not allocate or lock. What it needs is prepared: for each mapping its addresses and a message, in a list
//! that only grows and whose entries are used again.

use std::path::Path;

/// Installs handlers for this process, for programs that have none of their own:
///
/// - SIGBUS, when a mapped file has become shorter or its disk fails: a message on standard error that names the file, and
///   exit code 1. Other causes go to the handler before.
/// - SIGXFSZ, when a file exceeds the limit of the shell (`ulimit -f`): ignored, so that writing is an error.
///
/// Nothing happens where there are no such signals.
pub fn install_signal_handlers() {
    #[cfg(unix)]
    unix::install();
}

/// The addresses of a mapped file, known to the handler until this is dropped.
#[derive(Debug)]
pub(super) struct MappedRange {
    #[cfg(unix)]
    entry: &'static unix::Entry,
    #[cfg(unix)]
    _message: Box<[u8]>,
}

impl MappedRange {
    pub(super) fn new(start: usize, len: usize, path: &Path) -> Self {
        #[cfg(unix)]
        {
            let path = path.display().to_string();
            let path = path.replace(char::is_control, "?");
            let message = format!(
                "error: {path}: the file was cut short or its disk failed while it was in use: restore it and start again\n"
            );
            let message = message.into_bytes().into_boxed_slice();
            Self { entry: unix::Entry::claim(start, len, &message), _message: message }
        }
        #[cfg(not(unix))]
        {
            let _ = (start, len, path);
            Self {}
        }
    }
}

#[cfg(unix)]
impl Drop for MappedRange {
    fn drop(&mut self) {
        self.entry.give_back();
    }
}

#[cfg(unix)]
mod unix {
    use std::ptr::null_mut;
    use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
    use std::sync::atomic::{AtomicPtr, AtomicUsize};
    use std::sync::{Mutex, OnceLock, PoisonError};

    static FIRST: AtomicPtr<Entry> = AtomicPtr::new(null_mut());
    /// Held by whoever claims or gives back an entry.
    static CHANGES: Mutex<()> = Mutex::new(());
    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

    /// One mapping; `start` is 0 while the entry is free.
    #[derive(Debug)]
    pub(super) struct Entry {
        start: AtomicUsize,
        end: AtomicUsize,
        message: AtomicPtr<u8>,
        message_len: AtomicUsize,
        next: *mut Entry,
    }

    // SAFETY: `next` is written before the entry is published and never after.
    unsafe impl Sync for Entry {}
    // SAFETY: as above.
    unsafe impl Send for Entry {}

    impl Entry {
        /// An entry for `len` bytes from `start`; `message` must live until it is given back.
        pub(super) fn claim(start: usize, len: usize, message: &[u8]) -> &'static Entry {
            let _guard = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = entries().find(|entry| entry.start.load(Relaxed) == 0).unwrap_or_else(|| {
                let entry = Box::leak(Box::new(Entry {
                    start: AtomicUsize::new(0),
                    end: AtomicUsize::new(0),
                    message: AtomicPtr::new(null_mut()),
                    message_len: AtomicUsize::new(0),
                    next: FIRST.load(Relaxed),
                }));
                FIRST.store(entry, Release);
                entry
            });
            entry.end.store(start + len, Relaxed);
            entry.message.store(message.as_ptr().cast_mut(), Relaxed);
            entry.message_len.store(message.len(), Relaxed);
            entry.start.store(start, Release);
            entry
        }

        pub(super) fn give_back(&self) {
            let _guard = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
            self.start.store(0, Release);
        }
    }

    fn entries() -> impl Iterator<Item = &'static Entry> {
        // SAFETY: entries are leaked, so every pointer in the list is valid for ever.
        let get = |entry: *mut Entry| unsafe { entry.as_ref() };
        std::iter::successors(get(FIRST.load(Acquire)), move |entry| get(entry.next))
    }

    pub(super) fn install() {
        // SAFETY: ignoring a signal needs nothing of the program.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        BEFORE.get_or_init(|| {
            // SAFETY: an action of zeros is valid (the default, an empty mask), and so is the place for the old one.
            let (mut action, mut before): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
            action.sa_sigaction = on_fault as *const () as usize;
            // On the stack that the standard library gives each thread for signals.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: the handler does only what a handler may.
            unsafe { libc::sigaction(libc::SIGBUS, &action, &mut before) };
            before
        });
    }

    extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
        // SAFETY: the system gives a valid description of the fault.
        let address = unsafe { (*info).si_addr() } as usize;
        let here = |entry: &&Entry| {
            let start = entry.start.load(Acquire);
            start != 0 && (start..entry.end.load(Relaxed)).contains(&address)
        };
        if let Some(entry) = entries().find(here) {
            // SAFETY: whoever faults in a mapping holds it, and with it the message. The process ends here, without
            // running what others left to be run.
            unsafe {
                libc::write(2, entry.message.load(Relaxed).cast(), entry.message_len.load(Relaxed));
                libc::_exit(1);
            }
        }
        // Not ours: as it was before; the instruction faults again.
        // SAFETY: an action that the system gave. Without one (installing is still going on) the default.
        unsafe {
            match BEFORE.get() {
                Some(before) => libc::sigaction(signal, before, null_mut()),
                None => libc::signal(signal, libc::SIG_DFL) as libc::c_int,
            };
        }
    }
}
