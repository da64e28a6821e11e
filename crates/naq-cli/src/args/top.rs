//! `naq top` as types.

use std::time::Duration;

use clap::Args;
use naq_models::QueueName;

/// `naq top …`
#[derive(Debug, Args)]
pub struct TopArgs {
    /// How often the store is read
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,
    /// Only these queues
    #[arg(long = "queue", value_name = "QUEUE", num_args = 1..)]
    pub queues: Vec<QueueName>,
    /// Print what the screen would show once, as plain text, and end
    #[arg(long)]
    pub once: bool,
}

/// For clap: a duration that is neither a burden for the store nor too long to call the screen live.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = super::parse_duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("an interval is between 100ms and 1h".to_owned())
    }
}
