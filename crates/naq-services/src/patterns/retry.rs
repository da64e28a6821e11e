//! A call that is tried again by the policy of jobs, within one run of a handler.
//!
//! Invariant: at most `max_retries + 1` calls; what the policy or the error forbids to retry is returned at once.

use std::{future::Future, thread, time::Duration};

use naq_models::RetryPolicy;

use crate::JobFailure;

/// Calls until it succeeds, the policy allows no further retry, or the error says that another try makes no sense.
/// `call` is given the number of the try, from 1. Between two tries it waits as a job would.
///
/// ```
/// # use naq_models::RetryPolicy;
/// # use naq_services::patterns::retry_async;
/// # use std::{io, time::Duration};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let policy = RetryPolicy { max_retries: 2, delay: vec![Duration::from_millis(1)], ..RetryPolicy::default() };
/// let answer = retry_async(&policy, async |n| if n < 3 { Err(io::Error::other("busy")) } else { Ok(n) }).await?;
/// assert_eq!(answer, 3);
/// # Ok::<(), io::Error>(()) })?;
/// # Ok::<(), io::Error>(())
/// ```
///
/// # Errors
/// That of the last call.
///
/// # Cancel safety
/// As cancel safe as `call`.
pub async fn retry_async<T, E, F>(policy: &RetryPolicy, mut call: impl FnMut(u32) -> F) -> Result<T, E>
where
    E: JobFailure,
    F: Future<Output = Result<T, E>>,
{
    for n in 1.. {
        match call(n).await {
            Ok(value) => return Ok(value),
            Err(error) => match pause(policy, n, &error) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            },
        }
    }
    unreachable!("the policy ends before the numbers do")
}

/// [`retry_async`] for blocking calls; the thread sleeps between two tries.
///
/// # Errors
/// That of the last call.
pub fn retry<T, E: JobFailure>(policy: &RetryPolicy, mut call: impl FnMut(u32) -> Result<T, E>) -> Result<T, E> {
    for n in 1.. {
        match call(n) {
            Ok(value) => return Ok(value),
            Err(error) => match pause(policy, n, &error) {
                Some(pause) => thread::sleep(pause),
                None => return Err(error),
            },
        }
    }
    unreachable!("the policy ends before the numbers do")
}

/// How long to wait after try `n` has failed; `None` if that was the last one.
fn pause(policy: &RetryPolicy, n: u32, error: &impl JobFailure) -> Option<Duration> {
    let again = n <= policy.max_retries && error.is_retryable() && policy.allows(&error.error_type());
    let pause = again.then(|| policy.delay_before(n, rand::random()))?;
    tracing::debug!(%error, attempt = n, ?pause, "tried again");
    Some(pause)
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, cell::Cell};

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
    enum Trouble {
        #[error("busy")]
        Busy,
        #[error("wrong address")]
        Address,
    }

    impl JobFailure for Trouble {
        fn error_type(&self) -> Cow<'static, str> {
            self.to_string().into()
        }
        fn is_retryable(&self) -> bool {
            *self == Self::Busy
        }
    }

    fn policy(max_retries: u32) -> RetryPolicy {
        RetryPolicy { max_retries, delay: vec![Duration::ZERO], ..RetryPolicy::default() }
    }

    fn calls(policy: &RetryPolicy, error: Trouble) -> u32 {
        let calls = Cell::new(0);
        let outcome: Result<(), _> = retry(policy, |n| {
            calls.set(n);
            Err(error)
        });
        assert_eq!(outcome, Err(error));
        calls.get()
    }

    #[test]
    fn as_often_as_the_policy_and_the_error_allow() {
        assert_eq!(calls(&policy(0), Trouble::Busy), 1);
        assert_eq!(calls(&policy(4), Trouble::Busy), 5);
        assert_eq!(calls(&policy(4), Trouble::Address), 1, "the error is for good");
        assert_eq!(calls(&RetryPolicy { ignore_on: vec!["busy".into()], ..policy(4) }, Trouble::Busy), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_as_a_job_would() {
        let policy = RetryPolicy { max_retries: 3, jitter: 0.0, ..RetryPolicy::default() };
        let begun = tokio::time::Instant::now();
        let outcome: Result<(), _> = retry_async(&policy, async |_| Err(Trouble::Busy)).await;
        assert_eq!((outcome, begun.elapsed()), (Err(Trouble::Busy), Duration::from_secs(1 + 2 + 4)));
    }
}
