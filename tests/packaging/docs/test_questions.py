"""What a newcomer types into the site's search is answered under one heading.

The search wants all words, or words that begin with them, in one section of a page.
"""

import re

import pytest

from tests.support.pages import ROOT, text_of

ANSWERS = {
    "resume watch": "concepts/watching.md > Resuming",
    "worker dies": "concepts/leases.md > What happens when a worker dies",
    "rotate certificates": "operate/security.md > TLS",
    "create only once": "guides/python.md > Create only once",
    "cancel job": "concepts/jobs-and-states.md > Cancelling a job: CancelJob",
    "restore backup": "operate/backup.md > Restore",
    "test handler": "guides/testing.md > Test your application",
    "stays queued": "operate/troubleshooting.md > A job does not do what I expect",
    "alert": "operate/observability.md > What to alert on",
    "move off celery": "guides/from-celery.md > Move off Celery step by step",
    "pgbouncer": "operate/databases.md > PostgreSQL behind PgBouncer",
    "upgrade replicas": "operate/upgrade.md > On PostgreSQL: a rolling upgrade of several replicas",
    "quota": "operate/security.md > Quotas",
    "browser grpc": "guides/browsers.md > Browsers",
    "retry error": "guides/workers.md > Retry after an error",
    "maximum size parameters": "reference/limits.md > Maximum size of fields",
    "delete old jobs": "operate/databases.md > Retention: delete old jobs",
    "time zone": "concepts/jobs-and-states.md > Times, units and time zones",
    "multi-tenancy": "operate/security.md > Several tenants (multi-tenancy)",
    "large result": "guides/workers.md > Large results",
    "load balancing": "guides/clients.md > Several servers",
    "graceful shutdown": "operate/deploy.md > Graceful shutdown and draining",
    "health check": "operate/deploy.md > Health checks, readiness and liveness",
    "idempotency key": "guides/python.md > Create only once",
    "timeout": "concepts/jobs-and-states.md > Deadlines and timeouts",
    "priority": "start/why.md > When to use something else",
    "encryption at rest": "operate/security.md > Encryption at rest",
    "version compatibility": "project/versioning.md > Compatibility: which versions work together",
}


@pytest.mark.parametrize("question", ANSWERS)
def test_a_question_is_answered_under_the_heading_where_the_search_finds_it(question: str) -> None:
    page, heading = ANSWERS[question].split(" > ")
    _, *sections = re.split(r"^#+ ", text_of(ROOT / "docs" / page), flags=re.MULTILINE)
    (section,) = [text for text in sections if text.partition("\n")[0] == heading]
    words = [word for word in re.split(r"[\s-]", question) if word]
    assert [w for w in words if not re.search(rf"\b{w}", section, re.IGNORECASE)] == []
