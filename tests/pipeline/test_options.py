"""Parameters: defaults, every wrong form, and the two ways to start."""

import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, WorkerOptions

from pipeline import options
from pipeline.hopping_windows import HoppingIntervals
from pipeline.parameters import PARAMETERS
from pipeline.tables import TableId

TOPIC = "--input_topic=projects/test-project/topics/readings"
TABLE = "--output_table=my-project:d.t"
ROOT = Path(__file__).parents[2]


def parse(*flags: str) -> options.Job:
    return options.parse([TOPIC, *flags])[0]


class TestDefaults:
    def test_are_those_of_the_contract(self):
        job = parse()
        assert (job.sensors, job.group_by_device, job.window) == (("Airtight", "AtmP", "H2OC", "Temp"), False, "fixed")
        assert (job.interval, job.session_gap, job.grace_period, job.allowed_lateness) == (15, 60, 5, 3600)
        assert (job.on_late, job.max_future_skew, job.keep_attributes) == ("dead_letter", 600, False)
        assert (job.input_subscription, job.timestamp_attribute, job.id_attribute) == (None, None, None)
        assert (job.output_table, job.dead_letter_table) == (None, None)
        assert (job.silence_after, job.silence_topic, job.silence_table, job.fill_gaps) == (None, None, None, False)
        assert (job.write_method, job.rows_since) == ("streaming_inserts", None)

    def test_empty_text_means_not_given(self):
        assert parse("--interval=", "--output_table=", "--timestamp_attribute=") == parse()

    def test_the_dead_letter_table_is_named_after_the_output_table(self):
        assert parse("--output_table=my-project.d.t").dead_letter_table == TableId("my-project", "d", "t_dead_letters")

    def test_silences_have_a_table_named_after_the_output_table_when_they_are_watched_for(self):
        assert parse(TABLE).silence_table is None
        assert parse(TABLE, "--silence_after=5m").silence_table == TableId("my-project", "d", "t_silences")

    def test_the_local_runner_is_used_unless_another_is_named(self):
        for flags, runner in [([], "BundleBasedDirectRunner"), (["--runner=DataflowRunner"], "DataflowRunner")]:
            standard = options.parse([TOPIC, TABLE, *flags])[1].view_as(StandardOptions)
            assert (standard.runner, standard.streaming) == (runner, True)


class TestWorkerImage:
    """Workers run the template's own image, whose name it knows, unless told otherwise."""

    @pytest.mark.parametrize(
        ("in_image", "flags", "expected"),
        [
            ("ours:1", [], "ours:1"),
            ("ours:1", ["--sdk_container_image="], "ours:1"),
            ("ours:1", ["--sdk_container_image=theirs:2"], "theirs:2"),
            ("", [], None),
            (None, [], None),
        ],
    )
    def test_is_the_templates_own_by_default(self, monkeypatch, in_image, flags, expected):
        monkeypatch.delenv(options.IMAGE_VARIABLE, raising=False)
        if in_image is not None:
            monkeypatch.setenv(options.IMAGE_VARIABLE, in_image)
        workers = options.parse([TOPIC, *flags])[1].view_as(WorkerOptions)
        assert (workers.sdk_container_image or None) == expected


class TestGoodForms:
    def test_values_are_read(self):
        job = parse(
            "--interval=5m", "--session_gap=1h", "--grace_period=0s", "--sensors=b, a_1", "--group_by_device=true"
        )
        assert (job.interval, job.session_gap, job.grace_period) == (300, 3600, 0)
        job = parse("--sensors=b, a_1", "--group_by_device=true")
        assert (job.sensors, job.group_by_device) == (("b", "a_1"), True)

    def test_statistics_keep_their_order(self):
        assert parse().statistics.names == ("mean",)
        assert parse("--statistics=max, mean ,first").statistics.names == ("max", "mean", "first")

    def test_hopping_windows_that_do_not_overlap_are_fixed_ones(self):
        assert parse("--window=hopping", "--interval=15s", "--hop=15s").intervals == parse().intervals
        assert parse("--window=hopping", "--interval=15s", "--hop=5s").intervals == HoppingIntervals(
            15, 5, 3600, False, hop=5
        )

    @pytest.mark.parametrize(
        "text", ["1970-01-01T00:01:00Z", "1970-01-01T01:01:00+01:00", "1969-12-31T23:01:00.000000-01:00"]
    )
    def test_a_time_is_read_in_microseconds_since_the_epoch(self, text):
        assert parse(f"--rows_since={text}").rows_since == 60_000_000

    @pytest.mark.parametrize("text", ["my-project:d.t", "my-project.d.t"])
    def test_both_forms_of_a_table(self, text):
        assert parse(f"--output_table={text}").output_table == TableId("my-project", "d", "t")

    def test_a_domain_scoped_project(self):
        assert parse("--output_table=example.com:my-proj:d.t").output_table == TableId("example.com:my-proj", "d", "t")


class TestWrongTogether:
    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            ("--window=hopping --hop=4s", "--interval=15s is not a multiple of it"),
            ("--window=hopping --hop=30s", "--interval=15s is not a multiple of it"),
            ("--window=hopping --hop=1s --interval=1h", "each reading would be in 3,600 rows, of at most 1,440"),
            ("--sensors=Temp,Temp_max --statistics=mean,max", "Temp_max would be a column of Temp and of Temp_max"),
            ("--sensors=temp_MAX,Temp --statistics=mean,max", "Temp_max would be a column of temp_MAX and of Temp"),
            (f"--sensors={'a' * 299} --statistics=sum", "longer than 300 letters; rename the sensor"),
            ("--statistics=stddev --on_late=revise", "ask for count as well"),
        ],
    )
    def test_the_message_says_what_does_not_fit(self, flags, expected):
        with pytest.raises(options.UsageError) as caught:
            parse(*flags.split())
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_names_that_only_look_alike_are_no_clash(self):
        job = parse("--sensors=Temp,Temp_max", "--statistics=max")
        assert [name for sensor in job.sensors for name, _ in job.statistics.columns(sensor)] == [
            "Temp_max",
            "Temp_max_max",
        ]


class TestWrongForms:
    @pytest.mark.parametrize(
        ("flag", "expected"),
        [
            ("--interval=0s", "a whole number above 0"),
            ("--interval=15", "15s, 5m or 1h"),
            ("--interval='15s'", "15s, 5m or 1h"),
            ("--interval=-5s", "15s, 5m or 1h"),
            ("--interval=1.5m", "15s, 5m or 1h"),
            ("--interval=999999999h", "at most 8784h, a year"),
            ("--session_gap=0s", "a whole number above 0"),
            ("--group_by_device=True", "expected true or false"),
            ("--group_by_device=yes", "expected true or false"),
            ("--keep_attributes=1", "expected true or false"),
            ("--window=sliding", "expected fixed or hopping or session"),
            ("--window=hopping", "needs --hop"),
            ("--hop=5s", "give --window=hopping too"),
            ("--statistics=median", "out of mean, count, min, max, sum, stddev, first, last"),
            ("--statistics=mean,max,mean", "name each statistic once"),
            ("--statistics=mean;max", "comma-separated names"),
            ("--on_late=drop", "expected dead_letter or revise"),
            ("--sensors=Temp,", "comma-separated column names"),
            ("--sensors=Temp;AtmP", "comma-separated column names"),
            ("--sensors=2Temp", "comma-separated column names"),
            ("--sensors=Température", "letters A to Z"),
            ("--sensors=" + "a" * 301, "at most 300 letters"),
            ("--sensors=Temp,temp", "name each sensor once"),
            ("--sensors=Timestamp", "is taken"),
            ("--sensors=_PARTITIONTIME", "rename the sensor"),
            ("--sensors=_table", "rename the sensor"),  # for _table_max
            ("--output_table=readings", "expected project:dataset.table"),
            ("--output_table=my-project:readings", "expected project:dataset.table"),
            ("--output_table=my-project/d/t", "expected project:dataset.table"),
            ("--output_table=my-project:d.t.u", "expected project:dataset.table"),
            ("--output_table=my-project:" + "d" * 1025 + ".t", "expected project:dataset.table"),
            ("--input_subscription=projects/test-project/topics/t-1", "expected projects/PROJECT/subscriptions/NAME"),
            ("--input_subscription=projects/test-project/subscriptions/sub", "both are given"),
            ("--input_subscription=projects/test-project/subscriptions/s", "a name of 3 to 255"),
            ("--dead_letter_topic=projects/short/topics/letters", "a project id of 6 to 63 characters"),
            ("--silence_after=0s", "expected a whole number above 0"),
            ("--silence_topic=projects/test-project/topics/silences", "--silence_topic needs --silence_after"),
            ("--timestamp_attribute=" + "a" * 257, "at most 256 bytes"),
            ("--id_attribute='reading_id'", "without blanks or quotes"),
            ("--intervall=15s", "did you mean --interval?"),
            ("--input-topic=x", "did you mean --input_topic?"),
            ("--Sensors=a", "did you mean --sensors?"),
            ("-window=fixed", "did you mean --window?"),
            ("sensors=a", "did you mean --sensors?"),
            ("--window", "expected one argument"),
        ],
    )
    def test_the_message_names_the_flag_and_the_fix_on_one_line(self, flag, expected):
        with pytest.raises(options.UsageError) as caught:
            parse(flag)
        message = str(caught.value)
        assert expected in message
        assert "\n" not in message

    def test_on_dataflow_rows_need_a_table(self):
        with pytest.raises(options.UsageError, match="--output_table is missing; only a local run may go without"):
            parse("--runner=DataflowRunner")

    def test_neither_topic_nor_subscription(self):
        with pytest.raises(options.UsageError, match=r"exactly one of .* neither is given"):
            options.parse([])

    def test_dead_letters_into_the_input_topic(self):
        with pytest.raises(options.UsageError, match="would come back for ever"):
            parse(TOPIC.replace("input", "dead_letter"))

    def test_silences_into_the_input_topic(self):
        with pytest.raises(options.UsageError, match="would be taken for readings"):
            parse(TOPIC.replace("input", "silence"), "--silence_after=5m")

    def test_sessions_have_no_gaps_to_fill(self):
        with pytest.raises(options.UsageError, match="sessions have no intervals to fill; use --window=fixed"):
            parse("--fill_gaps=true", "--window=session")

    def test_hopping_windows_have_gaps_to_fill(self):
        assert parse("--fill_gaps=true", "--window=hopping", "--interval=1m", "--hop=15s").fill_gaps

    @pytest.mark.parametrize("sensor", ["Filled", "OWN"])
    def test_a_sensor_named_as_something_in_the_view_without_gaps(self, sensor):
        assert parse(f"--sensors={sensor}").sensors == (sensor,)
        with pytest.raises(options.UsageError, match=f"a '{sensor.lower()}' of its own; rename the sensor"):
            parse("--fill_gaps=true", f"--sensors=Temp,{sensor}")

    def test_dead_letters_into_the_output_table(self):
        with pytest.raises(options.UsageError, match="is the output table too"):
            parse("--output_table=my-project:d.t", "--dead_letter_table=my-project.d.t")


class TestBeamFlags:
    def test_none_of_them_passes_for_a_misspelt_parameter(self):
        flags = [f"--{name}=x" for name in PipelineOptions([]).get_all_options()]
        ours = {parameter.name for parameter in PARAMETERS}
        theirs = [flag for flag in flags if flag[2:-2] not in ours]
        assert len(theirs) > 100
        options._refuse_misspelt(theirs)

    def test_those_the_launcher_passes_are_accepted(self):
        _, beam_options = options.parse(
            [TOPIC, TABLE, "--runner=DataflowRunner", "--project=test-project", "--region=europe-west1"]
        )
        assert beam_options.get_all_options()["region"] == "europe-west1"


class TestEntryPoints:
    @pytest.mark.parametrize("start", [["-m", "pipeline.main"], ["pipeline/main.py"]])
    def test_bad_input_ends_with_one_line_and_exit_code_2(self, start):
        run = subprocess.run(
            [sys.executable, *start, TOPIC, "--interval=0s"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (run.returncode, run.stdout) == (2, "")
        assert (
            run.stderr
            == "error: --interval=0s: expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h\n"
        )
