/** Reads server-sent events from a fetch. EventSource can neither send a header nor see a comment. */

const MAX_EVENT = 8 * 2 ** 20; // characters

/**
 * Yield the events of a stream: `{ type, data, id }`. A heartbeat (a comment) is an event of the
 * type `heartbeat`. An event may have an id and no data. Ends with the stream.
 */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = fresh();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      if (rest.length > MAX_EVENT) throw new Error("an event is too large");
      // Of CR LF the two may come apart: a CR at the end waits for what follows.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data.length || event.id !== undefined) yield { ...event, data: event.data.join("\n") };
          event = fresh();
        } else if (line.startsWith(":")) {
          yield { type: "heartbeat", data: "", id: undefined };
        } else {
          take(event, line);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function fresh() {
  return { type: "message", data: [], id: undefined };
}

function take(event, line) {
  const colon = line.indexOf(":");
  const field = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (field === "data") event.data.push(value);
  else if (field === "event") event.type = value;
  else if (field === "id") event.id = value;
}
