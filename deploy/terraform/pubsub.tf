resource "google_pubsub_topic" "readings" {
  project                    = var.project
  name                       = var.name
  labels                     = var.labels
  message_retention_duration = var.topic_retention
  kms_key_name               = var.kms_key

  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

# No dead_letter_policy: it moves a message away when it was delivered too often, and a message that the job has taken
# but not yet finished counts. While a job restarts or is short of workers it would take good readings. What cannot be
# read is no failed delivery here: the job acknowledges it and writes it to the table of dead letters, with the reason.
resource "google_pubsub_subscription" "job" {
  project                    = var.project
  name                       = var.name
  topic                      = google_pubsub_topic.readings.id
  labels                     = var.labels
  message_retention_duration = var.subscription_retention
  ack_deadline_seconds       = 60

  # Else it would be deleted after 31 days without a job, and what is published then be lost.
  expiration_policy {
    ttl = ""
  }
}
