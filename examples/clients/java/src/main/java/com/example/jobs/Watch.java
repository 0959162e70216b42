package com.example.jobs;

import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;
import jobledger.v1.Job;
import jobledger.v1.JobServiceGrpc;
import jobledger.v1.WatchJobRequest;

/** Follows a job to its end, over as many streams as that takes. */
final class Watch {
    private static final Duration FIRST_LIMIT = Duration.ofMillis(100);
    private static final Duration LAST_LIMIT = Duration.ofSeconds(5);

    private final Client client;
    private final WatchJobRequest.Builder request;
    private boolean ended;
    /** How many streams broke since there was news, or a heartbeat. */
    private int failures;

    private Watch(Client client, WatchJobRequest.Builder request) {
        this.client = client;
        this.request = request;
    }

    static void run(Client client, Options options) {
        var request = WatchJobRequest.newBuilder()
                .setJobId(options.text("job"))
                .setUserId(options.text("user"))
                .setAfterVersion(options.integer64("after-version").orElse(0L));
        new Watch(client, request).follow();
    }

    private void follow() {
        while (true) {
            var delay = Duration.ZERO;
            // Leaving the block cancels the call, should it still be under way.
            try (var call = Context.current().withCancellation()) {
                call.run(this::readStream);
                // OK before the job has ended: never the server's, a proxy's perhaps.
            } catch (StatusRuntimeException error) {
                var failure = Failure.read(error);
                if (!isTransient(error, failure)) {
                    throw error;
                }
                delay = failure.retryDelay();
            }
            if (ended) {
                return;
            }
            pause(delay);
            failures++;
            // The channel would wait longer and longer, up to two minutes, before it connects
            // again; this loop's own pause is enough.
            client.channel().resetConnectBackoff();
        }
    }

    private void readStream() {
        // No deadline: it lasts as long as the job.
        var answers = JobServiceGrpc.newBlockingStub(client.channel()).watchJob(request.build());
        while (!ended && answers.hasNext()) {
            var answer = answers.next();
            var job = answer.getJob();
            ended = hasEnded(job);
            var news = !answer.getHeartbeat() && job.getVersion() > request.getAfterVersion();
            if (news || ended) {
                request.setAfterVersion(job.getVersion());
                Lines.print("changed",
                        Map.of("job", job, "transitions", answer.getTransitionsList()));
            }
            // Not after the snapshot that greets each stream: a server that breaks right after
            // it would be called ten times a second.
            if (news || answer.getHeartbeat()) {
                failures = 0;
            }
        }
    }

    private static boolean hasEnded(Job job) {
        return switch (job.getStatus()) {
            case JOB_STATUS_COMPLETED, JOB_STATUS_PARTIAL, JOB_STATUS_FAILED -> true;
            default -> false;
        };
    }

    /** Returns whether another stream may succeed. */
    private static boolean isTransient(StatusRuntimeException error, Failure failure) {
        return switch (error.getStatus().getCode()) {
            case UNAVAILABLE, RESOURCE_EXHAUSTED, CANCELLED, DEADLINE_EXCEEDED -> true;
            // A stream reset on the way, unless the server says why.
            case INTERNAL, UNKNOWN -> failure.reason().isEmpty();
            default -> false;
        };
    }

    /**
     * Full jitter, on top of what the server asks for: after a restart all watchers come back,
     * but not at once.
     */
    private void pause(Duration delay) {
        var limit = FIRST_LIMIT.toMillis() << Math.min(failures, 10);
        var jitter = ThreadLocalRandom.current().nextLong(Math.min(limit, LAST_LIMIT.toMillis()));
        try {
            Thread.sleep(delay.toMillis() + jitter);
        } catch (InterruptedException stop) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted while it watched", stop);
        }
    }
}
