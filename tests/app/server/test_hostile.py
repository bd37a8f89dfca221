"""What a hostile client may send, and the sentence it is answered by. Never a 500, and nothing is lost."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from .drawn import API, drawing, examples, sent, serving

JSON = {"content-type": "application/json"}
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
PICTURE = sent(drawing(1, 1))


def png(width: int, height: int, data: bytes = b"") -> str:
    """A file that says it is a picture of this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return base64.b64encode(raw).decode()


def of(images: list[Any], **more: Any) -> dict[str, Any]:
    return {"examples": [{"label": str(i), "image": x} for i, x in enumerate(images)], **more}


def gif(frames: int) -> str:
    file = io.BytesIO()
    first, *rest = [Image.new("L", (8, 8), i) for i in range(frames)]
    first.save(file, "GIF", save_all=True, append_images=rest)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "examples: field required"),
        ([], 422, "the request must be an object of JSON, {…}"),
        ("text", 422, "the request must be an object"),
        (None, 422, "the request must be an object"),
        (of([]), 422, "examples: list should have at least 1 item"),
        (of([PICTURE] * 17), 413, "17 examples: a classifier may have 16"),
        (of([PICTURE] * 7), 413, "7 classes: a classifier may have 6"),
        (of([PICTURE], run="nothing"), 422, "unknown run 'nothing'"),
        (of([PICTURE], run="../../etc/passwd"), 422, "unknown run"),
        (of([PICTURE], run=7), 422, "run: input should be a valid string"),
        (of([PICTURE], path="/etc/passwd"), 422, "path: extra inputs are not permitted"),
        (of([PICTURE], options={"steps": 5}), 422, "takes no inner steps"),
        (of([PICTURE], options={"steps": 10**9}), 422, "options.steps: input should be less than or equal"),
        (of([PICTURE], options={"steps": math.nan}), 422, "options.steps: input should be a valid integer"),
        (of([PICTURE], options={"steps": math.inf}), 422, "options.steps: input should be a valid integer"),
        (of([PICTURE], options={"steps": True}), 422, "options.steps: input should be a valid integer"),
        (of([PICTURE], options={"learner": "maml"}), 422, "options.learner: extra inputs"),
        (of([PICTURE], options={"control": "../scratch"}), 422, "unknown control '../scratch'"),
        (of([PICTURE], options={"control": "x" * 101}), 422, "options.control: string should have at most"),
        (of([7]), 422, "examples.0.image: input should be a valid string"),
        (of([""]), 422, "examples.0.image: string should have at least 1 character"),
        (of(["/etc/passwd"]), 422, "example 0: not"),
        (of(["file:///etc/passwd"]), 422, "example 0: not base64"),
        (of(["http://127.0.0.1/x.png"]), 422, "example 0: not base64"),
        (of(["data:text/html;base64,AAAA"]), 422, "example 0: not base64"),
        (of([PICTURE, "not base64 at all!"]), 422, "example 1: not base64"),
        (of(["AAAA"]), 422, "example 0: not a picture"),
        (of([base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()]), 422, "example 0: "),
        (of([PICTURE[:60]]), 422, "example 0: "),
        (of([png(50_000, 50_000)]), 422, "example 0: the picture has more than"),
        (of([png(101, 100)]), 422, "example 0: the picture has more than"),
        (of([png(90, 90)] * 3), 422, "megapixels together; make them smaller, or send fewer"),
        (of([png(2**31 - 1, 2**31 - 1)]), 422, "example 0: "),
        (of([png(0, 0)]), 422, "example 0: "),
        (of([png(50, 50, zlib.compress(b"\0" * 10))]), 422, "example 0: the picture is damaged or cut off"),
        (of([base64.b64encode(POSTSCRIPT).decode()]), 422, "not a picture"),
        (of([base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()]), 422, "not a picture"),
        ({"examples": [{"label": "", "image": PICTURE}]}, 422, "examples.0.label: string should have"),
        ({"examples": [{"label": "x" * 101, "image": PICTURE}]}, 422, "examples.0.label: string should have"),
        ({"examples": [{"label": " \t ", "image": PICTURE}]}, 422, "examples.0.label: only spaces, or"),
        ({"examples": [{"label": "\u3000", "image": PICTURE}]}, 422, "examples.0.label: only spaces, or"),
        ({"examples": [{"label": "a\0", "image": PICTURE}]}, 422, "that cannot be seen"),
        ({"examples": [{"label": "a\n", "image": PICTURE}]}, 422, "that cannot be seen"),
        ({"examples": [{"label": "\u202etac", "image": PICTURE}]}, 422, "that cannot be seen"),
        ({"examples": [{"label": None, "image": PICTURE}]}, 422, "examples.0.label: input should be"),
        ({"examples": [{"image": PICTURE}]}, 422, "examples.0.label: field required"),
        ({"examples": {"0": PICTURE}}, 422, "examples: input should be a valid list"),
    ],
)
def test_what_is_wrong_is_answered_by_a_sentence(
    small: httpx.Client, body: object, status: int, said: str
) -> None:
    answer = small.post("/classifiers", content=json.dumps(body), headers=JSON)
    assert (answer.status_code, set(answer.json())) == (status, {"error"}), answer.text
    assert said in answer.json()["error"]
    assert small.get("/health").json()["classifiers"] == 0


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"{'examples': []}", 422),
        (b"\xff\xfe\x00", 400),
        (b"[" * 30_000, 400),
        (b'{"examples":' * 2_000, 400),
        (b'{"examples": 1e999}', 422),
        (b'{"examples": NaN}', 422),
        (b'{"examples": ' + b"9" * 20_000 + b"}", 400),
        (b"{" + b'"examples": [],' * 1_000 + b'"examples": []}', 422),
        (b'{"examples": "\\ud800"}', 422),
        (json.dumps(of([PICTURE])).replace("0", "\\ud800", 1).encode(), 422),
    ],
)
def test_broken_json(small: httpx.Client, content: bytes, status: int) -> None:
    answer = small.post("/classifiers", content=content, headers=JSON)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert "parsing" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "said"),
    [
        ("POST", "/classifiers", {"content-type": "text/plain"}, 415, "must be JSON"),
        ("POST", "/classifiers", {"content-type": "application/x-www-form-urlencoded"}, 415, "must be JSON"),
        ("POST", "/classifiers", {"content-type": "multipart/form-data; boundary=x"}, 415, "must be JSON"),
        ("POST", "/classifiers", {}, 415, "must be JSON"),
        ("POST", "/classifiers", {**JSON, "origin": "http://evil.example"}, 403, "another origin"),
        ("POST", "/classifiers", {**JSON, "origin": "null"}, 403, "another origin"),
        ("POST", "/classifiers", {**JSON, "origin": "http://127.0.0.1:1"}, 403, "another origin"),
        ("POST", "/classifiers", {**JSON, "sec-fetch-site": "cross-site"}, 403, "another origin"),
        ("DELETE", "/classifiers/x", {"origin": "http://evil.example"}, 403, "another origin"),
        ("GET", "/runs", {"host": "evil.example"}, 421, "does not go by that name"),
        ("GET", "/runs", {"host": "127.0.0.1.evil.example"}, 421, "does not go by that name"),
        ("GET", "/runs", {"host": "evil@127.0.0.1"}, 200, "runs"),
        ("GET", "/runs", {"host": "["}, 421, "does not go by that name"),
        ("GET", "/../../../etc/passwd", {}, 404, "no such page"),
        ("GET", "/classifiers/..%2f..%2f..%2fetc%2fpasswd", {}, 404, "no such"),
        ("GET", "/classifiers/%00", {}, 404, "no such classifier"),
        ("GET", "/classifiers/" + "x" * 5000, {}, 404, "no such classifier"),
        ("GET", "/nothing", {}, 404, "no such page"),
        ("PUT", "/classifiers", JSON, 405, "not for that method"),
        ("TRACE", "/classifiers", {}, 405, "not for that method"),
    ],
)
def test_who_may_ask_for_what(
    small: httpx.Client, method: str, path: str, headers: dict[str, str], status: int, said: str
) -> None:
    answer = small.request(method, path, headers=headers)
    assert answer.status_code == status, answer.text
    assert said in answer.text
    for name in ("content-security-policy", "x-content-type-options"):
        assert answer.headers[name]


def test_names_of_classes_are_answered_as_text(small: httpx.Client) -> None:
    label = "<script>alert(1)</script>"
    answer = small.post("/classifiers", json={"examples": [{"label": label, "image": PICTURE}, *examples(1)]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["classes"][0]["label"] == label
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_long_gif_is_its_first_picture(small: httpx.Client) -> None:
    assert small.post("/classifiers", json=of([gif(200)])).status_code == 201


def test_a_body_that_is_too_long(small: httpx.Client) -> None:
    body = b" " * 50_000
    answer = small.post("/classifiers", content=body, headers=JSON)
    assert answer.status_code == 413
    assert "longer than 0.04 MB" in answer.json()["error"]

    def parts() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 1000

    try:
        answer = small.post("/classifiers", content=parts(), headers=JSON)
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # the server hung up while the client still spoke
    for length in ("-1", "1e3", "9" * 30, "x"):
        with connected(small) as connection:
            start = f"POST {API}/classifiers HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            connection.sendall(f"{start}Content-Length: {length}\r\n\r\n".encode())
            assert connection.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))


def connected(client: httpx.Client) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=60)
    return found


def test_slow_clients_are_left(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quickstudy.app.server.limits import Limits
    from quickstudy.app.server.running import Impatient

    monkeypatch.setattr(Impatient, "patience", 2.0)
    with serving([run], limits=Limits(seconds=1.0)) as client:
        begun = time.monotonic()
        second = connected(client)
        second.sendall(f"GET {API}/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        first = b""
        while not first.endswith(b"}"):  # head and body may come apart
            first += second.recv(10_000)
        assert first.startswith(b"HTTP/1.1 200")
        silent, header, body = (connected(client) for _ in range(3))
        start = f"POST {API}/classifiers HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
        header.sendall(start)
        body.sendall(start + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        second.sendall(start)  # and the rest of this one never
        assert client.get("/health").status_code == 200  # others are served meanwhile
        assert silent.recv(100) == b""
        assert header.recv(100) == b""
        assert b"408" in body.recv(1000)
        assert second.recv(100) == b""
        assert time.monotonic() - begun < 60
        for connection in (silent, header, body, second):
            connection.close()


def test_who_leaves_early_disturbs_nobody(client: httpx.Client, made: str) -> None:
    body = json.dumps({"images": [PICTURE] * 50}).encode()
    start = f"POST {API}/classifiers/{made}/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    start += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    for part in (len(body) // 2, len(body)):
        for _ in range(5):
            with connected(client) as connection:
                connection.sendall(start.encode() + body[:part])
    answer = client.post(f"/classifiers/{made}/predict", json={"images": [PICTURE]})
    assert answer.status_code == 200


def test_a_token_of_any_letters(run: Path) -> None:
    with serving([run], token="sésame, öffne dich") as client:
        for text, status in (("sésame, öffne dich", 200), ("sesame, offne dich", 401)):
            answer = client.get("/runs", headers={"authorization": f"Bearer {text}".encode()})
            assert answer.status_code == status


def test_a_token_is_asked_for(run: Path) -> None:
    with serving([run], token="sesame opens") as client:
        for headers in ({}, {"authorization": "Bearer sesame"}, {"authorization": "Basic sesame opens"}):
            answer = client.get("/runs", headers=headers)
            assert answer.status_code == 401
            assert "a token is needed" in answer.json()["error"]
        answer = client.get("/runs", headers={"authorization": "Bearer sesame opens", "host": "my.machine"})
        assert answer.status_code == 200
        answer = client.get("/runs", headers={"authorization": "Bearer sesame opéns".encode()})
        assert answer.status_code == 401


def test_classifiers_are_only_so_many(small: httpx.Client) -> None:
    ids = [small.post("/classifiers", json=of([PICTURE])).json()["id"] for _ in range(5)]
    assert small.get("/health").json()["classifiers"] == 2
    assert [small.get(f"/classifiers/{id}").status_code for id in ids] == [404, 404, 404, 200, 200]


def test_a_classifier_grows_only_so_far(small: httpx.Client) -> None:
    id = small.post("/classifiers", json=of([PICTURE] * 6)).json()["id"]
    more = {"examples": [{"label": "0", "image": PICTURE}] * 6}
    assert small.post(f"/classifiers/{id}/examples", json=more).status_code == 200
    answer = small.post(f"/classifiers/{id}/examples", json=more)
    assert (answer.status_code, answer.json()["error"]) == (413, "18 examples: a classifier may have 16")
    new = {"examples": [{"label": "new", "image": PICTURE}]}
    assert small.post(f"/classifiers/{id}/examples", json=new).status_code == 413
    assert small.get(f"/classifiers/{id}").json()["classes"][0]["examples"] == 7


def test_too_many_pictures_to_classify(small: httpx.Client) -> None:
    id = small.post("/classifiers", json=of([PICTURE] * 2)).json()["id"]
    answer = small.post(f"/classifiers/{id}/predict", json={"images": [PICTURE] * 4})
    assert answer.status_code == 413
    assert answer.json()["error"] == "4 pictures: a request may have 3"
    assert small.post(f"/classifiers/{id}/predict", json={"images": []}).status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"way": 1}, 422, "way: input should be greater than or equal to 2"),
        ({"way": 10_000}, 422, "way: input should be less than or equal to 100"),
        ({"way": 7}, 413, "7 classes: a task may have 6"),
        ({"way": 5, "shot": 4}, 413, "20 examples: a task may have 16"),
        ({"way": 2, "query": 2}, 413, "4 queries: a task may have 3"),
        ({"way": 2, "query": -1}, 422, "query: input should be greater than or equal to 1"),
        ({"number": -1}, 422, "number: input should be greater than or equal to 0"),
        ({"number": 2**31}, 422, "number: input should be less than"),
        ({"number": 1.5}, 422, "number: input should be a valid integer"),
        ({"run": "../.."}, 422, "unknown run '../..'"),
        ({"split": "train"}, 422, "split: extra inputs are not permitted"),
        ([], 422, "the request must be an object"),
    ],
)
def test_tasks_that_are_not_given(small: httpx.Client, body: object, status: int, said: str) -> None:
    answer = small.post("/tasks", json=body)
    assert (answer.status_code, set(answer.json())) == (status, {"error"}), answer.text
    assert said in answer.json()["error"]


def test_too_much_to_look_at(small: httpx.Client) -> None:
    id = small.post("/classifiers", json=of([PICTURE] * 2)).json()["id"]
    for images, status, said in (
        ([PICTURE] * 4, 413, "4 pictures: a request may have 3"),
        (["AAAA"], 422, "image 0: not a picture"),
        ([png(50_000, 50_000)], 422, "image 0: the picture has more than"),
    ):
        answer = small.post(f"/classifiers/{id}/inside", json={"images": images})
        assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
    assert small.post("/classifiers/none/inside", json={"images": []}).status_code == 404


def test_data_that_are_gone(run: Path, tmp_path: Path) -> None:
    """Of a folder that was there in training: the sentence does not say where it was."""
    shutil.copytree(run, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    config["data"] = "/home/ada/secret/signs"
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    with serving([tmp_path / "a"]) as client:
        answer = client.post("/tasks", json={})
        assert (answer.status_code, "secret" in answer.text) == (422, False), answer.text
        assert "the data of a are not here" in answer.json()["error"]


def test_more_classes_than_a_head_answers(client: httpx.Client) -> None:
    answer = client.post("/classifiers", json=of([sent(drawing(c, 0)) for c in range(6)], run="maml"))
    assert answer.status_code == 413
    assert "at most 5 ways, not 6; proto-maml" in answer.json()["error"]


def test_no_client_keeps_a_processor_for_minutes(client: httpx.Client) -> None:
    many = [{"label": str(i % 2), "image": PICTURE} for i in range(150)]
    for steps, status in ((200, 413), (130, 201)):
        asked = {"examples": many, "run": "maml", "options": {"steps": steps}}
        answer = client.post("/classifiers", json=asked)
        assert answer.status_code == status, answer.text
        if status == 413:
            assert answer.json()["error"] == "150 examples and 200 inner steps: their product may be 20000"
