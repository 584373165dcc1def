# One account builds, one is the launcher's and the workers'. Neither has more than it needs.
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

# Dataflow makes subscriptions of its own for a topic, and for timestamp_attribute. Else the two below are enough.
resource "google_project_iam_member" "worker_subscriptions" {
  count = local.makes_subscriptions ? 1 : 0

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

# The job publishes to these too, and looks whether they are there before it starts. Terraform must know them when it
# plans: give them as text, not as the id of a topic that is made in the same apply.
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
