"""Makes every_kind.gguf, the reference of tests/gguf.rs: every kind of metadata and several types of tensors.

Versions: gguf 0.19.0, numpy 2.4.6. Run: python crates/bitnet-model/tests/data/gguf/make.py
Keys are added in alphabetical order, the order in which our writer writes them, so that its file must be the same.
"""

import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

rng = np.random.default_rng(3)
w = gguf.GGUFWriter(str(pathlib.Path(__file__).parent / "every_kind.gguf"), "bitnet")
w.add_array("test.array.bool", [True, False])
w.add_array("test.array.f32", [0.5, -1.5])
w.add_array("test.array.i32", [-1, 0, 7])
w.add_array("test.array.string", ["", "\u0120the", "a\nb"])
w.add_bool("test.bool", True)
w.add_float32("test.f32", 1e-5)
w.add_float64("test.f64", 0.1)
w.add_int16("test.i16", -300)
w.add_int32("test.i32", -70000)
w.add_key_value("test.i64", -(1 << 40), gguf.GGUFValueType.INT64)
w.add_int8("test.i8", -7)
w.add_string("test.string", "\u00e9\u4e2d")
w.add_uint16("test.u16", 60000)
w.add_uint32("test.u32", 4000000000)
w.add_uint64("test.u64", 1 << 63)
w.add_uint8("test.u8", 200)

x = rng.standard_normal((3, 256)).astype(np.float32)
t = rng.integers(-1, 2, (3, 256)).astype(np.float32)
w.add_tensor("f32", x[:, :5].copy())
w.add_tensor("f16", x[:, :6].astype(np.float16))
for name, data, qtype in (("q8_0", x, T.Q8_0), ("q4_0", x, T.Q4_0), ("bf16", x, T.BF16), ("tq1_0", t, T.TQ1_0), ("tq2_0", t, T.TQ2_0)):
    w.add_tensor(name, gguf.quants.quantize(data, qtype), raw_dtype=qtype)
w.add_tensor("cube", x[:, :8].reshape(3, 2, 4).copy())
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
