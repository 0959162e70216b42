//! For operators: how many jobs are held at once.

use clap::Args;
use serde_json::json;
use tonic::Status;

use crate::Service;
use crate::connect::unary;
use crate::pb::SetConcurrencyLimitRequest;
use crate::print::{message, print};

#[derive(Args)]
pub struct Limit {
    #[command(flatten)]
    service: Service,
    /// A concurrency key, or the part of keys before their first `:`
    #[arg(long)]
    name: String,
    /// How many jobs with one such key are held at once [default: no limit]
    #[arg(long)]
    max_running: Option<i32>,
}

/// Sets the limit of a concurrency key, over all servers, or removes it.
pub async fn set(options: Limit) -> Result<(), Status> {
    let client = options.service.client();
    let request = SetConcurrencyLimitRequest {
        name: options.name,
        max_running: options.max_running,
    };
    let answer = unary(request, async |r| client.queues().set_concurrency_limit(r).await).await?;
    print(json!({"event": "limited", "limit": message(&answer.limit.unwrap_or_default())}));
    Ok(())
}
