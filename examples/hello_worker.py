"""A worker; needs `jobledger-server dev`."""

import time

from hello_task import Answer, Person, greet

from jobledger import BlockingJob, Worker

worker = Worker("127.0.0.1:50051")


@worker.handler(greet)
def run(job: BlockingJob, params: Person) -> Answer:
    for step in range(1, 6):
        time.sleep(0.5)  # here goes the work
        job.progress(20 * step, f"step {step} of 5")
    return Answer(f"Hello {params.name}")


if __name__ == "__main__":
    worker.run_sync()  # until Ctrl-C
