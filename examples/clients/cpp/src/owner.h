// For the owners of jobs: create them, see where they stand, follow them to the end.
#pragma once

#include "connect.h"
#include "options.h"

namespace jobs {

// Each of them throws CallFailed.
void Create(const Client& client, const Options& options);
void Get(const Client& client, const Options& options);
void List(const Client& client, const Options& options);

// Follows a job to its end, over as many streams as that takes.
void Watch(const Client& client, const Options& options);

// Follows what a job writes, until nothing can come any more.
void WatchOutput(const Client& client, const Options& options);

}  // namespace jobs
