"""Clients of Fluffy, as the original's are written: plaintext, no deadline, no status caught. fluffy.py ADDRESS CHECK..."""

import ast
import os
import random
import sys
import threading

import grpc

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
protos, services = grpc.protos_and_services("fluffy.proto")
beat_protos, beat_services = grpc.protos_and_services("heartbeat.proto")

ADDRESS = sys.argv[1]
CHUNK = 4_000_000
EXISTS = "File already exists for this user. Please rename or delete file first."


def stub():
    return services.FileserviceStub(grpc.insecure_channel(ADDRESS))


client = stub()


def content(seed, size):
    return random.Random(seed).randbytes(size)


def pieces(user, file, data, chunk=CHUNK):
    for at in range(0, len(data), chunk):
        yield protos.FileData(username=user, filename=file, data=data[at : at + chunk], seqNo=1)


def upload(user, file, data, chunk=CHUNK, by=client):
    return by.UploadFile(pieces(user, file, data, chunk))


def update(user, file, data, chunk=CHUNK, by=client):
    return by.UpdateFile(pieces(user, file, data, chunk))


def info(user, file):
    return protos.FileInfo(username=user, filename=file, seqNo=1)


def download(user, file, by=client):
    received, last = bytearray(), None
    for piece in by.DownloadFile(info(user, file)):
        assert (piece.username, piece.filename) == (user, file), "each piece says of which file it is"
        received += piece.data
        last = piece
    assert last is not None, "the client names its file after the last piece"
    return bytes(received)


def fails(code, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} {error.details()}, not {code}"
        return error.details()
    raise AssertionError(f"it works, and does not end with {code}")


def at_once(count, job):
    failures = []

    def run(number):
        try:
            job(number)
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures, failures[:3]


def sizes():
    for size in [1, 2047, 2048, 2049, 300_000, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 5_000_000, 100_000_000]:
        data, file = content(size, size), f"file of {size}"
        for chunk in [CHUNK] if size > 5_000_000 else [CHUNK, 2_000, 64 << 10] if size <= 300_000 else [CHUNK, 1 << 20]:
            done = upload("alice", file, data, chunk)
            assert done.success, (size, chunk, done.message)
            assert download("alice", file) == data, (size, chunk)
            done = client.FileDelete(info("alice", file))
            assert done.success and done.message == f"File successfully deleted from cluster : {file}", done.message
    # A message of so many bytes, and what is around them, is more than gRPC's usual limit.
    data = content(1, 4 << 20)
    assert fails(grpc.StatusCode.OUT_OF_RANGE, lambda: upload("alice", "one message", data, 4 << 20))
    # An empty file is a piece without bytes in one direction, and nothing at all in the other.
    empty = lambda: iter([protos.FileData(username="alice", filename="empty", seqNo=1)])
    assert client.UploadFile(empty()).success and download("alice", "empty") == b""
    assert client.UpdateFile(empty()).success and download("alice", "empty") == b""
    for call in [client.UploadFile, client.UpdateFile, client.ReplicateFile]:
        done = call(iter([]))
        assert not done.success and "empty file" in done.message, done.message


def refusals():
    missing = "File x does not exist."
    assert client.FileSearch(info("bob", "x")) == protos.ack(success=False, message=missing)
    assert client.FileDelete(info("bob", "x")) == protos.ack(success=False, message=missing)
    assert update("bob", "x", b"1") == protos.ack(success=False, message=missing)
    fails(grpc.StatusCode.NOT_FOUND, lambda: download("bob", "x"))
    assert client.FileList(protos.UserInfo(username="bob")).Filenames == "[]"
    assert upload("bob", "x", b"1").success
    assert client.FileSearch(info("bob", "x")) == protos.ack(success=True, message="File exists! ")
    # The same, while there is much more to send than is ever read: it is answered before the stream ends.
    for size in [1, 40_000_000]:
        assert upload("bob", "x", b"2" * size) == protos.ack(success=False, message=EXISTS), size
        assert client.ReplicateFile(pieces("bob", "x", b"3" * size)) == protos.ack(success=False, message=EXISTS), size
        assert update("bob", "y", b"2" * size).message == "File y does not exist.", size
    assert download("bob", "x") == b"1"
    assert update("bob", "x", b"22").success and download("bob", "x") == b"22"
    mixed = list(pieces("bob", "new", b"1")) + list(pieces("bob", "other", b"2"))
    done = client.UploadFile(iter(mixed))
    assert not done.success and done.message.endswith("a piece of another file came"), done.message
    assert not client.FileSearch(info("bob", "new")).success, "nothing is kept of it"
    long = "x" * 1025
    for done in [upload(long, "x", b"1"), upload("bob", long, b"1"), client.FileSearch(info("bob", long))]:
        assert not done.success and "at most 1024 bytes" in done.message, done.message
    fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: download("bob", long))
    fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: client.FileList(protos.UserInfo(username=long)))
    for done in [client.getLeaderInfo(protos.ClusterInfo(ip="1.2.3.4", port="1")), client.MetaDataInfo(protos.MetaData(filename="x"))]:
        assert not done.success and done.message


def users():
    awkward = ["", ".", "..", "%", "%2F", "a/b", "../alice", "it's", 'q"', "naïve 日本", "a\nb", "/", "\u200b"]
    for user in awkward:
        for file in awkward:
            assert upload(user, file, f"{user}\0{file}".encode()).success, (user, file)
    for user in awkward:
        for file in awkward:
            assert download(user, file) == f"{user}\0{file}".encode(), (user, file)
        listed = client.FileList(protos.UserInfo(username=user)).Filenames
        names = ast.literal_eval(listed)
        assert sorted(names) == sorted(awkward) and listed == str(names), listed
    assert client.FileDelete(info("..", "..")).success
    assert client.FileSearch(info(".", "..")).success and client.FileSearch(info("..", ".")).success


def statistics():
    stats = client.getClusterStats(protos.Empty())
    alive = beat_services.HearBeatStub(grpc.insecure_channel(ADDRESS)).isAlive(beat_protos.NodeInfo(ip="x", port="1"))
    for said in [stats, alive]:
        for percent in [said.cpu_usage, said.disk_space, said.used_mem]:
            assert 0 <= float(percent) <= 100 and "%" not in percent, percent
        assert float(said.disk_space) > 0 and float(said.used_mem) > 0
    # Of the one machine that all of this runs on.
    memory = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
    used = 100 - 100 * memory["MemAvailable"] / memory["MemTotal"]
    assert abs(float(stats.used_mem) - used) < 15, (stats.used_mem, used)


def crowd():
    data = [content(number, 300_000 + number) for number in range(50)]

    def work(number):
        mine = stub()
        assert upload(f"user{number}", "same name", data[number], 50_000, mine).success
        assert download(f"user{number}", "same name", mine) == data[number]

    at_once(50, work)
    wins = []
    at_once(50, lambda number: wins.append(upload("all", "one file", data[number], 50_000, stub()).success))
    assert wins.count(True) == 1, wins


def replaced():
    """Updates while others read: every download is one of the versions, whole."""
    versions = [bytes([number]) * (3_000_000 + number) for number in range(8)]
    assert upload("dave", "x", versions[0]).success
    is_over = threading.Event()

    def read(number):
        while not is_over.is_set():
            assert download("dave", "x", stub()) in versions, "a download of two versions"

    def write(_):
        try:
            for version in versions * 2:
                assert update("dave", "x", version, 100_000).success
        finally:
            is_over.set()

    at_once(4, lambda number: (write if number == 0 else read)(number))
    assert download("dave", "x") == versions[-1]


def cut_off():
    """An upload that ends in the middle leaves nothing, and one that never ends holds up no other."""
    gone = threading.Event()

    def half():
        yield from pieces("eve", "half", b"1" * 3_000_000, 1_000_000)
        gone.wait()

    calls = [client.UploadFile.future(half()) for _ in range(25)]  # a connection carries 32
    assert upload("eve", "whole", b"1" * 3_000_000).success and len(download("eve", "whole")) == 3_000_000
    [call.cancel() for call in calls]
    gone.set()
    for _ in range(20):
        assert not client.FileSearch(info("eve", "half")).success, "half a file is none"
    assert upload("eve", "half", b"2").success and download("eve", "half") == b"2"


def reflected():
    """What grpcurl asks for: names of services, in both versions of the protocol; and health."""
    channel = grpc.insecure_channel(ADDRESS)
    for version in ["v1", "v1alpha"]:
        ask = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        answer = b"".join(ask(iter([b"\x3a\x01*"])))  # field 7: list_services
        for name in [b"fileservice.Fileservice", b"HearBeat", b"grpc.health.v1.Health"]:
            assert name in answer, (version, name)
    health = channel.unary_unary("/grpc.health.v1.Health/Check")
    for name in [b"", b"fileservice.Fileservice", b"HearBeat"]:
        assert health(b"\x0a" + bytes([len(name)]) + name if name else b"") == b"\x08\x01", name
    unknown = channel.unary_unary("/fileservice.Fileservice/uploadfile")
    fails(grpc.StatusCode.UNIMPLEMENTED, lambda: unknown(b""))


for check in sys.argv[2:]:
    globals()[check]()
    print("ok", check)
