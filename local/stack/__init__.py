"""The emulators, the servers that stand in for them, and the processes of the local stack."""
