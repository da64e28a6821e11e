//! The crew: workers and producers, and what is done to them.
//!
//! Invariant: a fault is written down before it is done, and its end after. Whoever has died is replaced, as a supervisor would.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use rand::{RngExt as _, rngs::StdRng};
use tokio::time::sleep;

use super::{
    chronicle::Chronicle,
    proxy::{Link, Proxy},
    stage::Stage,
};
use crate::{LEASE, NaqBinary, NaqProcess, Signal, faults::Scope};

/// From being told to end until the end.
const ENDED: Duration = Duration::from_secs(60);

/// From one look at who has ended to the next.
const SUPERVISED: Duration = Duration::from_secs(1);

/// The programs of a crew.
#[derive(Debug, Clone)]
pub struct Programs {
    /// A worker with the test jobs.
    pub worker: PathBuf,
    /// What enqueues: `chaos-producer`.
    pub producer: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Worker,
    Producer,
}

/// One place in the crew: a process and its ways to the servers, which outlive it.
#[derive(Debug)]
struct Member {
    role: Role,
    number: usize,
    binary: NaqBinary,
    links: Vec<Proxy>,
    process: NaqProcess,
}

impl Member {
    fn set_links(&self, link: Link) {
        for proxy in &self.links {
            proxy.set(link);
        }
    }
}

#[derive(Debug)]
pub(super) struct Crew<'a> {
    chronicle: &'a Chronicle,
    stage: &'a Stage,
    history: PathBuf,
    dice: StdRng,
    members: Vec<Member>,
    started: usize,
    /// How many ended without being told to.
    pub(super) gave_up: usize,
}

impl<'a> Crew<'a> {
    pub(super) async fn start(
        chronicle: &'a Chronicle,
        stage: &'a Stage,
        programs: &Programs,
        folder: &std::path::Path,
        mut dice: StdRng,
        (workers, producers): (usize, usize),
    ) -> Result<Crew<'a>> {
        let roles = [vec![Role::Worker; workers], vec![Role::Producer; producers]].concat();
        let mut crew = Crew {
            chronicle,
            stage,
            history: folder.join("history"),
            dice: rand::SeedableRng::seed_from_u64(dice.random()),
            members: Vec::new(),
            started: 0,
            gave_up: 0,
        };
        for (number, role) in roles.into_iter().enumerate() {
            let mut links = Vec::new();
            for target in &stage.addresses {
                links.push(Proxy::start(*target, dice.random()).await?);
            }
            let addresses: Vec<_> = links.iter().map(Proxy::address).collect();
            let program = match role {
                Role::Worker => &programs.worker,
                Role::Producer => &programs.producer,
            };
            let home = folder.join(format!("{role:?}-{number}").to_lowercase());
            std::fs::create_dir_all(&home)?;
            let machine = stage.clock.env().into_iter().chain(stage.disk.env());
            let binary = NaqBinary::at(program.clone(), &home).envs(stage.env(&addresses)).envs(machine);
            let process = crew.spawn(role, number, &binary)?;
            crew.members.push(Member { role, number, binary, links, process });
        }
        Ok(crew)
    }

    fn spawn(&mut self, role: Role, number: usize, binary: &NaqBinary) -> Result<NaqProcess> {
        self.started += 1;
        let name = format!("{}{number}-{}", if role == Role::Worker { "w" } else { "p" }, self.started);
        match role {
            Role::Worker => binary.spawn(&["worker", "start", "--name", &name, "--concurrency", "4"]),
            Role::Producer => {
                binary.spawn(&[name, self.history.display().to_string(), self.dice.random::<u64>().to_string()])
            }
        }
    }

    /// Starts another process in a place; the one that was there.
    fn take_over(&mut self, place: usize) -> Result<NaqProcess> {
        let Member { role, number, ref binary, .. } = self.members[place];
        let binary = binary.clone();
        let new = self.spawn(role, number, &binary)?;
        Ok(std::mem::replace(&mut self.members[place].process, new))
    }

    /// Whoever has ended without being told to is replaced.
    fn revive(&mut self) -> Result<()> {
        for place in 0..self.members.len() {
            let process = &mut self.members[place].process;
            if process.has_ended() {
                self.chronicle.died(process.pid())?;
                let words = process.stderr();
                let last = words.lines().rev().take(3).collect::<Vec<_>>().join(" | ");
                self.chronicle.say(&format!("gave up: {last}"));
                self.gave_up += 1;
                self.take_over(place)?;
            }
        }
        Ok(())
    }

    /// Does one thing at random, and undoes it.
    pub(super) async fn suffer(&mut self) -> Result<()> {
        self.revive()?;
        let nap = LEASE.mul_f64(self.dice.random_range(0.1..0.8));
        let sleep = LEASE.mul_f64(self.dice.random_range(1.2..3.0));
        let place = self.dice.random_range(0..self.members.len());
        match self.dice.random_range(0..100) {
            0..16 => self.kill(&[place], "").await,
            16..26 => self.kill(&[self.leader()], " that leads").await,
            26..30 => self.kill(&(0..self.members.len()).collect::<Vec<_>>(), ": all at once").await,
            30..38 => self.stop(place, nap, "").await,
            38..48 => self.stop(place, sleep, "").await,
            48..56 => self.stop(self.leader(), sleep, " that leads").await,
            56..68 => self.replace(place).await,
            68..74 => self.shift(sleep).await,
            _ if self.stage.addresses.is_empty() => self.kill(&[place], "").await,
            74..82 => self.spoil(place, "a link is cut for a moment", Link::Cut, nap).await,
            82..90 => self.spoil(place, "a link is cut", Link::Cut, sleep).await,
            90..95 => {
                let delay = Duration::from_millis(self.dice.random_range(5..200));
                self.spoil(place, "a link is slow", Link::Slow(delay), sleep).await
            }
            _ => {
                let link = Link::Lossy(self.dice.random_range(0.05..0.4));
                self.spoil(place, "a link loses much", link, sleep).await
            }
        }
    }

    /// The place of the worker that was the last to say that it leads, as far as that can be seen.
    fn leader(&self) -> usize {
        let said = |member: &Member| {
            let words = member.process.stderr();
            words.lines().rev().find(|line| line.contains("leads the scheduler")).map(str::to_owned)
        };
        // A line begins with its time.
        let workers = self.members.iter().enumerate().filter(|(_, member)| member.role == Role::Worker);
        workers.filter_map(|(place, member)| Some((said(member)?, place))).max().map_or(0, |(_, place)| place)
    }

    fn what(&self, place: usize) -> &'static str {
        match self.members[place].role {
            Role::Worker => "worker",
            Role::Producer => "producer",
        }
    }

    async fn kill(&mut self, places: &[usize], which: &str) -> Result<()> {
        let mut faults = Vec::new();
        for &place in places {
            let name = format!("kill -9 of a {}{which}", self.what(place));
            faults.push(self.chronicle.fault(&name, Scope::Process(self.members[place].process.pid()))?);
        }
        for &place in places {
            self.members[place].process.signal(Signal::KILL).ok();
        }
        for &place in places {
            let process = &mut self.members[place].process;
            process.ended().await?;
            self.chronicle.died(process.pid())?;
        }
        sleep(Duration::from_millis(self.dice.random_range(0..1_500))).await;
        for (&place, fault) in places.iter().zip(faults) {
            self.take_over(place)?;
            self.chronicle.healed(fault)?;
        }
        Ok(())
    }

    async fn stop(&mut self, place: usize, time: Duration, which: &str) -> Result<()> {
        let process = &self.members[place].process;
        let length = if time > LEASE { "longer than a lease" } else { "for a moment" };
        let name = format!("SIGSTOP of a {}{which}, {length}", self.what(place));
        let fault = self.chronicle.fault(&name, Scope::Frozen(process.pid()))?;
        process.signal(Signal::STOP).ok();
        sleep(time).await;
        process.signal(Signal::CONT).ok();
        self.chronicle.healed(fault)
    }

    /// A deploy: the new one is there before the old one ends.
    async fn replace(&mut self, place: usize) -> Result<()> {
        let old_pid = self.members[place].process.pid();
        let name = format!("a {} is replaced", self.what(place));
        let fault = self.chronicle.fault(&name, Scope::Process(old_pid))?;
        let mut old = self.take_over(place)?;
        sleep(Duration::from_millis(300)).await;
        end(&mut old).await?;
        self.chronicle.died(old_pid)?;
        self.chronicle.healed(fault)
    }

    async fn spoil(&mut self, place: usize, name: &str, link: Link, time: Duration) -> Result<()> {
        let member = &self.members[place];
        let fault = self.chronicle.fault(name, Scope::Process(member.process.pid()))?;
        member.set_links(link);
        sleep(time).await;
        member.set_links(Link::Whole);
        self.chronicle.healed(fault)
    }

    async fn shift(&mut self, time: Duration) -> Result<()> {
        let seconds = self.dice.random_range(-20..20);
        let fault = self.chronicle.fault("the wall clocks jump, and back", Scope::Everybody)?;
        self.stage.clock.set(seconds)?;
        sleep(time).await;
        self.stage.clock.set(0)?;
        self.chronicle.healed(fault)
    }

    /// The producers end what they have begun; the workers go on.
    pub(super) async fn stop_producing(&mut self) -> Result<()> {
        self.revive()?;
        while let Some(place) = self.members.iter().position(|member| member.role == Role::Producer) {
            let mut member = self.members.remove(place);
            end(&mut member.process).await?;
        }
        Ok(())
    }

    /// Waits, as long as nobody breaks anything; whoever ends is replaced.
    pub(super) async fn work_until(&mut self, done: impl Future<Output = Result<()>>) -> Result<()> {
        let supervise = async {
            loop {
                self.revive()?;
                sleep(SUPERVISED).await;
            }
        };
        tokio::select! {
            done = done => done,
            broken = supervise => broken,
        }
    }

    /// New workers in place of all: whoever opens a queue removes what a killed server of 2.9 has brought back of jobs that were
    /// acknowledged, which it lists as pending and never delivers.
    pub(super) async fn deploy(&mut self) -> Result<()> {
        for place in 0..self.members.len() {
            self.replace(place).await?;
        }
        Ok(())
    }

    /// The workers end.
    pub(super) async fn dismiss(&mut self) -> Result<()> {
        for member in &mut self.members {
            end(&mut member.process).await?;
        }
        Ok(())
    }
}

async fn end(process: &mut NaqProcess) -> Result<()> {
    process.signal(Signal::TERM).ok();
    let ended = tokio::time::timeout(ENDED, process.ended()).await;
    ensure!(ended.is_ok(), "not ended {ENDED:?} after SIGTERM:\n{}", process.stderr());
    Ok(())
}
