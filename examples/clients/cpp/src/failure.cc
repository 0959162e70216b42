#include "failure.h"

#include <google/protobuf/util/time_util.h>

#include <array>

#include "google/rpc/status.pb.h"

namespace jobs {
namespace {

using google::protobuf::Struct;
using google::protobuf::util::TimeUtil;

// The canonical names, in the order of their numbers.
constexpr std::array kCodes = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

}  // namespace

Failure::Failure(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) {
    return;
  }
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::PreconditionFailure failed;
    google::rpc::RetryInfo retry;
    if (detail.UnpackTo(&info) && info.domain() == "jobledger") {
      reason = info.reason();
      metadata = {info.metadata().begin(), info.metadata().end()};
    } else if (detail.UnpackTo(&bad)) {
      request.MergeFrom(bad);
    } else if (detail.UnpackTo(&failed)) {
      precondition.MergeFrom(failed);
    } else if (detail.UnpackTo(&retry)) {
      retry_delay.emplace(TimeUtil::DurationToMilliseconds(retry.retry_delay()));
    }
  }
}

Struct AsStruct(const grpc::Status& status) {
  const Failure failure(status);
  Struct line;
  auto& fields = *line.mutable_fields();
  fields["event"].set_string_value("error");
  fields["code"].set_string_value(kCodes.at(status.error_code()));
  fields["message"].set_string_value(status.error_message());
  fields["reason"].set_string_value(failure.reason);
  auto& metadata = *fields["metadata"].mutable_struct_value()->mutable_fields();
  for (const auto& [key, value] : failure.metadata) {
    metadata[key].set_string_value(value);
  }
  auto& requests = *fields["field_violations"].mutable_list_value();
  for (const auto& violation : failure.request.field_violations()) {
    auto& each = *requests.add_values()->mutable_struct_value()->mutable_fields();
    each["field"].set_string_value(violation.field());
    each["description"].set_string_value(violation.description());
  }
  auto& preconditions = *fields["precondition_violations"].mutable_list_value();
  for (const auto& violation : failure.precondition.violations()) {
    auto& each = *preconditions.add_values()->mutable_struct_value()->mutable_fields();
    each["type"].set_string_value(violation.type());
    each["subject"].set_string_value(violation.subject());
    each["description"].set_string_value(violation.description());
  }
  if (failure.retry_delay) {
    fields["retry_delay_ms"].set_number_value(static_cast<double>(failure.retry_delay->count()));
  } else {
    fields["retry_delay_ms"].set_null_value(google::protobuf::NULL_VALUE);
  }
  return line;
}

}  // namespace jobs
