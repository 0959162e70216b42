//! For those who do the work: take a job, report on it, end it.

use std::time::Duration;

use clap::{Args, ValueEnum};
use prost_types::Struct;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::Service;
use crate::connect::unary;
use crate::pb::job_update::Update;
use crate::pb::{
    AssetUpdate, FinishUpdate, Job, JobError, JobStatus, JobUpdate, MarkCompletedRequest, NewAsset,
    OutputUpdate, ProgressUpdate, WorkHello, WorkRequest,
};
use crate::print::{message, print, read_struct};

/// A third of the lease, which is a minute unless set.
const HEARTBEAT: Duration = Duration::from_secs(20);

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
    /// How the work ends
    #[arg(long, value_enum, default_value = "completed")]
    outcome: Outcome,
    /// What the worker says
    #[arg(long, default_value = "half done")]
    message: String,
    /// What it appends; may be repeated
    #[arg(long, value_name = "TEXT")]
    output: Vec<String>,
    /// File with the outcome
    #[arg(long, value_name = "FILE", value_parser = read_struct)]
    result: Option<Struct>,
    /// Size of what the worker made
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    asset_size: i64,
}

#[derive(Clone, PartialEq, ValueEnum)]
enum Outcome {
    Completed,
    Partial,
    Failed,
    /// A retryable failure, then completed
    Retried,
}

/// Does one job, as soon as there is one, over the stream that carries all of a worker's work:
/// jobs to it, updates of them from it, and a result for each update.
pub async fn work(options: Work) -> Result<(), Status> {
    let hello = WorkHello {
        worker_id: options.worker.clone(),
        job_types: vec![options.r#type.clone()],
        ..Default::default()
    };
    let first = WorkRequest { hello: Some(hello), slots: Some(1), updates: vec![] };
    let (requests, outgoing) = mpsc::channel(1);
    let heartbeats = requests.clone();
    tokio::spawn(async move {
        let mut request = first;
        // Any message renews the leases; without one no more jobs come.
        while heartbeats.send(request).await.is_ok() {
            sleep(HEARTBEAT).await;
            request = WorkRequest::default();
        }
    });
    let mut client = options.service.client().workers();
    let mut answers = client.work(ReceiverStream::new(outgoing)).await?.into_inner();
    let mut unanswered = vec!["progressed"];
    unanswered.resize(1 + options.output.len(), "appended");
    unanswered.extend(["linked", "ended"]);
    let mut unanswered = unanswered.into_iter();
    while unanswered.len() > 0
        && let Some(answer) = answers.message().await?
    {
        for job in answer.jobs {
            print(json!({"event": "claimed", "job": message(&job)}));
            // Where it is not taken any more, reading says why.
            let _ = requests.send(finish(job, &options)).await;
        }
        // One for each update, in their order.
        for (result, event) in answer.results.iter().zip(&mut unanswered) {
            print(json!({"event": event, "result": message(result)}));
        }
        // A signal would say that the job is cancelled or lost: stop, and release a cancelled one.
    }
    Ok(())
}

/// Does a job and reports on it. Each update carries the attempt: should the lease expire and
/// the job pass to another worker, it is refused instead of heard.
fn finish(job: Job, options: &Work) -> WorkRequest {
    let progress = ProgressUpdate {
        progress: Some(50),
        progress_message: Some(options.message.clone()),
        ..Default::default()
    };
    let asset = NewAsset {
        asset_type: "application/octet-stream".to_owned(),
        storage_path: format!("results/{}/{}", job.id, job.attempt),
        file_size: options.asset_size,
        ..Default::default()
    };
    let request_id = format!("attempt-{}", job.attempt);
    // With attempts left the job waits for the next one, instead of being FAILED.
    let retryable = options.outcome == Outcome::Retried && job.attempt == 1;
    let (status, reason) = match options.outcome {
        Outcome::Partial => (JobStatus::Partial, Some("SOME_MISSING")),
        Outcome::Failed => (JobStatus::Failed, Some("NOT_DONE")),
        Outcome::Retried if retryable => (JobStatus::Failed, Some("NOT_DONE")),
        Outcome::Completed | Outcome::Retried => (JobStatus::Completed, None),
    };
    let error = reason.map(|reason| JobError {
        reason: reason.to_owned(),
        message: options.message.clone(),
        details: None,
    });
    let result = options.result.clone();
    // Numbered, it can be sent again over another stream, and is appended once.
    let pieces = options.output.iter().zip(1..).map(|(text, number)| {
        let data = text.clone().into_bytes();
        Update::Output(OutputUpdate { data, number, ..Default::default() })
    });
    let mut updates = vec![Update::Progress(progress)];
    updates.extend(pieces);
    updates.extend([
        Update::Asset(AssetUpdate { asset: Some(asset), request_id }),
        Update::Finish(FinishUpdate {
            status: status.into(),
            result,
            error,
            retryable,
            ..Default::default()
        }),
    ]);
    let of_job =
        |update| JobUpdate { job_id: job.id.clone(), attempt: job.attempt, update: Some(update) };
    // What is ready goes in one message. No slots: no more jobs.
    WorkRequest { hello: None, slots: Some(0), updates: updates.into_iter().map(of_job).collect() }
}

#[derive(Args)]
pub struct Complete {
    #[command(flatten)]
    service: Service,
    /// Which job
    #[arg(long)]
    job: String,
    /// The caller's attempt [default: any]
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
        any_attempt: options.attempt.is_none(),
        finish: Some(FinishUpdate { result: options.result, ..Default::default() }),
    };
    let answer = unary(request, async |r| client.workers().mark_completed(r).await).await?;
    print(json!({"event": "ended", "job": message(&answer.job.unwrap_or_default())}));
    Ok(())
}
