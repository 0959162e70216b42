package com.example.jobs;

import java.util.Map;
import jobledger.v1.SetConcurrencyLimitRequest;

/** For operators: how many jobs are held at once. */
final class Limit {
    /** Sets the limit of a concurrency key, over all servers, or removes it. */
    static void set(Client client, Options options) {
        var request = SetConcurrencyLimitRequest.newBuilder().setName(options.text("name"));
        options.integer("max-running").ifPresent(request::setMaxRunning);
        var answer = client.queues().setConcurrencyLimit(request.build());
        Lines.print("limited", Map.of("limit", answer.getLimit()));
    }

    private Limit() {}
}
