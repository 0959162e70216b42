"""A web service: POST /pictures orders a picture, GET /pictures/ID/events follows it."""

import json
import os
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from picture_task import Picture, picture

from jobledger import Client, InvalidField, JobNotFound, RequestIdReused

client = Client(os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051"), user_id="web")


class Pictures(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self) -> None:
        """Create a job. The same `Idempotency-Key` with the same content is the same job."""
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        try:
            job = client.submit(
                picture,
                Picture(**json.loads(body)),
                request_id=self.headers["Idempotency-Key"],
            )
        except (InvalidField, TypeError, ValueError) as error:  # or no such field
            self.answer(400, {"error": str(error)})
        except RequestIdReused as error:
            self.answer(409, {"error": str(error)})
        else:
            self.answer(202, {"id": job.id})

    def do_GET(self) -> None:
        """Answer with the job, or with each of its changes as a server-sent event."""
        job_id, _, rest = self.path.removeprefix("/pictures/").partition("/")
        try:
            job = client.get_job(job_id)
        except (JobNotFound, InvalidField):
            self.answer(404, {"error": "no such picture"})
            return
        if rest != "events":
            self.answer(200, {"status": job.status, "progress": job.progress, "result": job.result})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        with suppress(ConnectionError), client.watch(job_id) as changes:  # until the browser leaves
            for change in changes:
                event = {"status": change.job.status, "progress": change.job.progress}
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def answer(self, code: int, content: dict[str, object]) -> None:
        """Send JSON."""
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Pictures)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
