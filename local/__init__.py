"""The local stack: emulators, the demo, and the shipped pipeline on this machine. Not in the template image."""
