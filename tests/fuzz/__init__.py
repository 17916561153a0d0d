"""The readers of untrusted bytes against bytes made up and bytes changed. Counts decide a test, never a timing."""
