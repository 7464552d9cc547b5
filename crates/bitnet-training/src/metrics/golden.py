"""Writes golden.tfevents: two records framed as TensorFlow's record_writer.h says, CRC bit by bit, no library.

Run as: python golden.py
"""

import pathlib
import struct


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data):
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


assert crc32c(b"123456789") == 0xE3069283
time = b"\x09" + struct.pack("<d", 0.0)
version = time + b"\x10\x00" + b"\x1a\x0dbrain.Event:2"
value = b"\x0a\x04loss" + b"\x15" + struct.pack("<f", 4.25)
summary = b"\x0a" + bytes([len(value)]) + value
scalar = time + b"\x10\xac\x02" + b"\x2a" + bytes([len(summary)]) + summary
out = pathlib.Path(__file__).with_name("golden.tfevents")
out.write_bytes(record(version) + record(scalar))
