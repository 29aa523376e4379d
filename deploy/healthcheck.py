"""Whether the node in this container is ready; the exit code says so, and the output why not.

What it is: the HEALTHCHECK of the image. What it assumes and guarantees: the node listens on PORT
of this machine; it takes a few milliseconds, for it imports nothing that is not needed. What it
does not know: what ready means; it asks `GET /readyz`. Where the idea is from: Docker's health
checks, whose last outputs `docker inspect` shows.
"""

import os
import socket
import sys

TIMEOUT_S = 4.0


def main() -> int:
    """0 when the node answered that it is ready, else 1."""
    try:
        port = int(os.environ.get("PORT") or 8000)
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := connection.recv(4096):
                answer += part
    except (OSError, ValueError) as error:
        print(f"no answer: {error}")
        return 1
    print(answer.partition(b"\r\n\r\n")[2].decode(errors="replace"))
    return 0 if b" 200 " in answer.partition(b"\r\n")[0] else 1


if __name__ == "__main__":
    sys.exit(main())
