"""Where the processes of one machine meet: on the address that they are told to connect to, and on no other.

torch's launcher opens the store that they meet in on every interface of the machine (torch 2.13 torch/csrc/distributed/c10d/
TCPStoreLibUvBackend.cpp binds the wildcard address). Here it listens on that one address: 127.0.0.1, unless a configuration names another.
"""

from __future__ import annotations

import socket
from typing import Any

from torch.distributed import TCPStore
from torch.distributed.elastic.rendezvous import static_tcp_rendezvous as room


class OnOneAddress(room.StaticTCPRendezvous):
    """torch's rendezvous of a fixed set of machines, with its store on the main machine's address alone."""

    _store: Any

    def next_rendezvous(self) -> Any:
        if self._store is None and self.rank == 0:
            self._store = self._listening()
        return super().next_rendezvous()

    def _listening(self) -> TCPStore | None:
        try:
            door = _bound(self.master_addr, self.master_port)
        except OSError:
            if self.world_size == 1:
                raise
            return None  # several machines that know this one by an address that is not its own: torch's way
        # torch takes the descriptor over, and closes it.
        return TCPStore(
            self.master_addr, self.master_port, self.world_size, True, self.timeout, multi_tenant=True, master_listen_fd=door.detach()
        )


def install() -> None:
    """Let torch's launcher meet so, in this process."""
    room.StaticTCPRendezvous = OnOneAddress


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    door = socket.socket(family, kind, protocol)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
        door.listen(128)
    except OSError:
        door.close()
        raise
    return door
