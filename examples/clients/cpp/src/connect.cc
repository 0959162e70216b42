#include "connect.h"

namespace jobs {
namespace {

// gRPC must not retry streams: only the program that opened one knows where to resume. Nor
// claims: one whose answer was lost may have claimed a job.
constexpr char kServiceConfig[] = R"({"methodConfig": [
  {
    "name": [
      {"service": "jobledger.v1.JobService"}, {"service": "jobledger.v1.QueueService"},
      {"service": "jobledger.v1.WorkerService"}
    ],
    "retryPolicy": {
      "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "3s",
      "backoffMultiplier": 3, "retryableStatusCodes": ["UNAVAILABLE"]
    }
  },
  {
    "name": [
      {"service": "jobledger.v1.JobService", "method": "WatchJob"},
      {"service": "jobledger.v1.JobService", "method": "WatchJobs"},
      {"service": "jobledger.v1.JobService", "method": "WatchOutput"},
      {"service": "jobledger.v1.WorkerService", "method": "Work"},
      {"service": "jobledger.v1.WorkerService", "method": "ClaimJobs"}
    ]
  }
]})";

}  // namespace

Client Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  // What does not fit is not retried; the default is less than the largest parameters.
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, 2 * 1024 * 1024);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // Newer libraries have this limit for every ping, and keepalive's does not count.
  arguments.SetInt("grpc.http2.ping_timeout_ms", 10'000);
  // Without this, pings stop after the second one where no data is sent.
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // grpc::SslCredentials({}) where the service has TLS.
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  return {jobledger::v1::JobService::NewStub(channel),
          jobledger::v1::QueueService::NewStub(channel),
          jobledger::v1::WorkerService::NewStub(channel)};
}

}  // namespace jobs
