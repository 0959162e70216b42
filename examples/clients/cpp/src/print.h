// One JSON object a line, with messages in protobuf's own JSON: int64 as strings, for readers
// that lose digits.
#pragma once

#include <google/protobuf/message.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace jobs {

// Prints a message as a line.
void Print(const google::protobuf::Message& line);

// Prints what happened; the facts are names and their JSON.
void Print(std::string_view event,
           std::initializer_list<std::pair<std::string_view, std::string>> facts = {});

std::string Json(const google::protobuf::Message& message);

inline std::string Json(bool value) { return value ? "true" : "false"; }

template <class Messages>
std::string JsonList(const Messages& messages) {
  std::string list;
  for (const auto& each : messages) {
    list += (list.empty() ? "" : ", ") + Json(each);
  }
  return "[" + list + "]";
}

}  // namespace jobs
