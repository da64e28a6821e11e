//! `naq system migrate …` as it can be typed.

use clap::{Args, ValueEnum};
use naq_config::StoreUrl;
use naq_services::foreign::ForeignSystem;

/// `naq system migrate …`
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The store to be emptied: sqlite://PATH or nats://HOST:PORT[,…]
    #[arg(long, value_name = "URL")]
    pub from: StoreUrl,
    /// The store that gets everything
    #[arg(long, value_name = "URL")]
    pub to: StoreUrl,
    /// The prefix of the source on its NATS server, in place of queues.prefix
    #[arg(long, value_name = "NAME")]
    pub from_prefix: Option<String>,
    /// The same for the destination
    #[arg(long, value_name = "NAME")]
    pub to_prefix: Option<String>,
    /// Only count what there is to be moved
    #[arg(long)]
    pub dry_run: bool,
    /// Read the queued jobs of another system at --from: NAQ for Python on NATS, or OmniQ (sqlite:PATH of its file or directory)
    #[arg(long, value_name = "naq-python|omniq", conflicts_with = "from_prefix", hide_possible_values = true)]
    pub from_system: Option<FromSystem>,
    /// What a function of that system is called as a kind here: mails:send_mail=send_mail. Repeatable
    #[arg(long, value_name = "OLD=NEW", requires = "from_system", value_parser = parse_kind)]
    pub kind: Vec<(String, String)>,
}

/// A system whose queued jobs can be read.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FromSystem {
    /// NAQ for Python
    NaqPython,
    /// OmniQ
    Omniq,
}

impl From<FromSystem> for ForeignSystem {
    fn from(system: FromSystem) -> Self {
        match system {
            FromSystem::NaqPython => Self::NaqPython,
            FromSystem::Omniq => Self::OmniQ,
        }
    }
}

fn parse_kind(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((path, kind)) if !path.is_empty() && !kind.is_empty() => Ok((path.to_owned(), kind.to_owned())),
        _ => Err(format!("{text:?} is not OLD=NEW")),
    }
}
