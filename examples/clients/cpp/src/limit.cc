#include "limit.h"

#include "print.h"

namespace jobs {

using jobledger::v1::QueueService;
using jobledger::v1::SetConcurrencyLimitRequest;

void SetLimit(const Client& client, const Options& options) {
  SetConcurrencyLimitRequest request;
  request.set_name(options.name);
  if (options.max_running) {
    request.set_max_running(*options.max_running);
  }
  const auto response =
      Unary(*client.queues, &QueueService::Stub::SetConcurrencyLimit, request);
  Print("limited", {{"limit", Json(response.limit())}});
}

}  // namespace jobs
