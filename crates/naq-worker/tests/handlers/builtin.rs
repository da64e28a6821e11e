//! `naq.noop`, `naq.echo`, `naq.sleep`.

use std::{sync::Arc, time::Duration};

use naq_models::{Verdict, error_type};
use naq_worker::{ErasedHandler, HandlerRegistry, builtin};
use serde_json::json;

use crate::support::{context, failure, job, run, value};

fn handler(kind: &str) -> Arc<dyn ErasedHandler> {
    let mut registry = HandlerRegistry::default();
    for handler in builtin::handlers() {
        registry.insert(handler).unwrap();
    }
    Arc::clone(registry.get(kind).unwrap())
}

#[tokio::test]
async fn noop_and_echo() {
    assert_eq!(value(run(&handler("naq.noop"), json!({"any": "thing"})).await), json!(null));
    for args in [json!({"hello": "world"}), json!([1, "x", null])] {
        assert_eq!(value(run(&handler("naq.echo"), args.clone()).await), args);
    }
}

#[tokio::test(start_paused = true)]
async fn sleep_takes_its_time() {
    let start = tokio::time::Instant::now();
    assert_eq!(value(run(&handler("naq.sleep"), json!({"seconds": 1.5})).await), json!(null));
    assert_eq!(start.elapsed(), Duration::from_millis(1500));
}

#[tokio::test(start_paused = true)]
async fn sleep_is_bounded() {
    for args in [
        json!({"seconds": 3601}),
        json!({"seconds": -1}),
        json!({"seconds": 1e300}),
        json!({}),
        json!({"seconds": "1"}),
    ] {
        let error = failure(run(&handler("naq.sleep"), args.clone()).await);
        assert_eq!(error.error_type, error_type::DECODE, "{args}");
    }
}

#[tokio::test(start_paused = true)]
async fn sleep_ends_when_it_is_cancelled() {
    let cx = context(job("naq.sleep", json!({"seconds": 3000})));
    let running = handler("naq.sleep").call(cx.clone());
    let start = tokio::time::Instant::now();
    let stop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cx.cancellation().cancel();
    };
    let (verdict, ()) = tokio::join!(running, stop);
    assert!(matches!(verdict, Verdict::Retry { .. }), "{verdict:?}");
    assert_eq!(start.elapsed(), Duration::from_secs(1));
}
