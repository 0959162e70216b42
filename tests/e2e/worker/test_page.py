"""What docs/workers.md says in Python runs."""

import asyncio
import re
import signal
import subprocess
import sys

from jobledger_client import JobStatus
from tests.support.pages import ROOT

PAGE = ROOT / "docs" / "workers.md"


async def test_the_worker_of_the_page_does_its_job_until_sigterm(own_server, tmp_path):
    from jobledger_client import AsyncClient

    program = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    file = tmp_path / "worker.py"
    file.write_text(program.replace("127.0.0.1:50051", own_server.target))
    with subprocess.Popen([sys.executable, file]) as worker:
        try:
            async with AsyncClient(own_server.target, user_id="ada") as client:
                job = await client.create_job("thumbnail", {"file": "castle.png"})
                done = await client.wait(job.id, timeout=30)
                assert (done.status, done.result["count"]) == (JobStatus.JOB_STATUS_COMPLETED, 1)
                assert done.progress_message == "decoding castle.png"
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait, 20) == 0
        finally:
            worker.kill()
