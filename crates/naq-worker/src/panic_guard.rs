//! A handler that panics fails its job and nothing else: [`guarded`].
//!
//! Invariant: a panic while the handler's future is made, polled or dropped-by-completion becomes a `panic` error with its
//! message, place and (if `RUST_BACKTRACE` asks for one) backtrace. The process's panic hook still runs and prints.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    future::Future,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::Once,
    task::{Context, Poll},
};

use naq_models::{JobError, Timestamp, Verdict, error_type};

use crate::handler::HandlerFuture;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static NOTED: RefCell<Option<Noted>> = const { RefCell::new(None) };
}

/// What the hook saw of a panic.
struct Noted {
    place: String,
    backtrace: Option<String>,
}

static HOOK: Once = Once::new();

/// Chains a hook that remembers where guarded code panicked; the payload alone does not say.
pub(crate) fn install_hook() {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if GUARDED.get() {
                let backtrace = Backtrace::capture();
                let noted = Noted {
                    place: info.location().map(ToString::to_string).unwrap_or_default(),
                    backtrace: (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string()),
                };
                NOTED.with(|cell| *cell.borrow_mut() = Some(noted));
            }
            before(info);
        }));
    });
}

/// Runs what makes a handler's future, and the future, so that a panic of either is a verdict.
pub(crate) fn guarded<F>(make: F, now: impl Fn() -> Timestamp) -> impl Future<Output = Verdict>
where
    F: FnOnce() -> HandlerFuture,
{
    Guarded { make: Some(make), future: None, now }
}

struct Guarded<F, N> {
    make: Option<F>,
    future: Option<HandlerFuture>,
    now: N,
}

// Nothing in it is pinned in place: the handler's future is in a box of its own.
impl<F, N> Unpin for Guarded<F, N> {}

impl<F: FnOnce() -> HandlerFuture, N: Fn() -> Timestamp> Future for Guarded<F, N> {
    type Output = Verdict;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        let this = self.get_mut();
        let polled = catch(|| {
            if let Some(make) = this.make.take() {
                this.future = Some(make());
            }
            let Some(future) = &mut this.future else { return Poll::Pending };
            let polled = future.as_mut().poll(cx);
            if polled.is_ready() {
                this.future = None;
            }
            polled
        });
        polled.unwrap_or_else(|payload| {
            this.future = None;
            Poll::Ready(Verdict::Error(describe(&*payload, (this.now)())))
        })
    }
}

fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    let outer = GUARDED.replace(true);
    let caught = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    caught
}

fn describe(payload: &(dyn Any + Send), now: Timestamp) -> JobError {
    let said = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    let noted = NOTED.with(|cell| cell.borrow_mut().take());
    let message = match &noted {
        Some(noted) if !noted.place.is_empty() => format!("{said} (at {})", noted.place),
        _ => said,
    };
    let error = JobError::new(error_type::PANIC, message, now);
    match noted.and_then(|noted| noted.backtrace) {
        Some(backtrace) => error.with_backtrace(backtrace),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(make: impl FnOnce() -> HandlerFuture) -> JobError {
        install_hook();
        match guarded(make, || Timestamp::EPOCH).await {
            Verdict::Error(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_with_its_place() {
        let error = check(|| Box::pin(async { panic!("broken {}", 7) })).await;
        assert_eq!(error.error_type, error_type::PANIC);
        assert!(error.message.starts_with("broken 7 (at ") && error.message.contains("panic_guard.rs"), "{error:?}");
        assert!(error.is_retryable);
    }

    #[tokio::test]
    async fn a_panic_while_the_future_is_made_is_caught_too() {
        let error = check(|| panic!("no future")).await;
        assert!(error.message.starts_with("no future"));
    }

    #[tokio::test]
    async fn a_panic_after_a_pause_is_caught_on_whatever_thread_polls() {
        let error = check(|| {
            Box::pin(async {
                tokio::task::yield_now().await;
                panic::panic_any(42)
            })
        })
        .await;
        assert!(error.message.starts_with("a panic without a message"));
    }
}
