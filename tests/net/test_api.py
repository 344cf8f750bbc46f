# SPDX-License-Identifier: Apache-2.0
"""The API as any client of the socket sees it, on a running node."""
import json, os, socket
import lab as L


def ask(host, method, path, body=b"", raw=None):
    """One request on the Unix socket: status, headers (lower case), body."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(os.path.join(host.run_dir, "api.sock"))
    s.sendall(raw or f"{method} {path} HTTP/1.1\r\nHost: x0\r\nConnection: close\r\n"
                     f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    out = b""
    while chunk := s.recv(65536):
        out += chunk
    s.close()
    head, _, rest = out.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), {k.lower(): v.strip() for k, v in (x.split(":", 1) for x in lines[1:])}, rest


def problem(answer, status, code):
    """RFC 9457, with the stable code and a sentence."""
    got, head, body = answer
    p = json.loads(body)
    assert got == status and head["content-type"] == "application/problem+json"
    assert (p["status"], p["code"]) == (status, code) and p["type"] and p["title"] and p["detail"]
    return p


def test_methods_and_paths(pair):
    a, _ = pair
    answer = ask(a, "GET", "/api/v1/ping")
    problem(answer, 405, "usage")
    assert answer[1]["allow"] == "POST"
    answer = ask(a, "DELETE", "/api/v1/config")
    problem(answer, 405, "usage")
    assert answer[1]["allow"] == "GET, POST"
    for path in ("/", "/api", "/api/v1", "/api/v1/", "/api/v1/statusx", "/api/v2/status", "/api/v1/../v1/status",
                 "/api/v1/%2e%2e/status", "/api/v1/status/", "//api/v1/status", "/api/v1/..%2f..%2fetc/passwd"):
        problem(ask(a, "GET", path), 404, "not-found")
    status, head, _ = ask(a, "GET", "/api/v1/status?x=/../..")
    assert status == 200 and head["cache-control"] == "no-store"


def test_bodies_that_are_no_requests(pair):
    a, b = pair
    for path in ("/api/v1/ping", "/api/v1/config", "/api/v1/peers/rekey", "/api/v1/ca/tokens", "/api/v1/ca/revocations"):
        for body in (b"", b"[]", b"{", b"null", b"\xff\xfe", b'{"peer":1}' if "config" not in path else b'{"text":1}'):
            status, _, out = ask(a, "POST", path, body)
            assert 400 <= status < 500 and json.loads(out)["detail"], (path, body)
    for body, status, code in ((b'{"text":"listn: 1\\n"}', 400, "config"), (b'{"text":"","confirm_s":999999}', 400, "parse"),
                               (b'{"text":"workers: 9\\n"}', 409, "conflict")):
        problem(ask(a, "POST", "/api/v1/config", body), status, code)
    problem(ask(a, "POST", "/api/v1/config/confirm", b"{}"), 409, "conflict")
    problem(ask(a, "POST", "/api/v1/peers/rekey", b'{"peer":"fd00::1"}'), 404, "not-found")
    assert a.ping(b.overlay(), 2) == 2


def test_slow_and_silent_clients_delay_nobody(pair):
    """Half requests held open: the mesh and other clients go on."""
    a, b = pair
    held = []
    for i in range(40):
        s = socket.socket(socket.AF_UNIX)
        s.connect(os.path.join(a.run_dir, "api.sock"))
        s.sendall(b"POST /api/v1/ping HTTP/1.1\r\nHost: x0\r\nContent-Length: 60000\r\n\r\n{" if i % 2 else b"GET /api")
        held.append(s)
    try:
        assert ask(a, "GET", "/api/v1/readyz")[0] == 200
        assert a.ping(b.overlay(), 5, 2) == 5
        assert a.json("ping", "node-b", "-c", "2", "-i", "0.01")["answered"] == 2
    finally:
        for s in held:
            s.close()


def test_other_users_are_refused(pair):
    a, _ = pair
    r = a.exec("setpriv", "--reuid", "65001", "--regid", "65001", "--clear-groups", L.X0, "--config", a.conf, "status",
               check=False)
    assert r.returncode == 5 and "api.group" in r.stderr
    # Loopback TCP has no credentials, and so nothing but the numbers.

    def tcp():
        got = []
        for req in (b"GET /api/v1/status", b"POST /metrics", b"GET /api/v1/metrics", b"GET /metrics"):
            s = socket.create_connection(("127.0.0.1", 9430), 10)
            s.sendall(req + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            got.append(int(s.recv(64).split()[1]))
            s.close()
        return got
    assert L.in_ns(a.ns, tcp) == [404, 404, 404, 200]
