"""Clients of a Tracker, as the original's are written: plaintext, no deadline. tracker.py ADDRESS NOTIFY_PORT CHECK..."""

import collections
import os
import random
import sys
import threading
import time
from concurrent import futures

import grpc

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
protos, services = grpc.protos_and_services("tracker.proto")
ours, our_services = grpc.protos_and_services("stevedore_tracker.proto")

ADDRESS, NOTIFY = sys.argv[1], int(sys.argv[2])
NO_DOWNLOAD = "no available nodes or ports to download from"
# The original's client sends any size, and receives 4 MiB at most.
SENDS_ALL = [("grpc.max_send_message_length", -1)]
TAKES_ALL = SENDS_ALL + [("grpc.max_receive_message_length", -1)]


def services_at(address, options=SENDS_ALL):
    return services.ServicesStub(grpc.insecure_channel(address, options))


def keeper_at(place, options=SENDS_ALL):
    return services_at(f"{place.ip_address}:{place.port}", options)


tracker = services_at(ADDRESS)


def content(seed, size):
    return random.Random(seed).randbytes(size)


def upload(name, data):
    place = tracker.clientToMasterUpload(protos.Empty())
    assert place.ip_address and place.port, place
    request = protos.UploadRequest(fileName=name, file_content=data, port=place.port)
    assert keeper_at(place).clientToDataKeeperUpload(request).success


def download(name, options=SENDS_ALL):
    place = tracker.DownloadFile(protos.DownloadRequest(file_name=name))
    answer = keeper_at(place, options).clientToDataKeeperDownload(protos.FileRequest(fileName=name))
    assert answer.success
    return answer.file_content


def fails(code, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} {error.details()}, not {code}"
        return error.details()
    raise AssertionError(f"it works, and does not end with {code}")


def at_once(count, job):
    with futures.ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(job, number) for number in range(count)]:
            done.result()


def where(name):
    """DownloadFile's whole answer."""
    ask = grpc.insecure_channel(ADDRESS).unary_unary(
        "/services.Services/DownloadFile",
        request_serializer=protos.DownloadRequest.SerializeToString,
        response_deserializer=ours.Where.FromString,
    )
    return ask(protos.DownloadRequest(file_name=name))


def sizes():
    for size in [0, 1, 2047, 2048, 2049, 300_000, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 5_000_000, 100_000_000]:
        data, name = content(size, size), f"of{size}.bin"
        upload(name, data)
        assert download(name, TAKES_ALL) == data, size
        if size > (4 << 20) - 20:
            # Larger than the original's client takes in a message: it fails there, and must not take it for an empty file.
            fails(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: download(name))
        else:
            assert download(name) == data, size
            upload(name, data[: size // 2])
            assert download(name) == data[: size // 2], "an upload replaces"


def refusals():
    message = fails(grpc.StatusCode.UNKNOWN, lambda: download("missing.txt"))
    assert message == NO_DOWNLOAD, message
    place = tracker.clientToMasterUpload(protos.Empty())
    keeper = keeper_at(place)
    get = lambda name: keeper.clientToDataKeeperDownload(protos.FileRequest(fileName=name))
    put = lambda name: keeper.clientToDataKeeperUpload(protos.UploadRequest(fileName=name, file_content=b"x", port=place.port))
    assert "missing.txt" in fails(grpc.StatusCode.NOT_FOUND, lambda: get("missing.txt"))
    for name in ["", "a/b", "/a", "..", "../a", "a..b", "x" * 1025]:
        for call in [get, put, lambda name: tracker.DownloadFile(protos.DownloadRequest(file_name=name))]:
            assert "no file's name" in fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: call(name)), name
    foreign = [
        lambda: tracker.Register(protos.RegisterRequest(ip_address="1.2.3.4")),
        lambda: list(tracker.TrackHeartbeat(iter([protos.HeartbeatRequest(node_id="1")]))),
        lambda: tracker.dataNodeNotifyMaster(protos.NotifyRequest(fileName="a", node_id="1", port_number="1")),
        lambda: tracker.MasterToDataKeeperReplica(protos.ReplicaRequest(ip_address="1.2.3.4", port="1", file_name="a")),
        lambda: tracker.NodeToNodeReplica(protos.NodeRequest(file_name="a")),
    ]
    for call in foreign:
        assert "nodes of other systems take no part" in fails(grpc.StatusCode.FAILED_PRECONDITION, call)
    # What is no message, or has its fields in an order that would need all of it in memory.
    raw = grpc.insecure_channel(f"{place.ip_address}:{place.port}").unary_unary("/services.Services/clientToDataKeeperUpload")
    for bad in [b"\x0a\x05ab", b"\x12\x01x\x0a\x01a", b"\x0a\x01a\x12\x01x\x12\x01y", b"\xff" * 11, b"\x0a\x02\xff\xfe", b"\x12\xff\xff\xff\xff\x0f"]:
        fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: raw(bad))
    fails(grpc.StatusCode.UNKNOWN, lambda: download("a"))
    # Fields that are not known are harmless, before and behind.
    raw(b"\x7a\x03abc\x0a\x01u\x28\x07\x12\x02xy\x1a\x01p\x31" + b"\0" * 8)
    assert download("u") == b"xy"


def told():
    """The client is told before it has its answer, and the file is there by then."""
    events = []

    class Client(services.ServicesServicer):
        def MasterToClientSuccessNotify(self, request, context):
            event = ["told", None]
            events.append(event)  # at once: the tracker waits for a moment only
            event[1] = download("told.txt")
            return protos.Empty()

    server = grpc.server(futures.ThreadPoolExecutor(4))
    services.add_ServicesServicer_to_server(Client(), server)
    assert server.add_insecure_port(f"127.0.0.1:{NOTIFY}") == NOTIFY
    server.start()
    for number in range(3):
        upload("told.txt", content(number, 1000))
        events.append(("answered", content(number, 1000)))
    server.stop(None).wait()
    order = [event for event, _ in events]
    assert order == ["told", "answered"] * 3, order
    for before, after in zip(events[::2], events[1::2]):
        assert before[1] == after[1]
    upload("told.txt", b"nobody listens")
    assert download("told.txt") == b"nobody listens"


def crowd():
    data = [content(number, 200_000 + number) for number in range(50)]
    at_once(50, lambda number: upload(f"at once {number}", data[number]))
    assert [download(f"at once {number}") for number in range(3)] == data[:3]

    def compare(number):
        assert download(f"at once {number}") == data[number], number

    at_once(50, compare)
    at_once(50, lambda number: upload("the same", data[number]))
    assert download("the same") in data


def thousand():
    ports = collections.Counter()
    keepers = {}
    for number in range(1000):
        place = tracker.clientToMasterUpload(protos.Empty())
        keeper = keepers.setdefault(place.port, keeper_at(place))
        request = protos.UploadRequest(fileName=f"small{number}", file_content=b"%d" % number, port=place.port)
        assert keeper.clientToDataKeeperUpload(request).success
    for number in range(1000):
        place = tracker.DownloadFile(protos.DownloadRequest(file_name=f"small{number}"))
        ports[place.port] += 1
        answer = keepers[place.port].clientToDataKeeperDownload(protos.FileRequest(fileName=f"small{number}"))
        assert answer.file_content == b"%d" % number
    assert len(ports) == 3 and max(ports.values()) <= 1.2 * min(ports.values()), ports


def streams():
    """Our own methods: a large file as a stream, parts of it from all holders, and the table."""
    data = content(7, 40_000_000)
    place = tracker.clientToMasterUpload(protos.Empty())
    keeper = our_services.KeeperStub(grpc.insecure_channel(f"{place.ip_address}:{place.port}"))
    pieces = (ours.Piece(name="large" if at == 0 else "", data=data[at : at + 1_000_000]) for at in range(0, len(data), 1_000_000))
    done = keeper.Upload(pieces)
    assert done.size == len(data)
    found = where("large")
    # A put waits for the third holder for a moment only.
    until = time.monotonic() + 30
    while len(found.holders) < 3 and time.monotonic() < until:
        time.sleep(0.05)
        found = where("large")
    assert (found.size, found.version, len(found.holders)) == (len(data), done.version, 3), found
    parts = [bytearray() for _ in found.holders]
    share = -(-len(data) // len(parts))

    def fetch(number):
        holder = found.holders[number]
        stub = our_services.KeeperStub(grpc.insecure_channel(f"{holder.ip_address}:{holder.port}"))
        part = ours.Part(name="large", offset=number * share, length=share, version=found.version)
        for piece in stub.Download(part):
            parts[number] += piece.data

    at_once(len(parts), fetch)
    assert b"".join(parts) == data
    assert keeper.Upload(iter([ours.Piece(name="large", data=b"new")])).size == 3
    old = ours.Part(name="large", version=found.version)
    assert "by now" in fails(grpc.StatusCode.ABORTED, lambda: list(keeper.Download(old)))
    assert b"".join(piece.data for piece in keeper.Download(ours.Part(name="large", offset=1))) == b"ew"
    fails(grpc.StatusCode.NOT_FOUND, lambda: list(keeper.Download(ours.Part(name="missing"))))
    for empty in [iter([]), iter([ours.Piece(data=b"no name")])]:
        fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: keeper.Upload(empty))
    gone = threading.Event()

    def half():
        yield ours.Piece(name="half", data=b"1" * 1_000_000)
        gone.wait()

    call = keeper.Upload.future(half())
    call.cancel()
    gone.set()
    table = our_services.TableStub(grpc.insecure_channel(ADDRESS))
    rows = [row for row in table.Rows(ours.RowsRequest(name="large"))]
    while len(rows) < 3 and time.monotonic() < until:
        time.sleep(0.05)
        rows = [row for row in table.Rows(ours.RowsRequest(name="large"))]
    assert len({row.keeper for row in rows}) == 3 and all(row.alive and row.path and row.size == 3 for row in rows), rows
    everything = list(table.Rows(ours.RowsRequest()))
    assert [row for row in everything if row.name == "large"] == rows
    assert "half" not in {row.name for row in everything}
    fails(grpc.StatusCode.NOT_FOUND, lambda: list(table.Rows(ours.RowsRequest(name="missing"))))


def reflected():
    channel = grpc.insecure_channel(ADDRESS)
    for version in ["v1", "v1alpha"]:
        ask = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        answer = b"".join(ask(iter([b"\x3a\x01*"])))
        for name in [b"services.Services", b"stevedore.tracker.Table", b"stevedore.tracker.Keeper", b"grpc.health.v1.Health"]:
            assert name in answer, (version, name)
    health = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert health(b"\x0a\x11services.Services") == b"\x08\x01"


def keep():
    """Files for the checks below."""
    for number in range(10):
        upload(f"kept{number}", content(number, 100_000))


def read_from(keeper):
    """All of them by the keeper at an address."""
    keeper = services_at(keeper)
    for number in range(10):
        answer = keeper.clientToDataKeeperDownload(protos.FileRequest(fileName=f"kept{number}"))
        assert answer.file_content == content(number, 100_000)


def holders(expected):
    """Which keepers have the files, by DownloadFile and by turns of clientToMasterUpload."""
    found = {holder.node_id for holder in where("kept0").holders}
    print("holders", *sorted(found))
    assert found == set(expected.split(",")), found
    uploads = {tracker.clientToMasterUpload(protos.Empty()).port for _ in range(12)}
    assert len(uploads) == len(found), uploads


for check in sys.argv[3:]:
    name, _, argument = check.partition("=")
    globals()[name](*filter(None, [argument]))
    print("ok", check)
