"""A file goes in through each way, and comes out of each other: whole, replaced, removed. matrix.py PLACES-AS-JSON

With the name of a way behind it, files go in and out through that one, until stdin ends. PLACES says where each way in is. Those of gRPC need grpcio; without it they are left out, and that is said.
"""

import datetime
import hashlib
import hmac
import http.client
import json
import os
import random
import select
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../../../../examples")]
import names  # the careless client

PLACES, ONE_WAY = json.loads(sys.argv[1]), sys.argv[2:]
# The directory of which each way offers the files.
DIRECTORY = "/users/box"
SMALL = [0, 1, 2047, 2048, 2049]
LARGE = [300_000, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 5_000_000]
LARGEST = 100_000_000


class Command:
    """The program itself."""

    def run(self, *words, **options):
        command = [PLACES["stevedore"], *words]
        return subprocess.run(command, check=True, capture_output=True, env={**os.environ, "STEVEDORE_CLUSTER": PLACES["cluster"]}, **options).stdout

    def put(self, name, data):
        self.run("put", "-", f"{DIRECTORY}/{name}", input=data)

    replace = put

    def get(self, name):
        return self.run("cat", f"{DIRECTORY}/{name}")

    def remove(self, name):
        self.run("rm", f"{DIRECTORY}/{name}")


class Http:
    """Plain HTTP."""

    base = f"{DIRECTORY}/"

    def ask(self, method, path, body=None, headers={}):
        connection = http.client.HTTPConnection(PLACES[self.place])
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        assert answer.status in (200, 201, 204, 207), f"{method} {path}: {answer.status} {data[:200]}"
        return data

    place = "http"

    def put(self, name, data):
        self.ask("PUT", self.base + name, data)

    replace = put

    def get(self, name):
        return self.ask("GET", self.base + name)

    def remove(self, name):
        self.ask("DELETE", self.base + name)


class Dav(Http):
    """WebDAV: as a mount does it, under another name first."""

    def put(self, name, data):
        self.ask("PUT", f"{self.base}.part-{name}", data)
        to = f"http://{PLACES['http']}{self.base}{name}"
        self.ask("MOVE", f"{self.base}.part-{name}", headers={"Destination": to, "Overwrite": "T"})

    replace = put

    def get(self, name):
        found = self.ask("PROPFIND", self.base + name, headers={"Depth": "0"})
        data = super().get(name)
        assert f">{len(data)}</".encode() in found, found
        return data


class S3(Http):
    """S3, with each request signed."""

    place = "s3"
    base = f"{DIRECTORY}/"  # the bucket is its first folder

    def ask(self, method, path, body=None, headers={}):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body or b"").hexdigest()
        signed = {"host": PLACES["s3"], "x-amz-content-sha256": digest, "x-amz-date": now}
        listed = "".join(f"{name}:{value}\n" for name, value in signed.items())
        request = f"{method}\n{path}\n\n{listed}\n{';'.join(signed)}\n{digest}"
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = ("AWS4" + PLACES["secret"]).encode()
        for word in scope.split("/"):
            key = hmac.digest(key, word.encode(), "sha256")
        proof = hmac.new(key, text.encode(), "sha256").hexdigest()
        signed["Authorization"] = f"AWS4-HMAC-SHA256 Credential={PLACES['key']}/{scope}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={proof}"
        return super().ask(method, path, body, signed)


class Names:
    """A name server's shell."""

    def shell(self):
        host, port = PLACES["names"].split(":")
        return names.Shell(host, int(port))

    def put(self, name, data):
        with tempfile.NamedTemporaryFile() as local:
            local.write(data)
            local.flush()
            assert self.shell().run(["write", name, local.name]) == f"{len(data)} bytes recieved"

    def replace(self, name, data):
        self.remove(name)  # it replaces nothing
        self.put(name, data)

    def get(self, name):
        with tempfile.NamedTemporaryFile() as local:
            said = self.shell().run(["read", name, local.name])
            data = local.read()
            assert said == f"{len(data)} bytes sent", said
            return data

    def remove(self, name):
        assert self.shell().run(["delete", name]) == "Done"


class Coursework:
    """The coursework's client: content goes to each Dstore, one after another."""

    def ask(self, line):
        self.controller.write(line.encode() + b"\n")
        return self.answer()

    def answer(self):
        return self.controller.readline().decode().split()

    def __init__(self):
        host, port = PLACES["coursework"].split(":")
        self.host = host
        self.controller = socket.create_connection((host, int(port))).makefile("rwb", buffering=0)

    def dstore(self, port, line):
        dstore = socket.create_connection((self.host, int(port)))
        dstore.sendall(line.encode() + b"\n")
        return dstore

    def put(self, name, data):
        verb, *ports = self.ask(f"STORE {name} {len(data)}")
        assert verb == "STORE_TO", verb
        for port in ports:
            with self.dstore(port, f"STORE {name} {len(data)}") as dstore:
                assert dstore.recv(4) == b"ACK\n"
                dstore.sendall(data)
        assert self.answer() == ["STORE_COMPLETE"]

    def replace(self, name, data):
        self.remove(name)  # it replaces nothing
        self.put(name, data)

    def get(self, name):
        verb, port, size = self.ask(f"LOAD {name}")
        assert verb == "LOAD_FROM", verb
        with self.dstore(port, f"LOAD_DATA {name}") as dstore:
            data = dstore.makefile("rb").read(int(size))
        assert len(data) == int(size), f"{len(data)} of {size} bytes"
        return data

    def remove(self, name):
        assert self.ask(f"REMOVE {name}") == ["REMOVE_COMPLETE"]


def of_tracker():
    sys.argv[1:] = [PLACES["tracker"], "0"]
    import tracker

    class Tracker:
        """The Tracker, whose clients cannot remove."""

        put = replace = staticmethod(tracker.upload)
        get = staticmethod(lambda name: tracker.download(name, tracker.TAKES_ALL))
        remove = None

    return Tracker()


def of_fluffy():
    sys.argv[1:] = [PLACES["fluffy"]]
    import fluffy

    def done(ack):
        assert ack.success, ack.message

    class Fluffy:
        """Fluffy, whose empty files have no name."""

        put = staticmethod(lambda name, data: done(fluffy.upload("box", name, data)))
        replace = staticmethod(lambda name, data: done(fluffy.update("box", name, data)))
        get = staticmethod(lambda name: fluffy.download("box", name))
        remove = staticmethod(lambda name: done(fluffy.client.FileDelete(fluffy.info("box", name))))

    return Fluffy()


def content(*seed):
    *numbers, size = seed
    return random.Random(repr(numbers)).randbytes(size)


def can_put(way, size):
    return size > 0 or type(way).__name__ != "Fluffy"


def is_gone(way, name):
    try:
        way.get(name)
    except (SystemExit, Exception):
        return True
    return False


class NamesWithoutTransfers(Names):
    """For many files: a transfer has a port that rests for a minute afterwards."""

    def put(self, name, data):
        assert self.shell().run(["create", name]) == "File created"

    def get(self, name):
        said = self.shell().run(["info", name])
        assert said.startswith("size=0 "), said
        return b""


def go_on(way):
    """Stores files and reads them, each by a connection of its own where the way has none that lasts."""
    names = {"names": NamesWithoutTransfers, "coursework": Coursework, "tracker": of_tracker, "fluffy": of_fluffy}
    place, way = PLACES[way], names[way]()
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        name = f"{place.replace(':', '-')}-{number}"
        data = b"" if isinstance(way, Names) else content(number, 10_000)
        way.put(name, data)
        assert way.get(name) == data, name
        print("done", number, flush=True)
        number += 1


def main():
    ways = [Command(), Http(), Dav(), S3(), Names(), Coursework()]
    if "tracker" in PLACES:
        ways += [of_tracker(), of_fluffy()]
    for number, way in enumerate(ways):
        for size in [*SMALL, LARGE[number % len(LARGE)]]:
            if not can_put(way, size):
                continue
            data = content(number, size, size)
            way.put("file", data)
            for other in ways:
                got = other.get("file")
                assert got == data, f"{way.__doc__} {size} bytes, of which {other.__doc__} gives {len(got)}"
            Http().remove("file")
    for number, way in enumerate(ways):
        for turn, other in enumerate(ways):
            third = ways[(number + turn + 1) % len(ways)]
            way.put("file", content(number, turn, 1000))
            other.replace("file", content(turn, number, 2500))
            assert third.get("file") == content(turn, number, 2500), f"{way.__doc__} {other.__doc__} {third.__doc__}"
            (other if other.remove else Http()).remove("file")
            assert is_gone(third, "file"), f"{other.__doc__} removes, and {third.__doc__} still has it"
    data = content("largest", LARGEST)
    Names().put("largest", data)
    assert Coursework().get("largest") == data
    print(len(ways), "ways")


if ONE_WAY:
    go_on(*ONE_WAY)
else:
    main()
