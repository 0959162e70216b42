//! For the owners of jobs: create them, see where they stand.

use clap::Args;
use prost_types::Struct;
use serde_json::json;
use tonic::Status;

use crate::Service;
use crate::connect::unary;
use crate::pb::{CreateJobRequest, GetJobRequest, ListJobsRequest, RetryPolicy, UniquePolicy};
use crate::print::{message, messages, print, read_struct};

#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    service: Service,
    /// The owner of the job
    #[arg(long)]
    user: String,
    /// The type of the job
    #[arg(long)]
    r#type: String,
    /// Makes the call safe to repeat [default: random]
    #[arg(long)]
    request_id: Option<String>,
    /// How long an attempt may go without news
    #[arg(long, value_name = "SECONDS")]
    stall_timeout: Option<i64>,
    /// How often the job is tried [default: once]
    #[arg(long)]
    max_attempts: Option<i32>,
    /// 0 to 9, higher goes first [default: 5]
    #[arg(long)]
    priority: Option<i32>,
    /// The tenant [default: the owner]
    #[arg(long, default_value = "", hide_default_value = true)]
    fairness_key: String,
    /// What the job uses that has a limit
    #[arg(long, default_value = "", hide_default_value = true)]
    concurrency_key: String,
    /// Only one such job that has not ended
    #[arg(long, default_value = "", hide_default_value = true)]
    unique_key: String,
    /// If there is such a job
    #[arg(long, value_parser = ["reject", "return-existing"], default_value = "reject")]
    unique_policy: String,
    /// File with the input
    #[arg(long, value_name = "FILE", value_parser = read_struct)]
    parameters: Option<Struct>,
    /// May be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = divide)]
    labels: Vec<(String, String)>,
}

fn divide(label: &str) -> Result<(String, String), &'static str> {
    let (key, value) = label.split_once('=').ok_or("no = in it")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub async fn create(options: Create) -> Result<(), Status> {
    let client = options.service.client();
    let unique_policy = match options.unique_policy.as_str() {
        "return-existing" => UniquePolicy::ReturnExisting,
        _ => UniquePolicy::Unspecified,
    };
    let request = CreateJobRequest {
        user_id: options.user,
        job_type: options.r#type,
        parameters: options.parameters,
        labels: options.labels.into_iter().collect(),
        // The attempts of one call share it; a caller that may itself be run again keeps it
        // with its own data.
        request_id: options.request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        stall_timeout: options
            .stall_timeout
            .map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        // The pause before each retry has defaults: a second, then twice as long each time.
        retry_policy: options
            .max_attempts
            .map(|max_attempts| RetryPolicy { max_attempts, ..Default::default() }),
        // Who goes next, and how many at once: docs/guides/priorities.md and limits.md.
        priority: options.priority,
        fairness_key: options.fairness_key,
        concurrency_key: options.concurrency_key,
        unique_key: options.unique_key,
        unique_policy: unique_policy.into(),
        ..Default::default()
    };
    let answer = unary(request, async |r| client.jobs().create_job(r).await).await?;
    print(json!({"event": "created", "job": message(&answer.job.unwrap_or_default())}));
    Ok(())
}

#[derive(Args)]
pub struct Get {
    #[command(flatten)]
    service: Service,
    /// The owner of the job
    #[arg(long)]
    user: String,
    /// Which job
    #[arg(long)]
    job: String,
}

pub async fn get(options: Get) -> Result<(), Status> {
    let client = options.service.client();
    let request = GetJobRequest {
        job_id: options.job,
        user_id: options.user,
        ..Default::default()
    };
    let answer = unary(request, async |r| client.jobs().get_job(r).await).await?;
    print(json!({"event": "job", "job": message(&answer.job.unwrap_or_default())}));
    Ok(())
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    service: Service,
    /// The owner of the jobs
    #[arg(long)]
    user: String,
    /// Jobs a page, 0 for the service's own number
    #[arg(long, default_value_t = 0)]
    page_size: i32,
}

pub async fn list(options: List) -> Result<(), Status> {
    let client = options.service.client();
    let mut request = ListJobsRequest {
        user_id: options.user,
        page_size: options.page_size,
        ..Default::default()
    };
    loop {
        let page = unary(request.clone(), async |r| client.jobs().list_jobs(r).await).await?;
        print(json!({"event": "page", "jobs": messages(&page.jobs)}));
        // More pages may follow a short one: only the token shows it.
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}
