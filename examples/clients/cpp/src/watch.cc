#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "failure.h"
#include "owner.h"
#include "print.h"

namespace jobs {
namespace {

using jobledger::v1::Job;
using jobledger::v1::WatchJobRequest;
using jobledger::v1::WatchJobResponse;
using std::chrono::milliseconds;

bool HasEnded(const Job& job) {
  switch (job.status()) {
    case jobledger::v1::JOB_STATUS_COMPLETED:
    case jobledger::v1::JOB_STATUS_PARTIAL:
    case jobledger::v1::JOB_STATUS_FAILED:
      return true;
    default:
      return false;
  }
}

// Whether another stream may succeed.
bool IsTransient(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:  // Never the server's before the job has ended; a proxy's perhaps.
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return true;
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:  // A stream reset on the way, unless the server says why.
      return Failure(status).reason.empty();
    default:
      return false;
  }
}

// Full jitter, on top of what the server asks for: after a restart all watchers come back,
// but not at once.
milliseconds Pause(const grpc::Status& status, int failures) {
  static std::mt19937 random{std::random_device{}()};
  const int limit = std::min(100 << std::min(failures, 10), 5000);
  const milliseconds jitter(std::uniform_int_distribution<int>(0, limit)(random));
  return Failure(status).retry_delay.value_or(milliseconds::zero()) + jitter;
}

}  // namespace

void Watch(const Client& client, const Options& options) {
  WatchJobRequest request;
  request.set_job_id(options.job);
  request.set_user_id(options.user);
  request.set_after_version(options.after_version);
  for (int failures = 0;; ++failures) {
    grpc::ClientContext context;
    // Else an unavailable service fails the call at once, and between calls this library may
    // check a connection only every 5 s (grpc/grpc#28866): it would reconnect late.
    context.set_wait_for_ready(true);
    const auto stream = client.jobs->WatchJob(&context, request);
    WatchJobResponse response;
    while (stream->Read(&response)) {
      const Job& job = response.job();
      const bool ended = HasEnded(job);
      const bool news = !response.heartbeat() && job.version() > request.after_version();
      if (news || ended) {
        request.set_after_version(job.version());
        Print("changed", {{"job", Json(job)}, {"transitions", JsonList(response.transitions())}});
      }
      if (ended) {
        context.TryCancel();
        stream->Finish();
        return;
      }
      // Not after the snapshot that greets each stream: a server that breaks right after it
      // would be called ten times a second.
      if (news || response.heartbeat()) {
        failures = 0;
      }
    }
    if (grpc::Status status = stream->Finish(); IsTransient(status)) {
      std::this_thread::sleep_for(Pause(status, failures));
    } else {
      throw CallFailed(std::move(status));
    }
  }
}

}  // namespace jobs
