"""The port of the process that serves models: who comes in, and who does not."""

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from pgml_tune.engine.work import Work
from pgml_tune.ipc.client import WorkerLost, WorkerSilent
from pgml_tune.ipc.frames import NO_DIGEST, Frame, Kind, pack
from pgml_tune.ipc.handshake import ANSWER_BYTES, HELLO_BYTES, NONCE_BYTES, PROOF_BYTES, Meeting, new_nonce
from pgml_tune.ipc.listen_secret import UnusableSecret, make_listen_secret, read_listen_secret
from pgml_tune.service.remote_runtime import RemoteRuntime
from pgml_tune.service.runtime import How
from pgml_tune.serving.newcomers import MOST_NEWCOMERS
from tests.unit.serving_parts import client_at, expected, free_port, publish_model, serving, text_of

OWN = frozenset({os.geteuid()})
STATUS = Frame(Kind.REQUEST, 1, NO_DIGEST, pack({"op": "status"})).to_bytes()


class Place:
    """A server with a port, and what a client has to know."""

    def __init__(self, folder, monkeypatch, host="127.0.0.1"):
        root = folder / "models"
        root.mkdir()
        self.digest = publish_model(root)
        self.port = free_port(host)
        self.secret_file = folder / "serve" / "listen_secret"
        self.serving = serving(root, folder / "serve" / "worker.sock", monkeypatch, listen=self.port)

    @property
    def secret(self):
        return self.secret_file.read_bytes()

    def client(self, secret_file=None):
        return client_at(self.port, secret_file or self.secret_file)

    def embed(self, client, ids):
        found = RemoteRuntime(client).embed(self.digest, [text_of(ids)], How("passage"), Work(), None)
        return json.loads(found.forms[0])


@pytest.fixture
def place(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch)
    with place.serving as place.server:
        yield place


@pytest.fixture
def client(place):
    client = place.client()
    yield client
    client.close()


@pytest.fixture
def other_secret(tmp_path):
    path = tmp_path / "other"
    make_listen_secret(path, None)
    return path


class Peer:
    """Bytes to the port and from it."""

    def __init__(self, port):
        self.socket = socket.create_connection(port, timeout=5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def read(self, size):
        found = b""
        while len(found) < size and (data := self.socket.recv(size - len(found))):
            found += data
        return found

    def is_closed(self):
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def meet(self, secret, nonce=None):
        """Say hello, and learn what the server answers."""
        own, other = self.socket.getsockname(), self.socket.getpeername()
        meeting = Meeting(own, other, nonce or new_nonce(), b"", secret)
        self.send(meeting.hello())
        answer = self.read(ANSWER_BYTES)
        return Meeting(own, other, meeting.client_nonce, answer[:NONCE_BYTES], secret), answer


def test_who_knows_the_secret_is_served(place, client):
    assert [place.embed(client, [number]) for number in range(9)] == [expected([number]) for number in range(9)]


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="the machine has no IPv6")
def test_the_port_may_be_one_of_ip_version_6(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch, "::1")
    with place.serving:
        client = place.client()
        assert place.embed(client, [1]) == expected([1])
        client.close()


def test_short_answers_are_sent_at_once(place, client):
    client.reach()
    client.ask(NO_DIGEST, {"op": "status"})
    (connection,) = place.server.connections.values()
    for end in (client._socket, connection._transport.get_extra_info("socket")):
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_client_that_does_not_know_the_secret_learns_nothing(place, other_secret):
    with Peer(place.port) as peer:
        meeting, _ = peer.meet(other_secret.read_bytes())
        peer.send(meeting.client_proof() + STATUS)
        assert peer.is_closed()
    with pytest.raises(WorkerLost):
        place.embed(place.client(other_secret), [1])
    assert not place.server.connections


def listen_once(port, serve):
    """Somebody else at a port."""
    listening = socket.create_server(port)
    thread = threading.Thread(target=lambda: serve(listening.accept()[0]))
    thread.start()
    return listening, thread


def test_a_server_that_does_not_know_the_secret_is_told_nothing(tmp_path, other_secret):
    port, heard = free_port(), []

    def pretend(connection):
        hello = connection.recv(HELLO_BYTES)
        own, other = connection.getsockname(), connection.getpeername()
        connection.sendall(Meeting(other, own, hello[-NONCE_BYTES:], new_nonce(), b"guess" * 9).answer())
        heard.append(connection.recv(1000))
        connection.close()

    listening, thread = listen_once(port, pretend)
    with pytest.raises(WorkerLost):
        client_at(port, other_secret).ask(NO_DIGEST, {"op": "status"})
    thread.join()
    listening.close()
    assert heard == [b""]


def test_a_server_that_sends_the_proof_of_a_client_back_is_refused(place):
    secret, port = place.secret_file, free_port()

    def mirror(connection):
        with Peer(place.port) as peer:  # asks the worker to prove what the client wants to see proved
            peer.send(connection.recv(HELLO_BYTES))
            connection.sendall(peer.read(ANSWER_BYTES))
            connection.recv(1000)
        connection.close()

    listening, thread = listen_once(port, mirror)
    with pytest.raises(WorkerLost):
        client_at(port, secret).ask(NO_DIGEST, {"op": "status"})
    thread.join()
    listening.close()


def test_what_a_client_has_sent_once_lets_nobody_in_again(place):
    with Peer(place.port) as peer:
        meeting, _ = peer.meet(place.secret)
        peer.send(meeting.client_proof() + STATUS)
        assert peer.read(2) == b"pg"
    for data in (meeting.hello() + meeting.client_proof() + STATUS, None):
        with Peer(place.port) as peer:
            if data is None:
                peer.meet(b"?" * 32, meeting.client_nonce)
                data = meeting.client_proof() + STATUS
            peer.send(data)
            assert peer.is_closed()


@pytest.mark.parametrize(
    "data",
    [
        STATUS, b"\0" * HELLO_BYTES, b"pgs\x02" + b"n" * NONCE_BYTES, b"pgs\x01" + b"n" * NONCE_BYTES + STATUS,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"\r\n" * 20,
    ],
)  # fmt: skip
def test_nothing_is_taken_before_the_proof(place, data):
    with Peer(place.port) as peer:
        peer.send(data)
        assert peer.is_closed()
    assert place.server.scheduler.totals.requests == 0


def test_every_proof_is_of_another_conversation(place):
    with Peer(place.port) as one, Peer(place.port) as other:
        nonce = new_nonce()
        answers = [peer.meet(place.secret, nonce)[1] for peer in (one, other)]
        assert answers[0][:NONCE_BYTES] != answers[1][:NONCE_BYTES]
        assert answers[0][NONCE_BYTES:] != answers[1][NONCE_BYTES:]


def test_a_peer_that_proves_nothing_is_dropped_in_time(place, monkeypatch):
    monkeypatch.setattr("pgml_tune.serving.newcomers.PROVE_SECONDS", 0.2)
    with Peer(place.port) as silent, Peer(place.port) as halfway:
        halfway.meet(place.secret)
        halfway.send(b"x" * (PROOF_BYTES - 1))
        assert silent.is_closed() and halfway.is_closed()


def test_strangers_however_many_keep_nobody_out(place, client):
    strangers = [Peer(place.port) for _ in range(MOST_NEWCOMERS + 40)]
    assert place.embed(client, [1]) == expected([1])
    assert all(stranger.is_closed() for stranger in strangers[:40])
    for stranger in strangers:
        stranger.socket.close()


def test_a_server_that_says_nothing_is_given_up_and_a_cancel_ends_the_wait(other_secret, monkeypatch):
    class Canceled(Exception):
        pass

    def cancel():
        raise Canceled

    with socket.create_server(port := free_port()):
        started = time.monotonic()
        with pytest.raises(Canceled):
            client_at(port, other_secret).ask(NO_DIGEST, {"op": "status"}, checkpoint=cancel)
        assert time.monotonic() - started < 0.5
        monkeypatch.setattr("pgml_tune.ipc.addresses.PROOF_SECONDS", 0.2)
        with pytest.raises(WorkerSilent):
            client_at(port, other_secret).ask(NO_DIGEST, {"op": "status"})


def test_where_nobody_listens_the_worker_is_lost(other_secret):
    with pytest.raises(WorkerLost):
        client_at(free_port(), other_secret).reach()


def test_the_secret_is_made_once_and_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "secret"
    make_listen_secret(path, None)
    secret = read_listen_secret(path, OWN)
    make_listen_secret(path, None)
    assert (read_listen_secret(path, OWN), path.stat().st_mode & 0o777) == (secret, 0o600)
    assert os.listdir(tmp_path) == ["secret"]


def test_the_secret_of_a_group_can_be_read_by_it(tmp_path):
    path = tmp_path / "secret"
    make_listen_secret(path, os.getegid())
    assert (path.stat().st_mode & 0o777, len(read_listen_secret(path, OWN))) == (0o640, 64)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o660, 0o602, 0o622])
def test_a_secret_that_others_can_read_or_change_is_refused(other_secret, mode):
    other_secret.chmod(mode)
    with pytest.raises(UnusableSecret):
        read_listen_secret(other_secret, OWN)


def test_a_secret_of_somebody_else_or_none_or_a_short_one_is_refused(tmp_path, other_secret):
    with pytest.raises(UnusableSecret):
        read_listen_secret(other_secret, frozenset({os.geteuid() + 1}))
    link, short, folder = tmp_path / "link", tmp_path / "short", tmp_path / "folder"
    link.symlink_to(other_secret)
    short.write_bytes(b"x" * 31)
    short.chmod(0o600)
    folder.mkdir(mode=0o700)
    for path in (link, short, folder, tmp_path / "none", tmp_path / "none" / "none"):
        with pytest.raises(UnusableSecret):
            read_listen_secret(path, OWN)
