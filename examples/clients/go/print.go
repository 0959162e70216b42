package main

import (
	"encoding/json"
	"os"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

type event map[string]any

func print(line any) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		wrong(err)
	}
}

// message is in protobuf's own JSON: int64 as strings, for readers that lose digits.
func message(m proto.Message) json.RawMessage {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		wrong(err)
	}
	return text
}

func messages[M proto.Message](all []M) []json.RawMessage {
	texts := make([]json.RawMessage, 0, len(all))
	for _, each := range all {
		texts = append(texts, message(each))
	}
	return texts
}

type violation struct {
	Field       string `json:"field"`
	Description string `json:"description"`
}

type precondition struct {
	Type        string `json:"type"`
	Subject     string `json:"subject"`
	Description string `json:"description"`
}

// failure is what the service says about a call that it refused.
type failure struct {
	Event         string            `json:"event"`
	Code          string            `json:"code"`
	Message       string            `json:"message"`
	Reason        string            `json:"reason"`
	Metadata      map[string]string `json:"metadata"`
	Violations    []violation       `json:"field_violations"`
	Preconditions []precondition    `json:"precondition_violations"`
	RetryDelayMS  *int64            `json:"retry_delay_ms"`
}

// readError reads the google.rpc.Status in the trailer grpc-status-details-bin.
func readError(err error) failure {
	s := status.Convert(err)
	f := failure{
		Event: "error", Code: code.Code(s.Code()).String(), Message: s.Message(),
		Metadata: map[string]string{}, Violations: []violation{}, Preconditions: []precondition{},
	}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == "jobledger" {
				f.Reason = d.GetReason()
				if d.Metadata != nil {
					f.Metadata = d.GetMetadata()
				}
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				f.Violations = append(f.Violations, violation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.PreconditionFailure:
			for _, v := range d.GetViolations() {
				f.Preconditions = append(f.Preconditions,
					precondition{v.GetType(), v.GetSubject(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			delay := d.GetRetryDelay().AsDuration().Milliseconds()
			f.RetryDelayMS = &delay
		}
	}
	return f
}

func printError(err error) {
	print(readError(err))
}
