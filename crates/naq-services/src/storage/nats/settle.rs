//! Settling: how leased jobs leave their queue.
//!
//! Order: result, dead letter if failed, key of a chosen id, unique key, scheduled entry, acknowledgement; for another run:
//! scheduled entry, acknowledgement. A job that keeps no result runs again until it is acknowledged, so that its unique key
//! goes last, after the acknowledgement is confirmed; cut off there, it is a key without a job, which is taken over. Each step is idempotent and done for the whole batch before the next, and a job whose step
//! failed is not acknowledged. Whoever sees it again finds the steps that were done and does the rest.
//!
//! A fenced settlement may only create the result. If that wins, the rest follows from it and is done too: otherwise a
//! job that ended as failed would never get its dead letter.

use super::{Shared, results::Written};
use crate::storage::{Action, Entry, Result, Settled, Settlement, StorageError, crash::crash_point};

/// One settlement under way.
struct Step {
    settlement: Settlement,
    outcome: Option<Result<Settled>>,
    /// Whether something other than the acknowledgement keeps the job from running again.
    recorded: bool,
}

impl Step {
    fn open(&self) -> bool {
        self.outcome.is_none()
    }

    /// Whether the job ends and its remains have to go: nothing has failed so far.
    fn ends(&self) -> bool {
        matches!(self.settlement.action, Action::End { .. }) && self.goes_on()
    }

    fn goes_on(&self) -> bool {
        matches!(self.outcome, None | Some(Ok(Settled::AlreadyEnded)))
    }

    fn fail(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.outcome = Some(Err(error));
        }
    }
}

impl Shared {
    pub(super) async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled>> {
        let mut steps: Vec<Step> = settlements.into_iter().map(|s| self.begin(s)).collect();
        self.settle_results(&mut steps).await;
        self.settle_dead_letters(&mut steps).await;
        self.settle_ids(&mut steps).await;
        self.settle_keys(&mut steps).await;
        self.settle_scheduled(&mut steps).await;
        self.settle_again(&mut steps).await;
        self.settle_acknowledgements(&mut steps).await;
        self.settle_last_keys(&mut steps).await;
        steps.into_iter().map(|step| step.outcome.unwrap_or(Ok(Settled::Done))).collect()
    }

    fn begin(&self, settlement: Settlement) -> Step {
        let outcome = match &settlement.action {
            // Whoever holds the lease now decides; only a result could be created, and there is none to create.
            Action::Again(_) | Action::End { result: None, .. } if settlement.fenced => Some(Ok(Settled::LeaseLost)),
            Action::End { result: Some(record), .. } => self.check_size("settle", &record.body).err().map(Err),
            Action::Again(entry) => self.check_size("settle", &entry.body).err().map(Err),
            Action::End { result: None, .. } => None,
        };
        Step { settlement, outcome, recorded: false }
    }

    async fn settle_results(&self, steps: &mut [Step]) {
        let mut which = Vec::new();
        let mut records = Vec::new();
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| step.open()) {
            if let Action::End { result: Some(record), .. } = &step.settlement.action {
                which.push(index);
                records.push((&step.settlement.address.id, record));
            }
        }
        if records.is_empty() {
            return;
        }
        let written = self.write_results(&records).await;
        crash_point("nats.settle.result");
        for (index, written) in which.into_iter().zip(written) {
            let step = &mut steps[index];
            step.recorded = true;
            match written {
                Ok(Written::Won) => {}
                Ok(Written::Lost(_)) if step.settlement.fenced => step.outcome = Some(Ok(Settled::LeaseLost)),
                Ok(Written::Lost(first)) => {
                    step.outcome = Some(Ok(Settled::AlreadyEnded));
                    let completed = self.complete_failed(&step.settlement.address, &first).await;
                    step.fail(completed);
                }
                Err(error) => step.outcome = Some(Err(error)),
            }
        }
    }

    async fn settle_dead_letters(&self, steps: &mut [Step]) {
        let mut which = Vec::new();
        let mut letters = Vec::new();
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| step.open()) {
            if let Action::End { dead_letter: Some(letter), result, .. } = &step.settlement.action {
                which.push(index);
                letters.push((letter, result.as_ref().map_or(0, |record| record.generation)));
            }
        }
        if letters.is_empty() {
            return;
        }
        let written = self.write_dead(&letters).await;
        crash_point("nats.settle.dead_letter");
        for (index, written) in which.into_iter().zip(written) {
            steps[index].fail(written);
        }
    }

    async fn settle_ids(&self, steps: &mut [Step]) {
        let which: Vec<usize> =
            (0..steps.len()).filter(|i| steps[*i].ends() && !steps[*i].settlement.address.id.is_generated()).collect();
        if which.is_empty() {
            return;
        }
        let ended: Vec<_> = which.iter().map(|index| &steps[*index].settlement.address).collect();
        let released = self.release_ids(&ended).await;
        crash_point("nats.settle.id");
        for (index, released) in which.into_iter().zip(released) {
            steps[index].fail(released);
        }
    }

    /// Frees the unique keys of jobs whose result keeps them from running again.
    async fn settle_keys(&self, steps: &mut [Step]) {
        for (index, released) in self.release_keys_of(steps, true).await {
            steps[index].fail(released);
        }
    }

    /// Frees the others, whose jobs are out of their queues now.
    async fn settle_last_keys(&self, steps: &mut [Step]) {
        for (index, released) in self.release_keys_of(steps, false).await {
            if let Err(error) = released {
                let job = &steps[index].settlement.address.id;
                tracing::warn!(%job, %error, "a unique key is left behind; the next producer that wants it takes it over");
            }
        }
    }

    async fn release_keys_of(&self, steps: &[Step], recorded: bool) -> Vec<(usize, Result<()>)> {
        let (mut which, mut keys) = (Vec::new(), Vec::new());
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| step.recorded == recorded && step.goes_on()) {
            if let Action::End { unique_key: Some(key), .. } = &step.settlement.action {
                which.push(index);
                keys.push((key.as_str(), &step.settlement.address.id));
            }
        }
        if keys.is_empty() {
            return Vec::new();
        }
        let released = self.release_keys(&keys).await;
        crash_point("nats.settle.key");
        which.into_iter().zip(released).collect()
    }

    async fn settle_scheduled(&self, steps: &mut [Step]) {
        let which: Vec<usize> =
            (0..steps.len()).filter(|i| steps[*i].ends() && steps[*i].settlement.clear_scheduled).collect();
        if which.is_empty() {
            return;
        }
        let ids: Vec<_> = which.iter().map(|index| &steps[*index].settlement.address.id).collect();
        let removed = self.clear_scheduled(&ids).await;
        crash_point("nats.settle.scheduled");
        for (index, removed) in which.into_iter().zip(removed) {
            steps[index].fail(removed);
        }
    }

    async fn settle_again(&self, steps: &mut [Step]) {
        let mut which = Vec::new();
        let mut entries: Vec<&Entry> = Vec::new();
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| step.open()) {
            if let Action::Again(entry) = &step.settlement.action {
                which.push(index);
                entries.push(entry);
            }
        }
        if entries.is_empty() {
            return;
        }
        let written = self.write_scheduled(&entries).await;
        crash_point("nats.settle.again");
        for (index, written) in which.into_iter().zip(written) {
            steps[index].recorded = true;
            steps[index].fail(written);
        }
    }

    async fn settle_acknowledgements(&self, steps: &mut [Step]) {
        let going = || steps.iter().enumerate().filter(|(_, step)| step.goes_on());
        let (sure, unsure): (Vec<usize>, Vec<usize>) =
            going().map(|(index, _)| index).partition(|i| steps[*i].recorded);
        let leases = |which: &[usize]| which.iter().map(|index| &steps[*index].settlement.lease).collect::<Vec<_>>();
        let sent = self.acknowledge(&leases(&sure)).await;
        let confirmed = self.acknowledge_confirmed(&leases(&unsure)).await;
        let failures: Vec<(usize, StorageError)> = sure
            .into_iter()
            .zip(sent)
            .chain(unsure.into_iter().zip(confirmed))
            .filter_map(|(i, s)| Some((i, s.err()?)))
            .collect();
        crash_point("nats.settle.ack");
        for (index, error) in failures {
            steps[index].outcome = Some(Err(error));
        }
    }
}
