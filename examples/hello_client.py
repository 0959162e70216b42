"""Creates a job and watches it; needs a server and `hello_worker.py`."""

from jobledger import Client

with Client("127.0.0.1:50051", user_id="ada") as client:
    job = client.create_job("greet", {"name": "Ada"})
    with client.watch(job.id) as changes:
        for change in changes:
            print(change.job.status, change.job.progress, change.job.progress_message)
    print(client.get_job(job.id).result)
