#include "options.h"

#include <google/protobuf/util/json_util.h>

#include <charconv>
#include <fstream>
#include <functional>
#include <iterator>
#include <utility>

namespace jobs {
namespace {

using google::protobuf::Struct;

template <class Number>
Number ParseNumber(const std::string& text) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [last, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || last != end) {
    throw UsageError(text + " is not a number of this option");
  }
  return number;
}

Struct ReadStruct(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) {
    throw UsageError(path + " cannot be read");
  }
  Struct object;
  const auto status = google::protobuf::util::JsonStringToMessage(text, &object);
  if (!status.ok()) {
    throw UsageError(path + ": " + status.ToString());
  }
  return object;
}

std::pair<std::string, std::string> Divide(const std::string& label) {
  const auto at = label.find('=');
  if (at == std::string::npos) {
    throw UsageError(label + ": no = in it");
  }
  return {label.substr(0, at), label.substr(at + 1)};
}

std::string OneOf(const std::set<std::string>& words, const std::string& word) {
  if (!words.contains(word)) {
    throw UsageError(word + " is not one of this option's words");
  }
  return word;
}

using Setter = std::function<void(Options&, const std::string&)>;

const std::map<std::string, Setter> kSetters = {
    {"server", [](Options& o, const std::string& text) { o.server = text; }},
    {"user", [](Options& o, const std::string& text) { o.user = text; }},
    {"job", [](Options& o, const std::string& text) { o.job = text; }},
    {"type", [](Options& o, const std::string& text) { o.type = text; }},
    {"request-id", [](Options& o, const std::string& text) { o.request_id = text; }},
    {"stall-timeout",
     [](Options& o, const std::string& text) {
       o.stall_timeout = ParseNumber<std::int64_t>(text);
     }},
    {"max-attempts",
     [](Options& o, const std::string& text) { o.max_attempts = ParseNumber<std::int32_t>(text); }},
    {"priority",
     [](Options& o, const std::string& text) { o.priority = ParseNumber<std::int32_t>(text); }},
    {"fairness-key", [](Options& o, const std::string& text) { o.fairness_key = text; }},
    {"concurrency-key", [](Options& o, const std::string& text) { o.concurrency_key = text; }},
    {"unique-key", [](Options& o, const std::string& text) { o.unique_key = text; }},
    {"unique-policy",
     [](Options& o, const std::string& text) {
       o.unique_policy = OneOf({"reject", "return-existing"}, text);
     }},
    {"parameters", [](Options& o, const std::string& path) { o.parameters = ReadStruct(path); }},
    {"label",
     [](Options& o, const std::string& text) {
       const auto [key, value] = Divide(text);
       o.labels.insert_or_assign(key, value);
     }},
    {"page-size",
     [](Options& o, const std::string& text) { o.page_size = ParseNumber<std::int32_t>(text); }},
    {"after-version",
     [](Options& o, const std::string& text) {
       o.after_version = ParseNumber<std::int64_t>(text);
     }},
    {"after-offset",
     [](Options& o, const std::string& text) { o.after_offset = ParseNumber<std::int64_t>(text); }},
    {"worker", [](Options& o, const std::string& text) { o.worker = text; }},
    {"outcome",
     [](Options& o, const std::string& text) {
       o.outcome = OneOf({"completed", "partial", "failed", "retried"}, text);
     }},
    {"message", [](Options& o, const std::string& text) { o.message = text; }},
    {"output", [](Options& o, const std::string& text) { o.output.push_back(text); }},
    {"result", [](Options& o, const std::string& path) { o.result = ReadStruct(path); }},
    {"asset-size",
     [](Options& o, const std::string& text) { o.asset_size = ParseNumber<std::int64_t>(text); }},
    {"attempt",
     [](Options& o, const std::string& text) { o.attempt = ParseNumber<std::int32_t>(text); }},
    {"name", [](Options& o, const std::string& text) { o.name = text; }},
    {"max-running",
     [](Options& o, const std::string& text) { o.max_running = ParseNumber<std::int32_t>(text); }},
};

}  // namespace

Options ParseOptions(const std::vector<std::string>& arguments,
                     const std::set<std::string>& required,
                     const std::set<std::string>& optional) {
  Options options;
  std::set<std::string> missing = required;
  for (auto argument = arguments.begin(); argument != arguments.end(); ++argument) {
    if (!argument->starts_with("--")) {
      throw UsageError(*argument + " is not an option");
    }
    const std::string name = argument->substr(2);
    if (!required.contains(name) && !optional.contains(name)) {
      throw UsageError(*argument + " is not an option of this command");
    }
    if (++argument == arguments.end()) {
      throw UsageError("--" + name + " needs a value");
    }
    kSetters.at(name)(options, *argument);
    missing.erase(name);
  }
  if (!missing.empty()) {
    throw UsageError("--" + *missing.begin() + " is required");
  }
  return options;
}

}  // namespace jobs
