"""A full set small enough for tests: six batches of 100 random images, 10 of each class, with their own SHA-1."""

import contextlib
import hashlib
import http.server
import threading

import numpy as np
import pytest
from tiny_cifar import giving

from lab import datasets
from lab.datasets import cifar10 as full


@pytest.fixture
def tiny(monkeypatch):
    """``{batch: its bytes}``; the module's sizes and checksums are those of this set while the test runs."""
    rng = np.random.default_rng(0)
    content = {}
    for name in full.SHA1:
        labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), 10))
        pixels = rng.integers(0, 256, (100, 3072), dtype=np.uint8)
        content[name] = np.concatenate([labels[:, None], pixels], 1).tobytes()
    monkeypatch.setattr(full, "PER_BATCH", 100)
    monkeypatch.setattr(full, "SHA1", {name: hashlib.sha1(data).hexdigest() for name, data in content.items()})
    return content


@pytest.fixture
def root(tiny, tmp_path):
    """A data root that holds the tiny full set."""
    datasets.fetch("cifar10", tmp_path / "data", sources=[("memory", giving(tiny))])
    return tmp_path / "data"


@pytest.fixture
def serve():
    """``serve(body, ...)``: the URL of a server that sends ``step`` bytes at a time, in all ``cut``.

    With ``hold`` it says no more after the first ``step``, until the test has ended.
    """
    servers, ended = [], threading.Event()

    def start(body=b"", step=1 << 20, hold=False, cut=None, status=200):
        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the client may leave
                    for start in range(0, len(body) if cut is None else cut, step):
                        self.wfile.write(body[start : start + step][: None if cut is None else cut - start])
                        if hold:
                            ended.wait()

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"

    yield start
    ended.set()
    for server in servers:
        server.shutdown()
        server.server_close()
