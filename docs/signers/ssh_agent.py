#!/usr/bin/env python3
"""Signs with an Ed25519 key that ssh-agent holds (draft-ietf-sshm-ssh-agent). Needs Python alone.

    ssh-add planner
    flightbag sign ground north-ridge --key planner.pub --signer docs/signers/ssh_agent.py

The key is the one of the .pub file, by its kid. `ssh-keygen -Y sign` is no signer: it signs other bytes than it is
given. Nor is a FIDO key.
"""

import hashlib
import os
import socket
import sys

IDENTITIES, IDENTITIES_ANSWER, SIGN, SIGN_ANSWER = 11, 12, 13, 14
THUMBPRINT = bytes.fromhex("a301012006215820")  # RFC 9679: a kid is the SHA-256 of this and the public key


def strings(data: bytes) -> list[bytes]:
    """Return the strings (RFC 4251, section 5) that the data consist of."""
    result = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        if len(data) < end:
            sys.exit("the agent gave a torn answer")
        result.append(data[4:end])
        data = data[end:]
    return result


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def ask(agent: socket.socket, kind: int, body: bytes, expected: int) -> bytes:
    """Send a request, and return the body of the answer."""
    agent.sendall(string(bytes([kind]) + body))
    with agent.makefile("rb") as answers:
        size = int.from_bytes(answers.read(4), "big")
        answer = answers.read(size) if size <= 2**18 else b""
    if len(answer) != size or answer[:1] != bytes([expected]):
        sys.exit("the agent refused: is it locked, or was the confirmation denied?")
    return answer[1:]


def main() -> None:
    message, kid = sys.stdin.buffer.read(), os.environ["FLIGHTBAG_KID"]
    with socket.socket(socket.AF_UNIX) as agent:
        agent.connect(os.environ.get("SSH_AUTH_SOCK") or sys.exit("no agent: SSH_AUTH_SOCK is not set"))
        listed = ask(agent, IDENTITIES, b"", IDENTITIES_ANSWER)
        for blob in strings(listed[4:])[::2]:  # keys and comments by turns
            kind, *rest = strings(blob)
            if kind == b"ssh-ed25519" and hashlib.sha256(THUMBPRINT + rest[0]).hexdigest() == kid:
                answer = ask(agent, SIGN, string(blob) + string(message) + bytes(4), SIGN_ANSWER)
                sys.stdout.buffer.write(strings(strings(answer)[0])[1])
                return
    sys.exit(f"the agent does not hold the key {kid}: ssh-add it")


main()
