//! For the owners of jobs: follow one to its end.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::Service;
use crate::connect::Client;
use crate::failure::{has_reason, retry_delay};
use crate::pb::watch_job_response::Content;
use crate::pb::{Job, JobStatus, WatchJobRequest};
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

/// Follows a job to its end, over as many streams as that takes.
pub async fn watch(options: Watch) -> Result<(), Status> {
    let client = options.service.client();
    let mut request = WatchJobRequest {
        job_id: options.job,
        user_id: options.user,
        after_version: options.after_version,
        ..Default::default()
    };
    let mut failures = 0;
    loop {
        let delay = match follow(&client, &mut request, &mut failures).await {
            Ok(true) => return Ok(()),
            // OK before the job has ended: never the server's, a proxy's perhaps.
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

/// Reads one stream; returns whether it delivered the job's terminal state. Sets in the request
/// where the next one resumes.
async fn follow(
    client: &Client,
    request: &mut WatchJobRequest,
    failures: &mut u32,
) -> Result<bool, Status> {
    let mut stream = client.jobs().watch_job(request.clone()).await?.into_inner();
    while let Some(answer) = stream.message().await? {
        let Some(Content::Job(job)) = answer.content else {
            *failures = 0; // A heartbeat.
            continue;
        };
        let ended = has_ended(&job);
        let news = job.version > request.after_version;
        if news || ended {
            request.after_version = job.version;
            let transitions = messages(&answer.transitions);
            print(json!({"event": "changed", "job": message(&job), "transitions": transitions}));
        }
        if ended {
            return Ok(true);
        }
        // Not after the snapshot that greets each stream: a server that breaks right after it
        // would be called ten times a second.
        if news {
            *failures = 0;
        }
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
