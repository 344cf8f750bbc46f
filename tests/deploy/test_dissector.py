# SPDX-License-Identifier: Apache-2.0
"""deploy/wireshark/x0.lua under tshark: every frame type, and what is none."""
import os, random, shutil, struct, subprocess, tempfile
import pytest

LUA = os.path.join(os.path.dirname(__file__), "..", "..", "deploy", "wireshark", "x0.lua")
pytestmark = pytest.mark.skipif(not shutil.which("tshark"), reason="needs tshark")

NONCE, COOKIE, KEY_ID, MAC = 0x0102030405060708, 0x1112131415161718, bytes(range(8)), bytes(range(16))
DST, SRC, TAG = 0xd1d2d3d4d5d6d7d8, 0xe1e2e3e4e5e6e7e8, 0xf1f2f3f4f5f6f7f8
# Long header of QUIC version 1, an Initial with 8-byte connection IDs; its payload is nobody's.
QUIC = bytes.fromhex("c3000000010881828384858687880891929394959697980044d0") + bytes(1208 - 26)


def knock(flags=1):
    return struct.pack(">BBBBQ8s12x16s", 1, 1, flags, 0, NONCE, KEY_ID, MAC)


def cookie():
    return struct.pack(">BBBBQQ8x", 2, 1, 0, 7, NONCE, COOKIE)


def hello(quic=QUIC[:1200], flags=0):
    return struct.pack(">BBBBQQ", 3, 1, flags, 9, NONCE, COOKIE) + quic


def hop(kind, ttl=64):
    return struct.pack(">BBHIQQQ", kind, ttl, 0xabcd, 0x01020304, DST, SRC, TAG)


def control():
    return hop(0x10) + b"\x40" + bytes(range(60))


def data(payload=b"\xaa" * 40):
    return hop(0x11) + struct.pack(">IQ", 0x11223302, 1 << 40) + payload + MAC


def probe(kind=1, size=0, pad=0):
    return hop(0x12) + struct.pack(">BBHIQQ", kind, 0, size, 5, 77, 0xcafe) + bytes(pad)


def udp(payload, port=7430):
    u = struct.pack(">HHHH", 40000, port, 8 + len(payload), 0) + payload
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(u), 0, 0, 64, 17, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    return b"\x02" * 12 + b"\x08\x00" + ip + u


def tshark(frames, fields, *args):
    """Rows of the fields' values as text, one row a frame."""
    # Newer versions run no scripts for root; and it reads what strangers send.
    with tempfile.TemporaryDirectory(prefix="x0-tshark-") as d:
        os.chmod(d, 0o755)
        shutil.copy(LUA, d)
        with open(f"{d}/a.pcap", "wb") as f:
            f.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
            for x in frames:
                f.write(struct.pack("<IIII", 1, 0, len(x), len(x)) + x)
        for x in ("a.pcap", "x0.lua"):
            os.chmod(f"{d}/{x}", 0o644)
        argv = ["tshark", "-n", "-r", f"{d}/a.pcap", "-X", f"lua_script:{d}/x0.lua", "-T", "fields", *args]
        for name in fields:
            argv += ["-e", name]
        who = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        r = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                           env={"PATH": os.environ["PATH"], "HOME": d, "LC_ALL": "C.UTF-8"}, cwd=d, **who)
    assert r.returncode == 0, r.stderr
    assert "Lua" not in r.stdout and "lua" not in r.stderr.lower(), r.stdout + r.stderr
    rows = [line.split("\t") for line in r.stdout.splitlines()]
    assert len(rows) == len(frames)
    truth = {"True": "1", "False": "0"}  # as newer versions print them
    return [dict(zip(fields, (truth.get(v, v) for v in row))) for row in rows]


HOP = {"x0.flow": "0xabcd", "x0.link": "0x01020304", "x0.dst": f"{DST:#018x}", "x0.src": f"{SRC:#018x}",
       "x0.tag": f"{TAG:#018x}", "x0.ttl": "64"}
CASES = [
    (knock(), {"x0.type": "0x01", "x0.version": "1", "x0.flags.join": "1", "x0.nonce": f"{NONCE:#018x}",
               "x0.key_id": KEY_ID.hex(), "x0.mac": MAC.hex()}),
    (cookie(), {"x0.type": "0x02", "x0.epoch": "7", "x0.nonce": f"{NONCE:#018x}", "x0.cookie": f"{COOKIE:#018x}"}),
    (hello(), {"x0.type": "0x03", "x0.epoch": "9", "x0.cookie": f"{COOKIE:#018x}", "x0.flags.reply": "0",
               "quic.version": "0x00000001", "quic.dcid": "8182838485868788", "quic.scid": "9192939495969798"}),
    (hello(flags=1), {"x0.flags.reply": "1", "quic.version": "0x00000001"}),
    (control(), {"x0.type": "0x10", **HOP, "quic.header_form": "0"}),
    (data(), {"x0.type": "0x11", **HOP, "x0.session": "0x11223302", "x0.worker": "2", "x0.counter": str(1 << 40),
              "x0.ciphertext": "aa" * 40, "x0.aead_tag": MAC.hex()}),
    (data(b""), {"x0.type": "0x11", "x0.ciphertext": "", "x0.aead_tag": MAC.hex(), "x0.keepalive": "1"}),
    (probe(), {"x0.type": "0x12", **HOP, "x0.probe.kind": "1", "x0.probe.seq": "5", "x0.counter": "77",
               "x0.probe.data": "0x000000000000cafe"}),
    (probe(5, 1400, 1344), {"x0.probe.kind": "5", "x0.probe.size": "1400", "x0.probe.padding": "00" * 1344}),
]


def test_every_frame_type_shows_its_fields():
    fields = sorted({k for _, want in CASES for k in want} | {"x0.malformed", "_ws.col.Protocol"})
    rows = tshark([udp(c) for c, _ in CASES], fields)
    for (frame, want), row in zip(CASES, rows):
        assert {k: row[k] for k in want} == want
        assert row["x0.malformed"] == "" and row["_ws.col.Protocol"] == "x0"


def test_other_ports_by_decode_as():
    row, = tshark([udp(knock(), 9999)], ["x0.type"], "-d", "udp.port==9999,x0")
    assert row["x0.type"] == "0x01"


def test_malformed_frames_say_so():
    bad = [b"\x7f" + bytes(60), knock()[:47], knock() + b"\0", knock(2), b"\x01\x02" + knock()[2:], cookie()[:-1],
           cookie()[:-1] + b"\1", hello(b""), hello(QUIC), hop(0x10), data()[:59], probe()[:-1], probe(9),
           probe(1, 0, 4), probe(5, 1400, 20)]
    rows = tshark([udp(b) for b in bad], ["x0.malformed", "_ws.expert.severity"])
    assert [i for i, r in enumerate(rows) if not r["x0.malformed"]] == []


def test_truncated_and_random_frames_never_stop_it():
    rng = random.Random(7430)
    frames = [c[:n] for c, _ in CASES for n in range(1, min(len(c), 80))]
    for c, _ in CASES:
        for _ in range(40):
            x = bytearray(c)
            for _ in range(rng.randrange(1, 6)):
                x[rng.randrange(len(x))] = rng.randrange(256)
            frames.append(bytes(x))
    for kind in (1, 2, 3, 0x10, 0x11, 0x12):
        frames += [bytes([kind]) + rng.randbytes(rng.randrange(0, 1400)) for _ in range(100)]
    rows = tshark([udp(x) for x in frames], ["x0.type", "_ws.malformed"])
    assert [i for i, (x, r) in enumerate(zip(frames, rows)) if r["x0.type"] != f"{x[0]:#04x}"] == []
