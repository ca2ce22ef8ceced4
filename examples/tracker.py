#!/usr/bin/env python3
"""A client of a store by way of its Tracker: it reads a file from all Data Keepers that have it, at the same time.

    stevedore gateway --tracker 8081
    pip install grpcio grpcio-tools
    examples/tracker.py upload notes.txt
    examples/tracker.py download notes.txt copy.txt
    examples/tracker.py table

The original's methods say where (clientToMasterUpload, DownloadFile); our own carry the bytes as streams, so that a file may have
any size. See docs/wires.md, section 1, and crates/gateway/proto/.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

PIECE = 1 << 20

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../crates/gateway/proto"))
original, original_services = grpc.protos_and_services("tracker.proto")
ours, our_services = grpc.protos_and_services("stevedore_tracker.proto")


def keeper(place):
    return our_services.KeeperStub(grpc.insecure_channel(f"{place.ip_address}:{place.port}"))


def upload(tracker, path, name):
    """Streams a file to the keeper that the tracker names."""

    def pieces(file):
        yield ours.Piece(name=name)
        while data := file.read(PIECE):
            yield ours.Piece(data=data)

    where = tracker.clientToMasterUpload(original.Nothing())
    with open(path, "rb") as file:
        done = keeper(where).Upload(pieces(file))
    print(f"{name}: {done.size} bytes, version {done.version}")


def download(tracker, name, path):
    """Fetches an equal part of a file from each of its holders at the same time.

    All parts are of the version that the tracker has named. If the file is replaced meanwhile, a keeper says so, and nothing is
    left of the copy. A holder that fails is replaced by the next one: each keeper can read from all Dstores.
    """
    file = tracker.DownloadFile(original.DownloadRequest(file_name=name))
    share = max(1, -(-file.size // len(file.holders)))
    unfinished = f"{path}.part"

    def fetch(number):
        offset, end = number * share, min((number + 1) * share, file.size)
        for turn in range(len(file.holders)):
            holder = file.holders[(number + turn) % len(file.holders)]
            part = ours.Part(name=name, offset=offset, length=end - offset, version=file.version)
            try:
                with open(unfinished, "r+b") as out:
                    out.seek(offset)
                    for piece in keeper(holder).Download(part):
                        out.write(piece.data)
                return f"keeper {holder.node_id}: {end - offset} bytes"
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or turn == len(file.holders) - 1:
                    raise

    try:
        with open(unfinished, "wb") as out:
            out.truncate(file.size)
        with ThreadPoolExecutor(len(file.holders)) as threads:
            for line in threads.map(fetch, range(-(-file.size // share))):
                print(line)
        os.replace(unfinished, path)
    finally:
        if os.path.exists(unfinished):
            os.remove(unfinished)


def table(channel):
    """Which keeper has what, where on its disk, and whether it is alive."""
    for row in our_services.TableStub(channel).Rows(ours.RowsRequest()):
        state = "alive" if row.alive else "away"
        print(f"{row.name}\tkeeper {row.keeper}\t{state}\t{row.path}:{row.offset}\t{row.size} bytes")


def main():
    parser = argparse.ArgumentParser(description="Files by way of a Tracker.")
    parser.add_argument("--tracker", default="localhost:8081", help="where it listens (default localhost:8081)")
    parser.add_argument("command", choices=["upload", "download", "table"])
    parser.add_argument("file", nargs="?", help="the file to upload, or the name to download")
    parser.add_argument("to", nargs="?", help="the name in the store, or the local file")
    arguments = parser.parse_args()
    if arguments.command != "table" and not arguments.file:
        parser.error("which file?")
    channel = grpc.insecure_channel(arguments.tracker)
    tracker = original_services.ServicesStub(channel)
    try:
        if arguments.command == "upload":
            upload(tracker, arguments.file, arguments.to or os.path.basename(arguments.file))
        elif arguments.command == "download":
            download(tracker, arguments.file, arguments.to or arguments.file)
        else:
            table(channel)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
