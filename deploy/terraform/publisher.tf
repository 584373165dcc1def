# Simulated sensors. Run them with: gcloud run jobs execute NAME-publisher
resource "google_service_account" "publisher" {
  count = local.publishes ? 1 : 0

  project      = var.project
  account_id   = "${var.name}-pub"
  display_name = "Sensor Stream: simulated sensors"
  depends_on   = [google_project_service.needed]
}

resource "google_pubsub_topic_iam_member" "publisher" {
  count = local.publishes ? 1 : 0

  project = var.project
  topic   = google_pubsub_topic.readings.name
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:${google_service_account.publisher[0].email}"
}

resource "google_cloud_run_v2_job" "publisher" {
  count = local.publishes ? 1 : 0

  project             = var.project
  location            = var.region
  name                = "${var.name}-publisher"
  labels              = var.labels
  deletion_protection = false

  template {
    template {
      service_account = google_service_account.publisher[0].email
      max_retries     = 0
      timeout         = "86400s"

      containers {
        image = "${local.images}/publisher:${var.template_version}"
        args  = concat(["publish", "--topic=${google_pubsub_topic.readings.id}"], var.publisher_arguments)
      }
    }
  }
}

locals {
  # The image comes from the same build as the template.
  publishes = var.publisher_arguments != null && var.template_version != null
}
