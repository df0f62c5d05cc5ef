//! Work that takes longer than a moment, beside the thread that serves.

use std::panic::resume_unwind;

use tokio::{sync::Semaphore, task::spawn_blocking};

/// How much of it is done at a time: more would be done no sooner, and each takes a thread. One place may be taken for
/// long, by a configuration whose file hangs.
const PLACES: usize = 4;

/// Of the process, as its threads are.
static FREE: Semaphore = Semaphore::const_new(PLACES);

/// Does `work` on another thread, once there is a place, and waits for it. If that panics, so does this. Work once begun
/// is done to its end, also when nobody waits for it any more.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // Nobody closes it.
    let place = FREE.acquire().await.ok();
    let done = spawn_blocking(move || {
        let _place = place;
        work()
    });
    // Nothing here cancels it, so an error is a panic.
    done.await
        .unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_few_work_at_a_time_and_none_is_left_out() {
        static AT_WORK: AtomicUsize = AtomicUsize::new(0);
        let work = |number| {
            aside(move || {
                let beside = AT_WORK.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(5));
                AT_WORK.fetch_sub(1, Ordering::SeqCst);
                assert!(beside < PLACES, "{beside} others are at work");
                number
            })
        };
        let done = join_all((0..32).map(work)).await;
        assert_eq!(done, (0..32).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn who_panics_leaves_its_place() {
        for _ in 0..=PLACES {
            let panics = tokio::spawn(aside(|| resume_unwind(Box::new("as a test does"))));
            let error = panics.await.map(|()| "nothing").unwrap_err();
            assert_eq!(error.into_panic().downcast_ref(), Some(&"as a test does"));
        }
    }
}
