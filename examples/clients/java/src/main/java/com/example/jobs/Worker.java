package com.example.jobs;

import com.google.protobuf.Struct;
import com.google.protobuf.util.Durations;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import jobledger.v1.JobOuterClass.Job;
import jobledger.v1.JobOuterClass.JobError;
import jobledger.v1.WorkerServiceOuterClass.ClaimJobsRequest;
import jobledger.v1.WorkerServiceOuterClass.CreateAssetRequest;
import jobledger.v1.WorkerServiceOuterClass.MarkCompletedRequest;
import jobledger.v1.WorkerServiceOuterClass.MarkFailedRequest;
import jobledger.v1.WorkerServiceOuterClass.MarkPartialRequest;
import jobledger.v1.WorkerServiceOuterClass.UpdateProgressRequest;

/** For those who do the work: take a job, report on it, end it. */
final class Worker {
    private static final Duration LEASE = Duration.ofSeconds(60);

    /** How the work turns out: as the command line says. */
    private record Outcome(String name, String message, Optional<Struct> result, long assetSize) {
        static Outcome of(Options options) {
            var name = options.optional("outcome").orElse("completed");
            if (!name.matches("completed|partial|failed")) {
                throw new Options.Wrong("--outcome is completed, partial or failed");
            }
            return new Outcome(
                    name,
                    options.optional("message").orElse("half done"),
                    options.struct("result"),
                    options.integer64("asset-size").orElse(0L));
        }
    }

    /**
     * Does one job, if there is one. Each call carries the attempt: should the lease expire and
     * the job pass to another worker, this one is refused instead of heard.
     */
    static void work(Client client, Options options) {
        var outcome = Outcome.of(options);
        var wait = Duration.ofSeconds(options.integer("wait").orElse(10));
        var claim = client.workers(wait.plus(Client.DEADLINE)).claimJobs(
                ClaimJobsRequest.newBuilder()
                        .setWorkerId(options.text("worker"))
                        .addJobTypes(options.text("type"))
                        .setMaxJobs(1)
                        .setLeaseDuration(Durations.fromSeconds(LEASE.toSeconds()))
                        .setWait(Durations.fromSeconds(wait.toSeconds()))
                        .build());
        if (claim.getJobsCount() == 0) {
            Lines.print("idle", Map.of());
            return;
        }
        var job = claim.getJobs(0);
        Lines.print("claimed", Map.of("job", job));

        // Work that takes longer than the lease reports within it; a report without progress
        // is a sign of life. Where cancel_requested is true, tidy up and fail.
        var progress = client.workers().updateProgress(
                UpdateProgressRequest.newBuilder()
                        .setJobId(job.getId())
                        .setAttempt(job.getAttempt())
                        .setProgress(50)
                        .setProgressMessage(outcome.message())
                        .build());
        Lines.print("progressed", Map.of(
                "job", progress.getJob(),
                "applied", progress.getApplied(),
                "cancel_requested", progress.getCancelRequested()));

        var linked = client.workers().createAsset(
                CreateAssetRequest.newBuilder()
                        .setJobId(job.getId())
                        .setAttempt(job.getAttempt())
                        .setAssetType("application/octet-stream")
                        .setStoragePath("results/" + job.getId())
                        .setFileSize(outcome.assetSize())
                        .setRequestId("attempt-" + job.getAttempt())
                        .build());
        Lines.print("linked", Map.of("asset", linked.getAsset()));

        Lines.print("ended", Map.of("job", end(client, job, outcome)));
    }

    private static Job end(Client client, Job job, Outcome outcome) {
        return switch (outcome.name()) {
            case "completed" -> {
                var request = MarkCompletedRequest.newBuilder()
                        .setJobId(job.getId())
                        .setAttempt(job.getAttempt());
                outcome.result().ifPresent(request::setResult);
                yield client.workers().markCompleted(request.build()).getJob();
            }
            case "partial" -> {
                var request = MarkPartialRequest.newBuilder()
                        .setJobId(job.getId())
                        .setAttempt(job.getAttempt())
                        .setError(error("SOME_MISSING", outcome.message()));
                outcome.result().ifPresent(request::setResult);
                yield client.workers().markPartial(request.build()).getJob();
            }
            default -> {
                var request = MarkFailedRequest.newBuilder()
                        .setJobId(job.getId())
                        .setAttempt(job.getAttempt())
                        .setError(error("NOT_DONE", outcome.message()));
                outcome.result().ifPresent(request::setResult);
                yield client.workers().markFailed(request.build()).getJob();
            }
        };
    }

    private static JobError error(String reason, String message) {
        return JobError.newBuilder().setReason(reason).setMessage(message).build();
    }

    static void complete(Client client, Options options) {
        var request = MarkCompletedRequest.newBuilder().setJobId(options.text("job"));
        options.integer("attempt").ifPresent(request::setAttempt);
        options.struct("result").ifPresent(request::setResult);
        var answer = client.workers().markCompleted(request.build());
        Lines.print("ended", Map.of("job", answer.getJob()));
    }

    private Worker() {}
}
