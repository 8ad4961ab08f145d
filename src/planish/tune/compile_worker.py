"""A process that turns tactics into object code. Started by `compile.CompilePool`, never by hand.

It reads length-prefixed pickles of its parent's requests from standard input and answers on
standard output; the pipe is private to the two processes.
"""

from __future__ import annotations

import pickle
import struct
import sys
from typing import IO

from planish.kernels.catalogue import KERNELS
from planish.kernels.kernel import Source
from planish.targets.cpu import compile_object

Answer = tuple[Source | None, bytes, str]  # code, object, or what went wrong


def main() -> None:
    """Serve requests until standard input closes."""
    kernels = {kernel.name: kernel for kernel in KERNELS}
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    while True:
        message = read_message(requests)
        if message is None:
            return
        name, workload, config, target = pickle.loads(message)
        try:
            source = kernels[name].emit(workload, config, target)
            answer: Answer = (source, compile_object(source.text, target), "")
        except Exception as error:  # the parent raises it again with the tactic's name
            answer = (None, b"", f"{type(error).__name__}: {error}")
        write_message(answers, pickle.dumps(answer))


def read_message(stream: IO[bytes]) -> bytes | None:
    """One message; None at the end of the stream."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    (size,) = struct.unpack("<Q", head)
    return stream.read(size)


def write_message(stream: IO[bytes], message: bytes) -> None:
    """Send one message."""
    stream.write(struct.pack("<Q", len(message)) + message)
    stream.flush()


if __name__ == "__main__":
    main()
