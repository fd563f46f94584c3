"""Processes around a server of their own: those who use it, and those who send it anything."""

import json
import logging
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pgml_tune.engine.work import Work
from pgml_tune.ipc.frames import NO_DIGEST, Frame, Kind, pack
from pgml_tune.ipc.handshake import HELLO_BYTES, PROOF_BYTES
from pgml_tune.service.remote_runtime import RemoteRuntime
from pgml_tune.service.runtime import How
from tests.unit.serving_parts import Network, client_at, client_of, expected, serving, text_of

HALF_OPEN = 100
HONEST = 4
COMPUTING_SECONDS = 0.005  # of a batch, about what a small model takes for a short text
_ATTACKERS = 4
_TCP_SHARE = 0.02  # more would use up the ports of the machine in a long run
_WORD_COUNT = 900


class Replacer:
    """What replaces things for as long as the process lives."""

    def setattr(self, owner, name, value):
        setattr(owner, name, value)


class SlowNetwork(Network):
    """Takes as long as a model does."""

    def run(self, token_ids, attention_mask):
        time.sleep(COMPUTING_SECONDS)
        self.runs.clear()
        return super().run(token_ids, attention_mask)


def serve(root, address, port, ready, ended):
    """The server; ends with an error if anything went wrong in it that nobody has foreseen."""
    logging.disable(logging.WARNING)
    from tests.unit import serving_parts

    serving_parts.Network = SlowNetwork
    with serving(Path(root), Path(address), Replacer(), listen=port, queue_requests=100_000):
        ready.set()
        ended.wait()


def use(address, port, digest, begun, ended, answers):
    """Honest sessions, half of them at the port: when each asked, how long it waited, and whether all was right."""
    secret_file = Path(address).parent / "listen_secret"

    def ask(seed):
        chance, times, is_right = random.Random(seed), [], True
        client = client_at(port, secret_file) if seed % 2 else client_of(address)
        runtime = RemoteRuntime(client)
        while not ended.is_set():
            ids = [chance.randrange(_WORD_COUNT) for _ in range(chance.randrange(1, 20))]
            started = time.monotonic()
            found = runtime.embed(digest, [text_of(ids)], How("passage"), Work(), None)
            times.append((started, time.monotonic() - started))
            begun.set()
            is_right = is_right and json.loads(found.forms[0]) == expected(ids)
        client.close()
        return times, is_right

    with ThreadPoolExecutor(HONEST) as pool:
        for outcome in pool.map(ask, range(HONEST)):
            answers.put(outcome)


def stay_half_open(address, port, ended, count):
    """Peers that begin and do not go on; those that are dropped come back."""
    beginnings = [
        b"", b"pg", Frame(Kind.REQUEST, 1, NO_DIGEST, b"x" * 99).to_bytes()[:60],
        Frame(Kind.PART, 1, NO_DIGEST, b"x" * 99).to_bytes()[:60],
    ]  # fmt: skip
    peers = {}
    while not ended.is_set():
        for number in range(HALF_OPEN):
            if number not in peers or is_dropped(peers[number]):
                at_port = number % 10 == 0
                peers[number] = connected(port if at_port else address)
                peers[number].sendall(beginnings[number % len(beginnings)])
                peers[number].setblocking(False)
                count.value += 1
        ended.wait(0.2)


def is_dropped(peer):
    try:
        if peer.recv(1):
            return False
    except BlockingIOError:
        return False
    except OSError:
        pass
    peer.close()
    return True


def connected(place):
    at_port = not isinstance(place, str)
    peer = socket.socket(socket.AF_INET if at_port else socket.AF_UNIX)
    peer.settimeout(30)
    peer.connect(tuple(place) if at_port else place)
    return peer


def attack(address, port, digest, frames, seed):
    """Send so many frames of all kinds that are none, each over a connection that ends with it."""

    def send(number):
        chance = random.Random(seed * _ATTACKERS + number)
        for _ in range(frames // _ATTACKERS):
            at_port = chance.random() < _TCP_SHARE
            data = hello(chance) if at_port else frame(chance, digest)
            with connected(port if at_port else address) as peer:
                try:
                    peer.sendall(data)
                    if chance.random() < 0.9:  # the others do not wait for what comes
                        peer.shutdown(socket.SHUT_WR)
                        while peer.recv(1 << 16):
                            pass
                except (ConnectionError, BrokenPipeError):
                    pass

    with ThreadPoolExecutor(_ATTACKERS) as pool:
        list(pool.map(send, range(_ATTACKERS)))


def hello(chance):
    """Something instead of a proof."""
    data = chance.randbytes(chance.randrange(HELLO_BYTES + PROOF_BYTES + 20))
    return b"pgs\x01" + data if chance.random() < 0.5 else data


def frame(chance, digest):
    """Something like a frame."""
    kind = chance.random()
    if kind < 0.3:
        return chance.randbytes(chance.randrange(500))
    sound = bytearray(
        Frame(
            chance.choice(list(Kind)), chance.randrange(1 << 64), digest if chance.random() < 0.8 else NO_DIGEST,
            pack({"op": "embed", "kind": "passage"}, [b"1 2 3"] * chance.randrange(3)),
        ).to_bytes()
    )  # fmt: skip
    if kind < 0.6:  # some bytes are others
        for _ in range(chance.randrange(1, 6)):
            sound[chance.randrange(len(sound))] = chance.randrange(256)
    elif kind < 0.7:  # another length
        sound[44:48] = chance.choice([0, 1, 1 << 20, (1 << 21) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]).to_bytes(4)
    elif kind < 0.8:  # torn
        del sound[chance.randrange(len(sound)) :]
    elif kind < 0.9:  # what no client of ours asks
        values = {
            "op": chance.choice(["embed", "classify", "sketch", "spans", "count_tokens", "load", "generate", "?", 7]),
            "kind": chance.choice(["query", "passage", None, [], {}, "x" * 99]), "top_k": chance.choice([1, -1, "a"]),
            "alone": chance.choice([True, "no", 1]), "raw": 1, "total": {}, "bulk": chance.choice([True, 1]),
        }  # fmt: skip
        pieces = [chance.randbytes(chance.randrange(20)) for _ in range(chance.randrange(4))]
        sound = bytearray(Frame(Kind.REQUEST, 1, digest, pack(values, pieces)).to_bytes())
    else:  # several, some twice
        sound *= chance.randrange(1, 5)
    return bytes(sound)
