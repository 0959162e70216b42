package com.example.jobs;

import com.google.protobuf.ByteString;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import jobledger.v1.AssetUpdate;
import jobledger.v1.FinishUpdate;
import jobledger.v1.Job;
import jobledger.v1.JobError;
import jobledger.v1.JobStatus;
import jobledger.v1.JobUpdate;
import jobledger.v1.MarkCompletedRequest;
import jobledger.v1.NewAsset;
import jobledger.v1.OutputUpdate;
import jobledger.v1.ProgressUpdate;
import jobledger.v1.WorkHello;
import jobledger.v1.WorkRequest;
import jobledger.v1.WorkResponse;
import jobledger.v1.WorkerServiceGrpc;

/** For those who do the work: take a job, report on it, end it. */
final class Worker {
    /** In seconds: a third of the lease, which is a minute unless set. */
    private static final long HEARTBEAT = 20;

    private static final List<String> OUTCOMES =
            List.of("completed", "partial", "failed", "retried");

    /**
     * Does one job, as soon as there is one, over the stream that carries all of a worker's work:
     * jobs to it, updates of them from it, and a result for each update.
     */
    static void work(Client client, Options options) {
        var hello = WorkHello.newBuilder()
                .setWorkerId(options.text("worker")).addJobTypes(options.text("type"));
        var outcome = outcome(options);
        var stream = WorkerServiceGrpc.newBlockingV2Stub(client.channel()).work();
        var heartbeats = Executors.newSingleThreadScheduledExecutor();
        try {
            send(stream, WorkRequest.newBuilder().setHello(hello).setSlots(1));
            // Any message renews the leases; without one no more jobs come.
            heartbeats.scheduleAtFixedRate(
                    () -> send(stream, WorkRequest.newBuilder()),
                    HEARTBEAT, HEARTBEAT, TimeUnit.SECONDS);
            var unanswered = new ArrayDeque<>(List.of("progressed"));
            options.all("output").forEach(piece -> unanswered.add("appended"));
            unanswered.addAll(List.of("linked", "ended"));
            for (WorkResponse answer; (answer = stream.read()) != null; ) {
                for (var job : answer.getJobsList()) {
                    Lines.print("claimed", Map.of("job", job));
                    send(stream, doJob(job, options, outcome));
                    stream.halfClose();
                }
                // One for each update, in their order.
                for (var result : answer.getResultsList()) {
                    Lines.print(unanswered.remove(), Map.of("result", result));
                }
                // A signal would say that the job is cancelled or lost: stop, and release a
                // cancelled one.
            }
        } catch (StatusException error) {
            throw error.getStatus().asRuntimeException(error.getTrailers());
        } catch (InterruptedException stop) {
            throw new IllegalStateException("interrupted while it worked", stop);
        } finally {
            heartbeats.shutdownNow();
        }
    }

    /**
     * Does a job and reports on it. Each update carries the attempt: should the lease expire and
     * the job pass to another worker, it is refused instead of heard.
     */
    private static WorkRequest.Builder doJob(
            Job job, Options options, String outcome) {
        var update = JobUpdate.newBuilder().setJobId(job.getId()).setAttempt(job.getAttempt());
        var progress = ProgressUpdate.newBuilder()
                .setProgress(50).setProgressMessage(options.optional("message").orElse("half done"));
        var asset = NewAsset.newBuilder()
                .setAssetType("application/octet-stream")
                .setStoragePath("results/" + job.getId() + "/" + job.getAttempt())
                .setFileSize(options.integer64("asset-size").orElse(0L));
        var made = AssetUpdate.newBuilder()
                .setAsset(asset).setRequestId("attempt-" + job.getAttempt());
        // What is ready goes in one message. No slots: no more jobs.
        var request = WorkRequest.newBuilder().setSlots(0)
                .addUpdates(update.setProgress(progress));
        var number = 0;
        for (var text : options.all("output")) {
            // Numbered, it can be sent again over another stream, and is appended once.
            request.addUpdates(update.setOutput(OutputUpdate.newBuilder()
                    .setNumber(++number).setData(ByteString.copyFromUtf8(text))));
        }
        return request
                .addUpdates(update.setAsset(made))
                .addUpdates(update.setFinish(finish(job, options, outcome)));
    }

    private static String outcome(Options options) {
        var outcome = options.optional("outcome").orElse("completed");
        if (!OUTCOMES.contains(outcome)) {
            throw new Options.Wrong("--outcome is one of " + String.join(", ", OUTCOMES));
        }
        return outcome;
    }

    private static FinishUpdate.Builder finish(Job job, Options options, String outcome) {
        var finish = FinishUpdate.newBuilder();
        options.struct("result").ifPresent(finish::setResult);
        var error = JobError.newBuilder().setMessage(options.optional("message").orElse("half done"));
        var retry = outcome.equals("retried") && job.getAttempt() == 1;
        return switch (retry ? "failed" : outcome) {
            case "partial" -> finish.setStatus(JobStatus.JOB_STATUS_PARTIAL)
                    .setError(error.setReason("SOME_MISSING"));
            // Where it is retryable and attempts are left, the job waits for the next one.
            case "failed" -> finish.setStatus(JobStatus.JOB_STATUS_FAILED)
                    .setError(error.setReason("NOT_DONE")).setRetryable(retry);
            default -> finish.setStatus(JobStatus.JOB_STATUS_COMPLETED);
        };
    }

    /** One at a time: only one thread may write. */
    private static synchronized void send(
            BlockingClientCall<WorkRequest, ?> stream, WorkRequest.Builder request) {
        try {
            stream.write(request.build());
        } catch (InterruptedException | StatusException over) {
            // Reading says why.
        }
    }

    static void complete(Client client, Options options) {
        var request = MarkCompletedRequest.newBuilder().setJobId(options.text("job"));
        options.integer("attempt")
                .ifPresentOrElse(request::setAttempt, () -> request.setAnyAttempt(true));
        options.struct("result").ifPresent(request.getFinishBuilder()::setResult);
        var answer = client.workers().markCompleted(request.build());
        Lines.print("ended", Map.of("job", answer.getJob()));
    }

    private Worker() {}
}
