package com.example.jobs;

import com.google.protobuf.util.Durations;
import java.util.Map;
import java.util.UUID;
import jobledger.v1.CreateJobRequest;
import jobledger.v1.GetJobRequest;
import jobledger.v1.ListJobsRequest;
import jobledger.v1.UniquePolicy;

/** For the owners of jobs: create them, see where they stand. */
final class Owner {
    static void create(Client client, Options options) {
        var request = CreateJobRequest.newBuilder()
                .setUserId(options.text("user"))
                .setJobType(options.text("type"))
                .putAllLabels(options.map("label"))
                // The retries of one call share it; a caller that may itself be run again
                // keeps it with its own data.
                .setRequestId(options.optional("request-id").orElse(UUID.randomUUID().toString()));
        options.struct("parameters").ifPresent(request::setParameters);
        options.integer("stall-timeout")
                .ifPresent(seconds -> request.setStallTimeout(Durations.fromSeconds(seconds)));
        // The pause before each retry has defaults: a second, then twice as long each time.
        options.integer("max-attempts")
                .ifPresent(number -> request.getRetryPolicyBuilder().setMaxAttempts(number));
        // Who goes next, and how many at once: docs/guides/priorities.md and limits.md.
        options.integer("priority").ifPresent(request::setPriority);
        options.optional("fairness-key").ifPresent(request::setFairnessKey);
        options.optional("concurrency-key").ifPresent(request::setConcurrencyKey);
        options.optional("unique-key").ifPresent(request::setUniqueKey);
        if (options.optional("unique-policy").orElse("reject").equals("return-existing")) {
            request.setUniquePolicy(UniquePolicy.UNIQUE_POLICY_RETURN_EXISTING);
        }
        var answer = client.jobs().createJob(request.build());
        Lines.print("created", Map.of("job", answer.getJob()));
    }

    static void get(Client client, Options options) {
        var request = GetJobRequest.newBuilder()
                .setJobId(options.text("job"))
                .setUserId(options.text("user"));
        var answer = client.jobs().getJob(request.build());
        Lines.print("job", Map.of("job", answer.getJob()));
    }

    static void list(Client client, Options options) {
        var request = ListJobsRequest.newBuilder()
                .setUserId(options.text("user"))
                .setPageSize(options.integer("page-size").orElse(0));
        do {
            var page = client.jobs().listJobs(request.build());
            Lines.print("page", Map.of("jobs", page.getJobsList()));
            // More pages may follow a short one: only the token shows it.
            request.setPageToken(page.getNextPageToken());
        } while (!request.getPageToken().isEmpty());
    }

    private Owner() {}
}
