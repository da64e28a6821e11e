//! Names, types, units and labels of all metrics, and how they are written. What they mean to an operator is told in
//! `docs/operating/metrics.md`; a test compares the two.
//!
//! Invariant: each metric stands here once. Writing reads numbers and changes none.

use std::fmt::Error;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Unit,
};

use super::{
    Numbers,
    queues::{QueueNumber, STATES},
    series::{Ended, Histogram, Pair},
};

type Written = Result<(), Error>;

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let mut out = Exposition { encoder, buckets: Vec::new() };
        out.of_jobs(self)?;
        out.of_the_store(self)?;
        out.of_this_process(self)?;
        out.of_queues(&self.queues.scraped())
    }
}

struct Exposition<'a> {
    encoder: DescriptorEncoder<'a>,
    /// Used again and again.
    buckets: Vec<(f64, u64)>,
}

impl Exposition<'_> {
    fn of_jobs(&mut self, numbers: &Numbers) -> Written {
        let pairs = numbers.pairs.all();
        let run: Vec<&Pair> = pairs.iter().map(AsRef::as_ref).filter(|pair| pair.has_run()).collect();

        let mut enqueued =
            self.describe("naq_jobs_enqueued", "Jobs that this process stored", None, MetricType::Counter)?;
        for pair in &pairs {
            count(&mut enqueued, &labels(pair), pair.enqueued.get())?;
        }
        let mut started = self.describe(
            "naq_jobs_started",
            "Attempts that workers of this process began",
            None,
            MetricType::Counter,
        )?;
        for pair in &run {
            count(&mut started, &labels(pair), pair.started.get())?;
        }
        let help = "Attempts that ended in this process and were settled, and jobs that it cancelled";
        let mut ended = self.describe("naq_jobs_ended", help, None, MetricType::Counter)?;
        for pair in &run {
            for (outcome, n) in Ended::ALL.iter().zip(&pair.ended) {
                let [queue, kind] = labels(pair);
                count(&mut ended, &[queue, kind, ("outcome", outcome.as_str())], n.get())?;
            }
        }
        let help = "Time from when a job could run to the start of the attempt";
        self.histograms("naq_job_wait", help, run.iter().map(|pair| (labels(pair), &pair.wait)))?;
        let help = "Time from the start of an attempt to its end";
        self.histograms("naq_job_run", help, run.iter().map(|pair| (labels(pair), &pair.run)))
    }

    fn of_the_store(&mut self, numbers: &Numbers) -> Written {
        let help = "Leases of claimed jobs that the heartbeat asked the store to extend";
        let mut leases = self.describe("naq_lease_extensions", help, None, MetricType::Counter)?;
        for (outcome, n) in ["held", "lost", "unknown"].into_iter().zip(&numbers.leases) {
            count(&mut leases, &[("outcome", outcome)], n.get())?;
        }
        let help = "Round trip of a batch of settlements";
        self.histograms("naq_settle", help, [([], &numbers.settle)])?;
        let help = "How long after its due time a job was in its queue";
        self.histograms("naq_scheduler_lag", help, [([], &numbers.lag)])
    }

    fn of_this_process(&mut self, numbers: &Numbers) -> Written {
        let leaders = numbers.leaders().len();
        self.gauge("naq_scheduler_leader", "1 if this process leads the scheduler", leaders)?;
        let (mut slots, mut running) = (0, 0);
        for (of_slots, of_running) in numbers.workers().values() {
            slots += of_slots;
            running += of_running;
        }
        self.gauge("naq_worker_slots", "Jobs that workers of this process run at once", slots)?;
        self.gauge("naq_worker_running", "Jobs that run in this process", running)?;
        let dropped = numbers.drops.get().map_or(0, |drops| drops.0.dropped());
        let help = "Events that were dropped because the store was away, full or slow";
        self.describe("naq_events_dropped", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&dropped, None)?;
        self.describe("naq_build", "The version of naq in this process", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }

    fn of_queues(&mut self, queues: &[QueueNumber]) -> Written {
        let help = "Jobs in the store by state, as read some seconds ago";
        let mut jobs = self.describe("naq_queue_jobs", help, None, MetricType::Gauge)?;
        for number in queues {
            for (state, n) in STATES.into_iter().zip(number.jobs) {
                level(&mut jobs, &[("queue", &*number.queue), ("state", state)], n)?;
            }
        }
        let help = "Age of the oldest job that could run and does not";
        let unit = Some(&Unit::Seconds);
        let mut oldest = self.describe("naq_queue_oldest_pending", help, unit, MetricType::Gauge)?;
        for number in queues {
            let age = number.oldest_pending.as_secs_f64();
            oldest.encode_family(&[("queue", &*number.queue)])?.encode_gauge(&age)?;
        }
        let help = "Jobs that failed for good and wait for somebody to look at them";
        let mut dead = self.describe("naq_dead_letters", help, None, MetricType::Gauge)?;
        for number in queues {
            level(&mut dead, &[("queue", &*number.queue)], number.dead)?;
        }
        Ok(())
    }

    fn describe<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        metric_type: MetricType,
    ) -> Result<MetricEncoder<'s>, Error> {
        self.encoder.encode_descriptor(name, help, unit, metric_type)
    }

    fn gauge(&mut self, name: &str, help: &str, n: usize) -> Written {
        let mut encoder = self.describe(name, help, None, MetricType::Gauge)?;
        encoder.encode_gauge(&i64::try_from(n).unwrap_or(i64::MAX))
    }

    fn histograms<'h, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        all: impl IntoIterator<Item = ([(&'static str, &'h str); N], &'h Histogram)>,
    ) -> Written {
        let mut encoder = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, histogram) in all {
            let (sum, count) = histogram.read(&mut self.buckets);
            let mut encoder = encoder.encode_family(&labels)?;
            encoder.encode_histogram::<NoLabelSet>(sum, count, &self.buckets, None)?;
        }
        Ok(())
    }
}

fn labels(pair: &Pair) -> [(&'static str, &str); 2] {
    [("queue", &pair.queue), ("kind", &pair.kind)]
}

fn count(encoder: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, n: u64) -> Written {
    encoder.encode_family(labels)?.encode_counter(&n, None::<&Exemplar<NoLabelSet, f64>>)
}

fn level(encoder: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, n: u64) -> Written {
    encoder.encode_family(labels)?.encode_gauge(&i64::try_from(n).unwrap_or(i64::MAX))
}
