#include "owner.h"

#include <random>
#include <string>

#include "print.h"

namespace jobs {
namespace {

using jobledger::v1::CreateJobRequest;
using jobledger::v1::GetJobRequest;
using jobledger::v1::JobService;
using jobledger::v1::ListJobsRequest;

// A version 4 UUID.
std::string RandomUuid() {
  std::random_device random;
  std::uniform_int_distribution<int> digit(0, 15);
  std::string uuid = "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx";
  for (char& each : uuid) {
    if (each == 'x') {
      each = "0123456789abcdef"[digit(random)];
    } else if (each == 'y') {
      each = "89ab"[digit(random) % 4];
    }
  }
  return uuid;
}

}  // namespace

void Create(const Client& client, const Options& options) {
  CreateJobRequest request;
  request.set_user_id(options.user);
  request.set_job_type(options.type);
  if (options.parameters) {
    *request.mutable_parameters() = *options.parameters;
  }
  request.mutable_labels()->insert(options.labels.begin(), options.labels.end());
  // The retries of one call share it; a caller that may itself be run again keeps it with its
  // own data.
  request.set_request_id(options.request_id ? *options.request_id : RandomUuid());
  if (options.stall_timeout) {
    request.mutable_stall_timeout()->set_seconds(*options.stall_timeout);
  }
  if (options.max_attempts) {
    // The pause before each retry has defaults: a second, then twice as long each time.
    request.mutable_retry_policy()->set_max_attempts(*options.max_attempts);
  }
  // Who goes next, and how many at once: docs/guides/priorities.md and limits.md.
  if (options.priority) {
    request.set_priority(*options.priority);
  }
  request.set_fairness_key(options.fairness_key);
  request.set_concurrency_key(options.concurrency_key);
  request.set_unique_key(options.unique_key);
  if (options.unique_policy == "return-existing") {
    request.set_unique_policy(jobledger::v1::UNIQUE_POLICY_RETURN_EXISTING);
  }
  const auto response = Unary(*client.jobs, &JobService::Stub::CreateJob, request);
  Print("created", {{"job", Json(response.job())}});
}

void Get(const Client& client, const Options& options) {
  GetJobRequest request;
  request.set_job_id(options.job);
  request.set_user_id(options.user);
  const auto response = Unary(*client.jobs, &JobService::Stub::GetJob, request);
  Print("job", {{"job", Json(response.job())}});
}

void List(const Client& client, const Options& options) {
  ListJobsRequest request;
  request.set_user_id(options.user);
  request.set_page_size(options.page_size);
  do {
    const auto page = Unary(*client.jobs, &JobService::Stub::ListJobs, request);
    Print("page", {{"jobs", JsonList(page.jobs())}});
    // More pages may follow a short one: only the token shows it.
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
}

}  // namespace jobs
