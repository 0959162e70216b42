"""A path to the server on which connections can die without a word, as behind a lost router."""

import contextlib
import socket
import threading
from typing import Self


class DeadPeer:
    """Passes TCP on to the server; what connections send after a `die()` is swallowed.

    Nothing is closed and nothing reset: the kernel goes on acknowledging. Connections
    that are opened later work.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lives = 0
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self.connections = 0

    def die(self) -> None:
        self._lives += 1

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                self.connections += 1
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    thread = threading.Thread(target=self._pump, args=(source, sink, self._lives))
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, life: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if life == self._lives:
                    sink.sendall(data)
        if life == self._lives:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
