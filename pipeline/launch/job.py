"""The parameters of a job, and what follows from them."""

from pipeline.decode.mapping import Mapping
from pipeline.launch.parameters import Parameters
from pipeline.sinks.bigquery import TableId
from pipeline.windows.base import Intervals
from pipeline.windows.fixed import FixedIntervals
from pipeline.windows.hopping import PanedIntervals, pane_length
from pipeline.windows.session import SessionIntervals


class Job(Parameters):
    """The parameters of a job, checked, and what follows from them."""

    @property
    def mapping(self) -> Mapping:
        """Where times, devices and values are in messages."""
        return Mapping(
            sensors=self.sensors.places,
            format=self.format,
            csv_columns=self.csv_columns or (),
            timestamp=self.timestamp,
            device=self.device,
            sensor_name=self.sensor_name,
            sensor_value=self.sensor_value,
            lenient=self.values == "lenient",
            time_zone=self.time_zone,
            ignore_no_reading=self.no_reading == "ignore",
        )

    @property
    def intervals(self) -> Intervals:
        """How event time is divided into intervals, and what happens to late readings."""
        late = self.grace_period, self.allowed_lateness, self.revise
        sums = self.statistics, self.group_by_device
        if self.window == "session":
            return SessionIntervals(self.session_gap, *late, *sums)
        hop = self.hop or self.interval
        pane = pane_length(hop)
        if pane < self.interval:
            return PanedIntervals(self.interval, *late, *sums, self.max_future_skew, hop=hop, pane=pane)
        return FixedIntervals(self.interval, *late, *sums, self.max_future_skew)

    @property
    def revise(self) -> bool:
        """Whether late readings change rows that are already written."""
        return self.on_late == "revise"

    @property
    def upsert(self) -> bool:
        """Whether a row replaces the row that has its key."""
        return self.write_method == "upsert"

    @property
    def revisions_in_table(self) -> bool:
        """Whether the table holds every revision of a row, side by side."""
        return self.revise and not self.upsert

    @property
    def sensor_columns(self) -> list[str]:
        """The columns of all sensors, in table order."""
        return [column for sensor in self.sensors for column, _ in self.statistics.columns(sensor)]

    @property
    def silence_table(self) -> TableId | None:
        """The table of silences; None without `silence_after` or an output table."""
        return self._beside_rows("_silences") if self.silence_after else None

    @property
    def latest_view(self) -> TableId | None:
        """The view of the newest revisions; None if the table has one row for each interval, or there is no table."""
        return self._beside_rows("_latest") if self.revisions_in_table else None

    @property
    def filled_view(self) -> TableId | None:
        """The view without gaps; None without `fill_gaps` or an output table."""
        return self._beside_rows("_filled") if self.fill_gaps else None

    def _beside_rows(self, suffix: str) -> TableId | None:
        return self.output_table.with_suffix(suffix) if self.output_table else None

    @property
    def named_tables(self) -> dict[str, TableId]:
        """Every table and view that the job writes to or creates, by its flag or its name in error messages."""
        named = {
            "--output_table": self.output_table,
            "--dead_letter_table": self.dead_letter_table,
            "the table of silences": self.silence_table,
            "the view of the newest revisions": self.latest_view,
            "the view without gaps": self.filled_view,
        }
        return {name: table_id for name, table_id in named.items() if table_id}
