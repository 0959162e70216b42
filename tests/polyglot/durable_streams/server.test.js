/** All tests of the package, for the server at CONFORMANCE_TEST_URL; vitest's option -t chooses. */

import { runConformanceTests } from "@durable-streams/server-conformance-tests";

runConformanceTests({ baseUrl: process.env.CONFORMANCE_TEST_URL });
