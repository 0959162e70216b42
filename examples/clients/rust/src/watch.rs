//! For the owners of jobs: follow one, and what it writes, to the end.

use std::cell::Cell;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::sleep;
use tonic::{Code, Response, Status, Streaming};

use crate::Service;
use crate::failure::{has_reason, retry_delay};
use crate::pb::watch_job_response::Content;
use crate::pb::watch_output_request::From;
use crate::pb::{Job, JobStatus, WatchJobRequest, WatchOutputRequest};
use crate::print::{message, messages, print};

#[derive(Args)]
pub struct Watch {
    #[command(flatten)]
    service: Service,
    /// The owner of the job
    #[arg(long)]
    user: String,
    /// Which job
    #[arg(long)]
    job: String,
    /// The last version seen
    #[arg(long, default_value_t = 0)]
    after_version: i64,
}

/// Follows a job to its end.
pub async fn watch(options: Watch) -> Result<(), Status> {
    let client = options.service.client();
    let seen = Cell::new(options.after_version);
    let open = async || {
        let request = WatchJobRequest {
            job_id: options.job.clone(),
            user_id: options.user.clone(),
            after_version: seen.get(),
            ..Default::default()
        };
        client.jobs().watch_job(request).await
    };
    follow(open, |answer| {
        let Some(Content::Job(job)) = answer.content else {
            return false; // A heartbeat.
        };
        let ended = has_ended(&job);
        if ended || job.version > seen.get() {
            seen.set(job.version);
            let transitions = messages(&answer.transitions);
            print(json!({"event": "changed", "job": message(&job), "transitions": transitions}));
        }
        ended
    })
    .await
}

#[derive(Args)]
pub struct Output {
    #[command(flatten)]
    service: Service,
    /// The owner of the job
    #[arg(long)]
    user: String,
    /// Which job
    #[arg(long)]
    job: String,
    /// How much of it was seen
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    after_offset: i64,
}

/// Follows what a job writes, until nothing can come any more.
pub async fn output(options: Output) -> Result<(), Status> {
    let client = options.service.client();
    let seen = Cell::new(options.after_offset);
    let open = async || {
        let request = WatchOutputRequest {
            job_id: options.job.clone(),
            user_id: options.user.clone(),
            from: Some(From::AfterOffset(seen.get())),
            ..Default::default()
        };
        client.jobs().watch_output(request).await
    };
    follow(open, |answer| {
        // A message without news is a heartbeat, or the first one of a stream.
        if answer.closed || answer.next_offset > seen.get() {
            seen.set(answer.next_offset);
            print(json!({"event": "output", "output": message(&answer)}));
        }
        answer.closed
    })
    .await
}

/// Reads as many streams as it takes. `open` opens one that goes on after what was taken; `take`
/// returns whether a message was the last one.
async fn follow<A>(
    open: impl AsyncFn() -> Result<Response<Streaming<A>>, Status>,
    take: impl Fn(A) -> bool,
) -> Result<(), Status> {
    let mut failures = 0;
    loop {
        let delay = match read(&open, &take, &mut failures).await {
            Ok(true) => return Ok(()),
            // OK before the last message: never the server's, a proxy's perhaps.
            Ok(false) => Duration::ZERO,
            Err(status) if is_transient(&status) => retry_delay(&status).unwrap_or_default(),
            Err(status) => return Err(status),
        };
        // Full jitter, on top of what the server asks for: after a restart all watchers come
        // back, but not at once.
        let limit = Duration::from_millis(100 << failures.min(10)).min(Duration::from_secs(5));
        sleep(delay + limit.mul_f64(fastrand::f64())).await;
        failures += 1;
    }
}

/// Reads one stream; returns whether it had the last message.
async fn read<A>(
    open: &impl AsyncFn() -> Result<Response<Streaming<A>>, Status>,
    take: &impl Fn(A) -> bool,
    failures: &mut u32,
) -> Result<bool, Status> {
    let mut stream = open().await?.into_inner();
    let mut first = true;
    while let Some(answer) = stream.message().await? {
        if take(answer) {
            return Ok(true);
        }
        // Not after the message that greets each stream: a server that breaks right after it
        // would be called ten times a second.
        if !first {
            *failures = 0;
        }
        first = false;
    }
    Ok(false)
}

fn has_ended(job: &Job) -> bool {
    matches!(job.status(), JobStatus::Completed | JobStatus::Partial | JobStatus::Failed)
}

/// Whether another stream may succeed.
fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::Cancelled | Code::DeadlineExceeded => {
            true
        }
        // A stream reset on the way, unless the server says why.
        Code::Internal | Code::Unknown => !has_reason(status),
        _ => false,
    }
}
