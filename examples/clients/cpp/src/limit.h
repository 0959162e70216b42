// For operators: how many jobs are held at once.
#pragma once

#include "connect.h"
#include "options.h"

namespace jobs {

// Sets the limit of a concurrency key, over all servers, or removes it. Throws CallFailed.
void SetLimit(const Client& client, const Options& options);

}  // namespace jobs
