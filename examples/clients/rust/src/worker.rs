//! For those who do the work: take a job, report on it, end it.

use std::time::Duration;

use clap::{Args, ValueEnum};
use prost_types::Struct;
use serde_json::json;
use tonic::Status;

use crate::Service;
use crate::connect::{Client, DEADLINE, once, unary};
use crate::pb::{
    ClaimJobsRequest, CreateAssetRequest, Job, JobError, MarkCompletedRequest, MarkFailedRequest,
    MarkPartialRequest, UpdateProgressRequest,
};
use crate::print::{message, print, read_struct};

#[derive(Args)]
pub struct Work {
    #[command(flatten)]
    service: Service,
    /// The worker's name for itself
    #[arg(long)]
    worker: String,
    /// The type of jobs that it can do
    #[arg(long)]
    r#type: String,
    /// Seconds to wait for a job
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u32,
    /// How the work ends
    #[arg(long, value_enum, default_value = "completed")]
    outcome: Outcome,
    /// What the worker says
    #[arg(long, default_value = "half done")]
    message: String,
    /// File with the outcome
    #[arg(long, value_name = "FILE", value_parser = read_struct)]
    result: Option<Struct>,
    /// Size of what the worker made
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    asset_size: i64,
}

#[derive(Clone, ValueEnum)]
enum Outcome {
    Completed,
    Partial,
    Failed,
}

/// Does one job, if there is one. Each call carries the attempt: should the lease expire and
/// the job pass to another worker, this one is refused instead of heard.
pub async fn work(options: Work) -> Result<(), Status> {
    let client = options.service.client();
    let wait = Duration::from_secs(options.wait.into());
    let request = ClaimJobsRequest {
        worker_id: options.worker.clone(),
        job_types: vec![options.r#type.clone()],
        max_jobs: 1,
        lease_duration: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        wait: Some(prost_types::Duration { seconds: options.wait.into(), nanos: 0 }),
    };
    // Once: a claim whose answer was lost may have taken a job.
    let claim =
        once(wait + DEADLINE, request, async |r| client.workers().claim_jobs(r).await).await?;
    let Some(job) = claim.jobs.into_iter().next() else {
        print(json!({"event": "idle"}));
        return Ok(());
    };
    print(json!({"event": "claimed", "job": message(&job)}));

    // Work that takes longer than the lease reports within it; a report without progress is a
    // sign of life. Where cancel_requested is true, tidy up and fail.
    let request = UpdateProgressRequest {
        job_id: job.id.clone(),
        attempt: Some(job.attempt),
        progress: Some(50),
        progress_message: Some(options.message.clone()),
    };
    let report = unary(request, async |r| client.workers().update_progress(r).await).await?;
    print(json!({
        "event": "progressed",
        "job": message(&report.job.unwrap_or_default()),
        "applied": report.applied,
        "cancel_requested": report.cancel_requested,
    }));

    let request = CreateAssetRequest {
        job_id: job.id.clone(),
        attempt: Some(job.attempt),
        asset_type: "application/octet-stream".to_owned(),
        storage_path: format!("results/{}", job.id),
        file_size: options.asset_size,
        request_id: format!("attempt-{}", job.attempt),
        ..Default::default()
    };
    let linked = unary(request, async |r| client.workers().create_asset(r).await).await?;
    print(json!({"event": "linked", "asset": message(&linked.asset.unwrap_or_default())}));

    let ended = end(&client, job, options).await?;
    print(json!({"event": "ended", "job": message(&ended)}));
    Ok(())
}

async fn end(client: &Client, job: Job, options: Work) -> Result<Job, Status> {
    let (job_id, attempt, result) = (job.id, Some(job.attempt), options.result);
    let error = |reason: &str| {
        Some(JobError { reason: reason.to_owned(), message: options.message, details: None })
    };
    let assets = Vec::new();
    let ended = match options.outcome {
        Outcome::Completed => {
            let request = MarkCompletedRequest { job_id, attempt, result, assets };
            unary(request, async |r| client.workers().mark_completed(r).await).await?.job
        }
        Outcome::Partial => {
            let error = error("SOME_MISSING");
            let request = MarkPartialRequest { job_id, attempt, result, error, assets };
            unary(request, async |r| client.workers().mark_partial(r).await).await?.job
        }
        Outcome::Failed => {
            let error = error("NOT_DONE");
            let request = MarkFailedRequest { job_id, attempt, result, error, assets };
            unary(request, async |r| client.workers().mark_failed(r).await).await?.job
        }
    };
    Ok(ended.unwrap_or_default())
}

#[derive(Args)]
pub struct Complete {
    #[command(flatten)]
    service: Service,
    /// Which job
    #[arg(long)]
    job: String,
    /// The caller's attempt [default: not fenced]
    #[arg(long)]
    attempt: Option<i32>,
    /// File with the outcome
    #[arg(long, value_name = "FILE", value_parser = read_struct)]
    result: Option<Struct>,
}

pub async fn complete(options: Complete) -> Result<(), Status> {
    let client = options.service.client();
    let request = MarkCompletedRequest {
        job_id: options.job,
        attempt: options.attempt,
        result: options.result,
        ..Default::default()
    };
    let answer = unary(request, async |r| client.workers().mark_completed(r).await).await?;
    print(json!({"event": "ended", "job": message(&answer.job.unwrap_or_default())}));
    Ok(())
}
