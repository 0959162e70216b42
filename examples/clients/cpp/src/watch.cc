#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
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
using jobledger::v1::WatchOutputRequest;
using jobledger::v1::WatchOutputResponse;
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
    case grpc::StatusCode::OK:  // Never the server's before the last message; a proxy's perhaps.
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

// Reads as many streams as it takes. `open` opens one that goes on after what was taken; `take`
// returns whether a message was the last one.
template <class Response>
void Follow(
    const std::function<std::unique_ptr<grpc::ClientReader<Response>>(grpc::ClientContext&)>& open,
    const std::function<bool(const Response&)>& take) {
  for (int failures = 0;; ++failures) {
    grpc::ClientContext context;
    // Else an unavailable service fails the call at once, and between calls this library may
    // check a connection only every 5 s (grpc/grpc#28866): it would reconnect late.
    context.set_wait_for_ready(true);
    const auto stream = open(context);
    Response response;
    for (bool first = true; stream->Read(&response); first = false) {
      if (take(response)) {
        context.TryCancel();
        stream->Finish();
        return;
      }
      // Not after the message that greets each stream: a server that breaks right after it
      // would be called ten times a second.
      if (!first) {
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

}  // namespace

void Watch(const Client& client, const Options& options) {
  WatchJobRequest request;
  request.set_job_id(options.job);
  request.set_user_id(options.user);
  request.set_after_version(options.after_version);
  const auto open = [&](grpc::ClientContext& context) {
    return client.jobs->WatchJob(&context, request);
  };
  Follow<WatchJobResponse>(open, [&](const WatchJobResponse& response) {
    const Job& job = response.job();
    const bool ended = HasEnded(job);
    if (ended || (!response.heartbeat() && job.version() > request.after_version())) {
      request.set_after_version(job.version());
      Print("changed", {{"job", Json(job)}, {"transitions", JsonList(response.transitions())}});
    }
    return ended;
  });
}

void WatchOutput(const Client& client, const Options& options) {
  WatchOutputRequest request;
  request.set_job_id(options.job);
  request.set_user_id(options.user);
  request.set_after_offset(options.after_offset);
  const auto open = [&](grpc::ClientContext& context) {
    return client.jobs->WatchOutput(&context, request);
  };
  Follow<WatchOutputResponse>(open, [&](const WatchOutputResponse& response) {
    // A message without news is a heartbeat, or the first one of a stream.
    if (response.closed() || response.next_offset() > request.after_offset()) {
      request.set_after_offset(response.next_offset());
      Print("output", {{"output", Json(response)}});
    }
    return response.closed();
  });
}

}  // namespace jobs
