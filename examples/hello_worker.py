"""A worker; needs `jobledger-server dev`."""

import time

from jobledger import BlockingJob, Worker

worker = Worker("127.0.0.1:50051")


@worker.handler
def greet(job: BlockingJob) -> dict[str, str]:
    for step in range(1, 6):
        time.sleep(0.5)  # here goes the work
        job.progress(20 * step, f"step {step} of 5")
    return {"greeting": f"Hello {job.parameters['name']}"}


if __name__ == "__main__":
    worker.run_sync()  # until Ctrl-C
