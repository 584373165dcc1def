# Two accounts with no more permissions than they need: one for builds, one for the launcher and the workers.
resource "google_service_account" "build" {
  project      = var.project
  account_id   = "${var.name}-build"
  display_name = "Sensor Stream: builds"
  depends_on   = [google_project_service.needed]
}

resource "google_service_account" "worker" {
  project      = var.project
  account_id   = "${var.name}-worker"
  display_name = "Sensor Stream: launcher and workers"
  depends_on   = [google_project_service.needed]
}

resource "google_project_iam_member" "build_logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = local.build
}

resource "google_project_iam_member" "worker" {
  project = var.project
  role    = "roles/dataflow.worker"
  member  = local.worker
}

# Dataflow creates subscriptions for a topic and for timestamp_attribute. Otherwise the two roles below are enough.
resource "google_project_iam_member" "worker_subscriptions" {
  count = local.creates_subscriptions ? 1 : 0

  project = var.project
  role    = "roles/pubsub.editor"
  member  = local.worker
}

resource "google_pubsub_subscription_iam_member" "worker" {
  for_each = toset(["roles/pubsub.subscriber", "roles/pubsub.viewer"])

  project      = var.project
  subscription = google_pubsub_subscription.job.name
  role         = each.key
  member       = local.worker
}

# The job publishes to these topics, and looks them up before it starts. Their names must be known at plan time: pass
# them as text, not as the id of a topic that is created in the same apply.
resource "google_pubsub_topic_iam_member" "worker" {
  for_each = {
    for grant in setproduct(["dead_letter_topic", "silence_topic"], ["publisher", "viewer"]) :
    join(" ", grant) => { topic = local.template_parameters[grant[0]], role = "roles/pubsub.${grant[1]}" }
    if local.template_parameters[grant[0]] != null
  }

  project = element(split("/", each.value.topic), 1)
  topic   = element(split("/", each.value.topic), 3)
  role    = each.value.role
  member  = local.worker
}
