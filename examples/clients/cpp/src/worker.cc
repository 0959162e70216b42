#include "worker.h"

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "print.h"

namespace jobs {
namespace {

using namespace jobledger::v1;

constexpr std::chrono::seconds kHeartbeat{20};  // A third of the lease, a minute unless set.

// Each update carries the attempt: should the lease expire and the job pass to another worker,
// it is refused instead of heard.
JobUpdate& AddUpdate(WorkRequest& request, const Job& job) {
  JobUpdate& update = *request.add_updates();
  update.set_job_id(job.id());
  update.set_attempt(job.attempt());
  return update;
}

// What is ready goes in one message. No slots: no more jobs.
WorkRequest Do(const Job& job, const Options& options) {
  WorkRequest request;
  request.set_slots(0);
  ProgressUpdate& progress = *AddUpdate(request, job).mutable_progress();
  progress.set_progress(50);
  progress.set_progress_message(options.message);
  std::int64_t number = 0;
  for (const std::string& text : options.output) {
    // Numbered, it can be sent again over another stream, and is appended once.
    OutputUpdate& piece = *AddUpdate(request, job).mutable_output();
    piece.set_number(++number);
    piece.set_data(text);
  }
  AssetUpdate& made = *AddUpdate(request, job).mutable_asset();
  made.mutable_asset()->set_asset_type("application/octet-stream");
  made.mutable_asset()->set_storage_path("results/" + job.id() + "/" +
                                         std::to_string(job.attempt()));
  made.mutable_asset()->set_file_size(options.asset_size);
  made.set_request_id("attempt-" + std::to_string(job.attempt()));
  FinishUpdate& finish = *AddUpdate(request, job).mutable_finish();
  finish.set_status(JOB_STATUS_COMPLETED);
  const bool partial = options.outcome == "partial";
  const bool retry = options.outcome == "retried" && job.attempt() == 1;
  if (partial || retry || options.outcome == "failed") {
    finish.set_status(partial ? JOB_STATUS_PARTIAL : JOB_STATUS_FAILED);
    finish.mutable_error()->set_reason(partial ? "SOME_MISSING" : "NOT_DONE");
    finish.mutable_error()->set_message(options.message);
    // With attempts left the job waits for the next one, instead of being FAILED.
    finish.set_retryable(retry);
  }
  if (options.result) {
    *finish.mutable_result() = *options.result;
  }
  return request;
}

}  // namespace

void Work(const Client& client, const Options& options) {
  grpc::ClientContext context;
  const auto stream = client.workers->Work(&context);
  WorkRequest first;
  first.mutable_hello()->set_worker_id(options.worker);
  first.mutable_hello()->add_job_types(options.type);
  first.set_slots(1);
  stream->Write(first);  // Where it fails, reading says why.
  std::mutex writing;
  // Any message renews the leases; without one no more jobs come.
  std::jthread heartbeats([&](const std::stop_token& stop) {
    std::condition_variable_any silent;
    std::unique_lock lock(writing);
    while (!silent.wait_for(lock, stop, kHeartbeat, [&] { return stop.stop_requested(); })) {
      stream->Write({});
    }
  });
  std::vector<std::string_view> events{"progressed"};
  events.insert(events.end(), options.output.size(), "appended");
  events.insert(events.end(), {"linked", "ended"});
  auto next = events.begin();
  for (WorkResponse answer; next != events.end() && stream->Read(&answer);) {
    for (const Job& job : answer.jobs()) {
      Print("claimed", {{"job", Json(job)}});
      const std::scoped_lock lock(writing);
      stream->Write(Do(job, options));
    }
    for (const UpdateResult& result : answer.results()) {  // One for each update, in their order.
      Print(*next++, {{"result", Json(result)}});
    }
    // A signal would say that the job is cancelled or lost: stop, and release a cancelled one.
  }
  heartbeats = {};
  stream->WritesDone();
  if (grpc::Status status = stream->Finish(); !status.ok()) {
    throw CallFailed(std::move(status));
  }
}

void Complete(const Client& client, const Options& options) {
  MarkCompletedRequest request;
  request.set_job_id(options.job);
  if (options.attempt) {
    request.set_attempt(*options.attempt);
  } else {
    request.set_any_attempt(true);
  }
  if (options.result) {
    *request.mutable_finish()->mutable_result() = *options.result;
  }
  const auto response = Unary(*client.workers, &WorkerService::Stub::MarkCompleted, request);
  Print("ended", {{"job", Json(response.job())}});
}

}  // namespace jobs
