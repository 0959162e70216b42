// A Jobledger client to copy from: an owner of jobs, a worker, and an operator.
//
//   cmake -S . -B build && cmake --build build
//   build/jobs create|get|list|watch|output|work|complete|limit --server HOST:PORT …
//
// It prints one JSON object a line. The commands, their options and what they print:
// tests/polyglot/README.md.

#include <functional>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "connect.h"
#include "failure.h"
#include "limit.h"
#include "options.h"
#include "owner.h"
#include "print.h"
#include "worker.h"

namespace {

struct Command {
  std::function<void(const jobs::Client&, const jobs::Options&)> run;
  std::set<std::string> required;
  std::set<std::string> optional;
};

const std::map<std::string, Command> kCommands = {
    {"create",
     {jobs::Create,
      {"server", "user", "type"},
      {"request-id", "stall-timeout", "max-attempts", "priority", "fairness-key",
       "concurrency-key", "unique-key", "unique-policy", "parameters", "label"}}},
    {"get", {jobs::Get, {"server", "user", "job"}, {}}},
    {"list", {jobs::List, {"server", "user"}, {"page-size"}}},
    {"watch", {jobs::Watch, {"server", "user", "job"}, {"after-version"}}},
    {"output", {jobs::WatchOutput, {"server", "user", "job"}, {"after-offset"}}},
    {"work",
     {jobs::Work,
      {"server", "worker", "type"},
      {"outcome", "message", "output", "result", "asset-size"}}},
    {"complete", {jobs::Complete, {"server", "job"}, {"attempt", "result"}}},
    {"limit", {jobs::SetLimit, {"server", "name"}, {"max-running"}}},
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.empty() || !kCommands.contains(arguments.front())) {
      throw jobs::UsageError(
          "usage: jobs create|get|list|watch|output|work|complete|limit --server HOST:PORT …");
    }
    const Command& command = kCommands.at(arguments.front());
    const jobs::Options options = jobs::ParseOptions({arguments.begin() + 1, arguments.end()},
                                                     command.required, command.optional);
    command.run(jobs::Connect(options.server), options);
  } catch (const jobs::UsageError& error) {
    std::cerr << error.what() << '\n';
    return 2;
  } catch (const jobs::CallFailed& failed) {
    jobs::Print(jobs::AsStruct(failed.status()));
    return 1;
  }
}
