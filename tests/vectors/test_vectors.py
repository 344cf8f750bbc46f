# SPDX-License-Identifier: Apache-2.0
"""The conformance vectors against build/vectors: every known set runs and nothing fails.

The sets are looked for in $X0_SHARED/vectors, else in ../shared/vectors beside the repository. Where they are missing
the tests are skipped, except under CI=true, where that is a failure. $X0_BUILD names another build directory.
"""
import json
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("X0_SHARED", ROOT.parent / "shared"))
VECTORS = SHARED / "vectors"
DRIVER = pathlib.Path(os.environ.get("X0_BUILD", ROOT / "build")) / "vectors"

# The sets this build must run, and the least number of cases in each: fewer means the driver lost some.
SETS = {
    "wycheproof/aes_gcm_test.json": 158,
    "wycheproof/chacha20_poly1305_test.json": 163,
    "wycheproof/ecdsa_secp256r1_sha256_test.json": 242,
    "wycheproof/ed25519_test.json": 76,
    "wycheproof/hkdf_sha256_test.json": 43,
    "wycheproof/hkdf_sha384_test.json": 83,
    "wycheproof/hmac_sha256_test.json": 174,
    "wycheproof/mldsa_65_sign_seed_test.json": 53,
    "wycheproof/mldsa_65_verify_test.json": 105,
    "wycheproof/mlkem_768_encaps_test.json": 132,
    "wycheproof/mlkem_768_keygen_seed_test.json": 100,
    "wycheproof/mlkem_768_test.json": 97,
    "wycheproof/x25519_test.json": 259,
    "acvp/ML-DSA-65-keyGen.json": 25,
    "acvp/ML-DSA-65-sigVer.json": 15,
    "acvp/ML-KEM-768-encapDecap.json": 35,
    "acvp/ML-KEM-768-keyGen.json": 25,
    "cctv/ML-KEM_modulus_ML-KEM-768.txt.gz": 780,
    "cctv/ML-KEM_strcmp_ML-KEM-768.txt": 1,
    "cctv/ML-KEM_unluckysample_ML-KEM-768.txt": 2,
    "spiffe/id_cases.json": 33,
    "spiffe/jwt_cases.json": 17,
    "spiffe/svid_cases.json": 24,
    "spiffe/go-spiffe": 23,
    "x509pq": 7,
    "replay_window_cases.json": 11,
}


def need(path, what):
    if path.exists():
        return
    message = f"{what} missing: {path}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def run(*paths):
    need(DRIVER, "driver (run make)")
    return subprocess.run([DRIVER, *paths], capture_output=True, text=True, timeout=600, check=False)


def counts(output):
    """passed, failed over all files of one run"""
    lines = re.findall(r"^(?!total:).*: (\d+) passed, (\d+) failed", output, re.M)
    return sum(int(p) for p, _ in lines), sum(int(f) for _, f in lines)


@pytest.mark.parametrize("name", SETS)
def test_set(name):
    need(VECTORS / name, "vectors")
    r = run(VECTORS / name)
    passed, failed = counts(r.stdout)
    assert failed == 0, r.stdout + r.stderr
    assert passed >= SETS[name], r.stdout + r.stderr
    assert r.returncode == 0


def test_everything_at_once():
    need(VECTORS, "vectors")
    r = run(VECTORS)
    passed, failed = counts(r.stdout)
    assert r.returncode == 0 and failed == 0, r.stdout + r.stderr
    assert passed >= sum(SETS.values())


def test_a_wrong_expectation_is_noticed(tmp_path):
    """The driver can fail: the same cases with one expectation turned round."""
    need(VECTORS, "vectors")
    for name, flip in (("wycheproof/aes_gcm_test.json", "result"), ("spiffe/svid_cases.json", "accept"),
                       ("spiffe/id_cases.json", "valid"), ("acvp/ML-KEM-768-keyGen.json", "expected")):
        data = json.loads((VECTORS / name).read_text())
        case = data["cases"][0] if "cases" in data else data["testGroups"][0]["tests"][0]
        if flip == "result":
            case[flip] = "invalid" if case[flip] == "valid" else "valid"
        elif flip == "expected":
            case[flip]["ek"] = "00" + case[flip]["ek"][2:]
        else:
            case[flip] = not case[flip]
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(data))
        r = run(path)
        assert counts(r.stdout)[1] == 1, (name, r.stdout, r.stderr)
        assert r.returncode == 1


def test_nothing_ran_is_a_failure(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "y.txt").write_text("hello\n")
    r = run(tmp_path)
    assert r.returncode == 1
    assert r.stdout.count("skipped (unknown format)") == 2
    assert run(tmp_path / "absent").returncode == 1
