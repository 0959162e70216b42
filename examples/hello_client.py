"""Creates a job and watches it; needs a server and `hello_worker.py`."""

from hello_task import Person, greet

from jobledger import Client

with Client("127.0.0.1:50051", user_id="ada") as client:
    job = client.submit(greet, Person("Ada"))
    with client.watch(job) as changes:
        for change in changes:
            print(change.job.status, change.job.progress, change.job.progress_message)
    print(client.result(greet, job).greeting)
