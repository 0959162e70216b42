package com.example.jobs;

import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Iterator;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Predicate;
import java.util.function.Supplier;
import jobledger.v1.Job;
import jobledger.v1.JobServiceGrpc;
import jobledger.v1.JobServiceGrpc.JobServiceBlockingStub;
import jobledger.v1.WatchJobRequest;
import jobledger.v1.WatchJobResponse;
import jobledger.v1.WatchOutputRequest;
import jobledger.v1.WatchOutputResponse;

/** For the owners of jobs: follow one, and what it writes, to the end. */
final class Watch {
    private static final Duration FIRST_LIMIT = Duration.ofMillis(100);
    private static final Duration LAST_LIMIT = Duration.ofSeconds(5);

    /** Follows a job to its end. */
    static void job(Client client, Options options) {
        var request = WatchJobRequest.newBuilder()
                .setJobId(options.text("job"))
                .setUserId(options.text("user"))
                .setAfterVersion(options.integer64("after-version").orElse(0L));
        Watch.<WatchJobResponse>follow(
                client, () -> jobs(client).watchJob(request.build()), answer -> {
            var job = answer.getJob();
            var ended = hasEnded(job);
            if (ended || !answer.getHeartbeat() && job.getVersion() > request.getAfterVersion()) {
                request.setAfterVersion(job.getVersion());
                Lines.print("changed",
                        Map.of("job", job, "transitions", answer.getTransitionsList()));
            }
            return ended;
        });
    }

    /** Follows what a job writes, until nothing can come any more. */
    static void output(Client client, Options options) {
        var request = WatchOutputRequest.newBuilder()
                .setJobId(options.text("job"))
                .setUserId(options.text("user"))
                .setAfterOffset(options.integer64("after-offset").orElse(0L));
        Watch.<WatchOutputResponse>follow(
                client, () -> jobs(client).watchOutput(request.build()), answer -> {
            // A message without news is a heartbeat, or the first one of a stream.
            if (answer.getClosed() || answer.getNextOffset() > request.getAfterOffset()) {
                request.setAfterOffset(answer.getNextOffset());
                Lines.print("output", Map.of("output", answer));
            }
            return answer.getClosed();
        });
    }

    /** No deadline: a watch lasts as long as the job. */
    private static JobServiceBlockingStub jobs(Client client) {
        return JobServiceGrpc.newBlockingStub(client.channel());
    }

    /**
     * Reads as many streams as it takes. {@code open} opens one that goes on after what was taken;
     * {@code take} returns whether a message was the last one.
     */
    private static <R> void follow(Client client, Supplier<Iterator<R>> open, Predicate<R> take) {
        for (var failures = 0; ; failures++) {
            var delay = Duration.ZERO;
            // Leaving the block cancels the call, should it still be under way.
            try (var call = Context.current().withCancellation()) {
                var before = call.attach();
                try {
                    var first = true;
                    for (var answers = open.get(); answers.hasNext(); first = false) {
                        if (take.test(answers.next())) {
                            return;
                        }
                        // Not after the message that greets each stream: a server that breaks
                        // right after it would be called ten times a second.
                        if (!first) {
                            failures = 0;
                        }
                    }
                } finally {
                    call.detach(before);
                }
                // OK before the last message: never the server's, a proxy's perhaps.
            } catch (StatusRuntimeException error) {
                var failure = Failure.read(error);
                if (!isTransient(error, failure)) {
                    throw error;
                }
                delay = failure.retryDelay();
            }
            pause(delay, failures);
            // The channel would wait longer and longer, up to two minutes, before it connects
            // again; this loop's own pause is enough.
            client.channel().resetConnectBackoff();
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
    private static void pause(Duration delay, int failures) {
        var limit = FIRST_LIMIT.toMillis() << Math.min(failures, 10);
        var jitter = ThreadLocalRandom.current().nextLong(Math.min(limit, LAST_LIMIT.toMillis()));
        try {
            Thread.sleep(delay.toMillis() + jitter);
        } catch (InterruptedException stop) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted while it watched", stop);
        }
    }

    private Watch() {}
}
