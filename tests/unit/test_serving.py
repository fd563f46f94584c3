"""The process that serves models as its clients see it; the network is a stand-in, sockets and threads are real."""

import json
import os
import random
import socket
import threading
import time

import pytest

from pgml_tune.engine.work import Work
from pgml_tune.errors import InvalidArgument, NotReady, QuotaExceeded, SystemFault
from pgml_tune.ipc.client import WorkerLost
from pgml_tune.ipc.frames import NO_DIGEST, Frame, FrameReader, Kind, pack, request
from pgml_tune.service.remote_runtime import RemoteRuntime
from pgml_tune.service.runtime import How
from pgml_tune.serving.__main__ import chosen_lanes, is_on_gpu
from pgml_tune.serving.hosted import Model, Models
from pgml_tune.serving.listener import Listener
from tests.unit.serving_parts import (
    HELD,
    MOST_LANES,
    POISON,
    SLOW,
    SLOW_SECONDS,
    Network,
    client_of,
    expected,
    publish_model,
    serving,
    text_of,
)

CLIENTS = 16
CALLS = int(os.environ.get("PGML_TUNE_SWAP_REQUESTS", "1600")) // CLIENTS
PASSAGE = How("passage")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Starts the server; gives its address, a model, and what makes clients."""
    opened, clients = [], []
    root, address = tmp_path / "models", tmp_path / "serve" / "worker.sock"
    root.mkdir()

    class Place:
        digest = publish_model(root)
        path = address

        def serve(self, **options):
            served = serving(root, address, monkeypatch, **options)
            opened.append(served)
            return served.__enter__()

        def client(self):
            clients.append(client_of(address))
            return clients[-1]

        def runtime(self, **options):
            return RemoteRuntime(self.client(), **options)

        def publish(self, **changes):
            return publish_model(root, **changes)

    yield Place()
    for client in clients:
        client.close()
    for served in opened:
        served.__exit__(None, None, None)


def embed(runtime, digest, rows, how=PASSAGE):
    found = runtime.embed(digest, [text_of(ids) for ids in rows], how, Work(), None)
    return [json.loads(form) for form in found.forms]


def test_vectors_come_in_the_order_of_their_texts(place):
    place.serve()
    rows = [list(range(1, 1 + number % 30 + 1)) for number in range(300)]
    assert embed(place.runtime(), place.digest, rows) == [expected(ids) for ids in rows]


def test_the_kind_of_a_text_decides_its_prompt(place):
    place.serve()
    assert embed(place.runtime(), place.digest, [[1]], How("query")) == [expected([7, 1])]


def test_texts_of_several_sessions_are_computed_together(place):
    place.serve(lanes=1)
    runtimes = [place.runtime() for _ in range(9)]
    embed(runtimes[0], place.digest, [[1]])
    Network.runs.clear()
    threads = [threading.Thread(target=embed, args=(runtimes[0], place.digest, [[SLOW]]))]
    threads += [threading.Thread(target=embed, args=(runtime, place.digest, [[2]])) for runtime in runtimes[1:]]
    for thread in threads:
        thread.start()
        time.sleep(SLOW_SECONDS / 20)
    for thread in threads:
        thread.join()
    assert Network.runs == [1, 8]


def test_a_version_that_neighbours_change_is_computed_apart(place):
    place.serve(lanes=1)
    digest = place.publish(is_batch_invariant=False)
    runtimes = [place.runtime() for _ in range(4)]
    embed(runtimes[0], digest, [[1]])
    Network.runs.clear()
    threads = [threading.Thread(target=embed, args=(runtime, digest, [[SLOW], [2]])) for runtime in runtimes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Network.runs == [2] * 4


def test_a_text_without_a_usable_vector_fails_for_its_session_only(place):
    place.serve(lanes=1)
    outcomes = {}

    def ask(number):
        try:
            outcomes[number] = embed(place.runtime(), place.digest, [[SLOW if number == 0 else POISON - number % 2]])
        except InvalidArgument as error:
            outcomes[number] = error.sqlstate

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcomes[number] for number in range(6)] == [
        [expected([SLOW])] if number == 0 or number % 2 else "22023" for number in range(6)
    ]


def test_nobody_ever_gets_the_vector_of_another_whoever_hangs_up(place):
    server = place.serve()
    swapped, done = [], []

    def ask(seed):
        chance = random.Random(seed)
        client = place.client()
        runtime = RemoteRuntime(client)
        for _ in range(CALLS):
            rows = [
                [chance.randrange(900) for _ in range(chance.randrange(1, 20))] for _ in range(chance.choice([1, 1, 3]))
            ]
            if chance.random() < 0.2:  # asks and goes away
                client.reach()
                payload = pack({"op": "embed", "kind": "passage"}, [text_of(ids).encode() for ids in rows])
                for frame in request(client._number + 1, place.digest, payload):
                    client._socket.sendall(frame.to_bytes())
                client.close()
            elif embed(runtime, place.digest, rows) != [expected(ids) for ids in rows]:
                swapped.append(rows)
            done.append(1)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), swapped) == (CLIENTS * CALLS, [])
    assert server.scheduler.totals.requests >= CLIENTS * CALLS / 2


def test_one_request_too_many_is_refused_at_once(place):
    place.serve(lanes=1, queue_requests=1)
    embed(place.runtime(), place.digest, [[1]])
    slow = threading.Thread(target=embed, args=(place.runtime(), place.digest, [[SLOW]]))
    slow.start()
    time.sleep(SLOW_SECONDS / 3)
    started = time.monotonic()
    with pytest.raises(QuotaExceeded):
        embed(place.runtime(), place.digest, [[1]])
    assert time.monotonic() - started < 0.05
    slow.join()


def test_a_model_that_is_not_there_or_does_something_else_is_refused(place):
    place.serve()
    with pytest.raises(NotReady):
        embed(place.runtime(), "0" * 63 + "1", [[1]])
    assert embed(place.runtime(), place.digest, [[1]]) == [expected([1])]


def test_a_model_that_does_not_fit_is_refused_and_one_that_is_not_used_makes_room(place):
    server = place.serve()
    embed(place.runtime(), place.digest, [[1]])
    server.scheduler.models.budget_bytes = sum(model.bytes for model in server.scheduler.models.loaded.values())
    other = place.publish(max_tokens=63)
    embed(place.runtime(), other, [[1]])
    assert list(server.scheduler.models.loaded) == [other]
    server.scheduler.models.budget_bytes = 1
    with pytest.raises(QuotaExceeded):
        embed(place.runtime(), place.digest, [[1]])


def test_a_model_waits_for_room_while_the_one_that_has_to_go_is_in_use(place):
    server = place.serve()
    embed(place.runtime(), place.digest, [[1]])
    models = server.scheduler.models
    models.budget_bytes = sum(model.bytes for model in models.loaded.values())
    slow = threading.Thread(target=embed, args=(place.runtime(), place.digest, [[SLOW]]))
    slow.start()
    while not models.loaded[place.digest].users:
        time.sleep(0.001)
    other = place.publish(max_tokens=63)
    assert embed(place.runtime(), other, [[1]]) == [expected([1])]
    assert list(models.loaded) == [other]
    slow.join()


def test_a_model_in_quarantine_is_refused_and_others_go_on(place):
    server = place.serve()
    server.scheduler.quarantined = frozenset({place.digest})
    with pytest.raises(SystemFault):
        embed(place.runtime(), place.digest, [[1]])
    assert embed(place.runtime(), place.publish(max_tokens=63), [[1]]) == [expected([1])]


def test_a_session_that_waits_lets_a_cancel_take_effect_and_is_forgotten(place):
    server = place.serve(lanes=1)
    embed(place.runtime(), place.digest, [[1]])

    class Canceled(Exception):
        pass

    def cancel():
        raise Canceled

    started = time.monotonic()
    with pytest.raises(Canceled):
        place.runtime(wait=cancel).embed(place.digest, [text_of([SLOW])] * 200, PASSAGE, Work(), None)
    assert time.monotonic() - started < 0.5
    while server.scheduler.queued:
        assert time.monotonic() - started < 5
        time.sleep(0.01)


def test_a_server_that_is_gone_is_told_from_one_that_refuses(place):
    with pytest.raises(WorkerLost):
        embed(place.runtime(), place.digest, [[1]])


def test_a_server_that_stands_still_is_given_up(place, monkeypatch):
    monkeypatch.setattr("pgml_tune.ipc.client.SILENCE_SECONDS", 0.2)
    place.path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place.path))
        listening.listen()
        started = time.monotonic()
        with pytest.raises(WorkerLost):
            embed(place.runtime(), place.digest, [[1]])
        assert time.monotonic() - started < 1


def test_a_client_finds_a_server_that_was_started_anew(place, tmp_path, monkeypatch):
    runtime = place.runtime()
    for _ in range(2):
        with serving(tmp_path / "models", place.path, monkeypatch):
            assert embed(runtime, place.digest, [[5]]) == [expected([5])]


def test_the_socket_is_the_owners_alone_and_has_one_server(place):
    place.serve()
    assert oct(place.path.stat().st_mode & 0o777) == "0o600"
    assert oct(place.path.parent.stat().st_mode & 0o777) == "0o700"
    with pytest.raises(NotReady):
        place.serve()


def test_a_socket_that_cannot_be_made_is_explained(tmp_path):
    for path in (tmp_path / ("x" * 120), tmp_path / "file" / "worker.sock"):
        (tmp_path / "file").write_text("")
        with pytest.raises(NotReady):
            Listener(path, "")


def test_a_stranger_is_not_served(place):
    place.serve().trusted = frozenset()
    with pytest.raises(WorkerLost):
        embed(place.runtime(), place.digest, [[1]])


def raw(place, data):
    """Sends bytes; whether the server has closed the connection."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(place.path))
        peer.settimeout(5)
        try:
            peer.sendall(data)
            return peer.recv(1) == b""
        except (ConnectionResetError, BrokenPipeError):
            return True


def test_peers_that_send_anything_are_closed_and_others_go_on(place):
    place.serve()
    sound = Frame(Kind.REQUEST, 1, place.digest, pack({"op": "embed", "kind": "passage"}, [b"1"])).to_bytes()
    for data in (
        b"x" * 100,
        sound[:2] + b"\xff" + sound[3:],
        sound[:44] + b"\xff\xff\xff\xff",
        sound[:48] + b"\xff" * 99,
        Frame(Kind.PART, 1, place.digest, b"a part that is not full").to_bytes(),
        Frame(Kind.REQUEST, 1, place.digest, pack({"op": "embed"}, [b""] * 4096)).to_bytes(),
    ):
        assert raw(place, data)
    chance = random.Random(3)
    for _ in range(200):
        assert raw(place, chance.randbytes(chance.randrange(48, 500)))
    assert embed(place.runtime(), place.digest, [[1]]) == [expected([1])]


def test_a_peer_that_does_not_read_its_answers_is_dropped(place, monkeypatch):
    monkeypatch.setattr("pgml_tune.serving.server.READ_SECONDS", 0.3)
    server = place.serve()
    asked = b"".join(Frame(Kind.REQUEST, 1, NO_DIGEST, pack({"op": "status"})).to_bytes() for _ in range(20_000))
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(place.path))
        peer.settimeout(10)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                peer.sendall(asked)
    assert embed(place.runtime(), place.digest, [[1]]) == [expected([1])]
    assert server.refused == 1


def test_one_connection_too_many_is_refused_and_the_others_stay(place):
    server = place.serve()
    runtimes = [place.runtime() for _ in range(3)]
    server.most_connections = 2
    for runtime in runtimes[:2]:
        embed(runtime, place.digest, [[1]])
    with pytest.raises(WorkerLost):
        embed(runtimes[2], place.digest, [[1]])
    for runtime in runtimes[:2]:
        assert embed(runtime, place.digest, [[1]]) == [expected([1])]


def test_a_peer_that_asks_for_much_at_once_takes_turns_with_the_others(place):
    server = place.serve(lanes=1, queue_requests=66)
    embed(place.runtime(), place.digest, [[1]])
    asked = pack({"op": "embed", "kind": "passage"}, [b"1"])
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(place.path))
        slow = pack({"op": "embed", "kind": "passage"}, [str(SLOW).encode()])
        frames = [Frame(Kind.REQUEST, number, place.digest, asked if number else slow) for number in range(2000)]
        sending = threading.Thread(target=peer.sendall, args=(b"".join(frame.to_bytes() for frame in frames),))
        sending.start()
        deadline = time.monotonic() + 10
        while server.scheduler.queued < 64:
            assert time.monotonic() < deadline
        assert embed(place.runtime(), place.digest, [[2]]) == [expected([2])]
        reader, found = FrameReader(1 << 20), []
        while len(found) < len(frames):
            found += [frame for frame in reader.feed(peer.recv(1 << 16)) if frame.kind is not Kind.BEAT]
        sending.join()
    assert {frame.kind for frame in found} == {Kind.REPLY}
    assert sorted(frame.number for frame in found) == list(range(2000))


@pytest.mark.parametrize(
    ("values", "pieces"),
    [
        ({}, []), ({"op": "drop"}, []), ({"op": "embed", "kind": 5}, [b"1"]), ({"op": "embed"}, [b"\xff"]),
        ({"op": "classify", "top_k": 1}, [b"1"]), ({"op": "count_tokens"}, []), ({"op": "sketch"}, [b"123"]),
        ({"op": "spans"}, [b"1", b"2"]), ({"op": "embed", "kind": []}, [b"1"]), ({"op": 7, "kind": {}}, []),
        ({"op": "classify", "top_k": "many"}, []),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused_with_an_error(place, values, pieces):
    place.serve()
    with pytest.raises((InvalidArgument, NotReady, Exception)) as refused:
        place.client().ask(place.digest, values, pieces)
    assert refused.value.sqlstate in ("22023", "0A000")


def test_half_open_peers_are_dropped_and_keep_nobody_waiting(place, monkeypatch):
    monkeypatch.setattr("pgml_tune.serving.server.READ_SECONDS", 0.3)
    server = place.serve()
    peers = []
    for _ in range(100):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(place.path))
        peer.sendall(b"pg\x01\x01")
        peers.append(peer)
    assert embed(place.runtime(), place.digest, [[1]]) == [expected([1])]
    started = time.monotonic()
    while len(server.connections) > 1:
        assert time.monotonic() - started < 5
        time.sleep(0.01)
    for peer in peers:
        peer.close()


def test_what_was_asked_before_the_end_is_answered(place):
    server = place.serve(lanes=1)
    embed(place.runtime(), place.digest, [[1]])
    outcome = []
    asking = threading.Thread(target=lambda: outcome.append(embed(place.runtime(), place.digest, [[SLOW]])))
    asking.start()
    time.sleep(SLOW_SECONDS / 3)
    server.scheduler.loop.call_soon_threadsafe(server.drain)
    asking.join()
    assert outcome == [[expected([SLOW])]]
    with pytest.raises(WorkerLost):
        embed(place.runtime(), place.digest, [[1]])


def test_the_status_is_told_however_much_waits(place):
    place.serve(lanes=1, queue_requests=1)
    slow = threading.Thread(target=embed, args=(place.runtime(), place.digest, [[SLOW]]))
    slow.start()
    time.sleep(SLOW_SECONDS / 3)
    assert place.client().ask(NO_DIGEST, {"op": "status"}).values["requests"] == 1
    slow.join()


def test_a_model_that_has_to_run_alone_is_computed_however_busy_the_others_are(place):
    server = place.serve(lanes=2)
    other, stop = place.publish(max_tokens=63), threading.Event()
    for digest in (place.digest, other):
        embed(place.runtime(), digest, [[1]])
    server.scheduler.order.suspects = frozenset({other})

    def keep_busy(runtime):
        while not stop.is_set():
            embed(runtime, place.digest, [[SLOW]])

    threads = [threading.Thread(target=keep_busy, args=(place.runtime(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    assert embed(place.runtime(), other, [[2]]) == [expected([2])]
    assert time.monotonic() - started < 5
    stop.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("suspect", ["the one that is loaded", "the one that runs"])
def test_nothing_is_loaded_beside_a_model_that_has_to_run_alone(place, monkeypatch, suspect):
    scheduler, beside = place.serve(lanes=2).scheduler, []
    other, opened = place.publish(max_tokens=63), Models.open

    def open_and_look(models, digest, threads):
        beside.extend(lane.digest for lane in scheduler.computing.lanes if lane.digest)
        return opened(models, digest, threads)

    embed(place.runtime(), place.digest, [[1]])
    monkeypatch.setattr(Models, "open", open_and_look)
    scheduler.order.suspects = frozenset({place.digest if suspect == "the one that runs" else other})
    slow = threading.Thread(target=embed, args=(place.runtime(), place.digest, [[SLOW]]))
    slow.start()
    while not any(lane.digest for lane in scheduler.computing.lanes):
        time.sleep(0.001)
    assert embed(place.runtime(), other, [[2]]) == [expected([2])]
    assert beside == []
    slow.join()


class Panic(BaseException):
    """What a library in Rust raises."""


def test_threads_outlive_whatever_a_library_raises(place, monkeypatch):
    def panic(*_):
        raise Panic

    place.serve(lanes=1)
    runtime = place.runtime()
    embed(runtime, place.digest, [[1]])
    for owner, name, ask in (
        (Network, "run", lambda: embed(runtime, place.digest, [[1]])),
        (Model, "count_tokens", lambda: runtime.count_tokens(place.digest, "1")),
        (Models, "open", lambda: embed(runtime, place.publish(max_tokens=63), [[1]])),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, panic)
            for _ in range(3):
                with pytest.raises(SystemFault):
                    ask()
        ask()
    assert embed(runtime, place.digest, [[1]]) == [expected([1])]


def test_a_peer_that_goes_on_slowly_is_served(place, monkeypatch):
    monkeypatch.setattr("pgml_tune.serving.server.READ_SECONDS", 0.3)
    place.serve()
    frame = Frame(Kind.REQUEST, 1, place.digest, pack({"op": "embed", "kind": "passage"}, [b"1"])).to_bytes()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(place.path))
        peer.settimeout(5)
        peer.sendall(frame[:10])
        for number in range(2, 12):  # always amid a frame
            following = Frame(Kind.REQUEST, number, place.digest, frame[48:]).to_bytes()
            peer.sendall(frame[10:] + following[:10])
            frame = following
            time.sleep(0.06)
        assert peer.recv(1) == b"p"


def test_where_threads_share_a_gpu_a_small_batch_waits_for_more_while_another_is_computed(place):
    place.serve(lanes=2, shares_hardware=True, max_wait_ms=10_000)
    runtimes = [place.runtime() for _ in range(5)]
    embed(runtimes[0], place.digest, [[1]])
    Network.runs.clear()
    threads = [threading.Thread(target=embed, args=(runtimes[0], place.digest, [[SLOW]]))]
    threads += [threading.Thread(target=embed, args=(runtime, place.digest, [[2]])) for runtime in runtimes[1:]]
    started = time.monotonic()
    for thread in threads:
        thread.start()
        time.sleep(SLOW_SECONDS / 20)
    for thread in threads:
        thread.join()
    assert Network.runs == [1, 4]
    assert time.monotonic() - started < 5  # as soon as nothing else is computed


def test_the_number_of_threads_changes_while_requests_are_computed(place):
    server = place.serve(lanes=1)
    embed(place.runtime(), place.digest, [[1]])

    def resize(count):
        server.scheduler.loop.call_soon_threadsafe(server.scheduler.resize, count)

    def wait_for(lanes, free):
        deadline = time.monotonic() + 10
        while (len(server.scheduler.computing.lanes), len(server.scheduler.computing.free)) != (lanes, free):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    resize(MOST_LANES)
    wait_for(MOST_LANES, MOST_LANES)
    Network.is_let_go.clear()
    threads = [threading.Thread(target=embed, args=(place.runtime(), place.digest, [[HELD]])) for _ in range(3)]
    for free, thread in zip((3, 2, 1), threads, strict=True):
        thread.start()
        wait_for(MOST_LANES, free)
    resize(1)
    wait_for(3, 0)  # the free one ends at once, the others with their batches
    Network.is_let_go.set()
    wait_for(1, 1)
    for thread in threads:
        thread.join()
    resize(2)
    wait_for(2, 2)
    assert embed(place.runtime(), place.digest, [[3]]) == [expected([3])]


def test_each_core_computes_a_batch_and_a_gpu_has_the_next_one_ready():
    assert chosen_lanes(16, 0, on_gpu=False) == 16
    assert chosen_lanes(16, 3, on_gpu=False) == 3
    assert chosen_lanes(2, 64, on_gpu=False) == 2
    assert chosen_lanes(16, 0, on_gpu=True) == 2
    assert chosen_lanes(16, 1, on_gpu=True) == 1
    assert is_on_gpu(["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert not is_on_gpu(["AzureExecutionProvider", "CPUExecutionProvider"])
