//! The wire format against golden files, random jobs and hostile bytes.

use proptest::prelude::*;

use super::*;

fn address() -> Address {
    Address {
        id: JobId::new("order-17").unwrap(),
        queue: QueueName::new("mail").unwrap(),
        priority: Priority::new(1).unwrap(),
        stored_at: "2026-11-21T22:11:00.123Z".parse().unwrap(),
    }
}

/// A job in which every field differs from its default.
fn full_job() -> Job {
    let mut job = Job::new(
        address().id,
        "send_mail",
        RawJson::parse(r#"{"to":"a@b.c","n":1e400}"#).unwrap(),
        "2026-11-20T10:00:00.001Z".parse().unwrap(),
    );
    job.queue = address().queue;
    job.priority = address().priority;
    job.run_at = Some("2026-11-22T00:00:00.000Z".parse().unwrap());
    job.attempt = 2;
    job.retry = RetryPolicy {
        max_retries: 7,
        strategy: RetryStrategy::Linear,
        delay: [1, 5, 25].map(Duration::from_secs).to_vec(),
        max_delay: Duration::from_millis(90_500),
        jitter: 0.5,
        retry_on: vec!["net".into()],
        ignore_on: vec!["parse".into()],
    };
    job.timeout = Duration::from_millis(1_500);
    job.result_ttl = Duration::ZERO;
    job.depends_on = vec![JobId::new("a").unwrap(), JobId::new("b").unwrap()];
    job.on_dependency_failure = OnDependencyFailure::Run;
    job.unique =
        Some(Unique { key: "k/1".into(), holds: crate::UniqueWhile::Ttl, ttl: Some(Seconds(Duration::from_secs(60))) });
    job.schedule_id = Some("nightly".into());
    job.run = 3;
    job.generation = 12;
    job.last_error = Some(JobError::new("net", "down", "2026-11-20T11:00:00.000Z".parse().unwrap()));
    job.meta.insert("tenant".into(), RawJson::parse("\"acme\"").unwrap());
    job.extra.insert("x_future".into(), RawJson::parse(r#"[1, {"deep": true}]"#).unwrap());
    job
}

#[test]
fn golden_full() {
    let text = String::from_utf8(encode(&full_job(), WireFormat::Json).unwrap()).unwrap();
    assert_eq!(text, include_str!("golden/full.json").trim_end());
    assert_eq!(decode(text.as_bytes(), &address()).unwrap(), full_job());
}

#[cfg(feature = "bincode")]
#[test]
fn golden_bincode() {
    let bytes = encode(&full_job(), WireFormat::Bincode).unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, include_str!("golden/full.bincode.hex").trim_end());
    assert_eq!(decode(&bytes, &address()).unwrap(), full_job());
}

#[cfg(not(feature = "bincode"))]
#[test]
fn bincode_is_named_where_it_is_not_built_in() {
    assert!(matches!(decode(&[BINCODE_MARK, 0, 1], &address()), Err(DecodeError::BincodeNotBuilt)));
    assert_eq!(encode(&full_job(), WireFormat::Bincode), Err(EncodeError::BincodeNotBuilt));
}

#[test]
fn a_foreign_producer_needs_three_fields() {
    let job = decode(br#" {"v":1,"kind":"k","args":[1]}"#, &address()).unwrap();
    let mut expected = Job::new(address().id, "k", RawJson::parse("[1]").unwrap(), address().stored_at);
    expected.queue = address().queue;
    expected.priority = address().priority;
    assert_eq!(job, expected);
}

#[test]
fn what_a_job_says_of_dependencies_stays_without_any() {
    let text = br#"{"v":1,"kind":"k","args":[],"on_dependency_failure":"run"}"#;
    let job = decode(text, &address()).unwrap();
    assert_eq!(job.on_dependency_failure, OnDependencyFailure::Run);
    assert_eq!(decode(&encode(&job, WireFormat::Json).unwrap(), &address()).unwrap(), job);
}

#[test]
fn a_kind_that_is_too_long_is_no_kind() {
    let of = |length: usize| format!(r#"{{"v":1,"kind":"{}","args":[]}}"#, "k".repeat(length));
    assert_eq!(decode(of(MAX_KIND).as_bytes(), &address()).unwrap().kind.len(), MAX_KIND);
    let refused = decode(of(MAX_KIND + 1).as_bytes(), &address()).unwrap_err();
    assert_eq!(refused.to_string(), "the kind has 257 bytes, and at most 256 are read");
}

#[test]
fn the_address_wins_over_the_body() {
    let job = decode(br#"{"v":1,"id":"other","queue":"other","priority":3,"kind":"k","args":{}}"#, &address()).unwrap();
    assert_eq!((job.id, job.queue, job.priority), (address().id, address().queue, address().priority));
    let own = br#"{"v":1,"id":"other","queue":"low","priority":3,"kind":"k","args":{}}"#;
    let job = decode_submission(own, address()).unwrap();
    assert_eq!((job.id.as_str(), job.queue.as_str(), job.priority.get()), ("other", "low", 3));
}

#[test]
fn bad_bytes_are_named() {
    let kind = |bytes: &[u8]| match decode(bytes, &address()).unwrap_err() {
        DecodeError::Json(_) => "json",
        DecodeError::Version { .. } => "version",
        DecodeError::Args => "args",
        DecodeError::Kind { .. } => "kind",
        DecodeError::BincodeNotBuilt | DecodeError::Bincode(_) => "bincode",
    };
    assert_eq!(kind(b""), "json");
    assert_eq!(kind(b"\xff\xfe"), "json");
    assert_eq!(kind(b"null"), "json");
    assert_eq!(kind(br#"{"v":1,"kind":"k"}"#), "json");
    assert_eq!(kind(br#"{"kind":"k","args":{}}"#), "json");
    assert_eq!(kind(br#"{"v":2,"kind":"k","args":{}}"#), "version");
    assert_eq!(kind(br#"{"v":1,"kind":"k","args":3}"#), "args");
    assert_eq!(kind(br#"{"v":1,"kind":"k","args":{},"timeout":-1}"#), "json");
    assert_eq!(kind(br#"{"v":1,"kind":"k","args":{},"run_at":"soon"}"#), "json");
    assert_eq!(kind(&[BINCODE_MARK, 0xff, 0xff]), "bincode");
}

#[test]
fn deep_arguments_are_passed_through() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(r#"{{"v":1,"kind":"k","args":{deep}}}"#);
    assert_eq!(decode(text.as_bytes(), &address()).unwrap().args.get(), deep);
}

fn any_job() -> impl Strategy<Value = Job> {
    let text = "\\PC{0,20}";
    (
        (text, "[a-z]{1,8}", 0i64..4_000_000_000_000, prop::option::of(0i64..4_000_000_000_000)),
        (1u32.., 0u32.., 1u32.., any::<u64>()),
        (prop::collection::vec(0u64..100_000, 0..4), 0u64..100_000, 0u64..100_000, 0.0f64..1.0),
        prop::collection::btree_map("[A-Z][a-z]{1,6}", text, 0..3),
        prop::collection::btree_map("[A-Z][a-z]{1,6}", text, 0..3),
    )
        .prop_map(
            |(
                (arg, kind, at, due),
                (attempt, retries, run, generation),
                (delay, timeout, ttl, jitter),
                meta,
                extra,
            )| {
                let raw = |map: BTreeMap<String, String>| {
                    map.into_iter().map(|(k, v)| (k, RawJson::from_value(&v).unwrap())).collect::<BTreeMap<_, _>>()
                };
                let args = RawJson::from_value(&[arg]).unwrap();
                let mut job = Job::new(address().id, kind, args, Timestamp::from_unix_millis(at).unwrap());
                job.queue = address().queue;
                job.priority = address().priority;
                job.run_at = due.and_then(Timestamp::from_unix_millis);
                (job.attempt, job.retry.max_retries, job.run, job.generation) = (attempt, retries, run, generation);
                job.retry.delay = delay.into_iter().map(Duration::from_secs).collect();
                job.retry.jitter = jitter;
                job.timeout = Duration::from_secs(timeout);
                job.result_ttl = Duration::from_secs(ttl);
                job.meta = raw(meta);
                job.extra = raw(extra);
                job
            },
        )
}

proptest! {
    #[test]
    fn json_round_trips(job in any_job()) {
        prop_assert_eq!(decode(&encode(&job, WireFormat::Json).unwrap(), &address()).unwrap(), job);
    }

    #[cfg(feature = "bincode")]
    #[test]
    fn bincode_round_trips(job in any_job()) {
        prop_assert_eq!(decode(&encode(&job, WireFormat::Bincode).unwrap(), &address()).unwrap(), job);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), mark in prop::bool::ANY) {
        let mut bytes = bytes;
        if mark { bytes.insert(0, BINCODE_MARK) }
        let _refused_or_read = decode(&bytes, &address());
    }
}
