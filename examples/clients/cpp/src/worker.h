// For those who do the work: take a job, report on it, end it.
#pragma once

#include "connect.h"
#include "options.h"

namespace jobs {

// Does one job, as soon as there is one, over the stream that carries all of a worker's work:
// jobs to it, updates of them from it, and a result for each update. Throws CallFailed.
void Work(const Client& client, const Options& options);

// Finishes a job as COMPLETED. Throws CallFailed.
void Complete(const Client& client, const Options& options);

}  // namespace jobs
