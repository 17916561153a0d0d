#!/usr/bin/env python3
"""Signs with a key in a token that speaks PKCS#11: pip install python-pkcs11.

    flightbag sign ground north-ridge --key planner.pub \\
        --signer 'docs/signers/pkcs11_token.py /usr/lib/softhsm/libsofthsm2.so fleet 01'

The arguments are the module, the label of the token and the id of the key. The PIN is taken from PKCS11_PIN, else asked
for at the terminal. A new key, and the public key for --key, by OpenSC:

    pkcs11-tool --module MODULE --token-label fleet --login --keypairgen --key-type EC:edwards25519 --id 01
    pkcs11-tool --module MODULE --token-label fleet --read-object --type pubkey --id 01 --output-file planner.pub

`pkcs11-tool --sign` is no signer: it cuts what is longer than a kilobyte into parts, and Ed25519 has none.
"""

import getpass
import os
import sys

import pkcs11

module, token, key_id = sys.argv[1:]
pin = os.environ.get("PKCS11_PIN") or getpass.getpass(f"PIN of {token}: ")
with pkcs11.lib(module).get_token(token_label=token).open(user_pin=pin) as session:
    key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, id=bytes.fromhex(key_id))
    sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read(), mechanism=pkcs11.Mechanism.EDDSA))
