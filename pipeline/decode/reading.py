"""Readings, to which messages are decoded, and the names of the message contract."""

TIMESTAMP = "Timestamp"
DEVICE = "Device"

# Characters; a name is a key in every shuffle, and in the state of every open interval.
MAX_DEVICE = 1024

# (event time in microseconds since the epoch, device or "", sensor name to finite value: never empty). A plain tuple,
# because creating a named one takes as long as parsing the JSON.
Reading = tuple[int, str, dict[str, float]]
