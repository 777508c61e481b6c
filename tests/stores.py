"""An S3 server that others wrote, and a bucket of it."""

import logging

import pyarrow.fs
import pytest

SECRET = "s3cr3t"


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server", reason="moto, the S3 server of the tests, is not installed")
    logging.getLogger("werkzeug").setLevel("ERROR")  # it tells of every request
    running = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def store(server, monkeypatch, tmp_path):
    """The bucket `shop` of the server; credentials and address come from the environment, as those of users do."""
    for name, value in (
        ("AWS_ENDPOINT_URL", server),
        ("AWS_ACCESS_KEY_ID", "someone"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("XDG_CACHE_HOME", str(tmp_path / "cache")),
    ):
        monkeypatch.setenv(name, value)
    address, scheme = server.removeprefix("http://"), "http"
    s3 = pyarrow.fs.S3FileSystem(endpoint_override=address, scheme=scheme, allow_bucket_creation=True)
    s3.create_dir("shop")
    yield s3
    s3.delete_dir_contents("shop")
