package com.example.jobs;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.Durations;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.PreconditionFailure;
import com.google.rpc.RetryInfo;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** What the service says about a call that it refused. Without a RetryInfo, no delay: null. */
record Failure(
        String code,
        String message,
        String reason,
        Map<String, String> metadata,
        List<FieldViolation> fieldViolations,
        List<PreconditionViolation> preconditionViolations,
        Long retryDelayMs) {

    record FieldViolation(String field, String description) {}

    record PreconditionViolation(String type, String subject, String description) {}

    /** Reads the google.rpc.Status in the trailer grpc-status-details-bin. */
    static Failure read(StatusRuntimeException error) {
        var reason = "";
        var metadata = Map.<String, String>of();
        var fields = new ArrayList<FieldViolation>();
        var preconditions = new ArrayList<PreconditionViolation>();
        Long retryDelayMs = null;
        for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
            if (detail.is(ErrorInfo.class)) {
                var info = unpack(detail, ErrorInfo.class);
                if (info.getDomain().equals("jobledger")) {
                    reason = info.getReason();
                    metadata = info.getMetadataMap();
                }
            } else if (detail.is(BadRequest.class)) {
                for (var each : unpack(detail, BadRequest.class).getFieldViolationsList()) {
                    fields.add(new FieldViolation(each.getField(), each.getDescription()));
                }
            } else if (detail.is(PreconditionFailure.class)) {
                for (var each : unpack(detail, PreconditionFailure.class).getViolationsList()) {
                    preconditions.add(new PreconditionViolation(
                            each.getType(), each.getSubject(), each.getDescription()));
                }
            } else if (detail.is(RetryInfo.class)) {
                retryDelayMs = Durations.toMillis(unpack(detail, RetryInfo.class).getRetryDelay());
            }
        }
        var status = error.getStatus();
        return new Failure(
                status.getCode().name(),
                Objects.requireNonNullElse(status.getDescription(), ""),
                reason, metadata, fields, preconditions, retryDelayMs);
    }

    Duration retryDelay() {
        return retryDelayMs == null ? Duration.ZERO : Duration.ofMillis(retryDelayMs);
    }

    private static <M extends Message> M unpack(Any detail, Class<M> type) {
        try {
            return detail.unpack(type);
        } catch (InvalidProtocolBufferException broken) {
            throw new IllegalArgumentException("not a " + type.getSimpleName(), broken);
        }
    }
}
