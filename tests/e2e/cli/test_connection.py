"""Where the connection's options come from: the command line, the environment, a profile."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from click.shell_completion import BashComplete

from jobledger.cli import commands
from jobledger.cli.connection import Connection
from jobledger.v1.job_service_pb2 import ListJobsResponse
from tests.support.certificates import (
    ADA_CERTIFICATE,
    ADA_KEY,
    LOCALHOST_CERTIFICATE,
    LOCALHOST_KEY,
)

PROGRAM = Path(sys.executable).with_name("jobledger")


@pytest.fixture
def config(jobledger, tmp_path):
    """Write config.toml, as `config(text)`."""
    file = tmp_path / "config" / "jobledger" / "config.toml"
    file.parent.mkdir(parents=True)
    jobledger.environment["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    file.touch()
    return file


def assert_usage(run, *words):
    assert (run.returncode, run.stdout) == (2, "")
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_options_may_follow_the_command(jobledger, client):
    job = client.create_job("render")
    target, user = jobledger.target, jobledger.user
    del jobledger.environment["JOBLEDGER_SERVER"], jobledger.environment["JOBLEDGER_USER"]
    for arguments in (
        ("--server", target, "--user", user, "get", job.id),
        ("--server", target, "get", "--user", user, job.id),
        ("get", job.id, "--server", target, "--user", user),
        # The last one counts.
        (
            "--server",
            "127.0.0.1:1",
            "--user",
            "x",
            "get",
            job.id,
            "--server",
            target,
            "--user",
            user,
        ),
    ):
        assert job.id in jobledger.ok(*arguments)


def test_options_win_over_the_environment_and_that_over_a_profile(jobledger, client, config):
    job = client.create_job("render")
    config.write_text('[profiles.default]\nserver = "127.0.0.1:1"\nuser = "nobody"\ntimeout = 20')
    jobledger.ok("get", job.id)
    jobledger.environment |= {"JOBLEDGER_SERVER": "127.0.0.1:1", "JOBLEDGER_USER": "nobody"}
    jobledger.ok("--server", jobledger.target, "get", job.id, "--user", jobledger.user)


def test_an_empty_variable_is_not_set(jobledger, client, config):
    job = client.create_job("render")
    config.write_text(f'[profiles.default]\nserver = "{jobledger.target}"')
    jobledger.environment |= {"JOBLEDGER_SERVER": "", "JOBLEDGER_PROFILE": ""}
    jobledger.ok("get", job.id)


def test_a_profile_is_chosen_by_option_or_variable(jobledger, client, config):
    job = client.create_job("render")
    config.write_text(
        f'[profiles.test]\nserver = "{jobledger.target}"\nuser = "{jobledger.user}"\n'
        '[profiles.default]\nserver = "127.0.0.1:1"\nuser = "nobody"\n'
    )
    target = jobledger.environment.pop("JOBLEDGER_SERVER")
    del jobledger.environment["JOBLEDGER_USER"]
    jobledger.ok("--profile", "test", "get", job.id)
    jobledger.ok("get", job.id, "--profile", "test")
    jobledger.environment["JOBLEDGER_PROFILE"] = "test"
    jobledger.ok("get", job.id)
    run = jobledger("--profile", "default", "--server", target, "get", job.id)
    assert run.returncode == 4  # another user


def test_the_profiles_are_in_the_home_directory_unless_xdg_says_otherwise(
    jobledger, client, tmp_path
):
    job = client.create_job("render")
    file = tmp_path / ".config" / "jobledger" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'[profiles.default]\nuser = "{jobledger.user}"')
    jobledger.environment |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": ""}
    del jobledger.environment["JOBLEDGER_USER"]
    jobledger.ok("get", job.id)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server = ", "not TOML"),
        ('server = "a:1"', "unknown key 'server'"),
        ('[profiles.default]\nsever = "a:1"', "'sever'"),
        ("[profiles.other]\ntimeout = 0", "timeout"),
        ('[profiles.default]\ntls = "yes"', "tls"),
        ('[profiles.default]\ntoken = "secret"', "token_file"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(jobledger, config, text, words):
    config.write_text(text)
    assert_usage(jobledger("list"), str(config), words)


def test_a_profile_that_is_not_there_is_an_error(jobledger, config):
    config.write_text("[profiles.staging]")
    assert_usage(jobledger("--profile", "prod", "list"), str(config), "'prod'", "staging")
    config.unlink()
    assert_usage(jobledger("--profile", "prod", "list"), str(config), "'prod'")
    # No file is needed if none is asked for.
    jobledger.ok("list")


# --- tokens and TLS ------------------------------------------------------------------------------


class Guarded(grpc.GenericRpcHandler):
    """A server that wants ada's certificate; records the tokens that it got."""

    def __init__(self):
        self.tokens = []
        pair = (LOCALHOST_KEY, LOCALHOST_CERTIFICATE)
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers([self])
        port = self._server.add_secure_port(
            "localhost:0",
            grpc.ssl_server_credentials([pair], ADA_CERTIFICATE, require_client_auth=True),
        )
        self.target = f"localhost:{port}"

    def service(self, details):
        self.tokens.append(dict(details.invocation_metadata).get("authorization"))
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: ListJobsResponse(),
            response_serializer=ListJobsResponse.SerializeToString,
        )

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(0).wait()


@pytest.fixture
def guarded():
    with Guarded() as server:
        yield server


@pytest.fixture
def pem(tmp_path):
    """Files with a CA for the server, a certificate of ada and its key."""
    for name, content in (
        ("ca.pem", LOCALHOST_CERTIFICATE),
        ("cert.pem", ADA_CERTIFICATE),
        ("key.pem", ADA_KEY),
    ):
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_ca_and_a_certificate_make_a_connection_with_mutual_tls(jobledger, guarded, pem):
    jobledger.environment["JOBLEDGER_SERVER"] = guarded.target
    ca, client = (
        ("--ca-file", f"{pem}/ca.pem"),
        ("--cert", f"{pem}/cert.pem", "--key", f"{pem}/key.pem"),
    )
    jobledger.ok("list", *ca, *client)
    # With less, the connection fails.
    for fewer in (ca, ("--tls",)):
        assert jobledger("list", "--timeout", "1", *fewer).returncode == 6


def test_file_paths_in_a_profile_are_relative_to_it(jobledger, config, guarded, pem):
    (pem / "token").write_text("of-the-profile\n")
    config.write_text(
        f'[profiles.default]\nserver = "{guarded.target}"\ntoken_file = "../../token"\n'
        f'ca_file = "../../ca.pem"\ncert = "../../cert.pem"\nkey = "{pem}/key.pem"'
    )
    del jobledger.environment["JOBLEDGER_SERVER"]
    jobledger.ok("list")
    # A token replaces the profile's file.
    jobledger.ok("list", "--token", "given")
    assert guarded.tokens == ["Bearer of-the-profile", "Bearer given"]
    assert jobledger("list", "--no-tls", "--timeout", "1").returncode == 6


def test_a_token_file_is_read_for_each_call(guarded, pem):
    token = pem / "token"
    token.write_text("first")
    connection = Connection.of(
        [
            {"user": "ada", "server": guarded.target, "token_file": str(token)},
            {
                name: f"{pem}/{name.removesuffix('_file')}.pem"
                for name in ("ca_file", "cert", "key")
            },
        ]
    )
    with connection.open() as client:
        list(client.list_jobs())
        token.write_text("second")
        list(client.list_jobs())
        # While it is being replaced, the last one may still be good.
        token.unlink()
        list(client.list_jobs())
    assert guarded.tokens == ["Bearer first", "Bearer second", "Bearer second"]


def test_files_that_cannot_be_used_are_named(jobledger, pem):
    (pem / "text").write_text("no certificate")
    (pem / "empty").touch()
    for options, words in (
        ("--ca-file missing", "missing"),
        ("--ca-file text", "text"),
        ("--cert cert.pem", "give both"),
        ("--key key.pem", "give both"),
        ("--cert ca.pem --key key.pem", "ca.pem"),
        ("--cert text --key key.pem", "text"),
        ("--cert cert.pem --key missing", "missing"),
        ("--no-tls --ca-file ca.pem", "needs TLS"),
        ("--token-file missing", "missing"),
        ("--token-file empty", "empty"),
        ("--token-file text --token t", "not both"),
    ):
        assert_usage(jobledger("list", *options.split(), cwd=pem), words)


def test_no_token_reaches_stderr(jobledger):
    run = jobledger("--token", "very secret", "list")
    assert_usage(run, "token")
    assert "secret" not in run.stderr


# --- completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["worker", ""], {"exec"}),
        (["list", "--crea"], {"--created-after", "--created-before"}),
        (["list", "--status", "p"], {"processing", "partial"}),
        (["limits", ""], {"set", "remove"}),
        (["cancel", "--status", ""], {"queued", "processing"}),
    ],
)
def test_commands_options_and_choices_are_completed(words, expected):
    *before, last = words
    shell = BashComplete(commands.jobledger, {}, "jobledger", "_JOBLEDGER_COMPLETE")
    completed = [each.value.lower() for each in shell.get_completions(before, last)]
    assert expected <= set(completed)
    assert all(each.startswith(last) for each in completed)


def test_bash_completes_a_command(jobledger):
    script = """
eval "$(_JOBLEDGER_COMPLETE=bash_source jobledger)"
COMP_WORDS=(jobledger worker e)
COMP_CWORD=2
_jobledger_completion jobledger
printf '%s\\n' "${COMPREPLY[@]}"
"""
    path = f"{PROGRAM.parent}:{jobledger.environment['PATH']}"
    run = subprocess.run(
        ["bash", "-euc", script],
        env=jobledger.environment | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "exec\n"
