//! The operations of a case. Each is possible in every state: what it names is taken modulo what there is, and where
//! nothing fits it does nothing, so that a shrunk case is a case too.

use proptest::prelude::*;

/// Which of the two clients calls.
pub(crate) type Client = usize;

/// Ids that callers chose and use again and again.
pub(crate) const CHOSEN: usize = 4;
pub(crate) const KEYS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Now,
    Later,
    OnOthers,
}

/// How a claimed job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Completes,
    /// Nobody wants its result.
    Vanishes,
    Fails,
    Retries,
    HandedBack,
}

/// The revision that a call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Present,
    Stale,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Enqueue {
        by: Client,
        id: usize,
        priority: u8,
        when: When,
    },
    /// A job with a generated id.
    EnqueueFresh {
        by: Client,
        priority: u8,
        when: When,
    },
    EnqueueAll {
        by: Client,
        ids: Vec<usize>,
        priority: u8,
    },
    /// Everything of one priority, by one client or by both at once.
    Claim {
        by: Client,
        priority: u8,
    },
    ClaimBoth {
        priority: u8,
    },
    Settle {
        by: Client,
        claim: usize,
        how: How,
    },
    End {
        by: Client,
        job: usize,
    },
    Requeue {
        by: Client,
        job: usize,
    },
    Reschedule {
        by: Client,
        job: usize,
        at: At,
    },
    Promote {
        by: Client,
        job: usize,
        at: At,
    },
    RemoveLetter {
        by: Client,
        job: usize,
    },
    RemoveResult {
        by: Client,
        job: usize,
        at: At,
    },
    CreateKey {
        by: Client,
        key: usize,
        value: u8,
    },
    UpdateKey {
        by: Client,
        key: usize,
        value: u8,
        at: At,
    },
    DeleteKey {
        by: Client,
        key: usize,
        at: Option<At>,
    },
    Race(Race),
}

/// What both clients do at the same moment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Race {
    Enqueue { id: usize },
    End { job: usize },
    EndAndSettle { claim: usize },
    Requeue { job: usize },
    Promote { job: usize },
    PromoteAndReschedule { job: usize },
    UpdateKey { key: usize },
}

pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let by = || 0..2_usize;
    let priority = || 0..2_u8;
    let number = || 0..64_usize;
    let at = || prop_oneof![4 => Just(At::Present), 1 => Just(At::Stale)];
    let when = || prop_oneof![3 => Just(When::Now), 2 => Just(When::Later), 1 => Just(When::OnOthers)];
    let how = || {
        prop_oneof![
            3 => Just(How::Completes),
            1 => Just(How::Vanishes),
            2 => Just(How::Fails),
            2 => Just(How::Retries),
            2 => Just(How::HandedBack),
        ]
    };
    let jobs = prop_oneof![
        4 => (by(), 0..CHOSEN, priority(), when()).prop_map(|(by, id, priority, when)| Op::Enqueue { by, id, priority, when }),
        3 => (by(), priority(), when()).prop_map(|(by, priority, when)| Op::EnqueueFresh { by, priority, when }),
        1 => (by(), proptest::collection::vec(0..CHOSEN, 1..4), priority())
            .prop_map(|(by, ids, priority)| Op::EnqueueAll { by, ids, priority }),
        4 => (by(), priority()).prop_map(|(by, priority)| Op::Claim { by, priority }),
        2 => priority().prop_map(|priority| Op::ClaimBoth { priority }),
        8 => (by(), number(), how()).prop_map(|(by, claim, how)| Op::Settle { by, claim, how }),
        2 => (by(), number()).prop_map(|(by, job)| Op::End { by, job }),
        3 => (by(), number()).prop_map(|(by, job)| Op::Requeue { by, job }),
        2 => (by(), number(), at()).prop_map(|(by, job, at)| Op::Reschedule { by, job, at }),
        4 => (by(), number(), at()).prop_map(|(by, job, at)| Op::Promote { by, job, at }),
        1 => (by(), number()).prop_map(|(by, job)| Op::RemoveLetter { by, job }),
        2 => (by(), number(), at()).prop_map(|(by, job, at)| Op::RemoveResult { by, job, at }),
    ];
    let keys = prop_oneof![
        (by(), 0..KEYS, any::<u8>()).prop_map(|(by, key, value)| Op::CreateKey { by, key, value }),
        (by(), 0..KEYS, any::<u8>(), at()).prop_map(|(by, key, value, at)| Op::UpdateKey { by, key, value, at }),
        (by(), 0..KEYS, proptest::option::of(at())).prop_map(|(by, key, at)| Op::DeleteKey { by, key, at }),
    ];
    let races = prop_oneof![
        (0..CHOSEN).prop_map(|id| Race::Enqueue { id }),
        number().prop_map(|job| Race::End { job }),
        number().prop_map(|claim| Race::EndAndSettle { claim }),
        number().prop_map(|job| Race::Requeue { job }),
        number().prop_map(|job| Race::Promote { job }),
        number().prop_map(|job| Race::PromoteAndReschedule { job }),
        (0..KEYS).prop_map(|key| Race::UpdateKey { key }),
    ];
    prop_oneof![8 => jobs, 2 => keys, 2 => races.prop_map(Op::Race)]
}
