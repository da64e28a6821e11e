//! `naq system migrate …` as it can be typed.

use clap::Args;
use naq_config::StoreUrl;

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
}
