//! Plain functions as handlers: [`typed`] for `async fn`, [`blocking`] for `fn`.
//!
//! Invariant: a handler takes at most one value from the job (its first parameter, read from the whole of `args`); all
//! others come from [`FromContext`]. Nothing here runs on an async thread that could block: [`blocking`] moves the
//! reading of arguments, the call and the writing of the result to the blocking pool together.

use std::{marker::PhantomData, sync::Arc};

use naq_models::Verdict;
use naq_services::{
    FromContext, JobContext, JobReturn, States,
    args::Rejection,
    registration::{HandlerFuture, run_blocking},
};
use serde::de::DeserializeOwned;

use super::ErasedHandler;

/// An async function that can be a handler: `async fn(Args, …) -> R` or `async fn(…) -> R`, where `Args` implements
/// `Deserialize`, `…` are up to four types that implement [`FromContext`], and `R` implements [`JobReturn`].
///
/// `P` is the list of its parameters; it is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a handler",
    label = "not a handler",
    note = "a handler is `async fn(Args, …) -> Result<T, E>`: `Args` implements `serde::Deserialize` (leave it out if the \
            job has no arguments), `…` are any of `JobContext`, `State<T>`, `CancellationToken` (at most four), `T` \
            implements `serde::Serialize`, `E` implements `naq::JobFailure` or is `String` or \
            `Box<dyn Error + Send + Sync>`, and the future is `Send`",
    note = "a function that is not async goes to `blocking_handler`; the types of a closure's parameters must be written",
    note = "`#[naq::job]` on the function says more exactly what is wrong"
)]
pub trait JobHandler<P>: Send + Sync + 'static {
    /// Runs a job.
    fn call(&self, cx: JobContext) -> HandlerFuture;

    /// What a worker with these shared values lacks.
    fn missing_from(states: &States) -> Option<&'static str>;
}

/// A blocking function that can be a handler: like [`JobHandler`], without `async`.
///
/// `P` is the list of its parameters; it is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a blocking handler",
    label = "not a blocking handler",
    note = "a blocking handler is `fn(Args, …) -> Result<T, E>`: `Args` implements `serde::Deserialize` (leave it out if \
            the job has no arguments), `…` are any of `JobContext`, `State<T>`, `CancellationToken` (at most four), `T` \
            implements `serde::Serialize`, and `E` implements `naq::JobFailure` or is `String` or \
            `Box<dyn Error + Send + Sync>`",
    note = "an async function goes to `handler`"
)]
pub trait BlockingHandler<P>: Send + Sync + 'static {
    /// Runs a job on the thread that calls it.
    fn call(&self, cx: &JobContext) -> Verdict;

    /// What a worker with these shared values lacks.
    fn missing_from(states: &States) -> Option<&'static str>;
}

/// An async function as the handler of a kind.
pub fn typed<P: 'static>(kind: impl Into<String>, function: impl JobHandler<P>) -> Arc<dyn ErasedHandler> {
    Arc::new(Typed { kind: kind.into(), function, params: PhantomData })
}

/// A blocking function as the handler of a kind. It runs on the blocking pool and cannot be interrupted: a long one looks
/// at its [`naq_services::CancellationToken`] now and then.
pub fn blocking<P: 'static>(kind: impl Into<String>, function: impl BlockingHandler<P>) -> Arc<dyn ErasedHandler> {
    Arc::new(Blocking { kind: kind.into(), function: Arc::new(function), params: PhantomData })
}

struct Typed<F, P> {
    kind: String,
    function: F,
    params: PhantomData<fn() -> P>,
}

impl<P: 'static, F: JobHandler<P>> ErasedHandler for Typed<F, P> {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        self.function.call(cx)
    }

    fn missing_from(&self, states: &States) -> Option<&'static str> {
        F::missing_from(states)
    }
}

struct Blocking<F, P> {
    kind: String,
    function: Arc<F>,
    params: PhantomData<fn() -> P>,
}

impl<P: 'static, F: BlockingHandler<P>> ErasedHandler for Blocking<F, P> {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        let function = Arc::clone(&self.function);
        Box::pin(run_blocking(move || function.call(&cx)))
    }

    fn missing_from(&self, states: &States) -> Option<&'static str> {
        F::missing_from(states)
    }
}

fn payload<A: DeserializeOwned>(cx: &JobContext) -> Result<A, Rejection> {
    cx.args().map_err(|e| Rejection::decode(format!("the arguments of {} do not fit: {e}", cx.kind())))
}

fn inject<T: FromContext>(cx: &JobContext) -> Result<T, Rejection> {
    T::from_context(cx).ok_or_else(|| Rejection::missing_state(std::any::type_name::<T>()))
}

/// Marks a function without arguments of its own. A marker, so that the two families of impls do not overlap.
#[derive(Debug)]
pub struct Injected;
/// Marks a function whose first parameter is the job's arguments.
#[derive(Debug)]
pub struct Payload;

macro_rules! handlers {
    ($marker:ident [$($arg:ident)?] $($param:ident)*) => {
        impl<F, Fut, $($arg,)? $($param,)*> JobHandler<($marker, $($arg,)? $($param,)*)> for F
        where
            F: Fn($($arg,)? $($param,)*) -> Fut + Send + Sync + 'static,
            Fut: Future + Send + 'static,
            Fut::Output: JobReturn,
            $($arg: DeserializeOwned,)?
            $($param: FromContext,)*
        {
            fn call(&self, cx: JobContext) -> HandlerFuture {
                let started = || Ok((self)($(payload::<$arg>(&cx)?,)? $(inject::<$param>(&cx)?,)*));
                let _ = &cx;
                match started() {
                    Ok(future) => Box::pin(async move { future.await.into_verdict() }),
                    Err(rejection) => {
                        let rejection: Rejection = rejection;
                        Box::pin(std::future::ready(rejection.into_verdict()))
                    }
                }
            }

            fn missing_from(states: &States) -> Option<&'static str> {
                let missing: &[Option<&'static str>] = &[$($param::missing_from(states),)*];
                let _ = states;
                missing.iter().copied().flatten().next()
            }
        }

        impl<F, R, $($arg,)? $($param,)*> BlockingHandler<($marker, $($arg,)? $($param,)*)> for F
        where
            F: Fn($($arg,)? $($param,)*) -> R + Send + Sync + 'static,
            R: JobReturn,
            $($arg: DeserializeOwned,)?
            $($param: FromContext,)*
        {
            fn call(&self, cx: &JobContext) -> Verdict {
                let called = || Ok((self)($(payload::<$arg>(cx)?,)? $(inject::<$param>(cx)?,)*));
                let returned: Result<R, Rejection> = called();
                let _ = cx;
                returned.map_or_else(Rejection::into_verdict, JobReturn::into_verdict)
            }

            fn missing_from(states: &States) -> Option<&'static str> {
                let missing: &[Option<&'static str>] = &[$($param::missing_from(states),)*];
                let _ = states;
                missing.iter().copied().flatten().next()
            }
        }
    };
}

handlers!(Injected []);
handlers!(Injected [] P1);
handlers!(Injected [] P1 P2);
handlers!(Injected [] P1 P2 P3);
handlers!(Injected [] P1 P2 P3 P4);
handlers!(Payload[A]);
handlers!(Payload [A] P1);
handlers!(Payload [A] P1 P2);
handlers!(Payload [A] P1 P2 P3);
handlers!(Payload [A] P1 P2 P3 P4);
