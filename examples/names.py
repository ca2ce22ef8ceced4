#!/usr/bin/env python3
"""A client of the name server's protocol, as clients of the original behave. (docs/wires.md, section 3)

    examples/names.py HOST PORT [LATE]      commands come from stdin, one a line; LATE: seconds before it listens

It is careless on purpose, since the original is: it takes an answer's body with one recv, reads blocks of 2048 bytes
with one recv each and takes a shorter one for the end of the file, listens only after it has said that it will, binds
without SO_REUSEADDR, and waits without any limit. An upload leaves its connection open until the server closes it.
"""
import os
import socket
import sys
import time

CHARACTERS = 2048
BLOCK = 2048
KINDS = {
    "init": "init", "create": "crf", "read": "rdf", "write": "wrf", "delete": "rmf", "info": "inf", "copy": "cpf",
    "move": "mvf", "cd": "opdir", "ls": "rddir", "mkdir": "mkdir", "deldir": "rmdir", "dfs_exit": "exit",
}


class Shell:
    def __init__(self, host, port, late=0.0):
        self.session = socket.create_connection((host, port))
        self.late = late

    def ask(self, kind, *arguments):
        text = "".join(field + "][" for field in (kind, *arguments))
        self.session.sendall((text + " " * (CHARACTERS - len(text))).encode())

    def field(self):
        """What comes before the next `][`."""
        text = b""
        while not text.endswith(b"]["):
            byte = self.session.recv(1)
            if not byte:
                sys.exit("the server has closed the session")
            text += byte
        return text[:-2].decode()

    def answer(self, kind):
        got, length = self.field(), int(self.field())
        assert got == kind, f"expected {kind}, got {got}"
        body = self.session.recv(length) if length else b""
        assert len(body) == length, f"{len(body)} of {length} bytes came at once"
        return body.decode()

    def accept(self, port):
        time.sleep(self.late)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("", port))
            listener.listen(1)
            return listener.accept()[0]

    def read(self, name, to):
        self.ask("rdf", name)
        port, size = map(int, self.answer("rdf").split("]["))
        if port == 0:
            return "No such file"
        self.session.sendall(b"y")
        with self.accept(port) as data, open(to, "wb") as file:
            while True:
                block = data.recv(BLOCK)
                file.write(block)
                if len(block) < BLOCK:  # the end, or a block that was cut
                    break
        assert os.path.getsize(to) == size, f"{os.path.getsize(to)} of {size} bytes came before a block was cut"
        return self.answer("rdf")

    def write(self, name, local):
        size = os.path.getsize(local)
        self.ask("wrf", name, str(size))
        port = int(self.session.recv(4))
        if port == 0:
            return "File already exists"
        self.session.sendall(b"e")
        with self.accept(port) as data, open(local, "rb") as file:
            data.sendall(file.read())
            data.recv(1)  # until the server closes
        return self.answer("wrf")

    def run(self, words):
        command, *arguments = words
        if command == "read":
            return self.read(*arguments)
        if command == "write":
            return self.write(*arguments)
        kind = KINDS[command]
        self.ask(kind, *arguments)
        return None if kind == "exit" else self.answer(kind)


def main():
    host, port, *late = sys.argv[1:]
    shell = Shell(host, int(port), *map(float, late))
    for line in sys.stdin:
        said = shell.run(line.split())
        if said is None:
            break
        print(said.rstrip("\n"), flush=True)


if __name__ == "__main__":
    main()
