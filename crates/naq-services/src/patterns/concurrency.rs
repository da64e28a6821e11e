//! Many futures at once, but not too many; blocking work beside them.
//!
//! Invariant: never more than the bound runs at once; a panic reaches the caller and is not swallowed.

use std::{future::Future, panic::resume_unwind};

use futures_util::{StreamExt, stream};

/// Runs futures, at most `concurrency` at once (at least one), and returns what they return, in their order. With
/// fallible futures, `.into_iter().collect::<Result<Vec<_>, _>>()` gives the first error.
///
/// ```
/// # use naq_services::patterns::gather_with_concurrency;
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let squares = gather_with_concurrency((1..=4).map(|n| async move { n * n }), 2).await;
/// assert_eq!(squares, [1, 4, 9, 16]);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Cancel safety
/// Dropping it drops those that run and never starts the others.
pub async fn gather_with_concurrency<I>(futures: I, concurrency: usize) -> Vec<<I::Item as Future>::Output>
where
    I: IntoIterator<Item: Future>,
{
    stream::iter(futures).buffered(concurrency.max(1)).collect().await
}

/// Runs blocking work on the runtime's pool of threads for it, and waits for the end. A panic of the work goes on here.
///
/// # Panics
/// Outside a tokio runtime.
///
/// # Cancel safety
/// Dropping it does not stop the work.
pub async fn run_in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime shuts down: this future will not be polled again either.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_than_the_bound_run_at_once() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let one = |n: usize| {
            let (running, most) = (&running, &most);
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // The later ones end first, so that an order by end would show.
                for _ in n..20 {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                n
            }
        };
        assert_eq!(gather_with_concurrency((0..20).map(one), 3).await, (0..20).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(gather_with_concurrency((0..2).map(one), 0).await, [0, 1], "a bound of none would hang");
    }

    #[tokio::test]
    async fn a_panic_of_blocking_work_reaches_the_caller() {
        let caller = std::thread::current().id();
        assert_ne!(run_in_thread(|| std::thread::current().id()).await, caller);
        let mut work = tokio::task::JoinSet::new();
        work.spawn(run_in_thread(|| panic!("of the work")));
        assert!(work.join_next().await.unwrap().unwrap_err().is_panic());
    }
}
