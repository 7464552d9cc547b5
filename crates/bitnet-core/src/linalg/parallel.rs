//! The threads of decompositions, which are rayon's.

use std::error::Error;
use std::sync::Once;

/// Starts rayon's threads, once. Where the system refuses them (a limit on processes), decompositions compute on the thread
/// that calls them; rayon would panic.
pub(super) fn start_threads() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // An error without a source says that the program has started them itself.
        if rayon::ThreadPoolBuilder::new().build_global().is_err_and(|error| error.source().is_some()) {
            faer::set_global_parallelism(faer::Par::Seq);
        }
    });
}
