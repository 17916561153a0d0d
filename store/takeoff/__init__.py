"""The takeoff check: verify, load, prove, and the state that an aircraft keeps. It needs nothing of the ground."""
