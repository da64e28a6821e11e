//! A resource whose release is asynchronous, which `Drop` cannot be.
//!
//! Invariant: what was acquired is released, whether the work succeeds or fails.

use std::future::Future;

/// Acquires a resource, works with it, and releases it whether the work succeeded or not. A resource that can be released
/// without waiting is better released by its own `Drop`.
///
/// ```
/// # use naq_services::patterns::managed_resource;
/// # use std::cell::Cell;
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let open = Cell::new(0);
/// let outcome = managed_resource(
///     async { open.set(open.get() + 1); Ok("connection") },
///     async |connection: &mut &str| if connection.is_empty() { Ok(()) } else { Err("the work failed") },
///     async |_connection| open.set(open.get() - 1),
/// ).await;
/// assert_eq!((outcome, open.get()), (Err("the work failed"), 0));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// That of `acquire`, then nothing has to be released; else that of the work.
///
/// # Cancel safety
/// Not cancel safe: dropping it drops the resource without `release`. The same holds for a panic of the work.
pub async fn managed_resource<R, T, E>(
    acquire: impl Future<Output = Result<R, E>>,
    work: impl AsyncFnOnce(&mut R) -> Result<T, E>,
    release: impl AsyncFnOnce(R),
) -> Result<T, E> {
    let mut resource = acquire.await?;
    let outcome = work(&mut resource).await;
    release(resource).await;
    outcome
}
