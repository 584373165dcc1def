"""From `gcloud dataflow flex-template run` to the job request that Dataflow receives."""

import pytest
from apache_beam.portability.api import beam_runner_api_pb2, standard_window_fns_pb2
from google.protobuf.json_format import MessageToDict

from tests.deploy.template.fake_google import Launch
from tests.deploy.template.launched import DIGEST, SUBSCRIPTION, TOPIC

TABLE = "output_table=sensor-stream-test:sensors.readings"
INPUT = f"input_topic={TOPIC}"

# The step that holds open sessions in the job of the fixture `session`.
SESSIONS = "EmitIntervals(on_late revise, key device)"


def pubsub_read(launch: Launch) -> dict:
    [payload] = [
        transform.spec.payload
        for transform in launch.graph.components.transforms.values()
        if transform.spec.urn == "beam:transform:pubsub_read:v1"
    ]
    return MessageToDict(beam_runner_api_pb2.PubSubReadPayload.FromString(payload), preserving_proto_field_name=True)


def windowings_of_inputs(launch: Launch, step: str) -> list[beam_runner_api_pb2.WindowingStrategy]:
    components = launch.graph.components
    [transform] = [found for found in components.transforms.values() if found.unique_name == step]
    inputs = [components.pcollections[pcollection] for pcollection in transform.inputs.values()]
    return [components.windowing_strategies[pcollection.windowing_strategy_id] for pcollection in inputs]


class TestFixedWindowJob:
    def test_entry_point_succeeds_and_returns(self, fixed):
        assert fixed.exit_code == 0, fixed.stderr
        assert fixed.flags == sorted(fixed.flags)

    def test_logs_what_to_do_if_an_update_is_refused(self, fixed):
        assert "a step other than EmitIntervals: drain that job, then start this one with" in fixed.stderr

    def test_streams_on_the_image_of_the_template(self, fixed):
        [pool] = fixed.request["environment"]["workerPools"]
        harnesses = [harness["containerImage"] for harness in pool["sdkHarnessContainerImages"]]
        assert fixed.request["type"] == "JOB_TYPE_STREAMING"
        assert (pool["workerHarnessContainerImage"], harnesses) == (DIGEST, [DIGEST])

    def test_installs_nothing_on_the_workers(self, fixed):
        [pool] = fixed.request["environment"]["workerPools"]
        assert [package["name"] for package in pool["packages"]] == ["submission_environment_dependencies.txt"]

    def test_workers_run_as_the_given_service_account(self, fixed):
        account = fixed.request["environment"]["serviceAccountEmail"]
        assert account == "sensor-stream-worker@sensor-stream-test.iam.gserviceaccount.com"

    def test_job_page_shows_the_parameters(self, fixed):
        shown = fixed.request["environment"]["sdkPipelineOptions"]["options"]
        assert (shown["input_subscription"], shown["interval"], shown["sensors"]) == (
            SUBSCRIPTION,
            "15s",
            "Airtight,AtmP,H2OC,Temp",
        )

    def test_service_reads_and_deduplicates(self, fixed):
        assert pubsub_read(fixed) == {
            "subscription": SUBSCRIPTION,
            "timestamp_attribute": "timestamp",
            "id_attribute": "reading_id",
        }

    def test_windows_are_shifted_by_the_grace_period(self, fixed):
        [windowing] = windowings_of_inputs(fixed, "EmitIntervals/CombineSums/GroupByKey")
        fixed_windows = standard_window_fns_pb2.FixedWindowsPayload.FromString(windowing.window_fn.payload)
        assert windowing.window_fn.urn == "beam:window_fn:fixed_windows:v1"
        assert (fixed_windows.size.ToSeconds(), fixed_windows.offset.ToSeconds()) == (15, 5)
        # An hour of allowed_lateness, ten minutes of max_future_skew, and an hour that the watermark may be ahead.
        assert windowing.allowed_lateness == (3600 + 600 + 3600) * 1000
        assert windowing.trigger.WhichOneof("trigger") == "after_end_of_window"
        assert windowing.trigger.after_end_of_window.late_firings.element_count.element_count == 1
        assert windowing.accumulation_mode == beam_runner_api_pb2.AccumulationMode.DISCARDING


class TestSessionJob:
    def test_reads_the_topic_with_attributes(self, session):
        assert session.exit_code == 0, session.stderr
        assert pubsub_read(session) == {"topic": TOPIC, "with_attributes": True}

    def test_holds_sessions_in_state_and_timers(self, session):
        windowings = windowings_of_inputs(session, SESSIONS)
        assert {windowing.window_fn.urn for windowing in windowings} == {"beam:window_fn:global_windows:v1"}


@pytest.mark.needs("gcloud")
@pytest.mark.parametrize(("kind", "emit"), [("fixed", "EmitIntervals"), ("session", SESSIONS)])
def test_job_page_shows_the_steps_of_the_graph(kind, emit, request):
    graph = request.getfixturevalue(kind).graph
    [root] = graph.root_transform_ids
    transforms = graph.components.transforms
    assert {transforms[step].unique_name for step in transforms[root].subtransforms} == {
        "ReadMessages",
        "FoldReadings",
        emit,
        "MakeRows",
        "WriteRows",
        "RejectedRows",
        "AllDeadLetters",
        "WriteDeadLetters",
    }


class TestMistakesThatTheServiceRefuses:
    @pytest.mark.parametrize(
        ("parameters", "expected"),
        [
            (f"{INPUT},{TABLE},intervall=15s", "intervall: Unrecognized parameter"),
            (f"{INPUT},{TABLE},Window=fixed", "Window: Unrecognized parameter"),
            (INPUT, "output_table: Missing required parameter"),
            (f"{INPUT},output_table=sensors.readings", "output_table: 'sensors.readings' does not match"),
            (f"{INPUT},output_table=readings", "output_table: 'readings' does not match"),
            (f"{INPUT},{TABLE},interval='15s'", """interval: "'15s'" does not match"""),
            (f'{INPUT},{TABLE},interval="15s"', "interval: '\"15s\"' does not match"),
            (f"{INPUT},{TABLE},interval=15", "interval: '15' does not match"),
            (f"{INPUT},{TABLE},group_by_device=True", "group_by_device: 'True' does not match ^(true|false)?$"),
            (f"{INPUT},{TABLE},group_by_device=yes", "group_by_device: 'yes' does not match ^(true|false)?$"),
            (f"{INPUT},{TABLE},group_by_device=1", "group_by_device: '1' does not match ^(true|false)?$"),
            (f"{INPUT},{TABLE},window=Session", "window: 'Session' does not match ^(fixed|hopping|session)?$"),
            (f"{INPUT},{TABLE},sensors=Temp,AtmP", "Bad syntax for dict arg: [AtmP]"),
            (
                f"input_subscription={TOPIC},{TABLE}",
                "input_subscription: 'projects/sensor-stream-test/topics/readings'",
            ),
        ],
    )
    def test_are_reported_with_the_parameter(self, launch, parameters, expected):
        assert expected in launch(parameters)


class TestMistakesThatThePipelineRefuses:
    @pytest.mark.parametrize(
        ("parameters", "expected"),
        [
            (
                f"{INPUT},input_subscription={SUBSCRIPTION},{TABLE}",
                "error: give exactly one of --input_subscription and --input_topic; both are given\n",
            ),
            (TABLE, "error: give exactly one of --input_subscription and --input_topic; neither is given\n"),
        ],
    )
    def test_end_the_launcher_with_one_line_and_exit_code_2(self, launch, parameters, expected):
        launched = launch(parameters)
        assert (launched.exit_code, launched.stderr) == (2, expected)


class TestMistakesThatPreflightFinds:
    @pytest.mark.parametrize(
        ("parameters", "region", "expected"),
        [
            (f"{INPUT}x,{TABLE}", "europe-west1", "gcloud pubsub topics create readingsx --project=sensor-stream-test"),
            (
                f"{INPUT},{TABLE}",
                "us-central1",
                "sensor-stream-test:sensors is in EU, but the job would run in us-central1",
            ),
            (
                f"{INPUT},output_table=sensor-stream-test:sensor.readings",
                "europe-west1",
                "bq --location=europe-west1 mk",
            ),
        ],
    )
    def test_end_the_launcher_with_one_line_that_names_the_fix(self, launch, parameters, region, expected):
        launched = launch(parameters, region)
        assert launched.exit_code == 2
        assert expected in launched.stderr
        assert launched.stderr.count("\n") == 1

    def test_are_ignored_without_check_before_launch(self, launch):
        launched = launch(f"{INPUT}x,output_table=sensor-stream-test:sensor.readings,check_before_launch=false")
        assert launched.exit_code == 0, launched.stderr


class TestValidParameters:
    def test_may_have_another_delimiter_dots_and_spaces(self, launch):
        launched = launch(f"^~^{INPUT}~output_table=sensor-stream-test.sensors.dots~sensors=Temp,AtmP~interval=")
        assert launched.exit_code == 0, launched.stderr
        assert "--sensors=Temp,AtmP" in launched.flags
        assert "--interval=" in launched.flags
