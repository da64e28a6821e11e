//! The storm: what is done to the store itself.

use std::time::Duration;

use anyhow::Result;
use rand::{RngExt as _, rngs::StdRng};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    chronicle::Chronicle,
    stage::{PLENTY, Stage, healthy, limited},
};
use crate::{DiskFault, LEASE, NatsServer, RawNats, Signal, faults::Scope, lock_file, write_foreign_rows};

/// For a cluster to have a leader again.
const HEALTHY: Duration = Duration::from_secs(60);
/// How long a server that is slow does nothing, time and again.
const STOPPED: Duration = Duration::from_millis(45);
const QUEUE_STREAM: &str = "naq_queue_default";

#[derive(Debug)]
pub(super) struct Storm<'a> {
    pub(super) chronicle: &'a Chronicle,
    pub(super) stage: &'a Stage,
    pub(super) servers: Vec<NatsServer>,
    pub(super) forgets_at_its_limit: bool,
    pub(super) dice: StdRng,
}

impl Storm<'_> {
    /// Breaks something at random, and mends it.
    pub(super) async fn break_out(&mut self) -> Result<()> {
        let moment = Duration::from_millis(self.dice.random_range(50..1_500));
        let long = LEASE.mul_f64(self.dice.random_range(1.0..3.0));
        let time = if self.dice.random_bool(0.5) { moment } else { long };
        let roll = self.dice.random_range(0..100);
        let any = self.dice.random_range(0..self.servers.len().max(1));
        match self.servers.len() {
            0 => match roll {
                0..45 => self.lock(time).await,
                45..55 => self.write_rows().await,
                55..78 => self.spoil_disk("the disk is full", DiskFault::Full, time).await,
                _ => {
                    let longer = Duration::from_millis(self.dice.random_range(20..500));
                    self.spoil_disk("the disk is slow", DiskFault::Slow(longer), time).await
                }
            },
            // 2.9 drops a message that is over the account's limit after it has dropped the one that it replaces: schedules and
            // retries are lost, and no client can help it.
            1 if self.forgets_at_its_limit && (65..80).contains(&roll) => Ok(()),
            1 => match roll {
                0..45 => self.kill(0, time, "kill -9 of the server").await,
                45..57 => self.stutter(0, time, "the server is silent").await,
                57..65 => self.drag(0, time, "the server is slow").await,
                65..80 => self.refuse(time).await,
                _ => self.intrude().await,
            },
            _ => match roll {
                0..30 => self.kill(any, time, "kill -9 of a server of three").await,
                30..50 => {
                    let of = format!("STREAM.INFO.{QUEUE_STREAM}");
                    self.kill_leader("the queue's stream", &of, "/cluster/leader", time).await
                }
                50..65 => {
                    let of = format!("CONSUMER.LIST.{QUEUE_STREAM}");
                    self.kill_leader("the queue's consumer", &of, "/consumers/0/cluster/leader", time).await
                }
                65..73 => self.stutter(any, time, "a server of three is silent").await,
                73..80 => self.drag(any, time, "a server of three is slow").await,
                80..90 => self.roll().await,
                _ => self.intrude().await,
            },
        }
    }

    /// The place of the server that an answer names as leader.
    async fn leader(&self, subject: &str, pointer: &str) -> Option<usize> {
        let answer = async {
            let mut raw = RawNats::connect(self.servers[0].address()).await?;
            raw.request_json(&format!("$JS.API.{subject}"), &Value::Null).await
        };
        let answer = answer.await.ok()?;
        let name = answer.pointer(pointer)?.as_str()?;
        self.servers.iter().position(|server| server.name() == name)
    }

    /// Nothing if nobody can be asked who it is.
    async fn kill_leader(&mut self, what: &str, subject: &str, pointer: &str, time: Duration) -> Result<()> {
        match self.leader(subject, pointer).await {
            Some(place) => self.kill(place, time, &format!("kill -9 of the server that leads {what}")).await,
            None => Ok(()),
        }
    }

    async fn kill(&mut self, place: usize, time: Duration, name: &str) -> Result<()> {
        let fault = self.chronicle.fault(name, Scope::Store)?;
        self.servers[place].kill()?;
        sleep(time).await;
        self.servers[place].restart().await?;
        healthy(&self.servers, HEALTHY).await?;
        self.chronicle.healed(fault)
    }

    /// It is connected and does nothing: a disk that hangs, a machine that swaps.
    async fn stutter(&mut self, place: usize, time: Duration, name: &str) -> Result<()> {
        let fault = self.chronicle.fault(name, Scope::Store)?;
        self.servers[place].signal(Signal::STOP)?;
        sleep(time).await;
        self.servers[place].signal(Signal::CONT)?;
        healthy(&self.servers, HEALTHY).await?;
        self.chronicle.healed(fault)
    }

    /// It does everything, a tenth as fast: a disk that is slow, a machine that others use up.
    async fn drag(&mut self, place: usize, time: Duration, name: &str) -> Result<()> {
        let fault = self.chronicle.fault(name, Scope::Store)?;
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.servers[place].signal(Signal::STOP)?;
            sleep(STOPPED).await;
            self.servers[place].signal(Signal::CONT)?;
            sleep(STOPPED / 9).await;
        }
        healthy(&self.servers, HEALTHY).await?;
        self.chronicle.healed(fault)
    }

    /// The servers are restarted one after the other, as for an update.
    async fn roll(&mut self) -> Result<()> {
        let fault = self.chronicle.fault("rolling restart of the servers", Scope::Store)?;
        for place in 0..self.servers.len() {
            self.servers[place].stop().await?;
            self.servers[place].restart().await?;
            healthy(&self.servers, HEALTHY).await?;
            sleep(Duration::from_secs(2)).await;
        }
        self.chronicle.healed(fault)
    }

    /// The account may store nothing more.
    async fn refuse(&mut self, time: Duration) -> Result<()> {
        let fault = self.chronicle.fault("the account is at its limit", Scope::Everybody)?;
        self.servers[0].options.extra = limited(1);
        self.servers[0].reload()?;
        sleep(time).await;
        self.servers[0].options.extra = limited(PLENTY);
        self.servers[0].reload()?;
        self.chronicle.healed(fault)
    }

    /// Somebody writes what is no job to the queue.
    async fn intrude(&mut self) -> Result<()> {
        let fault = self.chronicle.fault("foreign messages in the queue", Scope::Nobody)?;
        let mut raw = RawNats::connect(self.servers[0].address()).await?;
        for number in 0..5 {
            let mut payload = vec![0; self.dice.random_range(0..200)];
            self.dice.fill(&mut payload[..]);
            raw.publish(&format!("naq.queue.default.{number}.foreign-{}", self.dice.random::<u64>()), &payload).await?;
        }
        raw.ping().await?;
        self.chronicle.healed(fault)
    }

    async fn spoil_disk(&mut self, name: &str, wrong: DiskFault, time: Duration) -> Result<()> {
        let fault = self.chronicle.fault(name, Scope::Everybody)?;
        self.stage.disk.set(wrong)?;
        sleep(time).await;
        self.stage.disk.set(DiskFault::Nothing)?;
        self.chronicle.healed(fault)
    }

    /// Somebody writes what is no job to the file.
    async fn write_rows(&mut self) -> Result<()> {
        let fault = self.chronicle.fault("foreign rows in the file", Scope::Nobody)?;
        write_foreign_rows(&self.stage.database, &format!("foreign {}", self.dice.random::<u64>())).await?;
        self.chronicle.healed(fault)
    }

    async fn lock(&mut self, time: Duration) -> Result<()> {
        let fault = self.chronicle.fault("another program locks the file", Scope::Everybody)?;
        lock_file(&self.stage.database, time).await?;
        self.chronicle.healed(fault)
    }
}
