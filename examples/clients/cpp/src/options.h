// What the command line says.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace jobs {

struct Options {
  std::string server;
  std::string user;
  std::string job;
  std::string type;
  std::optional<std::string> request_id;
  std::optional<std::int64_t> stall_timeout;  // in seconds
  std::optional<std::int32_t> max_attempts;
  std::optional<std::int32_t> priority;
  std::string fairness_key;
  std::string concurrency_key;
  std::string unique_key;
  std::string unique_policy = "reject";
  std::optional<google::protobuf::Struct> parameters;
  std::map<std::string, std::string> labels;
  std::int32_t page_size = 0;
  std::int64_t after_version = 0;
  std::int64_t after_offset = 0;
  std::string worker;
  std::string outcome = "completed";
  std::string message = "half done";
  std::vector<std::string> output;
  std::optional<google::protobuf::Struct> result;
  std::int64_t asset_size = 0;
  std::optional<std::int32_t> attempt;
  std::string name;
  std::optional<std::int32_t> max_running;
};

class UsageError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Reads options, each as `--name value`. Throws UsageError.
Options ParseOptions(const std::vector<std::string>& arguments,
                     const std::set<std::string>& required,
                     const std::set<std::string>& optional);

}  // namespace jobs
