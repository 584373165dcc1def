"""The emulators and the processes of the local stack."""
