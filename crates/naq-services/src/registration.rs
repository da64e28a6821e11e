//! How `#[naq::job]` functions reach a worker: [`JobFunction`], collected at link time, and what the macro expands to.
//!
//! Invariant: a function is registered only in programs that hold a worker (feature `worker`, set by naq-worker); in all
//! others the hidden macro is empty and the function costs nothing. Which conversion applies to a return or error type
//! is chosen by its constructor, never by whether some unrelated trait happens to be implemented, so that a `Result`
//! cannot be taken for a value.
//!
//! Generated code names only the module `__private` of `naq`, `naq_worker` or `naq_services`: all three are this one.

use std::{fmt, future::Future, pin::Pin};

use naq_models::Verdict;

use crate::{
    context::{JobContext, States},
    failure::Failure,
    outcome,
};

/// The future of one run.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// A function that can be a worker's handler.
#[derive(Clone, Copy)]
pub struct JobFunction {
    /// The stable name that jobs carry.
    pub kind: &'static str,
    /// Where it was written: `file:line`.
    pub location: &'static str,
    /// Runs it.
    pub call: fn(JobContext) -> HandlerFuture,
    /// What a worker with these shared values lacks to run it: the name of a type.
    pub missing_from: fn(&States) -> Option<&'static str>,
}

impl fmt::Debug for JobFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobFunction")
            .field("kind", &self.kind)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "worker")]
inventory::collect!(JobFunction);

/// Every `#[naq::job]` function that is linked into this program, in no particular order. A library of job functions of
/// which a program names nothing is not linked: say `use my_jobs as _;`.
#[cfg(feature = "worker")]
pub fn registered() -> impl Iterator<Item = &'static JobFunction> {
    inventory::iter::<JobFunction>.into_iter()
}

/// Runs a blocking function off the async threads. Its log lines keep the caller's span, its panic is the caller's.
/// Dropping the future does not stop the function; its cancellation token can.
pub async fn run_blocking(function: impl FnOnce() -> Verdict + Send + 'static) -> Verdict {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(function)).await {
        Ok(verdict) => verdict,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => {
                outcome::failed(Failure::new("interrupted", "the worker's runtime stopped before the function ran"))
            }
        },
    }
}

/// What `#[naq::job]` expands to. Not part of the public interface.
#[doc(hidden)]
pub mod private {
    use std::{error::Error, fmt::Display, marker::PhantomData};

    #[cfg(feature = "worker")]
    pub use inventory;
    pub use naq_models::{OnConflict, RawJson, RetryStrategy, UniqueWhile, Verdict};
    use serde::{Serialize, de::DeserializeOwned};

    pub use super::{HandlerFuture, JobFunction, run_blocking};
    pub use crate::{
        __naq_register_job as register_job,
        args::{Args, IntoArg, NamedArgs, Rejection},
        context::{CancellationToken, FromContext, JobContext, States},
        new_job::{NewJob, UniqueBy},
    };
    use crate::{
        failure::{BoxError, Failure, IntoFailure, type_name_of},
        outcome::{self, Outcome},
    };

    /// The future of a run, from one that may be rejected before it starts.
    pub fn run(run: impl Future<Output = Result<Verdict, Rejection>> + Send + 'static) -> HandlerFuture {
        Box::pin(async move { run.await.unwrap_or_else(Rejection::into_verdict) })
    }

    /// An injected parameter.
    pub fn inject<T: FromContext>(cx: &JobContext) -> Result<T, Rejection> {
        T::from_context(cx).ok_or_else(|| Rejection::missing_state(std::any::type_name::<T>()))
    }

    /// What a job's argument must be.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` cannot be the argument of a job",
        label = "must implement `serde::Serialize` and `serde::Deserialize`",
        note = "add `#[derive(serde::Serialize, serde::Deserialize)]` to `{Self}`",
        note = "what the worker shares with its handlers is a `State<{Self}>` instead"
    )]
    pub trait Argument: Serialize + DeserializeOwned {}

    #[diagnostic::do_not_recommend]
    impl<T: Serialize + DeserializeOwned> Argument for T {}

    /// What a job's value must be.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` cannot be the result of a job",
        label = "must implement `serde::Serialize`",
        note = "add `#[derive(serde::Serialize, serde::Deserialize)]` to `{Self}`"
    )]
    pub trait Value: Serialize {}

    #[diagnostic::do_not_recommend]
    impl<T: Serialize> Value for T {}

    /// An argument on its way into a job. What it returns hides the type, so that one that does not fit is one error, at
    /// the type.
    pub fn argument<T: Argument>(value: impl IntoArg<T>) -> impl Serialize {
        value.into_arg()
    }

    /// An argument on its way out of a job.
    pub fn take<T: Argument>(args: &mut Args<'_>, position: usize) -> Result<T, Rejection> {
        args.take(position)
    }

    /// The verdict on a value.
    pub fn complete<T: Value>(value: &T) -> Verdict {
        outcome::complete(value)
    }

    /// The verdict on an outcome.
    pub fn outcome<T: Value>(outcome: Outcome<T>) -> Verdict {
        outcome::outcome_verdict(outcome)
    }

    /// The verdict on an error.
    pub fn failed(failure: Failure) -> Verdict {
        outcome::failed(failure)
    }

    /// The parts of a type that the macro saw written as `Result<…>`.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is named `Result` but is not `std::result::Result`",
        label = "`#[naq::job]` takes a return type called `Result` for the standard one",
        note = "rename the type, or return `std::result::Result`"
    )]
    pub trait IsResult {
        /// Of `Ok`.
        type Value;
    }

    impl<T, E> IsResult for Result<T, E> {
        type Value = T;
    }

    /// The parts of a type that the macro saw written as `Outcome<…>`.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is named `Outcome` but is not `naq::Outcome`",
        label = "`#[naq::job]` takes a return type called `Outcome` for `naq::Outcome`",
        note = "rename the type, or return `naq::Outcome`"
    )]
    pub trait IsOutcome {
        /// Of `Complete`.
        type Value;
    }

    impl<T> IsOutcome for Outcome<T> {
        type Value = T;
    }

    /// Nothing implements this; see [`Disguised`].
    #[diagnostic::on_unimplemented(
        message = "the return type of a job hides `{Self}` behind another name",
        label = "write it as `Result<…>`, `Outcome<…>` or `Result<Outcome<…>, …>`",
        note = "`#[naq::job]` reads the type of the job's value from the function's signature and cannot see through an \
                alias whose last part is not `Result` or `Outcome`"
    )]
    pub trait WrittenOut {}

    /// Finds out whether a type that was taken for a plain value is one.
    pub struct ValueProbe<T: ?Sized>(PhantomData<T>);

    impl<T: ?Sized> ValueProbe<T> {
        /// A probe of a type.
        pub const OF: Self = Self(PhantomData);
    }

    /// The value is a value.
    pub struct Plain;

    impl Plain {
        /// Always fine.
        pub fn check<T>(self) {}
    }

    /// The value is a result or an outcome under another name.
    pub struct Disguised;

    impl Disguised {
        /// Never fine.
        pub fn check<T: WrittenOut>(self) {}
    }

    /// Chosen for everything else.
    pub trait PlainValue {
        /// See [`ValueProbe`].
        fn shape(&self) -> Plain {
            Plain
        }
    }
    impl<T> PlainValue for ValueProbe<T> {}

    /// Chosen for results and outcomes.
    pub trait DisguisedValue {
        /// See [`ValueProbe`].
        fn shape(&self) -> Disguised {
            Disguised
        }
    }
    impl<T, E> DisguisedValue for &ValueProbe<Result<T, E>> {}
    impl<T> DisguisedValue for &ValueProbe<Outcome<T>> {}

    /// Finds the best way to turn an error into a failure.
    pub struct ErrorProbe<E>(PhantomData<E>);

    impl<E> ErrorProbe<E> {
        /// A probe of an error's type.
        pub fn of(_: &E) -> Self {
            Self(PhantomData)
        }
    }

    macro_rules! error_ways {
        ($($(#[$doc:meta])* $way:ident $by:ident [$($bound:tt)+] => |$error:ident: $e:ident| $convert:expr;)*) => {$(
            $(#[$doc])*
            pub struct $way;

            impl $way {
                /// The failure.
                pub fn failure<$e: $($bound)+>(self, $error: $e) -> Failure {
                    $convert
                }
            }

            $(#[$doc])*
            pub trait $by {
                /// See [`ErrorProbe`].
                fn way(&self) -> $way {
                    $way
                }
            }
        )*};
    }

    error_ways! {
        /// It says itself what it is.
        Own ByItself [IntoFailure] => |error: E| error.into_failure();
        /// A standard error.
        Standard ByError [Error] => |error: E| Failure::from_error(&error);
        /// Converts into a boxed error.
        Boxed ByBox [Into<BoxError>] => |error: E| Failure::from(error.into());
        /// Can only be printed.
        Printed ByDisplay [Display] => |error: E| Failure::new(type_name_of::<E>(), error.to_string());
        /// No way: the bound explains.
        Refused ByNothing [IntoFailure] => |error: E| error.into_failure();
    }

    impl<E: IntoFailure> ByItself for &&&&ErrorProbe<E> {}
    impl<E: Error> ByError for &&&ErrorProbe<E> {}
    impl<E: Into<BoxError>> ByBox for &&ErrorProbe<E> {}
    impl<E: Display> ByDisplay for &ErrorProbe<E> {}
    impl<E> ByNothing for ErrorProbe<E> {}
}

/// Registers a function; empty without feature `worker`. Not part of the public interface.
#[cfg(feature = "worker")]
#[doc(hidden)]
#[macro_export]
macro_rules! __naq_register_job {
    ($($function:tt)*) => {
        $crate::__private::inventory::submit! { $($function)* }
    };
}

/// Registers a function; empty without feature `worker`. Not part of the public interface.
#[cfg(not(feature = "worker"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __naq_register_job {
    ($($function:tt)*) => {};
}
