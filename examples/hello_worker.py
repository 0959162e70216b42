"""A worker; needs `jobledger-server dev`."""

import time

from hello_task import Answer, Person, greet

from jobledger import BlockingJob, Worker

worker = Worker("127.0.0.1:50051", lease=10)  # seconds until a dead worker's job is free


@worker.handler(greet)
def run(job: BlockingJob, params: Person) -> Answer:
    for step in range(1, 6):
        time.sleep(2)  # here goes the work
        job.progress(20 * step, f"step {step} of 5")
    return Answer(f"Hello {params.name}")


if __name__ == "__main__":
    worker.run_sync()  # until Ctrl-C
