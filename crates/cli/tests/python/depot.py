"""A depot as `mark` marks a submission: a Controller and Dstores, started by their commands.

    depot.py STEVEDORE controller CPORT R TIMEOUT PERIOD     a whole depot, whose gateway answers on CPORT as a Controller does
    depot.py STEVEDORE dstore PORT CPORT TIMEOUT FOLDER      says JOIN, as `mark` expects it, and has no part in anything
"""

import socket
import subprocess
import sys
import threading

FOLDERS = [f"disk{number}" for number in range(1, 6)]


def wait_for(program, text):
    for line in program.stdout:
        if text in line:
            threading.Thread(target=program.stdout.read, daemon=True).start()
            return line
    sys.exit(f"{program.args} has ended")


def start(*words):
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def pass_on(source, to):
    try:
        while some := source.recv(1 << 16):
            to.sendall(some)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(connection, place):
    """A Dstore's connection stays as it is; a client's is passed on."""
    if connection.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL) == b"JOIN ":
        while connection.recv(1 << 16):
            pass
        return
    with socket.create_connection(place) as gateway:
        for one in [connection, gateway]:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=pass_on, args=(connection, gateway), daemon=True).start()
        pass_on(gateway, connection)
    connection.close()


def controller(stevedore, port, replicas, timeout, _period):
    ports = ["--controller-port", "0", "--dstore-port", "0", "--no-gateway"]
    store = start(stevedore, "serve", "--replicas", replicas, "--sync", "never", *ports, *FOLDERS)
    wait_for(store, "stevedore status")
    while True:
        status = subprocess.run([stevedore, "status", "--cluster", FOLDERS[0]], capture_output=True, text=True).stdout
        if status.count(" present ") == len(FOLDERS):
            break
    options = ["--http", "0", "--no-s3", "--coursework", "0", "--coursework-timeout", timeout]
    gateway = start(stevedore, "gateway", "--cluster", FOLDERS[0], *options)
    place = wait_for(gateway, "  Coursework ").split()[1].rstrip(",").split(":")
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=128)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, (place[0], int(place[1]))), daemon=True).start()


def dstore(_stevedore, port, controller_port, _timeout, _folder):
    with socket.create_server(("127.0.0.1", int(port))), socket.create_connection(("127.0.0.1", int(controller_port))) as link:
        link.sendall(f"JOIN {port}\n".encode())
        while link.recv(1 << 16):
            pass


stevedore, role, *words = sys.argv[1:]
globals()[role](stevedore, *words)
