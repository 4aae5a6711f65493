"""The HTTP interface with a predictor that reverses what it gets: who is let in, limits, names, and what stays."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_predictors import reverses, slow

TOKEN = "0123456789abcdef"
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="0000"; filename="a.nii.gz"\r\n\r\n'


def upload(content: bytes, name: str = "heart_0000.nii.gz", field: str = "0000") -> list:
    return [(field, (name, content))]


def test_an_upload_is_predicted_and_nothing_of_it_stays(client):
    answer = client.post("/predict", files=upload(b"abc"))
    assert (answer.status_code, answer.content) == (200, b"cba")
    assert answer.headers["content-type"] == "application/zip"
    assert list(client.folder.iterdir()) == []


def test_channels_go_by_the_names_of_their_fields(client):
    files = upload(b"second", field="0001") + upload(b"first", field="0000")
    assert client.post("/predict", files=files).content == b"firstsecond"[::-1]


# --- who is let in ---


def test_without_the_token_nothing_is_predicted(start):
    with start(reverses, token=TOKEN) as client:
        for shown in ("", "Bearer", "Bearer 0123456789abcdeX", "Bearer é"):
            answer = client.post("/predict", files=upload(b"abc"), headers={"Authorization": shown.encode()})
            assert answer.status_code == 401
        assert client.post("/predict", files=upload(b"abc")).status_code == 401
        assert client.get("/model").status_code == 401
        assert list(client.folder.iterdir()) == []

        assert client.get("/health").json()["status"] == "ready"
        allowed = {"Authorization": f"Bearer {TOKEN}", "Host": "hospital.example"}
        assert client.post("/predict", files=upload(b"abc"), headers=allowed).content == b"cba"
        described = client.get("/model", headers=allowed).json()
        assert described["channels"] == ["CT"]
        assert described["limits"]["seconds"] == 600


@pytest.mark.parametrize(("host", "status"), [("localhost:8000", 200), ("[::1]:8000", 200), ("evil.example", 403)])
def test_without_a_token_the_server_answers_to_names_of_this_computer_only(client, host, status):
    assert client.post("/predict", files=upload(b"abc"), headers={"Host": host}).status_code == status


# --- what an upload may be ---


def test_an_upload_beyond_the_limit_is_refused_whether_or_not_it_says_so(start):
    def chunks():
        yield PART
        for _ in range(20):
            yield bytes(100)

    with start(reverses, upload_bytes=1000) as client:
        assert client.post("/predict", files=upload(bytes(2000))).status_code == 413
        answer = client.post("/predict", content=chunks(), headers=FORM)
        assert answer.status_code == 413
        assert "--max-upload" in answer.json()["error"]
        assert list(client.folder.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../../../../etc/cron.d/x.nii.gz", "/etc/x.nii.gz", "..\\..\\x.nii.gz", "a\0b.nii.gz", "x" * 3000 + ".nii.gz"],
)
def test_the_server_chooses_the_names_of_files(client, name):
    around = client.folder.parent
    before = set(around.rglob("*"))
    assert client.post("/predict", files=upload(b"names", name)).content == b"case_0000.nii.gz"
    assert set(around.rglob("*")) == before
    assert not Path("/etc/cron.d/x.nii.gz").exists()


@pytest.mark.parametrize("field", ["../x", "image", "00000", "0000/..", "", "٠٠٠٠"])
def test_a_field_is_named_by_four_digits(client, field):
    assert client.post("/predict", files=upload(b"abc", field=field)).status_code == 400


def test_forms_that_are_none(client):
    whole = PART + b"abc\r\n--x--\r\n"
    assert client.post("/predict", content=whole, headers=FORM).content == b"cba"
    for content, headers in (
        (b"abc", {"Content-Type": "application/octet-stream"}),
        (b"abc", {}),
        (b"", FORM),
        (whole[:-4], FORM),  # cut off
        (b"nonsense", FORM),
        (b"--x\r\n" + b"a" * 100_000 + b": b\r\n\r\n", FORM),  # a header without end
        (whole, {"Content-Type": "multipart/form-data; boundary=" + "x" * 10_000}),
        (whole.replace(b"--x--", whole), FORM),  # two files for one channel
    ):
        assert client.post("/predict", content=content, headers=headers).status_code == 400, content[:40]
    assert list(client.folder.iterdir()) == []


def test_another_file_ending_is_refused(client):
    answer = client.post("/predict", files=upload(b"abc", "secret name.dcm"))
    assert answer.status_code == 422
    assert ".nii.gz" in answer.json()["error"]
    assert "secret" not in answer.text


# --- what the worker says ---


def test_the_worker_may_refuse_or_fail_and_goes_on(client):
    first = client.worker.pid
    refused, failed = (client.post("/predict", files=upload(word)) for word in (b"refuse", b"fail"))
    assert (refused.status_code, refused.json()) == (422, {"error": "not this one"})
    assert failed.status_code == 500
    assert str(client.folder) not in failed.text
    assert client.post("/predict", files=upload(b"abc")).content == b"cba"
    assert client.worker.pid == first


def test_a_worker_that_hangs_is_replaced(start):
    with start(reverses, seconds=1) as client:
        first = client.worker.pid
        assert client.post("/predict", files=upload(b"hang")).status_code == 504
        assert client.post("/predict", files=upload(b"abc")).content == b"cba"
        assert client.worker.pid != first


def test_a_worker_that_dies_is_replaced_and_the_case_predicted_once_more(start):
    with start(reverses) as client:
        assert client.post("/predict", files=upload(b"die once")).status_code == 200
        twice = client.post("/predict", files=upload(b"die"))
        assert twice.status_code == 500
        assert "ended 2 times" in twice.json()["error"]
        assert client.post("/predict", files=upload(b"abc")).content == b"cba"


def test_a_worker_that_dies_with_nothing_to_do_is_replaced(start):
    with start(reverses) as client:
        first = client.worker.pid
        client.worker.stop()
        ends = time.monotonic() + 20
        while client.worker.pid == first and time.monotonic() < ends:
            time.sleep(0.1)
        assert client.worker.pid != first
        assert client.post("/predict", files=upload(b"abc")).content == b"cba"


# --- several requests ---


def test_requests_beyond_the_queue_are_turned_away(start):
    with start(slow, waiting=1) as client:
        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(lambda _: client.post("/predict", files=upload(b"abc")), range(6)))
        assert [answer.status_code for answer in answers].count(200) >= 2
        away = [answer for answer in answers if answer.status_code != 200]
        assert {answer.status_code for answer in away} == {503}
        assert all(answer.headers["retry-after"] for answer in away)
        assert client.post("/predict", files=upload(b"abc")).status_code == 200


def test_requests_at_the_same_time_get_their_own_results(start):
    contents = [b"patient %d" % number for number in range(20)]
    with start(reverses, waiting=20) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda content: client.post("/predict", files=upload(content)), contents))
    assert [answer.content[::-1] for answer in answers] == contents
