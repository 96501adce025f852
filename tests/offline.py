"""No connection leaves this machine: in the tests, and in the tools that they start (F30)."""

import ipaddress
import socket
import unittest.mock

HERE = ("localhost", "::1", "0.0.0.0", "::", "")


def refuse():
    """Refuse connections to other machines, until ``stop`` of what is returned is called."""
    plain = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}
    resolve = socket.getaddrinfo

    def check(host):
        if host is not None and not _is_here(host):
            raise OSError(f"tests have no network: {host}")

    def counted(name):
        def connect(self, address):
            if isinstance(address, tuple) and self.type == socket.SOCK_STREAM:
                check(address[0])
            return plain[name](self, address)

        return connect

    def getaddrinfo(host, *words, **options):
        check(host)
        return resolve(host, *words, **options)

    patches = [unittest.mock.patch.object(socket.socket, n, counted(n)) for n in plain]
    patches.append(unittest.mock.patch.object(socket, "getaddrinfo", getaddrinfo))
    for patch in patches:
        patch.start()
    return patches


def _is_here(host):
    host = host.decode() if isinstance(host, bytes) else host
    if host in (*HERE, socket.gethostname()) or host.startswith("127."):
        return True
    try:
        address = ipaddress.ip_address(host)
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as own:
            own.bind((host, 0))  # only addresses of this machine can be bound
    except (ValueError, OSError):
        return False
    return True
