"""`nnunet_ext serve`: its options, and the command as a process that is asked over a socket."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from nnunet_ext.cli import build_parser, main
from nnunet_ext.cli.serve import serve_options
from nnunet_ext.machine.extras import ExtraMissingError
from nnunet_ext.options import ModelChoice, ServeOptions, ServerLimits
from nnunet_ext.options.serving import is_loopback
from nnunet_ext.serving.http_server import require_packages

MODEL = ModelChoice(folders=(Path("model"),))
TOKEN = "0123456789abcdef"


def options_of(*arguments: object) -> ServeOptions:
    return serve_options(build_parser().parse_args(["serve", "-m", "model", *map(str, arguments)]))


def test_flags_become_options(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = options_of(
        "--host", "0.0.0.0", "--token-file", tmp_path / "token", "--max-upload", 2, "--max-voxels", 7, "--timeout", 3,
        "--queue", 0, "--maps", "none", "--calibrated",
    )  # fmt: skip
    assert options.limits == ServerLimits(upload_bytes=2_000_000, voxels=7, seconds=3, waiting=0)
    assert (options.host, options.port, options.token) == ("0.0.0.0", 8000, TOKEN)
    assert list(options.output.maps) == []
    assert options.calibration is True


def test_defaults_are_those_of_the_options():
    assert options_of().limits == ServerLimits(upload_bytes=1_000_000_000)
    assert options_of().host == ServeOptions(MODEL).host == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.5", "hospital.example", "::", "127.0.0.1.example"])
def test_other_computers_need_a_token(host):
    with pytest.raises(ValueError, match=rf"needs a token; found the host {host} and none\. Give --token-file"):
        ServeOptions(MODEL, host=host)
    assert ServeOptions(MODEL, host=host, token=TOKEN).token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_this_computer_needs_none(host):
    assert is_loopback(host)
    assert ServeOptions(MODEL, host=host).token is None


@pytest.mark.parametrize("token", ["", "short"])
def test_a_token_that_can_be_guessed_is_refused(token):
    with pytest.raises(ValueError, match="16 characters"):
        ServeOptions(MODEL, token=token)


@pytest.mark.parametrize("limits", [{"upload_bytes": 0}, {"voxels": 0}, {"seconds": -1}, {"waiting": -1}])
def test_limits_that_let_nothing_through_are_refused(limits):
    with pytest.raises(ValueError, match="found"):
        ServerLimits(**limits)


def test_a_missing_package_names_the_extra():
    try:
        require_packages()
    except ExtraMissingError as error:
        assert "nnunet-ext[serve]" in str(error)
        assert main(["serve", "-m", "model"]) == 1


# --- the command ---


@contextmanager
def served(temporary: Path, *arguments: object):
    """Runs `nnunet_ext serve` on a free port until it answers; yields its address; ends it as `docker stop` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "nnunet_ext", "serve", "--port", port, "-device", "cpu", *arguments]
    process = subprocess.Popen(
        list(map(str, command)),
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        ends = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < ends:
            try:
                urllib.request.urlopen(f"{address}/health")
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        assert process.poll() is None, process.stdout.read()
        yield address
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, 130), process.stdout.read()
    finally:
        process.kill()
        process.stdout.close()


def post(address: str, file: Path) -> bytes:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="0000"; filename="a.nii.gz"\r\n\r\n'
        + file.read_bytes()
        + b"\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/predict", body, headers)) as answer:
        return answer.read()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process can answer")
def test_the_command_serves_what_predict_predicts(make_model_folder, make_image, tmp_path):
    for package in ("starlette", "uvicorn", "python_multipart"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'nnunet-ext[serve]'")
    model, images = make_model_folder(), make_image(tmp_path / "images")
    arguments = ["-i", images, "-o", tmp_path / "out", "-m", model, "-device", "cpu", "--disable_progress_bar"]
    assert main(["predict", *map(str, arguments)]) == 0
    (tmp_path / "temporary").mkdir()
    with served(tmp_path / "temporary", "-m", model) as address:
        with zipfile.ZipFile(io.BytesIO(post(address, images / "case_0000.nii.gz"))) as zipped:
            for name in ("case.nii.gz", "maps/entropy/case.nii.gz"):
                assert zipped.read(name) == (tmp_path / "out" / name).read_bytes()
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(address, Path(__file__))
        assert refused.value.code == 422
    assert list((tmp_path / "temporary").iterdir()) == []
