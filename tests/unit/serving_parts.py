"""The process that serves models, in a thread of the test, with a network that tells whose text it was given."""

import asyncio
import json
import os
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from pgml_tune.engine import encoder
from pgml_tune.engine.artifact import new_artifact, publish
from pgml_tune.ipc.addresses import Port, SocketFile, family_of
from pgml_tune.ipc.client import Client
from pgml_tune.ipc.note import Note
from pgml_tune.serving.hosted import Models
from pgml_tune.serving.limits import Limits
from pgml_tune.serving.listener import Listener, accept, open_port, own_secret
from pgml_tune.serving.newcomers import Newcomers
from pgml_tune.serving.scheduler import FIRST_LANE, Scheduler
from pgml_tune.serving.server import Server
from pgml_tune.settings import Loopback
from tests.unit.test_records import CONFIG

WORDS = 1000
POISON = 998  # a word for which the network has no usable row
SLOW = 997  # one that takes long
SLOW_SECONDS = 0.3
HELD = 996  # one that takes until the test lets it go
MOST_LANES = 4


class Network:
    """Gives for each row: how many tokens it has, their sum, the first and the last."""

    runs: list = []  # noqa: RUF012
    is_let_go = threading.Event()

    def __init__(self, model_file, threads, output):
        pass

    def run(self, token_ids, attention_mask):
        self.runs.append(len(token_ids))
        if (token_ids == SLOW).any():
            time.sleep(SLOW_SECONDS)
        if (token_ids == HELD).any():
            assert self.is_let_go.wait(30)
        rows = [ids[mask.astype(bool)] for ids, mask in zip(token_ids, attention_mask, strict=True)]
        found = np.array([expected(row.tolist()) for row in rows], np.float32)
        found[(token_ids == POISON).any(axis=1)] = np.nan
        return found


def expected(ids):
    """The row of a text by the numbers of its words."""
    return [len(ids), sum(ids), ids[0] + 1, ids[-1] + 1]


def text_of(ids):
    return " ".join(map(str, ids))


def publish_model(model_root, **changes):
    """The digest of a model that knows numbers."""
    with new_artifact(model_root) as folder:
        tokenizer = Tokenizer(models.WordLevel({str(n): n for n in range(WORDS)} | {"[UNK]": WORDS}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "model.onnx").write_bytes(b"")
        values = {"max_tokens": 64, "pad_token_id": 0, "prompt_passage": "", "prompt_query": "7 "}
        (folder / "config.json").write_text(json.dumps(CONFIG | values | changes))
        return publish(model_root, folder).digest


@contextmanager
def serving(model_root, address, monkeypatch, *, lanes=2, budget=1 << 40, shares_hardware=False, listen=None, **limits):
    """The server, running until the block ends."""
    monkeypatch.setattr(encoder, "OnnxRuntime", Network)
    allowed = Limits(**({"max_wait_ms": 100, "batch_size": 32, "batch_tokens": 8192, "queue_requests": 1000} | limits))
    listener = Listener(address, "")
    loop = asyncio.new_event_loop()
    note = Note(address.with_suffix(".note"), FIRST_LANE + MOST_LANES)
    scheduler = Scheduler(loop, Models(model_root, budget), allowed, note, shares_hardware=shares_hardware)
    server = Server(scheduler, frozenset({os.geteuid()}), 500, lambda: {"requests": scheduler.totals.requests})
    ready = threading.Event()
    faults = []

    async def run():
        scheduler.resize(lanes)
        loop.set_exception_handler(lambda _, context: faults.append(context))
        accepting = [await accept(loop, server.connection, listener.socket)]
        if listen is not None:
            newcomers = Newcomers(server, own_secret(address.parent / "listen_secret", ""))
            accepting.append(await accept(loop, newcomers.newcomer, open_port(listen)))
        beating = loop.create_task(beat())
        ready.set()
        await ended.wait()
        beating.cancel()
        for each in accepting:
            each.close()
        server.drain()
        while scheduler.queued or server.connections:
            await asyncio.sleep(0.001)

    async def beat():
        while True:
            await asyncio.sleep(0.05)
            server.beat()

    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(ended.set)
        for connection in list(server.connections.values()):
            loop.call_soon_threadsafe(connection.end_if_idle)
        thread.join(10)
        scheduler.close()
        for lane in scheduler.computing.lanes:
            lane._thread.join(10)
        listener.close()
        loop.close()
    assert not faults


def free_port(host="127.0.0.1"):
    """A port that nobody listens at."""
    with socket.socket(family_of(Loopback(host, 0))) as probe:
        probe.bind((host, 0))
        return Loopback(*probe.getsockname()[:2])


def client_at(loopback, secret_file):
    return Client(Port(loopback, secret_file, lambda: frozenset({os.geteuid()})))


def client_of(address):
    return Client(SocketFile(address, lambda: frozenset({os.geteuid()})))
