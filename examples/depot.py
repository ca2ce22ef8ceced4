#!/usr/bin/env python3
"""A client of the depot in plain Python: put, get, list, watch. The protocol is in docs/depot-protocol.md.

    depot.py client.toml put LOCAL /path        depot.py client.toml list /directory
    depot.py client.toml get /path LOCAL        depot.py client.toml watch [SECONDS]
"""

import hashlib
import hmac
import secrets
import socket
import sys
import time
import tomllib
from urllib.parse import unquote

CHUNK = 8 << 20  # bytes of an object


# CRC-64/NVME, a byte at a time: slow and short.
def _table():
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x9A6C9329AC4BC9B5 if byte & 1 else 0)
        yield byte


TABLE = list(_table())


def checksum(data, so_far=0):
    """The checksum of `data`, or of what `so_far` is of with `data` behind it."""
    crc = so_far ^ 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFFFFFFFFFF


def word(value):
    """Anything as one word of a line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if value in ("", "-"):
        return {"": "%", "-": "%2D"}[value]
    escape = lambda c: "".join(f"%{byte:02X}" for byte in c.encode())
    return "".join(escape(c) if c in " %" or not c.isprintable() else c for c in value)


class DepotError(Exception):
    """What a server answered in place of what was asked for."""


class Connection:
    """A connection on which both ends have proven that they belong to the store."""

    def __init__(self, address, store, role):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=60)
        self.file = self.socket.makefile("rb")
        cluster, client, ours = store["cluster"], store["client"], f"{secrets.randbits(128):x}"
        self.send("DEPOT", 1, 0, "client", cluster, ours, client)
        _, _, _, their_role, their_cluster, theirs, proof = self.words()
        if (their_role, their_cluster) != (role, cluster):
            raise DepotError(f"{address} is a {their_role} of store {their_cluster}")
        terms = f"{cluster} client {role} {ours} {theirs}"
        prove = lambda end: hmac.new(bytes.fromhex(store["key"]), f"DEPOT 1 {end} {terms}".encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(proof, prove("accepting")):
            raise DepotError(f"{address} does not know the store's secret")
        self.send("PROOF", prove("connecting"))

    def send(self, *words, content=b""):
        line = " ".join(w if isinstance(w, str) and i == 0 else word(w) for i, w in enumerate(words))
        self.socket.sendall(line.encode() + b"\n" + content)

    def words(self):
        """The words of the next line, their escapes undone; an error is raised."""
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise DepotError("the connection was closed")
        words = [None if w == "-" else "" if w == "%" else unquote(w) for w in line.decode()[:-1].split(" ")]
        if words[0] == "ERROR":
            raise DepotError(" ".join(w for w in words[1:] if w))
        return words

    def ask(self, *words, content=b""):
        self.send(*words, content=content)
        return iter(self.words())


def items(words, *kinds):
    """A list from a line: its length, then for each item as many words as there are kinds."""
    return [tuple(kind(next(words)) for kind in kinds) for _ in range(int(next(words)))]


def read_stat(words):
    """Kind, size or number of entries, checksum, modification time in milliseconds."""
    kind = next(words)
    first, second = next(words), next(words)
    size, crc = (int(first), int(second, 16)) if kind == "file" else (int(second), 0)
    for _ in range(4):  # version and changed
        next(words)
    modified = int(next(words))
    for _ in range(3):  # content type, owner, replicas
        next(words)
    for _ in range(2):  # digests and attributes
        items(words, str, str)
    return kind, size, crc, modified


class Depot:
    """A store, as its client.toml describes it."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.store = tomllib.load(file)
        self.controller = Connection(self.store["controllers"][0], self.store, "controller")
        self.dstores = {}
        answer = self.controller.ask("SESSION")
        next(answer)
        self.born = (next(answer), int(next(answer)))
        self.session, self.number = f"{secrets.randbits(127) + 1:x}", 0

    def dstore(self, address):
        if address not in self.dstores:
            self.dstores[address] = Connection(address, self.store, "dstore")
        return self.dstores[address]

    def put(self, read, path):
        """Stores what `read(size)` returns, up to its end, under a path. The version."""
        history, objects, whole = "0", [], 0
        while chunk := read(CHUNK):
            answer = self.controller.ask("PLACES", path, "any", True, None, 1)
            _, history, term, quorum, _ = next(answer), next(answer), int(next(answer)), int(next(answer)), next(answer)
            addresses = dict(items(answer, int, str))
            assert next(answer) == "1"
            number, places = next(answer), [place for (place,) in items(answer, int)]
            crc, holders, refusal = checksum(chunk), [], None
            for place in places:
                try:
                    put = ("PUT", f"{history}.{term}.{number}", len(chunk), f"{crc:x}")
                    _, start, position = self.dstore(addresses[place]).ask(*put, content=chunk)
                    holders.append((place, int(start), position))
                except (DepotError, OSError) as error:
                    self.dstores.pop(addresses[place], None)
                    refusal = error
            if len(holders) < quorum:
                raise DepotError(f"only {len(holders)} of {quorum} Dstores took it: {refusal}")
            objects.append((term, number, len(chunk), crc, holders))
            whole = checksum(chunk, whole)
        starts = sorted({(place, start) for *_, holders in objects for place, start, _ in holders})
        words = [history, len(starts), *(w for pair in starts for w in pair), len(objects)]
        for term, number, length, crc, holders in objects:
            words += [term, number, length, f"{crc:x}", len(holders)]
            for place, start, position in holders:
                words += [starts.index((place, start)), position]
        command = ["put", path, "any", True, *words, f"{whole:x}", None, "", "", None, 0, 0]
        self.number += 1
        stamp = [self.session, *self.born, self.number, self.number]
        _, history, sequence, *_ = self.controller.ask("CHANGE", *stamp, 0, *command)
        return f"{history}.{sequence}"

    def get(self, path, write):
        """Hands a file's bytes to `write`, each object verified. Its size."""
        answer = self.controller.ask("OPEN", path, "any")
        next(answer)
        _, size, _, _ = read_stat(answer)
        addresses = dict(items(answer, int, str))
        for _ in range(int(next(answer))):
            key, length, crc = next(answer), int(next(answer)), int(next(answer), 16)
            holders = [holder for (holder,) in items(answer, int)]
            self.get_object(key, length, crc, [addresses[h] for h in holders if h in addresses], write)
        return size

    def get_object(self, key, length, crc, holders, write):
        refusal = "no Dstore that is there has a copy"
        for address in holders:
            try:
                dstore, content = self.dstore(address), bytearray()
                dstore.ask("GET", key, 0, length)  # the blocks' checksums are for those that read a part only
                while len(content) < length:
                    _, piece = dstore.words()
                    content += dstore.file.read(int(piece))
                if checksum(content) != crc:
                    raise DepotError("the copy is damaged")
                write(content)
                return
            except (DepotError, OSError) as error:
                self.dstores.pop(address, None)
                refusal = error
        raise DepotError(f"object {key} cannot be read: {refusal}")

    def list(self, path):
        """Each entry of a directory: name, kind, size, modification time."""
        after = ""
        while after is not None:
            answer = self.controller.ask("LIST", path, "", after, False, 1000)
            next(answer)
            for _ in range(int(next(answer))):
                name = next(answer)
                kind, size, _, modified = read_stat(answer)
                yield name, kind, size, modified
            after = next(answer)

    def watch(self, seconds):
        """Each change from now on: its verb and its paths."""
        answer = self.controller.ask("WATCH", None, 0)
        end = time.monotonic() + seconds
        _, _, history, sequence = answer
        while (left := end - time.monotonic()) > 0:
            answer = self.controller.ask("WATCH", history, sequence, min(10000, int(left * 1000)))
            next(answer)
            for _ in range(int(next(answer))):
                next(answer), next(answer), next(answer)  # version, time
                yield next(answer), [path for (path,) in items(answer, str)]
            history, sequence = answer


def main():
    config, command, *rest = sys.argv[1:] or ["", "help"]
    if command == "put" and len(rest) == 2:
        with open(rest[0], "rb") as file:
            print(Depot(config).put(file.read, rest[1]))
    elif command == "get" and len(rest) == 2:
        with open(rest[1], "wb") as file:
            Depot(config).get(rest[0], file.write)
    elif command == "list" and len(rest) == 1:
        for name, kind, size, modified in Depot(config).list(rest[0]):
            print(f"{size:>12}  {time.strftime('%Y-%m-%d %H:%M', time.localtime(modified / 1000))}  {name}")
    elif command == "watch" and len(rest) <= 1:
        for verb, paths in Depot(config).watch(float(rest[0]) if rest else float("inf")):
            print(verb, *paths, flush=True)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except (DepotError, OSError) as error:
        sys.exit(f"depot.py: {error}")
