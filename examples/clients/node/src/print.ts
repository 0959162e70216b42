import { toJson, type DescMessage, type JsonValue, type MessageShape } from "@bufbuild/protobuf";

export function print(event: object): void {
  process.stdout.write(JSON.stringify(event) + "\n");
}

/** Protobuf's own JSON: int64 as strings, for readers that lose digits. */
export function json<M extends DescMessage>(
  type: M,
  message: MessageShape<M> | undefined,
): JsonValue {
  return message ? toJson(type, message, { useProtoFieldName: true }) : null;
}
