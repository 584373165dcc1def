"""The whole system on one machine, on emulators; not part of the template image."""
