# SPDX-License-Identifier: Apache-2.0
"""Disks that are full or read-only, and processes killed at any moment."""
import contextlib, os, random, time
import lab as L


@contextlib.contextmanager
def small_state(*hosts):
    """The hosts' state directories on file systems of their own, of 1 MiB."""
    dirs = [f"{h.dir}/state" for h in hosts]
    for d in dirs:
        os.makedirs(d, exist_ok=True)
        L.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", d)
    try:
        yield
    finally:
        for h in hosts:
            h.down()
        for d in dirs:
            L.run("umount", "-l", d)


def fill(host):
    path = f"{host.dir}/state/filler"
    with open(path, "wb", buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(b"\0" * 4096)
    return path


def says_what_to_do(text, path, why):
    assert why in text and path in text and "free space" in text, text


def and_afterwards(a, b):
    assert a.x0("ca", "token", "node-c", "--addr", f"{a.addr}:7430").stdout.startswith("x0t1.")
    b.x0("identity", "renew")
    a.x0("ca", "revoke", "node-x")
    for h in (a, b):
        h.down()
        h.up()
    L.wait_for("traffic after the restart", lambda: a.ping(b.overlay(), 1, 1), 20)


def test_full_disk(make_lab):
    """What cannot be put down is not given out; the error names the path and the remedy; traffic goes on."""
    lab = make_lab("node-a", "node-b")
    with small_state(*lab.hosts):
        a, b = L.mesh(lab)
        full = [fill(h) for h in (a, b)]
        number = a.json("identity", "show")["bundle"]["number"]
        r = a.x0("ca", "revoke", "node-x", check=False)
        assert r.returncode != 0
        says_what_to_do(r.stderr, f"{a.dir}/state/authority", "No space left")
        assert a.json("identity", "show")["bundle"]["number"] == number
        for i in range(400):  # until the journal's last page is full too
            r = a.x0("ca", "token", f"node-t{i}", "--addr", f"{a.addr}:7430", check=False)
            if r.returncode:
                break
        assert r.returncode != 0 and "x0t1." not in r.stdout
        says_what_to_do(r.stderr, f"{a.dir}/state/authority", "No space left")
        os.remove(full[0])
        serial = b.json("identity", "show")["link"]["serial"]
        b.x0("identity", "renew")  # in use, although it cannot be stored
        assert b.json("identity", "show")["link"]["serial"] != serial
        L.wait_for("the log to say so", lambda: "not stored" in b.log(), 20)
        says_what_to_do(b.log().split("not stored", 1)[1], f"{b.dir}/state/node", "No space left")
        assert b.linked(a) and a.ping(b.overlay(), 3) == 3
        os.remove(full[1])
        and_afterwards(a, b)


def test_read_only_disk(make_lab):
    """A node starts from it as it is; an issuer, which must write, does not and says why."""
    lab = make_lab("node-a", "node-b")
    with small_state(*lab.hosts):
        a, b = L.mesh(lab)
        b.down()
        L.run("mount", "-o", "remount,ro", f"{b.dir}/state")
        b.up()
        L.wait_for("linked", lambda: b.linked(a), 20)
        b.x0("identity", "renew")
        L.wait_for("the log to say so", lambda: "not stored" in b.log(), 20)
        says_what_to_do(b.log().split("not stored", 1)[1], f"{b.dir}/state/node", "Read-only file system")
        assert a.ping(b.overlay(), 3) == 3
        a.down()
        L.run("mount", "-o", "remount,ro", f"{a.dir}/state")
        r = a.x0("up", check=False)
        says_what_to_do(r.stderr + a.log("issuer"), f"{a.dir}/state/authority", "Read-only file system")
        a.down()
        for h in (a, b):
            L.run("mount", "-o", "remount,rw", f"{h.dir}/state")
        a.up()
        L.wait_for("linked", lambda: b.linked(a), 20)
        and_afterwards(a, b)


def test_killed_at_any_moment(make_lab):
    """kill -9 in the midst of starting, renewing and issuing: the next start works, and nothing is lost or left."""
    a, b = L.mesh(make_lab("node-a", "node-b"))
    name, address = a.json("status")["id"], a.overlay()
    seed = int(os.environ.get("X0_SEED", random.randrange(1 << 32)))
    print(f"X0_SEED={seed}")
    rnd = random.Random(seed)
    tokens, number = [], a.json("identity", "show")["bundle"]["number"]
    for i in range(10):
        work = a.start("ca", "token", f"node-t{i}", "--addr", f"{a.addr}:7430"), a.start("identity", "renew"), \
            a.start("ca", "revoke", f"node-r{i}")
        time.sleep(rnd.random() * 0.15)
        for what in rnd.sample(["daemon", "broker", "issuer"], rnd.randint(1, 3)):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                a.kill(what)
        done = [w.communicate(timeout=30)[0] for w in work]
        if work[0].returncode == 0:
            tokens.append(done[0].strip())
        if rnd.random() < 0.3:  # and once more while it starts
            up = a.start("up")
            time.sleep(rnd.random() * 0.3)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                a.kill(rnd.choice(["daemon", "broker", "issuer"]))
            up.communicate(timeout=60)
        a.up()
        s = a.json("status")
        assert s["id"] == name and s["address"] == address and s["issuer"]
        links = [x.split(":")[1].strip() for x in a.exec("ip", "-o", "link").stdout.splitlines()]
        assert [x.split("@")[0] for x in links if x.split("@")[0] not in ("lo", "u0")] == ["x0"], links
        now = a.json("identity", "show")["bundle"]["number"]
        assert now >= number + (work[2].returncode == 0), "an acknowledged revocation is lost"
        number = now
    L.wait_for("linked", lambda: a.linked(b), 30)
    L.wait_for("traffic", lambda: a.ping(b.overlay(), 1, 1), 20)
    revoked = a.json("identity", "show")["bundle"]["revoked"]
    assert len(revoked) == len(set(revoked))
    a.x0("identity", "renew")
    if tokens:  # what was given out before the last kill still works
        b.down()
        L.run("rm", "-r", f"{b.dir}/state")
        b.x0("join", tokens[-1])
        b.up()
        L.wait_for("the new node", lambda: a.json("status")["peers_up"] > 0, 20)
    a.down()
    assert not L.run("ip", "netns", "pids", a.ns).stdout.split()
