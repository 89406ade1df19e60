"""Output that nobody reads is dropped and counted; output that somebody reads comes whole."""

import contextlib
import os

from headgate.output import Channel


def lines_of(read_end: int) -> bytes:
    out = b""
    while data := os.read(read_end, 65536):
        out += data
    return out


def test_what_the_queue_cannot_hold_is_dropped_and_counted_by_the_line() -> None:
    read_end, write_end = os.pipe()
    channel = Channel(write_end, queue_bytes=1 << 20)
    line = b"x" * 99 + b"\n"
    for _ in range(20_000):  # 2 MB: the pipe holds 64 KiB, the queue 1 MiB
        channel.write(line)
    assert 8_000 < channel.dropped < 10_000
    assert not channel.drain(0.01)
    got = b""
    os.set_blocking(read_end, False)
    while not channel.drain(0.01):
        with contextlib.suppress(BlockingIOError):  # the queue may be on its way into the pipe
            got += os.read(read_end, 65536)
    channel.write(b"after\n")
    assert channel.drain(10)
    got += os.read(read_end, 1 << 20)
    assert got.count(line) + channel.dropped == 20_000
    assert b'"event":"log_lines_dropped"' in got and got.endswith(b"after\n")


def test_a_reader_that_left_costs_lines_and_nothing_else() -> None:
    read_end, write_end = os.pipe()
    channel = Channel(write_end)
    os.close(read_end)
    channel.write(b"one\ntwo\n")
    assert channel.drain(10)
    assert channel.dropped == 2
