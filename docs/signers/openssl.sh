#!/bin/sh
# Signs with a key that openssl holds. Ed25519 is signed in one piece, for which openssl reads a file and no pipe.
#
#   flightbag sign ground north-ridge --key planner.pub --signer 'docs/signers/openssl.sh planner.pem'
#
# The argument is what openssl takes as -inkey: a file, or a URI of a provider. The public key for --key:
#
#   openssl pkey -in planner.pem -pubout -out planner.pub
set -eu
exec openssl pkeyutl -sign -rawin -inkey "$1" -in "$FLIGHTBAG_TO_SIGN"
