//! What the service says about a call that it refused: the google.rpc.Status in the trailer
//! grpc-status-details-bin.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::Status;
use tonic_types::{ErrorDetail, StatusExt};

/// The canonical names, in the order of their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Whether it was the service that refused the call, and says why.
pub fn has_reason(status: &Status) -> bool {
    let info = status.get_details_error_info();
    info.is_some_and(|info| info.domain == "jobledger")
}

/// How long the service asks to wait.
pub fn retry_delay(status: &Status) -> Option<Duration> {
    let retry = status.get_details_retry_info()?;
    Some(retry.retry_delay.unwrap_or_default())
}

pub fn as_json(status: &Status) -> Value {
    let mut reason = String::new();
    let mut metadata = json!({});
    let mut fields = Vec::new();
    let mut preconditions = Vec::new();
    for detail in status.get_error_details_vec() {
        match detail {
            ErrorDetail::ErrorInfo(info) if info.domain == "jobledger" => {
                reason = info.reason;
                metadata = json!(info.metadata);
            }
            ErrorDetail::BadRequest(bad) => {
                fields.extend(
                    bad.field_violations
                        .into_iter()
                        .map(|each| json!({"field": each.field, "description": each.description})),
                );
            }
            ErrorDetail::PreconditionFailure(failure) => {
                preconditions.extend(failure.violations.into_iter().map(|each| {
                    json!({
                        "type": each.r#type,
                        "subject": each.subject,
                        "description": each.description,
                    })
                }));
            }
            _ => {}
        }
    }
    json!({
        "event": "error",
        "code": CODES[status.code() as usize],
        "message": status.message(),
        "reason": reason,
        "metadata": metadata,
        "field_violations": fields,
        "precondition_violations": preconditions,
        "retry_delay_ms": retry_delay(status).map(|delay| delay.as_millis() as u64),
    })
}
