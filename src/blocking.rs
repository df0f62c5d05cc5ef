//! Runs blocking or long computations on tokio's blocking pool, so that the thread that serves scrapes stays free.
//!
//! Used by `api`, `collector`, `publisher` and `cli`. It knows nothing of the work.

use std::panic::resume_unwind;

use tokio::{sync::Semaphore, task::spawn_blocking};

/// Each task occupies a thread, and more of them would not finish sooner. A task that reads a configuration file from a
/// hanging disk may occupy one for a long time.
const MAX_BLOCKING_TASKS: usize = 4;

/// One limit for the whole process, like its threads.
static PERMITS: Semaphore = Semaphore::const_new(MAX_BLOCKING_TASKS);

/// Runs `work` on another thread, after waiting for a free one, and returns its result. A panic in `work` is passed on.
/// Work that has started runs to its end, even if the caller stops waiting.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // The semaphore is never closed.
    let permit = PERMITS.acquire().await.ok();
    let task = spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    // The task is never cancelled, so an error is a panic.
    task.await
        .unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn at_most_four_tasks_run_at_once_and_all_finish() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let task = |number| {
            run(move || {
                let others = RUNNING.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(5));
                RUNNING.fetch_sub(1, Ordering::SeqCst);
                assert!(others < MAX_BLOCKING_TASKS, "{others} others are running");
                number
            })
        };
        let results = join_all((0..32).map(task)).await;
        assert_eq!(results, (0..32).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_panic_is_passed_on_and_releases_its_permit() {
        for _ in 0..=MAX_BLOCKING_TASKS {
            let panics = tokio::spawn(run(|| resume_unwind(Box::new("on purpose"))));
            let error = panics.await.map(|()| "nothing").unwrap_err();
            assert_eq!(error.into_panic().downcast_ref(), Some(&"on purpose"));
        }
    }
}
