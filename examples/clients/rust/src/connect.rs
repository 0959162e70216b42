//! How the connection to the service behaves.

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::pb::job_service_client::JobServiceClient;
use crate::pb::queue_service_client::QueueServiceClient;
use crate::pb::worker_service_client::WorkerServiceClient;

const DEADLINE: Duration = Duration::from_secs(10);

/// The pauses between the five attempts of a call, before their jitter.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(900),
    Duration::from_millis(2700),
];

/// Describes the connection to `HOST:PORT`, which is opened by its first call and again by
/// the first one after it broke.
pub fn endpoint(server: &str) -> Result<Endpoint, tonic::transport::Error> {
    // `https` and tonic's feature `tls-ring` where the service has TLS.
    let endpoint = Endpoint::from_shared(format!("http://{server}"))?
        .connect_timeout(Duration::from_secs(5))
        // A ping after this time without data, only while calls are under way.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    Ok(endpoint)
}

/// The clients of the services, on one connection.
pub struct Client {
    jobs: JobServiceClient<Channel>,
    queues: QueueServiceClient<Channel>,
    workers: WorkerServiceClient<Channel>,
}

impl Client {
    /// Needs a runtime to be there.
    pub fn new(endpoint: &Endpoint) -> Self {
        let channel = endpoint.connect_lazy();
        Self {
            jobs: JobServiceClient::new(channel.clone()),
            queues: QueueServiceClient::new(channel.clone()),
            workers: WorkerServiceClient::new(channel),
        }
    }

    /// Returns a copy to call: a call takes its client for itself, and copies are cheap.
    pub fn jobs(&self) -> JobServiceClient<Channel> {
        self.jobs.clone()
    }

    /// Returns a copy to call, like `jobs`.
    pub fn queues(&self) -> QueueServiceClient<Channel> {
        self.queues.clone()
    }

    /// Returns a copy to call, like `jobs`.
    pub fn workers(&self) -> WorkerServiceClient<Channel> {
        self.workers.clone()
    }
}

/// Makes a call that is safe to repeat: up to five times within its deadline, for as long as
/// the service is unavailable. Other gRPC libraries do this by a service config.
pub async fn unary<M: Clone, R>(
    request: M,
    call: impl AsyncFn(Request<M>) -> Result<Response<R>, Status>,
) -> Result<R, Status> {
    let deadline = Instant::now() + DEADLINE;
    for pause in PAUSES {
        match once(deadline, request.clone(), &call).await {
            Err(status) if status.code() == Code::Unavailable => {
                let pause = pause.mul_f64(0.8 + 0.4 * fastrand::f64()).min(Duration::from_secs(3));
                if Instant::now() + pause >= deadline {
                    return Err(status);
                }
                sleep(pause).await;
            }
            answer => return answer,
        }
    }
    once(deadline, request, &call).await
}

async fn once<M, R>(
    deadline: Instant,
    message: M,
    call: &impl AsyncFn(Request<M>) -> Result<Response<R>, Status>,
) -> Result<R, Status> {
    let mut request = Request::new(message);
    // Sent to the service. In this library it does not include connecting, hence the other limit.
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    match timeout_at(deadline, call(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if Instant::now() < deadline => Err(named(status)),
        // Also where tonic's own limit was first, which it calls CANCELLED.
        _ => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// Calls a lost connection by the name that every other library has for it. Only what did not
/// come from the service has a source; tonic makes UNKNOWN of most of that.
fn named(status: Status) -> Status {
    let Some(mut cause) = status.source() else {
        return status;
    };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Status::unavailable(format!("{}: {cause}", status.message()))
}
