package com.example.jobs;

import com.google.gson.Gson;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import jobledger.v1.JobServiceGrpc;
import jobledger.v1.JobServiceGrpc.JobServiceBlockingStub;
import jobledger.v1.QueueServiceGrpc;
import jobledger.v1.QueueServiceGrpc.QueueServiceBlockingStub;
import jobledger.v1.WorkerServiceGrpc;
import jobledger.v1.WorkerServiceGrpc.WorkerServiceBlockingStub;

/** The services, on one channel. A program needs one. */
record Client(ManagedChannel channel) implements AutoCloseable {
    /** How long a unary call may take, its retries included. */
    static final Duration DEADLINE = Duration.ofSeconds(10);

    /**
     * gRPC must not retry streams: only the program that opened one knows where to resume. Nor
     * claims: one whose answer was lost may have claimed a job.
     */
    private static final String SERVICE_CONFIG = """
            {"methodConfig": [
                {
                    "name": [
                        {"service": "jobledger.v1.JobService"},
                        {"service": "jobledger.v1.QueueService"},
                        {"service": "jobledger.v1.WorkerService"}
                    ],
                    "retryPolicy": {
                        "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "3s",
                        "backoffMultiplier": 3, "retryableStatusCodes": ["UNAVAILABLE"]
                    }
                },
                {
                    "name": [
                        {"service": "jobledger.v1.JobService", "method": "WatchJob"},
                        {"service": "jobledger.v1.JobService", "method": "WatchJobs"},
                        {"service": "jobledger.v1.JobService", "method": "WatchOutput"},
                        {"service": "jobledger.v1.WorkerService", "method": "Work"},
                        {"service": "jobledger.v1.WorkerService", "method": "ClaimJobs"}
                    ]
                }
            ]}""";

    @SuppressWarnings("unchecked")
    static Client connect(String target) {
        // TlsChannelCredentials.create() where the service has TLS.
        var credentials = InsecureChannelCredentials.create();
        var channel = Grpc.newChannelBuilder(target, credentials)
                // The channel wants a map whose numbers are doubles, as Gson reads it.
                .defaultServiceConfig(new Gson().fromJson(SERVICE_CONFIG, Map.class))
                .enableRetry()
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .build();
        return new Client(channel);
    }

    /** For one call: its deadline is counted from here. */
    JobServiceBlockingStub jobs() {
        return JobServiceGrpc.newBlockingStub(channel)
                .withDeadlineAfter(DEADLINE.toSeconds(), TimeUnit.SECONDS);
    }

    /** For one call: its deadline is counted from here. */
    QueueServiceBlockingStub queues() {
        return QueueServiceGrpc.newBlockingStub(channel)
                .withDeadlineAfter(DEADLINE.toSeconds(), TimeUnit.SECONDS);
    }

    /** For one call: its deadline is counted from here. */
    WorkerServiceBlockingStub workers() {
        return WorkerServiceGrpc.newBlockingStub(channel)
                .withDeadlineAfter(DEADLINE.toSeconds(), TimeUnit.SECONDS);
    }

    @Override
    public void close() {
        channel.shutdownNow();
    }
}
