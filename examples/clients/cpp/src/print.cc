#include "print.h"

#include <google/protobuf/util/json_util.h>

#include <iostream>
#include <stdexcept>

namespace jobs {

void Print(const google::protobuf::Message& line) { std::cout << Json(line) << std::endl; }

void Print(std::string_view event,
           std::initializer_list<std::pair<std::string_view, std::string>> facts) {
  std::cout << R"({"event": ")" << event << '"';
  for (const auto& [name, json] : facts) {
    std::cout << ", \"" << name << "\": " << json;
  }
  std::cout << '}' << std::endl;
}

std::string Json(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    throw std::runtime_error(status.ToString());
  }
  return json;
}

}  // namespace jobs
