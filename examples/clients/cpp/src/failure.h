// What the service says about a call that it refused.
#pragma once

#include <google/protobuf/struct.pb.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "google/rpc/error_details.pb.h"

namespace jobs {

// The google.rpc.Status in the trailer grpc-status-details-bin, taken apart.
struct Failure {
  explicit Failure(const grpc::Status& status);

  // Empty where it does not come from the service.
  std::string reason;
  std::map<std::string, std::string> metadata;
  google::rpc::BadRequest request;
  google::rpc::PreconditionFailure precondition;
  std::optional<std::chrono::milliseconds> retry_delay;
};

// Everything about the failed call, to be printed.
google::protobuf::Struct AsStruct(const grpc::Status& status);

}  // namespace jobs
