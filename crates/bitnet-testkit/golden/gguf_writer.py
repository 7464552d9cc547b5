"""Writes GGUF files byte by byte, with any version and any type number; gguf-py refuses several that occur."""

import struct

import numpy as np

F32, F16, Q8_0, Q4_0, Q4_K, Q6_K, BF16, TQ1_0, TQ2_0, I2_S, Q2_0 = 0, 1, 8, 2, 12, 14, 30, 34, 35, 36, 42
Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q5_K, IQ4_NL, F64, MXFP4 = 3, 6, 7, 10, 11, 13, 20, 28, 39
Q1_0, PQ2_0, PTQ1_0, STQ1_0, IQ1_BN, IQ2_BN = 41, 142, 143, 43, 134, 135
ALIGNMENT = 32


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(v):
    """(type number, bytes) of a metadata value: int -> u32, numpy int32 -> i32, float -> f32."""
    match v:
        case bool():
            return 7, struct.pack("<?", v)
        case np.int32():
            return 5, struct.pack("<i", v)
        case int():
            return 4, struct.pack("<I", v)
        case float():
            return 6, struct.pack("<f", v)
        case str():
            return 8, string(v)
        case list():
            items = [value(item) for item in v]
            return 9, struct.pack("<IQ", items[0][0], len(v)) + b"".join(data for _, data in items)


def write(path, metadata, tensors, version=3):
    """tensors: name -> (type number, shape with the rows first, bytes)"""
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(metadata)))
    for key, v in metadata.items():
        kind, data = value(v)
        out += string(key) + struct.pack("<I", kind) + data
    offset = 0
    for name, (kind, shape, data) in tensors.items():
        out += string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        out += struct.pack("<IQ", kind, offset)
        offset += padded(len(data))
    out += bytes(padded(len(out)) - len(out))
    for _, _, data in tensors.values():
        out += data + bytes(padded(len(data)) - len(data))
    with open(path, "wb") as file:
        file.write(out)


def padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def encode_i2_s(ternary, scale, plane=32):
    """Four planes of `plane` weights to a block, the first in the highest bits; f32 scale after the weights.
    x86 builds write planes of 32, ARM builds of 16."""
    codes = (ternary.reshape(-1, 4, plane) + 1).astype(np.uint8)
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + bytes(28)


def encode_q2_0(ternary, scales, group):
    """f16 scale of the group, then its weights in sequence, four to a byte, the first in the lowest bits."""
    codes = (ternary.reshape(-1, group // 4, 4) + 1).astype(np.uint8)
    packed = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
    scales = np.broadcast_to(scales, len(packed)).astype(np.float16)
    return b"".join(scale.tobytes() + row.tobytes() for scale, row in zip(scales, packed))


def encode_q1_0(w):
    """(bytes, values): f16 mean magnitude of 128 weights, then their signs, the first in the lowest bit."""
    w = w.reshape(-1, 128)
    scales = np.abs(w).mean(1, keepdims=True).astype(np.float16)
    signs = np.packbits(w >= 0, axis=1, bitorder="little")
    data = b"".join(scale.tobytes() + row.tobytes() for scale, row in zip(scales, signs))
    return data, np.where(w >= 0, scales, -scales).astype(np.float32)


def encode_ptq1_0(ternary, scale):
    """128 weights in base 3: bytes of five digits 16 and then 8 weights apart, two bytes of four digits 2 apart, f16 scale."""
    out = b""
    for block in (ternary.reshape(-1, 128) + 1).astype(int):
        for first, apart, digits in ((0, 16, 5), (80, 8, 5), (120, 2, 4)):
            for m in range(apart):
                value = sum(block[first + n * apart + m] * 3 ** (4 - n) for n in range(digits))
                out += bytes([-(-value * 256 // 243)])
        out += np.float16(scale).tobytes()
    return out


def encode_iq_bn(ternary, scale, bits):
    """A scale before each row (f16 for 1 bit, f32 for 2), then 64 weights: base 3 in 13 bytes, or planes of 16 weights in 16."""
    out = b""
    for row in (ternary + 1).astype(int):
        out += np.float16(scale).tobytes() if bits == 1 else np.float32(scale).tobytes()
        for block in row.reshape(-1, 64):
            if bits == 2:
                out += bytes(sum(block[16 * i + j] << 2 * i for i in range(4)) for j in range(16))
                continue
            digits = [block[16 * i + 5 * k:16 * i + 5 * k + 5] for i in range(4) for k in range(3)] + [block[15::16]]
            values = (sum(d * 3 ** j for j, d in enumerate(five)) for five in digits)
            out += bytes(-(-int(value) * 256 // 243) for value in values)
    return out


# Nibble and sign of each group of four weights with one zero.
SHERRY = {}
for code in range(16):
    signs = [1, -1 if code & 1 else 1, -1 if code & 2 else 1]
    lanes = signs[:code >> 2] + [0] + signs[code >> 2:]
    SHERRY |= {tuple(lanes): (code, 0), tuple(-lane for lane in lanes): (code, 1)}


def encode_stq1_0(ternary, scale):
    """256 weights: a nibble for each four weights 16 apart, then their signs, f16 scale."""
    out = b""
    for block in ternary.reshape(-1, 4, 4, 16).astype(int):
        pairs = [SHERRY[tuple(block[g // 16, :, g % 16])] for g in range(64)]
        out += bytes(pairs[2 * i][0] | pairs[2 * i + 1][0] << 4 for i in range(32))
        out += bytes(sum(pairs[8 * i + k][1] << k for k in range(8)) for i in range(8)) + np.float16(scale).tobytes()
    return out
