//! Work that takes longer than a moment, beside the thread that serves.

use std::panic::resume_unwind;

use tokio::task::spawn_blocking;

/// Does `work` on another thread and waits for it. If that panics, so does this. Work once begun is done to its end, also
/// when nobody waits for it any more.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // Nothing here cancels it, so an error is a panic.
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}
