// For those who do the work: take a job, report on it, end it.
#pragma once

#include "connect.h"
#include "options.h"

namespace jobs {

// Does one job, if there is one. Each call carries the attempt: should the lease expire and
// the job pass to another worker, this one is refused instead of heard. Throws CallFailed.
void Work(const Client& client, const Options& options);

// Ends a job as COMPLETED. Throws CallFailed.
void Complete(const Client& client, const Options& options);

}  // namespace jobs
