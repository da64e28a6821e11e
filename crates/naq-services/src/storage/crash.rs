//! Crash points: places between two writes where a test can end the process as `kill -9` would.
//!
//! Invariant: without feature `testing` a crash point is an empty function. With it, nothing happens unless a test armed
//! that very point in this process.

/// Ends the process here if a test armed this point. `name` is `<backend>.<move>.<write>`, or `jobs.…` above the seam: the
/// write before it is done.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) fn crash_point(_name: &'static str) {}

#[cfg(feature = "testing")]
pub(crate) use armed::crash_point;
#[cfg(feature = "testing")]
pub use armed::{arm, seen};

#[cfg(feature = "testing")]
mod armed {
    use std::{collections::BTreeSet, sync::Mutex};

    static ARMED: Mutex<Option<(String, usize)>> = Mutex::new(None);
    static SEEN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

    /// Makes the `nth` (from 1) passing of the point `name` abort this process.
    ///
    /// # Panics
    /// If `nth` is 0, which no passing is.
    pub fn arm(name: impl Into<String>, nth: usize) {
        assert!(nth > 0, "passings are counted from 1");
        *ARMED.lock().expect("nothing panics while it holds this") = Some((name.into(), nth));
    }

    /// The points that this process has passed: a test that means to try them all can see whether it knows them all.
    #[must_use]
    pub fn seen() -> Vec<&'static str> {
        SEEN.lock().expect("nothing panics while it holds this").iter().copied().collect()
    }

    pub(crate) fn crash_point(name: &'static str) {
        SEEN.lock().expect("nothing panics while it holds this").insert(name);
        let mut armed = ARMED.lock().expect("nothing panics while it holds this");
        if let Some((point, left)) = armed.as_mut()
            && point == name
        {
            *left -= 1;
            if *left == 0 {
                std::process::abort();
            }
        }
    }
}
