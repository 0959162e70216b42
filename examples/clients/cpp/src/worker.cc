#include "worker.h"

#include <string>

#include "print.h"

namespace jobs {
namespace {

using jobledger::v1::ClaimJobsRequest;
using jobledger::v1::CreateAssetRequest;
using jobledger::v1::Job;
using jobledger::v1::MarkCompletedRequest;
using jobledger::v1::MarkFailedRequest;
using jobledger::v1::MarkPartialRequest;
using jobledger::v1::UpdateProgressRequest;
using jobledger::v1::WorkerService;

// The part that all ways to end a job have in common.
template <class Request>
Request Ending(const Job& job, const Options& options) {
  Request request;
  request.set_job_id(job.id());
  request.set_attempt(job.attempt());
  if (options.result) {
    *request.mutable_result() = *options.result;
  }
  return request;
}

Job End(WorkerService::Stub& workers, const Job& job, const Options& options) {
  if (options.outcome == "completed") {
    const auto request = Ending<MarkCompletedRequest>(job, options);
    return Unary(workers, &WorkerService::Stub::MarkCompleted, request).job();
  }
  if (options.outcome == "partial") {
    auto request = Ending<MarkPartialRequest>(job, options);
    request.mutable_error()->set_reason("SOME_MISSING");
    request.mutable_error()->set_message(options.message);
    return Unary(workers, &WorkerService::Stub::MarkPartial, request).job();
  }
  auto request = Ending<MarkFailedRequest>(job, options);
  request.mutable_error()->set_reason("NOT_DONE");
  request.mutable_error()->set_message(options.message);
  return Unary(workers, &WorkerService::Stub::MarkFailed, request).job();
}

}  // namespace

void Work(const Client& client, const Options& options) {
  ClaimJobsRequest request;
  request.set_worker_id(options.worker);
  request.add_job_types(options.type);
  request.set_max_jobs(1);
  request.mutable_lease_duration()->set_seconds(60);
  request.mutable_wait()->set_seconds(options.wait.count());
  const auto claim = Unary(*client.workers, &WorkerService::Stub::ClaimJobs, request,
                           options.wait + kDeadline);
  if (claim.jobs().empty()) {
    Print("idle");
    return;
  }
  const Job& job = claim.jobs(0);
  Print("claimed", {{"job", Json(job)}});

  // Work that takes longer than the lease reports within it; a report without progress is a
  // sign of life. Where cancel_requested is true, tidy up and fail.
  UpdateProgressRequest report;
  report.set_job_id(job.id());
  report.set_attempt(job.attempt());
  report.set_progress(50);
  report.set_progress_message(options.message);
  const auto progress = Unary(*client.workers, &WorkerService::Stub::UpdateProgress, report);
  Print("progressed", {{"job", Json(progress.job())},
                       {"applied", Json(progress.applied())},
                       {"cancel_requested", Json(progress.cancel_requested())}});

  CreateAssetRequest made;
  made.set_job_id(job.id());
  made.set_attempt(job.attempt());
  made.set_asset_type("application/octet-stream");
  made.set_storage_path("results/" + job.id());
  made.set_file_size(options.asset_size);
  made.set_request_id("attempt-" + std::to_string(job.attempt()));
  const auto linked = Unary(*client.workers, &WorkerService::Stub::CreateAsset, made);
  Print("linked", {{"asset", Json(linked.asset())}});

  Print("ended", {{"job", Json(End(*client.workers, job, options))}});
}

void Complete(const Client& client, const Options& options) {
  MarkCompletedRequest request;
  request.set_job_id(options.job);
  if (options.attempt) {
    request.set_attempt(*options.attempt);
  }
  if (options.result) {
    *request.mutable_result() = *options.result;
  }
  const auto response = Unary(*client.workers, &WorkerService::Stub::MarkCompleted, request);
  Print("ended", {{"job", Json(response.job())}});
}

}  // namespace jobs
