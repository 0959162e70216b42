// How the channel to the service behaves, and how a call is made.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "jobledger/v1/job_service.grpc.pb.h"
#include "jobledger/v1/queue_service.grpc.pb.h"
#include "jobledger/v1/worker_service.grpc.pb.h"

namespace jobs {

// What a unary call may take, its retries included.
constexpr std::chrono::seconds kDeadline{10};

// The stubs of the services, on one channel.
struct Client {
  std::unique_ptr<jobledger::v1::JobService::Stub> jobs;
  std::unique_ptr<jobledger::v1::QueueService::Stub> queues;
  std::unique_ptr<jobledger::v1::WorkerService::Stub> workers;
};

Client Connect(const std::string& target);

// A call failed, and with it what the caller was about to do.
class CallFailed : public std::exception {
 public:
  explicit CallFailed(grpc::Status status) : status_(std::move(status)) {}

  const grpc::Status& status() const { return status_; }
  const char* what() const noexcept override { return "a call failed"; }

 private:
  grpc::Status status_;
};

// Makes one call, with a deadline. Throws CallFailed.
template <class Stub, class Request, class Response>
Response Unary(Stub& stub,
               grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
               const Request& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kDeadline);
  Response response;
  if (grpc::Status status = (stub.*method)(&context, request, &response); !status.ok()) {
    throw CallFailed(std::move(status));
  }
  return response;
}

}  // namespace jobs
